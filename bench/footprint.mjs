// Start-to-ready time and idle memory of the release binary; see bench/footprint.
import { setTimeout as pause } from 'node:timers/promises'
import * as keyward from './keyward.mjs'
import { circumstances, inFolder, median, residentMegabytes } from './servers.mjs'

/** How long a node is left alone before its memory is read. */
const IDLE_MS = 3_000
const runs = Number(process.argv[2])
if (!Number.isInteger(runs) || runs < 1) {
  console.error('usage: bench/footprint [RUNS]')
  process.exit(64)
}

const seen = { new: [], again: [], memory: [] }
for (let run = 0; run < runs; run += 1) {
  await inFolder(async (place) => {
    for (const kind of ['new', 'again']) {
      const configured = await keyward.configure(place, 'http://127.0.0.1:9')
      const begun = performance.now()
      const node = await keyward.serve(place, undefined, configured)
      seen[kind].push(performance.now() - begun)
      await pause(IDLE_MS)
      if (kind === 'again') seen.memory.push(residentMegabytes(node.pid))
      node.server.child.kill('SIGTERM')
      await node.server.exited
    }
  })
}
const shown = (values, digits) => `${median(values).toFixed(digits)} [${
  Math.min(...values).toFixed(digits)} – ${Math.max(...values).toFixed(digits)}]`
console.log(`${circumstances()}; ${runs} runs

| | median [range] |
| --- | --- |
| start to ready, new data directory | ${shown(seen.new, 0)} ms |
| start to ready, data directory in place | ${shown(seen.again, 0)} ms |
| resident memory after ${IDLE_MS / 1000} s idle | ${shown(seen.memory, 1)} MB |`)
