// The comparisons of bench/run: rounds in turn over all subjects, medians, ratios of one run.
import { execFile } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { parseArgs, promisify } from 'node:util'
import * as keyward from './keyward.mjs'
import {
  answers, binaries, children, circumstances, cpuMicros, freePorts, inFolder, median,
} from './servers.mjs'

const SERVER_CORE = 0
const CLIENT_CORE = 1
const ANSWER = '{"generatedAt":"2026-11-22T07:00:00Z","reportsTotal":24,"reportsByState":'
  + '{"completed":21,"running":1,"queued":1,"failed":1},"controlsTotal":41,"controlsByStatus":'
  + '{"passing":33,"failing":3,"not_tested":5}}'
const PATH = '/v1/reports/overview'
const OTHERS_NEED_MS = 60_000

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    rounds: { type: 'string', default: '5' },
    seconds: { type: 'string', default: '5' },
    connections: { type: 'string', default: '64' },
    keys: { type: 'string', default: '10000' },
    rate: { type: 'string', default: '4000' },
    syscalls: { type: 'boolean', default: false },
  },
})
const number = (name) => {
  const value = Number(options[name])
  if (Number.isInteger(value) && value > 0) return value
  throw new Error(`--${name} is a whole number from 1 on`)
}
const [rounds, seconds, connections] = ['rounds', 'seconds', 'connections'].map(number)

// -- load -------------------------------------------------------------------------------------

/** wrk's program: takes requests made beforehand in turn, so that Lua costs next to nothing. */
const LUA = `
local requests, position = {}, 0
function init(arguments)
  for key in io.lines(os.getenv("BENCH_KEYS")) do
    if os.getenv("BENCH_KIND") == "verify" then
      local body = '{"key":"' .. key .. '","method":"GET","path":"${PATH}"}'
      requests[#requests + 1] = wrk.format("POST", "/v1/verify", {
        ["content-type"] = "application/json",
        ["authorization"] = "Bearer " .. os.getenv("BENCH_TOKEN"),
      }, body)
    else
      requests[#requests + 1] =
        wrk.format("GET", "${PATH}", { ["authorization"] = "Bearer " .. key })
    end
  end
end
function request()
  position = position % #requests + 1
  return requests[position]
end
`

async function wrk(bench, subject, duration = seconds) {
  const { stdout } = await promisify(execFile)('taskset', [
    '-c', String(CLIENT_CORE), 'wrk', '-t1', `-c${connections}`, `-d${duration}s`, '--latency',
    '-s', bench.lua, subject.url,
  ], {
    env: {
      ...process.env, BENCH_KEYS: bench.keys, BENCH_KIND: bench.kind, BENCH_TOKEN: bench.token,
    },
    timeout: duration * 1000 + OTHERS_NEED_MS,
  })
  if (/Non-2xx|Socket errors/.test(stdout)) throw new Error(`${subject.name}:\n${stdout}`)
  return {
    requests: Number(/(\d+) requests in/.exec(stdout)[1]),
    perSecond: Number(/Requests\/sec:\s+([\d.]+)/.exec(stdout)[1]),
  }
}

async function measure(bench, subject) {
  const before = cpuMicros(subject.pid)
  const { requests, perSecond } = await wrk(bench, subject)
  const used = cpuMicros(subject.pid).map((micros, at) => (micros - before[at]) / requests)
  return { perSecond, user: used[0], system: used[1], cpu: used[0] + used[1] }
}

/** The rounds, the first of which warms up and is dropped. */
async function interleaved(bench, subjects) {
  const runs = new Map(subjects.map((subject) => [subject, []]))
  for (let round = 0; round <= rounds; round += 1) {
    for (const subject of round % 2 === 0 ? subjects : subjects.toReversed()) {
      const run = await measure(bench, subject)
      if (round > 0) runs.get(subject).push(run)
      console.error(`round ${round} ${subject.name}: ${run.perSecond.toFixed(0)} requests/s, `
        + `${run.cpu.toFixed(1)} µs of CPU each`)
    }
  }
  return runs
}

// -- what comes out ---------------------------------------------------------------------------

