// Draws runs of bench/run: `node bench/plot.mjs RUN.json…` writes bench/plots/COMPARISON.svg.
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { median } from './servers.mjs'

const FOLDER = join(import.meta.dirname, 'plots')
const WIDTH = 820
const NAMES = 210
const VALUES = 120
const ROW = 26
const BAR = 14
const [LEFT, RIGHT] = [NAMES, WIDTH - VALUES]
const LATENCIES = ['p50', 'p99', 'p999']

/** Readable on light and dark pages alike. */
const STYLE = `
  svg { background: #ffffff; font: 12px system-ui, sans-serif; fill: #1f2328; }
  .title { font-size: 15px; font-weight: 600; }
  .head { font-weight: 600; }
  .quiet { fill: #59636e; }
  .grid { stroke: #d1d9e0; stroke-width: 1; }
  .range { stroke: #1f2328; stroke-width: 1.5; }
  .first { fill: #2f6feb; } .second { fill: #94b8ff; } .third { fill: #d29922; }
  .p50 { fill: #2f6feb; } .p99 { fill: #bc4c00; } .p999 { fill: #8250df; }
  @media (prefers-color-scheme: dark) {
    svg { background: #0d1117; fill: #f0f6fc; }
    .quiet { fill: #9198a1; }
    .grid { stroke: #3d444d; }
    .range { stroke: #f0f6fc; }
    .first { fill: #4493f8; } .second { fill: #1f4f99; }
    .p50 { fill: #4493f8; } .p99 { fill: #f0883e; } .p999 { fill: #ab7df8; }
  }
`

const escaped = (text) => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;')
const text = (x, y, words, kind = '', anchor = 'start') =>
  `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" class="${kind}" text-anchor="${anchor}">${
    escaped(words)}</text>`
const line = (x1, y1, x2, y2, kind) =>
  `<line x1="${x1.toFixed(1)}" y1="${y1.toFixed(1)}" x2="${x2.toFixed(1)}" y2="${y2.toFixed(1)}"`
  + ` class="${kind}"/>`
const bar = (x, y, width, kind) =>
  `<rect x="${x.toFixed(1)}" y="${y.toFixed(1)}" width="${Math.max(0, width).toFixed(1)}"`
  + ` height="${BAR}" class="${kind}"/>`
const dot = (x, y, kind) => `<circle cx="${x.toFixed(1)}" cy="${y.toFixed(1)}" r="4.5" class="${
  kind}"/>`

/** A step of 1, 2 or 5 times a power of ten that gives about five lines. */
function stepFor(most) {
  const power = 10 ** Math.floor(Math.log10(most / 5))
  return [1, 2, 5, 10].map((it) => it * power).find((it) => most / it <= 6)
}

/** The panels of one drawing, below each other. */
class Drawing {
  parts = []
  y = 0

  add(...parts) { this.parts.push(...parts) }

  head(words, legend = []) {
    this.y += 30
    this.add(text(12, this.y, words, 'head'))
    let x = RIGHT
    for (const [label, kind] of legend.toReversed()) {
      x -= 9 + label.length * 7
      this.add(dot(x, this.y - 4, kind), text(x + 8, this.y, label, 'quiet'))
      x -= 12
    }
    this.y += 8
  }

  /** Lines across the rows that follow, and what they stand for below. */
  grid(rows, marks) {
    const bottom = this.y + rows * ROW
    for (const [x, label] of marks) {
      this.add(line(x, this.y, x, bottom, 'grid'), text(x, bottom + 14, label, 'quiet', 'middle'))
    }
  }

