// Attacks from one address, and a second client at another:
// `node script/attacks.mjs PATH-TO-keyward`.
// Prints a line for each attack, exits 0 when the second client noticed none of them.
import { spawn } from 'node:child_process'
import { Agent, request } from 'node:http'
import { connect } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { residentBytes, startDev } from './dev-server.mjs'

const SECONDS = Number(process.env.KEYWARD_ATTACK_SECONDS ?? 15)
const CONNECTIONS = Number(process.env.KEYWARD_ATTACK_CONNECTIONS ?? 1000)
/** Connections that an attack opens in a second. */
const RATE = 250
/** Where the second client calls from: limits count by address. */
const CLIENT = '127.0.0.2'
const FLOODER = '127.0.0.3'
const REQUEST_MS = 10_000
/** Between two requests of the second client. */
const EVERY_MS = 10
/** How long the second client is alone before and behind each attack, to know what is usual. */
const CALM_MS = 4_000
/** What a machine may add to some requests at any time. */
const NOISE_MS = 100
/** An attack that was noticed is repeated: another program of the machine may have been it. */
const ATTEMPTS = 2
const MAX_GROWTH_BYTES = 100 * 1024 * 1024
/** Sockets that a flood opens at a time, and how often: some 2500 in a second. */
const AT_ONCE = 50
const FLOOD_MS = 20

// -- the second client ------------------------------------------------------------------------

/** One request; answers with its milliseconds, or throws. */
function ask(url, key, agent) {
  return new Promise((resolve, reject) => {
    const begun = performance.now()
    const options = { agent, localAddress: CLIENT, headers: { authorization: `Bearer ${key}` } }
    const call = request(`${url}/v1/reports?limit=1`, options, (answer) => {
      answer.resume()
      answer.once('error', reject)
      answer.once('end', () => {
        if (answer.statusCode === 200) resolve(performance.now() - begun)
        else reject(new Error(`status ${answer.statusCode}`))
      })
    })
    call.setTimeout(REQUEST_MS, () => call.destroy(new Error(`no answer in ${REQUEST_MS} ms`)))
    call.once('error', reject)
    call.end()
  })
}

/** Asks until told to stop, on a connection that is kept and on new ones in turn. */
async function watch(url, key, pid, stopped) {
  const kept = new Agent({ keepAlive: true, maxSockets: 1 })
  const seen = { times: [], failures: [], mostBytes: 0 }
  for (let turn = 0; !stopped(); turn += 1) {
    try {
      seen.times.push(await ask(url, key, turn % 2 === 0 ? kept : false))
    } catch (error) {
      seen.failures.push(error.message)
    }
    seen.mostBytes = Math.max(seen.mostBytes, await residentBytes(pid))
    await pause(EVERY_MS)
  }
  kept.destroy()
  return seen
}

function percentile(times, share) {
  const sorted = times.toSorted((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))]
}

// -- floods, in a process of their own --------------------------------------------------------

/** Opens sockets until the time is over: kept for as long as they last, or torn down at once. */
async function flood(kind, port) {
  const until = performance.now() + SECONDS * 1000
  const open = new Set()
  let made = 0
  while (performance.now() < until) {
    while (open.size < (kind === 'hold' ? CONNECTIONS * 2 : AT_ONCE)) {
      const socket = connect({ port, host: '127.0.0.1', localAddress: FLOODER })
      open.add(socket)
      made += 1
      socket.on('error', () => {})
      socket.on('close', () => open.delete(socket))
      if (kind === 'reset') socket.on('connect', () => socket.resetAndDestroy())
      if (kind === 'hold' && made % AT_ONCE === 0) break
    }
    await pause(FLOOD_MS)
  }
  for (const socket of open) socket.destroy()
  console.log(made)
}

// -- attacks ----------------------------------------------------------------------------------

function slow(url, more) {
  const common = ['-c', CONNECTIONS, '-r', RATE, '-l', SECONDS, '-p', 5, '-u', url]
  return ['slowhttptest', [...more, ...common].map(String)]
}

function attacks(url, key, port) {
  const reports = `${url}/v1/reports`
  // the tool has no option for a header: one stands behind the value of another
  const authorized = `*/*\r\nAuthorization: Bearer ${key}`
  const own = (kind) => [process.execPath, [fileURLToPath(import.meta.url), '--flood', kind, port]]
  const bodies = ['-B', '-i', 5, '-s', 8192, '-t', 'POST']
  return [
    ['slow heads', slow(reports, ['-H', '-i', 5, '-x', 24, '-t', 'GET'])],
    ['slow bodies without a key', slow(`${reports}/build`, bodies)],
    ['slow bodies with a key', slow(`${reports}/build`, [...bodies, '-m', authorized])],
    ['slow reads',
      slow(reports, ['-X', '-w', 10, '-y', 20, '-n', 5, '-z', 32, '-k', 3, '-m', authorized])],
    ['ranges', slow(reports, ['-R', '-a', 10, '-b', 3000, '-t', 'GET', '-m', authorized])],
    ['connections that are held', own('hold')],
    ['connections that are reset', own('reset')],
  ]
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

/** What the second client noticed of an attack, beside what is usual before and behind it. */
function judge(seen, calm, before) {
  const usual = Math.max(...calm.map(({ times }) => percentile(times, 0.99)))
  const limit = Math.max(2 * usual, usual + NOISE_MS)
  const p99 = percentile(seen.times, 0.99) ?? Infinity
  const grown = seen.mostBytes - before
  const failures = [seen, ...calm].flatMap((it) => it.failures)
  const wrong = []
  if (failures.length) wrong.push(`${failures.length} failed: ${failures[0]}`)
  if (p99 > limit) wrong.push(`p99 is above ${limit.toFixed(0)} ms`)
  if (grown > MAX_GROWTH_BYTES) wrong.push('the server grew by more than 100 MB')
  const facts = [
    `${seen.times.length} requests`, `p99 ${p99.toFixed(1)} ms, usually ${usual.toFixed(1)} ms`,
    `${(grown / 1024 / 1024).toFixed(0)} MB more`,
  ]
  return { wrong, facts }
}

async function main(binary) {
  const server = await startDev(binary)
  const url = server.info.gateways[0]
  const key = server.info.tenants[0].keys.live
  const calm = () => {
    const until = performance.now() + CALM_MS
    return watch(url, key, server.pid, () => performance.now() > until)
  }
  let alone
  const attempt = async (name, command) => {
    const before = await residentBytes(server.pid)
    let over = false
    const attack = run(command).finally(() => { over = true })
    const [seen] = await Promise.all([watch(url, key, server.pid, () => over), attack])
    const behind = await calm()
    const { wrong, facts } = judge(seen, [alone, behind], before)
    alone = behind
    console.log(`${wrong.length ? '✗' : '✓'} ${name}: ${[...facts, ...wrong].join('; ')}`)
    return wrong.length === 0
  }
  let unnoticed = true
  try {
    // the first requests make connections and warm memory
    await calm()
    alone = await calm()
    for (const [name, command] of attacks(url, key, new URL(url).port)) {
      let passed = false
      for (let time = 0; time < ATTEMPTS && !passed; time += 1) {
        passed = await attempt(name, command)
      }
      unnoticed &&= passed
    }
  } finally {
    await server.stop()
  }
  return unnoticed
}

const [first, kind, port] = process.argv.slice(2)
if (first === '--flood') {
  await flood(kind, Number(port))
} else if (first) {
  process.exit((await main(first)) ? 0 : 1)
} else {
  console.error('usage: node script/attacks.mjs PATH-TO-keyward')
  process.exit(64)
}
