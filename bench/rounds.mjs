// Rounds in turn over all subjects, what they used, and tables of medians with ratios of one run.
import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { promisify } from 'node:util'
import { closedLoop, openLoop } from './load.mjs'
import { children, coreTicks, cpuMicros, median } from './servers.mjs'

const TRACE_SECONDS = 3

/** User and system microseconds of all processes of a subject. */
function used(subject) {
  return subject.pids.map(cpuMicros).reduce(([user, system], it) => [user + it[0], system + it[1]])
}

async function measure(subject, setting) {
  const before = used(subject)
  const begun = coreTicks(setting.clientCore)
  const { requests, perSecond } = await closedLoop(subject, setting)
  const [busy, all] = coreTicks(setting.clientCore).map((ticks, at) => ticks - begun[at])
  const cpu = used(subject).map((micros, at) => (micros - before[at]) / requests)
  const both = cpu[0] + cpu[1]
  // below 1 somebody else was the limit: the client and the upstream when their core is busy
  return {
    perSecond, user: cpu[0], system: cpu[1], cpu: both, cores: both * perSecond / 1e6,
    others: busy / all,
  }
}

/** Every subject in every round, forwards and backwards in turn. */
function* inTurn(subjects, rounds) {
  for (let round = 0; round < rounds; round += 1) {
    for (const subject of round % 2 === 0 ? subjects : subjects.toReversed()) {
      yield [round, subject]
    }
  }
}

/** Rounds forwards and backwards in turn. The first warms up and is dropped. */
export async function interleaved(subjects, setting) {
  for (const subject of subjects) subject.runs = []
  for (const [round, subject] of inTurn(subjects, setting.rounds + 1)) {
    const run = await measure(subject, setting)
    if (round > 0) subject.runs.push(run)
    console.error(`round ${round} ${subject.label}: ${run.perSecond.toFixed(0)} requests/s, `
      + `${run.cpu.toFixed(1)} µs of CPU each, ${run.cores.toFixed(2)} of a core; `
      + `the clients' core ${Math.round(run.others * 100)} % busy`)
  }
}

/** Latencies at an offered rate, in turn; all subjects get the same arrivals in one round. */
export async function latencies(subjects, setting, load, rateOf) {
  for (const subject of subjects) {
    (subject.latency ??= []).push({ load, rate: rateOf(subject), runs: [] })
  }
  for (const [round, subject] of inTurn(subjects, setting.rounds)) {
    const { rate, runs } = subject.latency.at(-1)
    const run = await openLoop(subject, setting, { rate, seed: 2 * round + 1 })
    runs.push(run)
    console.error(`round ${round + 1} ${subject.label} at ${rate}/s: p50 ${run.p50}, `
      + `p99 ${run.p99}, p99.9 ${run.p999} µs; client late by ${run.clientLateP99} µs`)
  }
}

/** What each subject answers in a second when more is offered than it can do: its capacity with
 * this client, which costs its core more than a closed loop does. */
export async function capacities(subjects, setting, rateOf) {
  for (const subject of subjects) subject.answered = []
  for (const [round, subject] of inTurn(subjects, setting.rounds)) {
    const rate = rateOf(subject)
    const run = await openLoop(subject, setting, { rate, seed: 2 * round + 1 })
    subject.answered.push(run.perSecond)
    console.error(`round ${round + 1} ${subject.label} offered ${rate}/s: `
      + `${run.perSecond.toFixed(0)} answered`)
  }
}

/** System calls per request, counted while tracing, which slows the server but not the count. */
export async function syscalls(subjects, setting, folder) {
  for (const subject of subjects) {
    const file = join(folder, 'calls')
    const pids = subject.pids.flatMap((pid) => [pid, ...children(pid)])
    const tracing = promisify(execFile)('timeout', ['-s', 'INT', String(TRACE_SECONDS + 2),
      'strace', '-f', '-c', '-o', file, ...pids.flatMap((pid) => ['-p', String(pid)])])
      // it ends by the signal
      .catch(() => undefined)
    await pause(1_000)
    const { requests } = await closedLoop(subject, { ...setting, seconds: TRACE_SECONDS })
    await tracing
    const total = /^\s*100\.00\s+[\d.]+\s+\S+\s+(\d+)/m.exec(await readFile(file, 'utf8'))
    subject.syscalls = total === null ? undefined : Number(total[1]) / requests
  }
}

