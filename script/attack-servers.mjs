// The servers of script/attacks.mjs.
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { startDev } from './dev-server.mjs'
import { start, stop } from './processes.mjs'

/** How long the upstream takes for a write, and for a read, which is mostly broken off before. */
const WRITE_MS = 20
const READ_MS = 1_000
const FLOODS = fileURLToPath(new URL('attack-floods.mjs', import.meta.url))

/** A program that prints its port when it is ready. */
async function startPrinting(program, name, arguments_) {
  const server = await start(program, name, arguments_.map(String), 'stdout', (port) => port)
  return { url: `http://127.0.0.1:${server.info}`, stop: () => stop(server, 'SIGKILL') }
}

/** A server that takes everything and answers nothing. */
export const startSink = () => startPrinting(process.execPath, 'the sink', [FLOODS, 'sink'])

/** What is attacked: where it listens, its process, and the keys of two tenants. */
function stage(gateway, pid, tenants, end) {
  const [first, second] = tenants.map(({ keys }) => keys.live)
  return { url: gateway, pid, keys: { client: first, attacker: second }, stop: end }
}

/** The sandbox behind a gateway. */
export async function startSandbox({ binary }) {
  const { info, pid, stop: end } = await startDev(binary, [], { gateway: 'h2c = true' })
  return stage(info.gateways[0], pid, info.tenants, end)
}

/** The same tenants and keys in front of an upstream of HTTP/2 that counts resets. */
export async function startBeforeHttp2({ binary, countingUpstream }) {
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
    const upstream = await startPrinting(countingUpstream, 'the upstream', [WRITE_MS, READ_MS])
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
