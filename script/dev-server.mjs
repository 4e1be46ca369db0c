// A private `keyward dev` for scripts: free ports, a temporary folder, and nothing left behind.
import { spawn } from 'node:child_process'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as pause } from 'node:timers/promises'

const READY_MS = 60_000
const STOP_MS = 15_000
const MAX_LOG_CHARS = 1_000_000

/**
 * Starts the binary and waits until it is ready. Answers with what it printed (`info`), its process
 * id, and `stop`, which ends it and removes its folder. `more` are further arguments, `gateway`
 * further settings of its listener, and `data` a folder of data that is kept.
 */
export async function startDev(binary, more = [], { gateway, data } = {}) {
  const listener = ['listen = "127.0.0.1:0"', 'environments = ["live"]', gateway]
  const folder = await mkdtemp(join(tmpdir(), 'keyward-script-'))
  const arguments_ = [
    'dev', '--profile', 'asiri', '--json', '--data-dir', data ?? join(folder, 'data'),
    '--control-listen', '127.0.0.1:0', '--internal-listen', '127.0.0.1:0',
    '--sandbox-listen', '127.0.0.1:0',
    '--gateway-listener', `{ ${listener.filter(Boolean).join(', ')} }`, ...more,
  ]
  // settings of the script itself are none of the server's
  const names = Object.keys(process.env).filter((name) => !name.startsWith('KEYWARD_'))
  const env = Object.fromEntries(names.map((name) => [name, process.env[name]]))
  const child = spawn(binary, arguments_, { stdio: ['ignore', 'pipe', 'pipe'], env })
  let log = ''
  child.stderr.on('data', (chunk) => { log = (log + chunk).slice(-MAX_LOG_CHARS) })
  const exited = new Promise((resolve) => {
    child.once('exit', (code, signal) => resolve(`ended with ${code ?? signal}`))
  })
  const lines = createInterface({ input: child.stdout })
  const line = new Promise((resolve) => lines.once('line', resolve))
  const late = pause(READY_MS, `not ready in ${READY_MS} ms`, { ref: false })
  const first = await Promise.race([line, exited, late])
  const stop = async () => {
    child.kill('SIGTERM')
    const gone = await Promise.race([exited, pause(STOP_MS, undefined, { ref: false })])
    if (gone === undefined) child.kill('SIGKILL')
    await exited
    await rm(folder, { recursive: true, force: true })
  }
  if (!first.startsWith('{')) {
    await stop()
    throw new Error(`keyward dev: ${first}\n${log}`)
  }
  return { info: JSON.parse(first), pid: child.pid, folder, log: () => log, stop }
}

/** The resident memory of a process in bytes. */
export async function residentBytes(pid) {
  const status = await readFile(`/proc/${pid}/status`, 'utf8')
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)[1]) * 1024
}
