// The comparisons of bench/run: which servers, and which table comes out.
import { mkdir, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { parseArgs } from 'node:util'
import * as keyward from './keyward.mjs'
import { PATH, program } from './load.mjs'
import {
  askingNginx, bareUpstream, keywardNginx, mappedHaproxy, mappedNginx, plainNginx, upstream,
} from './proxies.mjs'
import {
  capacities, interleaved, latencies, latencyTable, speedTable, syscalls,
} from './rounds.mjs'
import {
  answers, binaries, circumstances, firstLine, freePorts, inFolder, median, stop,
} from './servers.mjs'

const SERVER_CORE = 0
/** Rounds that find a server's capacity before its latency is taken at shares of it. */
const CAPACITY_ROUNDS = 3
/** What is offered to find it, by what a closed loop gets: more than anyone answers. */
const TOO_MUCH = 1.3
const SHARES = [0.5, 0.8]
/** The offered rate at which latencies are compared, by the slowest subject's requests/s: what
 * queues is the server's doing, not the rate's. */
const EQUAL_SHARE = 0.4
const TRUSTED = ['127.0.0.1/32']

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    rounds: { type: 'string', default: '5' },
    seconds: { type: 'string', default: '3' },
    connections: { type: 'string', default: '64' },
    keys: { type: 'string', default: '10000' },
    rate: { type: 'string' },
    syscalls: { type: 'boolean', default: false },
    'one-core': { type: 'boolean', default: false },
    json: { type: 'string' },
  },
})
/** Of the clients and the upstream. */
const CLIENT_CORE = options['one-core'] ? SERVER_CORE : 1
const number = (name) => {
  const value = Number(options[name])
  if (Number.isInteger(value) && value > 0) return value
  throw new Error(`--${name} is a whole number from 1 on`)
}
const setting = {
  rounds: number('rounds'),
  seconds: number('seconds'),
  connections: number('connections'),
  // an open loop may need more than a closed one, while a server stalls
  openConnections: 4 * number('connections'),
  clientCore: CLIENT_CORE,
  clientThreads: 1,
}
const log = (text) => console.error(text)

// -- what the comparisons are made of ---------------------------------------------------------

/** The upstream, a node with its keys, and the files of the load. */
async function prepared(place, { bare = false, ...changes } = {}) {
  const api = bare ? await bareUpstream(place, CLIENT_CORE)
    : await upstream(place, CLIENT_CORE, await freePorts(2))
  const configured = await keyward.configure(place, `http://${api.tcp}`, changes)
  const token = keyward.administrator(configured)
  const node = { ...await keyward.serve(place, SERVER_CORE, configured), token }
  log(`making ${options.keys} keys`)
  const secrets = await keyward.mint(node, number('keys'))
  const keys = join(place.folder, 'keys')
  await writeFile(keys, `${secrets.join('\n')}\n`, { mode: 0o600 })
  setting.lua = await program(place.folder)
  return { api, node, secrets, keys }
}

/** A subject: `label` names it in tables and plots where `name` is too long. */
const subject = (label, name, pids, url, keys, kind = 'gateway') =>
  ({ label, name, pids, url, keys, kind })

const onPort = (port) => `http://127.0.0.1:${port}`
const keywardSubject = ({ node, keys }, label = 'Keyward') =>
  subject(label, 'Keyward gateway, every check', [node.pid], node.gateway, keys)

async function nginxSubject(place, { api, secrets, keys }, given = {}) {
  const { label = 'nginx', about = '', to = api.tcp, name = 'proxy', ...more } = given
  const [port] = await freePorts(1)
  const server = await mappedNginx(place, { port, name, to, secrets, core: SERVER_CORE, ...more })
  const described = `nginx \`proxy_pass\`, \`map\` on the key, \`limit_req\`${about}`
  return subject(label, described, [server.pid], onPort(port), keys)
}

async function haproxySubject(place, { api, secrets, keys }) {
  const [port] = await freePorts(1)
  const server = await mappedHaproxy(place, { port, to: api.tcp, secrets, core: SERVER_CORE })
  return subject('HAProxy', 'HAProxy, `map` on the key, rate in a stick table', [server.pid],
    onPort(port), keys)
}

