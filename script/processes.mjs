// Programs that scripts start, wait for and stop.
import { spawn } from 'node:child_process'
import { dirname } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as pause } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

const READY_MS = 60_000
const STOP_MS = 20_000
const MAX_LOG_CHARS = 1_000_000

export const root = dirname(dirname(fileURLToPath(import.meta.url)))

/** A text as JSON, if it is. */
export function parsed(text) {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/**
 * A process of the binary that is ready once it has printed what `isReady` finds, on `source`.
 * `log` answers with what it has written, `diagnostics` with what of it went to stderr.
 */
export async function start(binary, name, arguments_, source, isReady) {
  // settings of the script itself are none of the server's
  const names = Object.keys(process.env).filter((it) => !it.startsWith('KEYWARD_'))
  const env = Object.fromEntries(names.map((it) => [it, process.env[it]]))
  const child = spawn(binary, arguments_, { stdio: ['ignore', 'pipe', 'pipe'], cwd: root, env })
  let log = ''
  let diagnostics = ''
  const exited = new Promise((resolve) => {
    child.once('exit', (code, signal) => resolve({ code, signal }))
    child.once('error', (error) => resolve({ code: null, signal: error.message }))
  })
  for (const stream of [child.stdout, child.stderr]) {
    // in chunks: a server under attack says more than could be looked at line by line
    stream.setEncoding('utf8').on('data', (text) => { log = (log + text).slice(-MAX_LOG_CHARS) })
  }
  child.stderr.on('data', (text) => { diagnostics = (diagnostics + text).slice(-MAX_LOG_CHARS) })
  const ready = new Promise((resolve) => {
    const lines = createInterface({ input: child[source] })
    lines.on('line', (line) => {
      const found = isReady(parsed(line))
      if (!found) return
      resolve(found)
      lines.close()
      child[source].resume()
    })
  })
  const started = { name, child, exited, log: () => log, diagnostics: () => diagnostics }
  const late = pause(READY_MS, undefined, { ref: false })
  started.info = await Promise.race([ready, exited.then(() => undefined), late])
  if (!started.info) {
    child.kill('SIGKILL')
    const ended = await exited
    throw Object.assign(new Error(`${name} did not get ready:\n${log.slice(-4_000)}`), { ended })
  }
  return started
}

/** Tells a process to stop, and answers with how it ended. */
export async function stop(started, signal = 'SIGTERM') {
  const { child, exited } = started
  if (child.exitCode !== null || child.signalCode !== null) return exited
  child.kill(signal)
  const ended = await Promise.race([exited, pause(STOP_MS, undefined, { ref: false })])
  if (ended) return ended
  child.kill('SIGKILL')
  return exited
}
