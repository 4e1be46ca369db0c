// Where the data plane's time goes under load: see bench/profile.
import { execFile, execFileSync } from 'node:child_process'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { parseArgs, promisify } from 'node:util'
import { closedLoop, program } from './load.mjs'
import { upstream } from './proxies.mjs'
import { binaries, circumstances, firstLine, freePorts, inFolder } from './servers.mjs'

const SERVER_CORE = 0
const CLIENT_CORE = 1
const KEYS = 1000
const CONNECTIONS = 64
const WARM_SECONDS = 2
const HERTZ = 2_000
const MOST_OUTPUT_BYTES = 1 << 30

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    seconds: { type: 'string', default: '10' },
    top: { type: 'string', default: '30' },
    folder: { type: 'string' },
  },
})
const [kind, ...rest] = positionals
const seconds = Number(options.seconds)
if (!['gateway', 'verify'].includes(kind) || rest.length > 0 || !(seconds > 0)) {
  console.error('usage: bench/profile gateway | verify [--seconds 10] [--top 30] [--folder DIR]')
  process.exit(64)
}

/** A function's name without the hash of its build and without what its generics stand for. */
function named(symbol) {
  let name = symbol.replace(/\+0x[0-9a-f]+$/, '').replace(/::h[0-9a-f]{16}$/, '')
  // `<T as Trait>::f` says T::f; the arguments of generics say little and are long
  name = name.replace(/^<(.+?) as .+>::/, '$1::')
  for (let before; before !== name;) {
    before = name
    name = name.replace(/(?<=.)(?:::)?<[^<>]*>/g, '')
  }
  return name.replace(/^<(.*)>::/, '$1::')
}

/** Stacks of `perf script`, outermost first, each with the weight it was seen with. */
function folded(text) {
  const stacks = new Map()
  for (const block of text.split('\n\n')) {
    const frames = block.split('\n').slice(1)
      .map((line) => /^\s+[0-9a-f]+ (.+) \((.*)\)$/.exec(line)).filter((it) => it !== null)
      .map(([, symbol, file]) => ({ name: named(symbol), kernel: /^\[.*\]$/.test(file) }))
    if (frames.length === 0) continue
    const stack = frames.toReversed()
      .map(({ name, kernel }) => (kernel ? `${name}_[k]` : name)).join(';')
    stacks.set(stack, (stacks.get(stack) ?? 0) + 1)
  }
  return stacks
}

/** What the kernel was doing: the function of the C library that asked it, or nobody. */
function asked(frames) {
  if (!frames.some((it) => it.startsWith('entry_SYSCALL'))) return 'interrupts'
  const caller = frames.findLast((it) => !it.endsWith('_[k]')) ?? 'unknown'
  return caller.replace(/^__GI_/, '').replace(/^__(?:libc_)?/, '')
}

/** Time of the kernel by the system call it was in; time of the program by its function. */
function costs(stacks) {
  const own = new Map()
  const within = new Map()
  let total = 0
  const count = (map, name, weight) => map.set(name, (map.get(name) ?? 0) + weight)
  for (const [stack, weight] of stacks) {
    total += weight
    const frames = stack.split(';')
    const leaf = frames.at(-1)
    count(own, leaf.endsWith('_[k]') ? `kernel: ${asked(frames)}` : leaf, weight)
    for (const frame of new Set(frames)) {
      if (!frame.endsWith('_[k]')) count(within, frame, weight)
    }
  }
  return { own, within, total }
}

function listed(map, total) {
  return [...map].sort(([, a], [, b]) => b - a).slice(0, Number(options.top))
    .map(([name, weight]) => `${(weight / total * 100).toFixed(1).padStart(5)} %  ${name}`)
    .join('\n')
}

await inFolder(async (place) => {
  const api = await upstream(place, CLIENT_CORE, await freePorts(2))
  const keys = join(place.folder, 'keys')
  const server = place.start(SERVER_CORE, join(binaries, 'plane'),
    [`http://${api.tcp}`, String(KEYS), keys, 'per-core', '1'])
  const [gateway, internal] = (await firstLine(server)).split(' ')
  const subject = { name: kind, kind, keys, url: kind === 'gateway' ? gateway : internal }
  const setting = {
    clientCore: CLIENT_CORE, clientThreads: 1, connections: CONNECTIONS,
    lua: await program(place.folder),
  }
  await closedLoop(subject, { ...setting, seconds: WARM_SECONDS })
  const data = join(place.folder, 'perf.data')
  const load = closedLoop(subject, { ...setting, seconds: seconds + 2 })
  await pause(1_000)
  await promisify(execFile)('perf', ['record', '-q', '-e', 'cpu-clock', '-F', String(HERTZ),
    '--call-graph', 'fp', '-p', String(server.pid), '-o', data, '--', 'sleep', String(seconds)])
  const { perSecond } = await load
  const text = execFileSync('perf', ['script', '-i', data, '--no-inline', '-F',
    'comm,pid,time,ip,sym,dso'], {
    encoding: 'utf8', maxBuffer: MOST_OUTPUT_BYTES, stdio: ['ignore', 'pipe', 'ignore'],
  })
  const stacks = folded(text)
  const folder = options.folder ?? join(binaries, '..', 'bench')
  await mkdir(folder, { recursive: true })
  const file = join(folder, `profile-${kind}.folded`)
  await writeFile(file, [...stacks].map(([stack, weight]) => `${stack} ${weight}\n`).join(''))
  const { own, within, total } = costs(stacks)
  if (total === 0) throw new Error('perf saw nothing')
  console.log(`${circumstances()}; ${kind}, ${perSecond.toFixed(0)} requests/s, ${total} samples`)
  console.log(`\nOwn time, the kernel's by system call:\n${listed(own, total)}`)
  console.log(`\nWith everything that is called:\n${listed(within, total)}`)
  console.error(`stacks for a flame graph: ${file}`)
})