async function bareServer(place, file) {
  const [port] = await freePorts(1)
  const address = `127.0.0.1:${port}`
  const server = place.start(SERVER_CORE, join(binaries, 'bare-hyper'), [address, file])
  await answers(server, `http://${address}/`)
  return { address, pid: server.pid }
}

async function speeds(place, subjects, bases) {
  await interleaved(subjects, setting)
  if (options.syscalls) await syscalls(subjects, setting, place.folder)
  return speedTable(subjects, bases)
}

/** Latencies of all at one rate: what --rate says, or a share of the slowest one's capacity. */
async function atEqualRate(subjects) {
  const slowest = Math.min(...subjects.map(({ runs }) => median(runs.map((run) => run.perSecond))))
  const rate = options.rate === undefined ? Math.round(slowest * EQUAL_SHARE) : number('rate')
  await latencies(subjects, setting, 'equal rate', () => rate)
  return latencyTable(subjects)
}

// -- the comparisons --------------------------------------------------------------------------

async function gateway(place) {
  const made = await prepared(place, { bare: true })
  const subjects = [
    await nginxSubject(place, made), await haproxySubject(place, made), keywardSubject(made),
  ]
  const table = await speeds(place, subjects, subjects.slice(0, 2))
  return { subjects, tables: [table, await atEqualRate(subjects)] }
}

async function latency(place) {
  const made = await prepared(place, { bare: true })
  const subjects = [
    await nginxSubject(place, made), await haproxySubject(place, made), keywardSubject(made),
  ]
  const few = { ...setting, rounds: CAPACITY_ROUNDS }
  await interleaved(subjects, few)
  const table = speedTable(subjects, subjects.slice(0, 1))
  await capacities(subjects, few, ({ runs }) => (
    Math.round(median(runs.map((run) => run.perSecond)) * TOO_MUCH)))
  for (const share of SHARES) {
    const rateOf = ({ answered }) => Math.round(median(answered) * share)
    await latencies(subjects, setting, `${share * 100} % of its own capacity`, rateOf)
  }
  return { subjects, tables: [table, latencyTable(subjects)] }
}

async function verify(place) {
  const { node, secrets, keys } = await prepared(place)
  const answer = await fetch(`${node.internal}/v1/verify`, {
    method: 'POST',
    headers: { authorization: `Bearer ${node.token}`, 'content-type': 'application/json' },
    body: JSON.stringify({ key: secrets[0], method: 'GET', path: PATH }),
  })
  const body = await answer.text()
  if (JSON.parse(body).valid !== true) throw new Error(`verify: ${answer.status} ${body}`)
  log(`headers of verify: ${JSON.stringify(Object.fromEntries(answer.headers))}`)
  const file = join(place.folder, 'answer')
  await writeFile(file, body)
  const bare = await bareServer(place, file)
  const url = `http://${bare.address}`
  const subjects = [
    subject('bare hyper', 'bare hyper server, same bytes', [bare.pid], url, keys, 'verify'),
    subject('verify', 'Keyward `POST /v1/verify`', [node.pid], node.internal, keys, 'verify'),
  ]
  for (const it of subjects) it.token = node.token
  return { subjects, tables: [await speeds(place, subjects, subjects.slice(0, 1))] }
}

async function forwardAuth(place) {
  const made = await prepared(place, { bare: true, trusted: TRUSTED })
  const { api, node, secrets: [secret], keys } = made
  const file = join(place.folder, 'answer')
  // nginx reads no body of an answer it asked for, and closes the connection that has one
  await writeFile(file, '')
  const bare = await bareServer(place, file)
  const [one, two, three] = await freePorts(3)
  const common = { to: api.tcp, core: SERVER_CORE, secret }
  const plain = await plainNginx(place, { ...common, port: one })
  const asking = await askingNginx(place, { ...common, port: two, asked: bare.address })
  const { host: internal } = new URL(node.internal)
  const behind = await keywardNginx(place, { ...common, port: three, internal })
  const subjects = [
    subject('nginx alone', 'nginx `proxy_pass`, no checks', [plain.pid], onPort(one), keys),
    subject('auth_request, bare', 'nginx `auth_request` to a bare hyper server that says yes',
      [asking.pid, bare.pid], onPort(two), keys),
    subject('auth_request, Keyward', 'nginx `auth_request` to Keyward, `deploy/proxies/nginx`',
      [behind.pid, node.pid], onPort(three), keys),
    keywardSubject(made, 'Keyward gateway'),
  ]
  return { subjects, tables: [await speeds(place, subjects, subjects.slice(0, 3))] }
}

