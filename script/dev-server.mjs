// A private `keyward dev` for scripts: free ports, a temporary folder, and nothing left behind.
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { start, stop } from './processes.mjs'

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
  let server
  try {
    server = await start(binary, 'keyward dev', arguments_, 'stdout', (line) => line)
  } catch (error) {
    await rm(folder, { recursive: true, force: true })
    throw error
  }
  const end = async () => {
    await stop(server)
    await rm(folder, { recursive: true, force: true })
  }
  return { info: server.info, pid: server.child.pid, folder, log: server.log, stop: end }
}

/** The resident memory of a process in bytes. */
export async function residentBytes(pid) {
  const status = await readFile(`/proc/${pid}/status`, 'utf8')
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)[1]) * 1024
}