// -- tables -----------------------------------------------------------------------------------

const middle = (runs, what) => median(runs.map((run) => run[what]))
const thousands = (value) => `${(value / 1000).toFixed(1)} k`

/** Ratios of the rounds to those of another subject; above 1 the subject is better. */
function ratios(runs, baseRuns, what) {
  const by = what === 'perSecond' ? (own, other) => own / other : (own, other) => other / own
  return runs.map((run, at) => by(run[what], baseRuns[at][what]))
}

function spread(values) {
  const shown = [median(values), Math.min(...values), Math.max(...values)]
    .map((value) => value.toFixed(2))
  return `${shown[0]} [${shown[1]} – ${shown[2]}]`
}

function markdown(heads, rows) {
  return [heads, heads.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`)
    .join('\n')
}

/** Throughput and CPU of all subjects, with ratios to each of the subjects `bases`. */
export function speedTable(subjects, bases) {
  const counted = subjects.some((subject) => subject.syscalls !== undefined)
  const heads = ['', 'requests/s [range]', 'CPU µs/request (user + system)', 'cores used',
    'clients\' core busy', ...bases.flatMap(({ label }) => [`requests/s by ${label}`, `CPU by ${label}`]),
    ...(counted ? ['system calls/request'] : [])]
  return markdown(heads, subjects.map((subject) => {
    const { runs } = subject
    const speeds = runs.map((run) => run.perSecond)
    return [
      subject.name,
      `${thousands(median(speeds))} [${thousands(Math.min(...speeds))} – ${
        thousands(Math.max(...speeds))}]`,
      `${middle(runs, 'cpu').toFixed(1)} (${middle(runs, 'user').toFixed(1)} + ${
        middle(runs, 'system').toFixed(1)})`,
      middle(runs, 'cores').toFixed(2),
      `${Math.round(middle(runs, 'others') * 100)} %`,
      ...bases.flatMap((base) => (base === subject ? ['1.00', '1.00']
        : ['perSecond', 'cpu'].map((what) => spread(ratios(runs, base.runs, what))))),
      ...(counted ? [subject.syscalls?.toFixed(2) ?? '–'] : []),
    ]
  }))
}

/** The p99 by another's, each of the same round: the machine's stalls make a half of each alone say
 * less. Nothing where the rates differ. */
function inPairs(level, base) {
  if (level === base) return '1.00'
  if (level.rate !== base.rate) return '–'
  const each = ratios(level.runs, base.runs, 'p99')
  const better = each.filter((ratio) => ratio > 1).length
  return `${median(each).toFixed(2)} (better in ${better} of ${each.length})`
}

/** Latency percentiles at each load, in milliseconds, medians over the rounds; and the p99 of a
 * subject by the first one's in the same rounds. */
export function latencyTable(subjects) {
  const [base] = subjects
  const heads = ['', 'load', 'offered requests/s', 'p50 ms [range]', 'p99 ms [range]',
    'p99.9 ms [range]', `p99 by ${base.label}`, 'waited for a connection', 'client late, p99 ms']
  const ms = (value) => (value / 1000).toFixed(2)
  const cell = (runs, what) => {
    const values = runs.map((run) => run[what])
    return `${ms(median(values))} [${ms(Math.min(...values))} – ${ms(Math.max(...values))}]`
  }
  const rows = base.latency.flatMap((_, at) => subjects.map((subject) => {
    const level = subject.latency[at]
    const { load, rate, runs } = level
    const share = median(runs.map((run) => run.waitedForConnection / run.requests))
    return [subject.name, load, String(rate), cell(runs, 'p50'), cell(runs, 'p99'),
      cell(runs, 'p999'), inPairs(level, base.latency[at]), `${(share * 100).toFixed(2)} %`,
      ms(middle(runs, 'clientLateP99'))]
  }))
  return markdown(heads, rows)
}