async function upstreams(place) {
  const made = await prepared(place)
  const { api, keys, node } = made
  // the copies have the same keys: what is copied is not being written
  await stop(node.server)
  const nodes = []
  for (const [data, name, url, protocol] of [
    ['http1', 'HTTP/1.1 over TCP', `http://${api.tcp}`, 'http1'],
    ['http2', 'HTTP/2 over TCP (h2c)', `http://${api.http2}`, 'http2'],
    ['unix', 'HTTP/1.1 over a Unix socket', api.unix, 'http1'],
  ]) {
    const configured = await keyward.copied(place, url, { data, protocol })
    const started = await keyward.serve(place, SERVER_CORE, configured)
    nodes.push(subject(`Keyward, ${data}`, `Keyward gateway, ${name}`, [started.pid],
      started.gateway, keys))
  }
  const subjects = [
    await nginxSubject(place, made),
    await nginxSubject(place, made,
      { label: 'nginx, unix', about: ', Unix socket', to: api.unix, name: 'unix' }),
    ...nodes,
  ]
  return { subjects, tables: [await speeds(place, subjects, subjects.slice(0, 2))] }
}

/** Data planes without a store, started as `[label, binary, shape, threads]` say. */
async function planes(place, api, core, variants) {
  const subjects = []
  for (const [label, program_, shape, threads] of variants) {
    const keys = join(place.folder, `keys-${subjects.length}`)
    const server = place.start(core, join(binaries, program_),
      [`http://${api.tcp}`, options.keys, keys, shape, String(threads)])
    const [url] = (await firstLine(server)).split(' ')
    subjects.push(subject(label, `data plane, ${label}`, [server.pid], url, keys))
  }
  return subjects
}

async function shapes(place) {
  // servers and clients on both cores: what is compared is how threads share them
  Object.assign(setting, { clientCore: undefined, clientThreads: 2 })
  setting.lua = await program(place.folder)
  const api = await upstream(place, undefined, await freePorts(2))
  const subjects = await planes(place, api, undefined, [
    ['a runtime for each of 2 threads', 'plane', 'per-core', 2],
    ['one runtime over 2 threads', 'plane', 'shared', 2],
  ])
  return { subjects, tables: [await speeds(place, subjects, subjects.slice(0, 1))] }
}

async function allocators(place) {
  setting.lua = await program(place.folder)
  const api = await upstream(place, CLIENT_CORE, await freePorts(2))
  const subjects = await planes(place, api, SERVER_CORE, [
    ['jemalloc', 'plane', 'per-core', 1],
    ['mimalloc', 'plane-mimalloc', 'per-core', 1],
    ['the allocator of glibc', 'plane-system', 'per-core', 1],
  ])
  return { subjects, tables: [await speeds(place, subjects, subjects.slice(0, 1))] }
}

const known = {
  gateway, verify, 'forward-auth': forwardAuth, latency, upstreams, shapes, allocators,
}
const [what, ...rest] = positionals
if (!Object.hasOwn(known, what ?? '') || rest.length > 0) {
  console.error(`usage: bench/run ${Object.keys(known).join(' | ')} [--rounds N] …`)
  process.exit(64)
}
const json = options.json ?? join(dirname(binaries), 'bench', `${what}.json`)
await inFolder(async (place) => {
  const begin = circumstances()
  const { subjects, tables } = await known[what](place)
  const { rounds, seconds, connections } = setting
  console.log(`\n${begin}; ${rounds} rounds of ${seconds} s, ${connections} connections, `
    + `${options.keys} keys${options['one-core'] ? ', all on one core' : ''}\n\n${
      tables.join('\n\n')}`)
  const kept = subjects.map(({ label, name, runs, latency: levels, syscalls: calls }) =>
    ({ label, name, runs, latency: levels, syscalls: calls }))
  const record = {
    comparison: what, circumstances: begin, rounds, seconds, connections, keys: number('keys'),
    subjects: kept,
  }
  await mkdir(dirname(json), { recursive: true })
  await writeFile(json, `${JSON.stringify(record, null, 1)}\n`)
  log(`written: ${json}`)
})
