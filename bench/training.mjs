// The traffic that release builds are optimised for: every way a request can come in and go out,
// most of them permitted. Run by script/build-release with an instrumented binary.
import { execFile, execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { connect } from 'node:http2'
import { join } from 'node:path'
import { promisify } from 'node:util'
import * as keyward from './keyward.mjs'
import { PATH, closedLoop, program } from './load.mjs'
import { keywardNginx, upstream } from './proxies.mjs'
import { freePorts, inFolder, stop } from './servers.mjs'

const KEYS = 2_000
const SECONDS = 2
const CONNECTIONS = 64
const TRUSTED = ['127.0.0.1/32']
/** What a program of wrk may need beyond its own time. */
const OTHERS_NEED_MS = 60_000
const STREAMS = 32
const HTTP2_CONNECTIONS = 4
const HTTP2_REQUESTS = 20_000

/** Calls with bodies and query strings, and one in eight that is refused. */
const MIXED = `
local calls, position = {}, 0
function init(arguments)
  local json = { ["content-type"] = "application/json" }
  local body = '{"name":"' .. string.rep("a name ", 60) .. '"}'
  for key in io.lines(os.getenv("BENCH_KEYS")) do
    local held = { ["authorization"] = "Bearer " .. key, ["user-agent"] = "training/1.0",
      ["accept"] = "application/json", ["accept-encoding"] = "gzip, br",
      ["traceparent"] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01" }
    local sent = { ["x-api-key"] = key, ["content-type"] = "application/json" }
    for turn = 1, 7 do
      calls[#calls + 1] = turn % 3 == 0 and wrk.format("POST", "${PATH}", sent, body)
        or wrk.format("GET", "${PATH}?page=" .. turn .. "&limit=50", held)
    end
    calls[#calls + 1] = wrk.format("GET", "/v1/nothing", held)
  end
end
function request()
  position = position % #calls + 1
  return calls[position]
end
`

const setting = { clientCore: undefined, clientThreads: 1, connections: CONNECTIONS,
  seconds: SECONDS }

/** Any answers, refusals among them. */
async function mixed({ folder }, url, keys) {
  const lua = join(folder, 'mixed.lua')
  await writeFile(lua, MIXED)
  const arguments_ = ['-t1', `-c${CONNECTIONS}`, `-d${SECONDS}s`, '-s', lua, url]
  await promisify(execFile)('wrk', arguments_, {
    env: { ...process.env, BENCH_KEYS: keys }, timeout: SECONDS * 1000 + OTHERS_NEED_MS,
  })
}

/** Requests over HTTP/2, many at a time on each connection. */
async function multiplexed(url, secrets) {
  let left = HTTP2_REQUESTS
  const ask = async (session) => {
    while (left > 0) {
      left -= 1
      const secret = secrets[left % secrets.length]
      const stream = session.request({ ':path': PATH, authorization: `Bearer ${secret}` })
      stream.resume()
      const [[headers]] = await Promise.all([once(stream, 'response'), once(stream, 'close')])
      if (headers[':status'] !== 200) throw new Error(`HTTP/2: ${headers[':status']}`)
    }
  }
  await Promise.all(Array.from({ length: HTTP2_CONNECTIONS }, async () => {
    const session = connect(url, { rejectUnauthorized: false })
    await Promise.all(Array.from({ length: STREAMS }, () => ask(session)))
    session.close()
  }))
}

/** A certificate that nobody trusts. */
function certificate(folder) {
  const [chain, key] = [join(folder, 'chain.pem'), join(folder, 'key.pem')]
  execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256',
    '-noenc', '-days', '2', '-subj', '/CN=localhost', '-addext', 'subjectAltName=IP:127.0.0.1',
    '-keyout', key, '-out', chain], { stdio: 'pipe' })
  return { chain, key }
}

/** Gateway, verify and forward-auth of one node. */
async function everything(place, node, { api, secrets, keys }) {
  const load = (name, url, kind) =>
    closedLoop({ name, url, keys, kind, token: node.token }, setting)
  await load('gateway', node.gateway, 'gateway')
  await load('gateway', node.gateway, 'gateway')
  await mixed(place, node.gateway, keys)
  await load('gateway over TLS', node.secure, 'gateway')
  await load('verify', node.internal, 'verify')
  await multiplexed(node.secure, secrets)
  const [port] = await freePorts(1)
  const { host: internal } = new URL(node.internal)
  const nginx = await keywardNginx(place, { port, to: api.tcp, internal, secret: secrets[0] })
  await load('nginx that asks', `http://127.0.0.1:${port}`, 'gateway')
  await stop(nginx)
}

await inFolder(async (place) => {
  const api = await upstream(place, undefined, await freePorts(2))
  const changes = { trusted: TRUSTED, certificate: certificate(place.folder) }
  const configured = await keyward.configure(place, `http://${api.tcp}`, changes)
  const token = keyward.administrator(configured)
  const node = { ...await keyward.serve(place, undefined, configured), token }
  const secrets = await keyward.mint(node, KEYS)
  const keys = join(place.folder, 'keys')
  await writeFile(keys, `${secrets.join('\n')}\n`, { mode: 0o600 })
  setting.lua = await program(place.folder)
  await everything(place, node, { api, secrets, keys })
  await stop(node.server)
  for (const [data, url, protocol] of [
    ['http2', `http://${api.http2}`, 'http2'], ['unix', api.unix, 'http1'],
  ]) {
    const other = await keyward.copied(place, url, { data, protocol })
    const { server, gateway } = await keyward.serve(place, undefined, other)
    await closedLoop({ name: data, url: gateway, keys, kind: 'gateway' }, setting)
    await stop(server)
  }
})
