// Attacks from one address, and a second client at another:
// `node script/attacks.mjs PATH-TO-keyward PATH-TO-counting-upstream [NAME…]`.
// Prints a line for each attack, exits 0 when the second client noticed none of them: every one of
// its requests is answered, and its p99 is less than twice what it is otherwise. Otherwise is,
// whichever is worse: before and behind the attack, and while the same attack is aimed at a server
// that only takes it, because an attacker on the same machine takes processor time, too.
import { spawn } from 'node:child_process'
import { connect as connectHttp2 } from 'node:http2'
import { Agent, request } from 'node:http'
import { connect } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { startBeforeHttp2, startSandbox, startSink } from './attack-servers.mjs'
import { residentBytes } from './dev-server.mjs'

const SECONDS = Number(process.env.KEYWARD_ATTACK_SECONDS ?? 8)
const CONNECTIONS = Number(process.env.KEYWARD_ATTACK_CONNECTIONS ?? 1000)
/** Connections that a slow attack opens in a second. */
const RATE = 250
/** Where the second client calls from: limits count by address. */
const CLIENT = '127.0.0.2'
const REQUEST_MS = 10_000
/** A request of the second client is due so often, whatever became of the one before. */
const EVERY_MS = 10
/** Requests of the second client under way at once; one more waits, and its time runs. */
const MOST_UNDER_WAY = 200
/** How long the second client is alone before and behind each attack, to know what is usual. */
const CALM_MS = 4_000
/** Less than this is no answer's doing but the timers' and the scheduler's. */
const NOISE_MS = 10
const MOST_TIMES_AS_LONG = 2
/** An attack that was noticed is repeated: another program of the machine may have been it. */
const ATTEMPTS = 3
const MAX_GROWTH_BYTES = 100 * 1024 * 1024
const FLOODS = fileURLToPath(new URL('attack-floods.mjs', import.meta.url))

// -- the second client ------------------------------------------------------------------------

/** A read, and a write, which is never sent twice. */
const READ = { method: 'GET', path: '/v1/reports?limit=1' }
const WRITE = { method: 'POST', path: '/v1/reports/build', body: '{}' }

/** A request over HTTP/1.1; ends with its answer. */
function ask(url, { method, path, body }, key, agent) {
  return new Promise((resolve, reject) => {
    const headers = { authorization: `Bearer ${key}` }
    if (body !== undefined) headers['content-length'] = body.length
    const options = { agent, method, localAddress: CLIENT, headers }
    const call = request(url + path, options, (answer) => {
      answer.resume()
      answer.once('error', reject)
      answer.once('end', () => {
        if (answer.statusCode === 200) resolve()
        else reject(new Error(`status ${answer.statusCode}`))
      })
    })
    call.setTimeout(REQUEST_MS, () => call.destroy(new Error(`no answer in ${REQUEST_MS} ms`)))
    call.once('error', reject)
    call.end(body)
  })
}

/** A request on a stream of this HTTP/2 connection; ends with its answer. */
function askStream(session, { method, path, body }, key) {
  return new Promise((resolve, reject) => {
    const headers = { ':method': method, ':path': path, authorization: `Bearer ${key}` }
    const stream = session.request(headers, { endStream: body === undefined })
    let status
    stream.setTimeout(REQUEST_MS, () => stream.destroy(new Error(`no answer in ${REQUEST_MS} ms`)))
    stream.once('response', (headers) => { status = headers[':status'] })
    stream.once('error', reject)
    stream.once('end', () => {
      if (status === 200) resolve()
      else reject(new Error(`status ${status}`))
    })
    stream.resume()
    stream.end(body)
  })
}

/**
 * Asks every few milliseconds until told to stop: on connections that are kept, on new ones, and on
 * one of HTTP/2 in turn. The time of an answer counts from when its request was due.
 */