function table(subjects, runs, columns = []) {
  const [first] = subjects
  const of = (subject, what) => median(runs.get(subject).map((run) => run[what]))
  const paired = (subject, what) => median(runs.get(subject).map((run, at) => {
    const base = runs.get(first)[at]
    return what === 'perSecond' ? run[what] / base[what] : base[what] / run[what]
  }))
  const heads = ['', 'requests/s [range]', 'CPU µs/request (user + system)',
    'ratio requests/s', 'ratio CPU', ...columns.map((column) => column.head)]
  const lines = [heads, heads.map(() => '---')]
  for (const subject of subjects) {
    const speeds = runs.get(subject).map((run) => run.perSecond)
    const thousands = (value) => `${(value / 1000).toFixed(1)} k`
    lines.push([
      subject.name,
      `${thousands(median(speeds))} [${thousands(Math.min(...speeds))} – ${
        thousands(Math.max(...speeds))}]`,
      `${of(subject, 'cpu').toFixed(1)} (${of(subject, 'user').toFixed(1)} + ${
        of(subject, 'system').toFixed(1)})`,
      paired(subject, 'perSecond').toFixed(2),
      paired(subject, 'cpu').toFixed(2),
      ...columns.map((column) => column.of.get(subject) ?? '–'),
    ])
  }
  return lines.map((cells) => `| ${cells.join(' | ')} |`).join('\n')
}

/** System calls per request, counted while tracing, which slows the server but not the count. */
async function syscalls(bench, subjects, folder) {
  const counted = new Map()
  for (const subject of subjects) {
    const file = join(folder, 'calls')
    const pids = [subject.pid, ...children(subject.pid)].flatMap((pid) => ['-p', String(pid)])
    const tracing = promisify(execFile)('timeout',
      ['-s', 'INT', '5', 'strace', '-f', '-c', '-o', file, ...pids]).catch(() => undefined)
    await new Promise((resolve) => { setTimeout(resolve, 1_000) })
    const { requests } = await wrk(bench, subject, 3)
    await tracing
    const { readFile } = await import('node:fs/promises')
    const total = /^\s*100\.00\s+[\d.]+\s+(?:\d+\s+)?(\d+)/m.exec(await readFile(file, 'utf8'))
    counted.set(subject, total ? (Number(total[1]) / requests).toFixed(2) : '–')
  }
  return { head: 'system calls/request', of: counted }
}

/** Latencies at a fixed offered rate, in turn. */
async function openLoop(bench, subjects) {
  const rate = number('rate')
  const seen = new Map(subjects.map((subject) => [subject, []]))
  for (let round = 0; round < rounds; round += 1) {
    for (const subject of subjects) {
      const { host } = new URL(subject.url)
      const { stdout } = await promisify(execFile)('taskset', [
        '-c', String(CLIENT_CORE), join(binaries, 'open-loop'), host, PATH, bench.keys,
        String(rate), String(seconds), String(connections),
      ], { timeout: seconds * 1000 + OTHERS_NEED_MS })
      const [, p50, p99] = /p50_us=(\d+) p99_us=(\d+)/.exec(stdout).map(Number)
      seen.get(subject).push({ p50, p99 })
    }
  }
  const shown = (subject) => {
    const of = (what) => (median(seen.get(subject).map((run) => run[what])) / 1000).toFixed(2)
    return `${of('p50')} / ${of('p99')}`
  }
  return {
    head: `ms p50 / p99 at ${rate} requests/s`,
    of: new Map(subjects.map((subject) => [subject, shown(subject)])),
  }
}

// -- the subjects -----------------------------------------------------------------------------

const NGINX_HEAD = (folder, name) => `
worker_processes 1;
daemon off;
pid ${folder}/${name}.pid;
error_log ${folder}/${name}.log error;
events { worker_connections 4096; }
`

const NGINX_HTTP = (folder, name) => `
  access_log off;
  client_body_temp_path ${folder}/${name}-body;
  proxy_temp_path ${folder}/${name}-proxy;
  fastcgi_temp_path ${folder}/${name}-fastcgi;
  uwsgi_temp_path ${folder}/${name}-uwsgi;
  scgi_temp_path ${folder}/${name}-scgi;
  keepalive_requests 1000000000;
  keepalive_timeout 1h;
  tcp_nodelay on;
`

async function nginx({ folder, start }, core, name, text) {
  const file = join(folder, `${name}.conf`)
  await writeFile(file, text)
  return start(core, 'nginx', ['-c', file, '-e', join(folder, `${name}.log`)])
}

async function upstream(place, port) {
  const { folder } = place
  const server = await nginx(place, CLIENT_CORE, 'upstream', `${NGINX_HEAD(folder, 'upstream')}
http {
  ${NGINX_HTTP(folder, 'upstream')}
  default_type application/json;
  server { listen 127.0.0.1:${port}; location / { return 200 '${ANSWER}'; } }
}`)
  await answers(server, `http://127.0.0.1:${port}/`)
  return server
}