  svg() {
    const height = this.y + 16
    return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${
      WIDTH}" height="${height}" role="img">\n<style>${STYLE}</style>\n${
      this.parts.join('\n')}\n</svg>\n`
  }
}

/** Bars of medians, one class for each part of a value, with the range of the rounds. */
function bars(drawing, title, subjects, parts, shown) {
  const whole = (run) => parts.reduce((sum, [what]) => sum + run[what], 0)
  const most = Math.max(...subjects.flatMap(({ runs }) => runs.map(whole)))
  const at = (value) => LEFT + value / most * (RIGHT - LEFT)
  drawing.head(title, parts.length > 1 ? parts.map(([, label, kind]) => [label, kind]) : [])
  const step = stepFor(most)
  const marks = Array.from({ length: Math.floor(most / step) + 1 }, (_, count) => count * step)
  drawing.grid(subjects.length, marks.map((value) => [at(value), shown(value)]))
  for (const { label, runs } of subjects) {
    const top = drawing.y + (ROW - BAR) / 2
    const middle = drawing.y + ROW / 2
    drawing.add(text(LEFT - 8, middle + 4, label, '', 'end'))
    let from = 0
    for (const [what, , kind] of parts) {
      const value = median(runs.map((run) => run[what]))
      drawing.add(bar(at(from), top, at(from + value) - at(from), kind))
      from += value
    }
    const all = runs.map(whole)
    drawing.add(line(at(Math.min(...all)), middle, at(Math.max(...all)), middle, 'range'))
    drawing.add(text(RIGHT + 8, middle + 4, shown(median(all))))
    drawing.y += ROW
  }
  drawing.y += 20
}

/** Percentiles on a logarithmic scale, with the range of the rounds. */
function percentiles(drawing, subjects, position) {
  const values = subjects.flatMap(({ latency }) => latency
    .flatMap(({ runs }) => runs.flatMap((run) => LATENCIES.map((what) => run[what]))))
  const low = 10 ** Math.floor(Math.log10(Math.max(1, Math.min(...values))))
  const high = Math.max(...values, low * 10)
  const at = (value) => LEFT + Math.log(Math.max(value, low) / low) / Math.log(high / low)
    * (RIGHT - LEFT)
  const { load } = subjects[0].latency[position]
  drawing.head(`Latency at ${load}, ms (logarithmic)`,
    [['p50', 'p50'], ['p99', 'p99'], ['p99.9', 'p999']])
  const decades = Math.floor(Math.log10(high / low)) + 1
  const marks = Array.from({ length: decades }, (_, count) => low * 10 ** count)
  drawing.grid(subjects.length, marks.map((value) => [at(value), String(value / 1000)]))
  for (const { label, latency } of subjects) {
    const { runs, rate } = latency[position]
    const middle = drawing.y + ROW / 2
    drawing.add(text(LEFT - 8, middle + 4, label, '', 'end'))
    for (const what of LATENCIES) {
      const seen = runs.map((run) => run[what])
      drawing.add(line(at(Math.min(...seen)), middle, at(Math.max(...seen)), middle, 'range'))
      drawing.add(dot(at(median(seen)), middle, what))
    }
    drawing.add(text(RIGHT + 8, middle + 4, `${(rate / 1000).toFixed(1)} k requests/s`, 'quiet'))
    drawing.y += ROW
  }
  drawing.y += 20
}

function draw(record) {
  const { comparison, circumstances, rounds, seconds, connections, keys, subjects } = record
  const drawing = new Drawing()
  drawing.y = 24
  drawing.add(text(12, drawing.y, comparison, 'title'))
  for (const words of [circumstances,
    `${rounds} rounds of ${seconds} s in turn, ${connections} connections, ${keys} keys; `
    + 'medians, and the range of the rounds as a line']) {
    drawing.y += 18
    drawing.add(text(12, drawing.y, words, 'quiet'))
  }
  bars(drawing, 'Requests/s (more is better)', subjects, [['perSecond', '', 'first']],
    (value) => `${(value / 1000).toFixed(1)} k`)
  bars(drawing, 'CPU of the servers, µs/request (less is better)', subjects,
    [['user', 'user', 'first'], ['system', 'system', 'second']],
    (value) => value.toFixed(1))
  const levels = subjects[0].latency ?? []
  for (const position of levels.keys()) percentiles(drawing, subjects, position)
  return drawing.svg()
}

const files = process.argv.slice(2)
if (files.length === 0) {
  console.error('usage: bench/plot RUN.json…')
  process.exit(64)
}
await mkdir(FOLDER, { recursive: true })
for (const file of files) {
  const record = JSON.parse(await readFile(file, 'utf8'))
  const drawn = join(FOLDER, `${record.comparison}.svg`)
  await writeFile(drawn, draw(record))
  console.log(drawn)
}