async function watch({ url, pid, keys, call }, stopped) {
  const kept = new Agent({ keepAlive: true })
  const { port } = new URL(url)
  const session = connectHttp2(url,
    { createConnection: () => connect({ port, host: '127.0.0.1', localAddress: CLIENT }) })
  // its requests fail then, and are counted
  session.on('error', () => {})
  const ways = [() => ask(url, call, keys.client, kept), () => ask(url, call, keys.client, false),
    () => askStream(session, call, keys.client)]
  const seen = { times: [], failures: [], mostBytes: 0 }
  const under = new Set()
  const begun = performance.now()
  for (let turn = 0; !stopped(); turn += 1) {
    const due = begun + turn * EVERY_MS
    if (due > performance.now()) await pause(due - performance.now())
    const asked = ways[turn % ways.length]()
      .then(() => seen.times.push(performance.now() - due))
      .catch((error) => seen.failures.push(error.message))
      .finally(() => under.delete(asked))
    under.add(asked)
    if (under.size >= MOST_UNDER_WAY) await Promise.race(under)
    seen.mostBytes = Math.max(seen.mostBytes, await residentBytes(pid))
  }
  await Promise.all(under)
  session.close()
  kept.destroy()
  return seen
}

function percentile(times, share) {
  const sorted = times.toSorted((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))]
}

// -- attacks ----------------------------------------------------------------------------------

function slow(url, more) {
  const common = ['-c', CONNECTIONS, '-r', RATE, '-l', SECONDS, '-p', 5, '-u', url]
  return ['slowhttptest', [...more, ...common].map(String)]
}

/** Attacks by name, each on a server at an address. */
function attacks({ client: key }) {
  const reports = (url) => `${url}/v1/reports`
  // the tool has no option for a header: one stands behind the value of another
  const authorized = `*/*\r\nAuthorization: Bearer ${key}`
  const own = (kind) => (url) =>
    [process.execPath, [FLOODS, kind, new URL(url).port, SECONDS, CONNECTIONS, key]]
  const bodies = ['-B', '-i', 5, '-s', 8192, '-t', 'POST']
  return {
    'slow heads': (url) => slow(reports(url), ['-H', '-i', 5, '-x', 24, '-t', 'GET']),
    'slow bodies without a key': (url) => slow(`${reports(url)}/build`, bodies),
    'slow bodies with a key': (url) => slow(`${reports(url)}/build`, [...bodies, '-m', authorized]),
    'slow reads': (url) => slow(reports(url),
      ['-X', '-w', 10, '-y', 20, '-n', 5, '-z', 32, '-k', 3, '-m', authorized]),
    ranges: (url) => slow(reports(url),
      ['-R', '-a', 10, '-b', 3000, '-t', 'GET', '-m', authorized]),
    'connections that are held': own('hold'),
    'connections that are reset': own('reset'),
    'HTTP/2 requests that are taken back': own('h2-resets'),
    'HTTP/2 heads without an end': own('h2-continuations'),
    'HTTP/2 heads of empty pieces': own('h2-empty-continuations'),
    'HTTP/2 heads that unfold': own('h2-unfolding'),
    'HTTP/2 pings': own('h2-pings'),
    'HTTP/2 settings': own('h2-settings'),
    'HTTP/2 bodies of empty pieces': own('h2-empty-bodies'),
    'HTTP/2 answers that nobody takes': own('h2-untaken'),
  }
}

/** Those through a gateway to an upstream that speaks HTTP/2, by another tenant. */
function attacksOnHttp2({ attacker }) {
  const own = (kind) => (url) =>
    [process.execPath, [FLOODS, kind, new URL(url).port, SECONDS, CONNECTIONS, attacker]]
  return {
    'bodies that break off before an upstream of HTTP/2': own('break-off'),
    'callers that leave an upstream of HTTP/2': own('leave'),
  }
}

/** Runs a program to its end; its output counts only when it could not run. */
function run([program, arguments_]) {
  return new Promise((resolve, reject) => {
    const child = spawn(program, arguments_.map(String), { stdio: ['ignore', 'pipe', 'pipe'] })
    let said = ''
    const keep = (chunk) => { said = (said + chunk).slice(-4_000) }
    child.stdout.on('data', keep)
    child.stderr.on('data', keep)
    child.once('error', reject)
    child.once('exit', (code) => {
      if (code === 0) resolve()
      else reject(new Error(`${program} ended with ${code}: ${said}`))
    })
  })
}