/** What one would configure instead: keys in a map, a limit for each, the key taken off. */
async function mappedProxy(place, port, upstreamPort, secrets) {
  const { folder } = place
  const entries = secrets.map((secret, at) => `    "Bearer ${secret}" "key_${at}";`)
  const server = await nginx(place, SERVER_CORE, 'proxy', `${NGINX_HEAD(folder, 'proxy')}
http {
  ${NGINX_HTTP(folder, 'proxy')}
  map_hash_max_size 65536;
  map_hash_bucket_size 256;
  map $http_authorization $key {
    default "";
${entries.join('\n')}
  }
  limit_req_zone $key zone=keys:16m rate=1000000r/s;
  upstream api { server 127.0.0.1:${upstreamPort}; keepalive 256;
    keepalive_requests 1000000000; keepalive_timeout 1h; }
  server {
    listen 127.0.0.1:${port} backlog=1024;
    location / {
      if ($key = "") { return 401; }
      limit_req zone=keys burst=100000 nodelay;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Authorization "";
      proxy_set_header Keyward-Key-Id $key;
      add_header x-request-id $request_id;
      proxy_pass http://api;
    }
  }
}`)
  const init = { headers: { authorization: `Bearer ${secrets[0]}` } }
  await answers(server, `http://127.0.0.1:${port}${PATH}`, 200, init)
  return server
}

// -- the comparisons --------------------------------------------------------------------------

async function prepared(place) {
  const [upstreamPort, port] = await freePorts(2)
  await upstream(place, upstreamPort)
  const configured = await keyward.configure(place, `http://127.0.0.1:${upstreamPort}`)
  const token = keyward.administrator(configured)
  const node = { ...await keyward.serve(place, SERVER_CORE, configured), token }
  console.error(`making ${options.keys} keys`)
  const secrets = await keyward.mint(node, number('keys'))
  const keys = join(place.folder, 'keys')
  await writeFile(keys, `${secrets.join('\n')}\n`, { mode: 0o600 })
  const lua = join(place.folder, 'load.lua')
  await writeFile(lua, LUA)
  const bench = { keys, lua, token: node.token }
  return { node, secrets, bench, upstreamPort, port }
}

async function compareGateway(place, made) {
  const { node, secrets, upstreamPort, port } = made
  const bench = { ...made.bench, kind: 'gateway' }
  const proxy = await mappedProxy(place, port, upstreamPort, secrets)
  const subjects = [
    { name: 'nginx `proxy_pass`, `map` on the key, `limit_req`', pid: proxy.pid,
      url: `http://127.0.0.1:${port}` },
    { name: 'Keyward gateway, every check', pid: node.pid, url: node.gateway },
  ]
  const runs = await interleaved(bench, subjects)
  const columns = [await openLoop(bench, subjects)]
  if (options.syscalls) columns.push(await syscalls(bench, subjects, place.folder))
  return table(subjects, runs, columns)
}

async function compareVerify(place, made) {
  const { node, secrets } = made
  const bench = { ...made.bench, kind: 'verify' }
  const answer = await fetch(`${node.internal}/v1/verify`, {
    method: 'POST',
    headers: { authorization: `Bearer ${node.token}`, 'content-type': 'application/json' },
    body: JSON.stringify({ key: secrets[0], method: 'GET', path: PATH }),
  })
  const body = await answer.text()
  if (JSON.parse(body).valid !== true) throw new Error(`verify: ${answer.status} ${body}`)
  console.error('headers of verify:', Object.fromEntries(answer.headers))
  const file = join(place.folder, 'answer')
  await writeFile(file, body)
  const [port] = await freePorts(1)
  const address = `127.0.0.1:${port}`
  const bare = place.start(SERVER_CORE, join(binaries, 'bare-hyper'), [address, file])
  await answers(bare, `http://${address}/`)
  const subjects = [
    { name: 'bare hyper server, same bytes', pid: bare.pid, url: `http://${address}` },
    { name: 'Keyward `POST /v1/verify`', pid: node.pid, url: node.internal },
  ]
  const runs = await interleaved(bench, subjects)
  const columns = options.syscalls ? [await syscalls(bench, subjects, place.folder)] : []
  return table(subjects, runs, columns)
}

const known = { gateway: [compareGateway], verify: [compareVerify] }
known.all = [compareGateway, compareVerify]
const [what = 'all', ...rest] = positionals
if (!Object.hasOwn(known, what) || rest.length > 0) {
  console.error('usage: bench/run [gateway | verify | all] [--rounds N] …')
  process.exit(64)
}
await inFolder(async (place) => {
  const made = await prepared(place)
  for (const compare of known[what]) {
    const begin = circumstances()
    const text = await compare(place, made)
    console.log(`\n${begin}; ${rounds} rounds of ${seconds} s, ${connections} connections, `
      + `${options.keys} keys\n\n${text}`)
  }
})
