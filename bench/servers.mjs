// Servers of the benchmarks: started pinned, measured by process id, stopped by process id.
import { execFileSync, spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { cpus, loadavg, tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'

const START_MS = 30_000
const STOP_MS = 10_000
export const binaries = process.env.BENCH_BINARIES ?? 'target/release'
const ticksPerSecond = Number(execFileSync('getconf', ['CLK_TCK'], { encoding: 'utf8' }))

/** A folder that is gone when `run` ends, and the processes started in it with it. */
export async function inFolder(run) {
  const folder = await mkdtemp(join(tmpdir(), 'keyward-bench-'))
  // the data directory is private, but nginx started as root reads its files as another user
  await chmod(folder, 0o711)
  const started = []
  let ending
  const end = () => (ending ??= (async () => {
    await Promise.all(started.map(stop))
    await rm(folder, { recursive: true, force: true })
  })())
  for (const name of ['SIGINT', 'SIGTERM']) {
    process.once(name, () => end().finally(() => process.exit(130)))
  }
  try {
    return await run({ folder, start: (...given) => start(started, ...given) })
  } finally {
    await end()
  }
}

function start(started, core, program, arguments_, options = {}) {
  const pinned = core === undefined ? [] : ['taskset', '-c', String(core)]
  const [first, ...rest] = [...pinned, program, ...arguments_]
  const child = spawn(first, rest, { stdio: ['ignore', 'pipe', 'pipe'], ...options })
  const server = { child, pid: child.pid, output: '', error: '' }
  child.stdout?.on('data', (chunk) => { server.output = (server.output + chunk).slice(-65_536) })
  child.stderr?.on('data', (chunk) => { server.error = (server.error + chunk).slice(-65_536) })
  server.exited = new Promise((resolve) => child.once('exit', resolve))
  started.push(server)
  return server
}

/** Ends a server and waits until it has ended. */
export async function stop({ child, exited }) {
  if (child.exitCode !== null || child.signalCode !== null) return
  child.kill('SIGTERM')
  await Promise.race([exited, pause(300)])
  child.kill('SIGTERM')
  const late = await Promise.race([exited, pause(STOP_MS, 'late', { ref: false })])
  if (late === 'late') child.kill('SIGKILL')
  await exited
}

/** Waits until the address answers with this status; a server that ended is an error. */
export async function answers(server, url, status = 200, init = {}) {
  const deadline = performance.now() + START_MS
  for (;;) {
    if (server.child.exitCode !== null) {
      throw new Error(`${url}: its server ended:\n${server.error}${server.output}`)
    }
    try {
      const answer = await fetch(url, init)
      await answer.arrayBuffer()
      if (answer.status === status) return
    } catch { /* not listening yet */ }
    if (performance.now() > deadline) throw new Error(`${url} does not answer:\n${server.error}`)
    await pause(5)
  }
}

/** What a server prints on its first line, which it prints when it is ready. */
export async function firstLine(server) {
  const deadline = performance.now() + START_MS
  while (!server.output.includes('\n')) {
    if (server.child.exitCode !== null) throw new Error(`a server ended:\n${server.error}`)
    if (performance.now() > deadline) throw new Error(`a server said nothing:\n${server.error}`)
    await pause(5)
  }
  return server.output.split('\n', 1)[0]
}

/** Free loopback ports, all held until all are known. */
export async function freePorts(count) {
  const held = await Promise.all(Array.from({ length: count }, () => new Promise((resolve) => {
    const server = createServer()
    server.listen(0, '127.0.0.1', () => resolve(server))
  })))
  const ports = held.map((server) => server.address().port)
  await Promise.all(held.map((server) => new Promise((resolve) => server.close(resolve))))
  return ports
}

/** Microseconds of CPU a process and its children that live have used: user, system. */
export function cpuMicros(pid) {
  const used = [pid, ...children(pid)].map((id) => {
    const fields = readFileSync(`/proc/${id}/stat`, 'utf8').split(') ')[1].split(' ')
    return [Number(fields[11]), Number(fields[12])]
  })
  const sum = (position) => used.reduce((total, it) => total + it[position], 0)
  return [sum(0), sum(1)].map((ticks) => ticks * 1e6 / ticksPerSecond)
}

/** Ticks that a core (or all of them) was at work, and that were counted, since the machine began. */
export function coreTicks(core = '') {
  const line = new RegExp(`^cpu${core} +(.+)$`, 'm').exec(readFileSync('/proc/stat', 'utf8'))[1]
  // user, nice, system, idle, iowait, irq, softirq, steal; what follows is part of user
  const ticks = line.split(' ').slice(0, 8).map(Number)
  const all = ticks.reduce((total, it) => total + it)
  return [all - ticks[3] - ticks[4], all]
}

/** The processes that this one started and that live. */
export function children(pid) {
  const text = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim()
  return text === '' ? [] : text.split(/\s+/).map(Number)
}

/** The resident memory of a process in MB of 10^6 bytes. */
export function residentMegabytes(pid) {
  const kib = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))[1]
  return Number(kib) * 1024 / 1e6
}

export function median(values) {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}

/** What belongs over every table of results. */
export function circumstances() {
  const git = (...words) => execFileSync('git', words, { encoding: 'utf8' }).trim()
  const changed = git('status', '--porcelain', '--untracked-files=no') === '' ? '' : ' and changes'
  const [one, five] = loadavg()
  return `${new Date().toISOString().slice(0, 16)}Z, commit ${git('rev-parse', '--short', 'HEAD')}`
    + `${changed}, ${cpus().length} × ${cpus()[0].model.trim()}, load average ${one.toFixed(1)}`
    + ` (1 min) ${five.toFixed(1)} (5 min)`
}

/** A file only this user can read. */
export const privateFile = (path, text) => writeFile(path, text, { mode: 0o600 })