/** What the second client noticed of an attack, beside what it is used to. */
function judge(seen, beside, before) {
  const usual = Math.max(...beside.map(({ times }) => percentile(times, 0.99)))
  const p99 = percentile(seen.times, 0.99) ?? Infinity
  const grown = seen.mostBytes - before
  const failures = [seen, ...beside].flatMap((it) => it.failures)
  const wrong = []
  if (failures.length) wrong.push(`${failures.length} failed: ${failures[0]}`)
  if (p99 >= Math.max(MOST_TIMES_AS_LONG * usual, usual + NOISE_MS)) {
    wrong.push(`p99 is ${MOST_TIMES_AS_LONG} times what is usual or more`)
  }
  if (grown > MAX_GROWTH_BYTES) wrong.push('the server grew by more than 100 MB')
  const facts = [
    `${seen.times.length} requests`,
    `p50 ${percentile(seen.times, 0.5).toFixed(1)} ms`,
    `p99 ${p99.toFixed(1)} ms, ${(p99 / usual).toFixed(2)} × the usual ${usual.toFixed(1)} ms`,
    `${(grown / 1024 / 1024).toFixed(0)} MB more`,
  ]
  return { wrong, facts }
}

/** Attacks one after the other; true when the second client noticed none. */
async function besiege(server, sink, all) {
  const calm = () => {
    const until = performance.now() + CALM_MS
    return watch(server, () => performance.now() > until)
  }
  const during = async (command) => {
    let over = false
    const attack = run(command).finally(() => { over = true })
    const [seen] = await Promise.all([watch(server, () => over), attack])
    return seen
  }
  // the first requests make connections and warm memory
  await calm()
  let alone = await calm()
  const attempt = async (name, commandFor) => {
    const bytes = await residentBytes(server.pid)
    const elsewhere = await during(commandFor(sink.url))
    const seen = await during(commandFor(server.url))
    const behind = await calm()
    const { wrong, facts } = judge(seen, [alone, elsewhere, behind], bytes)
    alone = behind
    console.log(`${wrong.length ? '✗' : '✓'} ${name}: ${[...facts, ...wrong].join('; ')}`)
    return wrong.length === 0
  }
  let unnoticed = true
  for (const [name, commandFor] of all) {
    let passed = false
    for (let time = 0; time < ATTEMPTS && !passed; time += 1) {
      passed = await attempt(name, commandFor)
    }
    unnoticed &&= passed
  }
  return unnoticed
}

/** What is attacked, by whom, and what the second client calls meanwhile. */
const SCENES = [
  { start: startSandbox, attacks, call: READ },
  { start: startBeforeHttp2, attacks: attacksOnHttp2, call: WRITE },
]

async function main(programs, names) {
  const known = SCENES.flatMap((scene) => Object.keys(scene.attacks({})))
  const unknown = names.find((name) => !known.includes(name))
  if (unknown !== undefined) throw new Error(`no attack is called '${unknown}'`)
  const isWanted = ([name]) => names.length === 0 || names.includes(name)
  const sink = await startSink()
  let unnoticed = true
  try {
    for (const { start, attacks: attacksOf, call } of SCENES) {
      if (!Object.entries(attacksOf({})).some(isWanted)) continue
      const server = await start(programs)
      try {
        const all = Object.entries(attacksOf(server.keys)).filter(isWanted)
        unnoticed = (await besiege({ ...server, call }, sink, all)) && unnoticed
      } finally {
        await server.stop()
      }
    }
  } finally {
    await sink.stop()
  }
  return unnoticed
}

const [binary, countingUpstream, ...names] = process.argv.slice(2)
if (countingUpstream === undefined) {
  console.error(
    'usage: node script/attacks.mjs PATH-TO-keyward PATH-TO-counting-upstream [NAME…]')
  process.exit(64)
}
process.exit((await main({ binary, countingUpstream }, names)) ? 0 : 1)
