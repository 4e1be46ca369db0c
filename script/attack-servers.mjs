// The servers of script/attacks.mjs. As a program it is an upstream of HTTP/2, which answers what
// came whole and prints its port: `node script/attack-servers.mjs`.
import { constants, createServer } from 'node:http2'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { startDev } from './dev-server.mjs'
import { start, stop } from './processes.mjs'

/** How long the upstream takes for a write, and for a read, which is mostly broken off before. */
const WRITE_MS = 20
const READ_MS = 1_000
/**
 * What the upstream counts for a connection with four settings, for a stream that is begun and for
 * one that is reset, as Tomcat does; at less than nothing it ends the connection.
 */
const [FIRST, BEGUN, RESET] = [60, 20, -50]
const HERE = fileURLToPath(import.meta.url)
const FLOODS = fileURLToPath(new URL('attack-floods.mjs', import.meta.url))

/** A program of Node that prints its port when it is ready. */
async function startPrinting(name, arguments_) {
  const server = await start(process.execPath, name, arguments_, 'stdout', (port) => port)
  return { url: `http://127.0.0.1:${server.info}`, stop: () => stop(server, 'SIGKILL') }
}

/** A server that takes everything and answers nothing. */
export const startSink = () => startPrinting('the sink', [FLOODS, 'sink'])

/** What is attacked: where it listens, its process, and the keys of two tenants. */
function stage(gateway, pid, tenants, end) {
  const [first, second] = tenants.map(({ keys }) => keys.live)
  return { url: gateway, pid, keys: { client: first, attacker: second }, stop: end }
}

/** The sandbox behind a gateway. */
export async function startSandbox(binary) {
  const { info, pid, stop: end } = await startDev(binary, [], { gateway: 'h2c = true' })
  return stage(info.gateways[0], pid, info.tenants, end)
}

/** The same tenants and keys in front of an upstream that speaks HTTP/2. */
export async function startBeforeHttp2(binary) {
  const folder = await mkdtemp(join(tmpdir(), 'keyward-attacks-'))
  const data = join(folder, 'data')
  const begun = []
  const end = async () => {
    for (const stopIt of begun.toReversed()) await stopIt()
    await rm(folder, { recursive: true, force: true })
  }
  try {
    const seeding = await startDev(binary, [], { data })
    await seeding.stop()
    const upstream = await startPrinting('the upstream', [HERE])
    begun.push(upstream.stop)
    const any = '127.0.0.1:0'
    const node = await start(binary, 'the node', ['serve', '--profile', 'profiles/asiri',
      '--data-dir', data, '--control-listen', any, '--internal-listen', any,
      '--gateway-listener', `{ listen = "${any}", environments = ["live"], h2c = true }`,
      '--upstream', `{ url = "${upstream.url}", protocol = "http2", audience = "attacks", ` +
        'environments = ["live"] }',
      '--log-format', 'json', '--log-requests=false'],
    'stderr', (line) => (line?.msg === 'ready' ? line : undefined))
    begun.push(() => stop(node))
    const gateway = `http://${node.info.gateways.replace(/[[\]]/g, '')}`
    return stage(gateway, node.child.pid, seeding.info.tenants, end)
  } catch (error) {
    await end()
    throw error
  }
}

/** Ends a connection on which too many streams are reset. */
function countResets(session) {
  let count = FIRST
  // it is gone, and with it whoever it could be told
  session.on('error', () => {})
  session.on('stream', (stream) => {
    count += BEGUN
    stream.on('close', () => {
      if (stream.rstCode !== constants.NGHTTP2_NO_ERROR) count += RESET
      if (count < 0) session.destroy()
    })
  })
}

if (process.argv[1] === HERE) {
  const server = createServer()
  server.on('session', countResets)
  server.on('stream', (stream, headers) => {
    // one that is reset has nobody left to tell
    stream.on('error', () => {})
    stream.on('end', async () => {
      await pause(headers[':method'] === 'GET' ? READ_MS : WRITE_MS)
      if (stream.destroyed) return
      stream.respond({ ':status': 200, 'content-type': 'application/json' })
      stream.end('{"data":[]}')
    })
    stream.resume()
  })
  server.listen(0, '127.0.0.1', () => console.log(server.address().port))
}
