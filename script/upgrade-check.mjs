// The upgrade of script/upgrade-check: `node script/upgrade-check.mjs PREVIOUS NEW`, two binaries,
// with the superuser's address of a private PostgreSQL in KEYWARD_TEST_POSTGRES_URL.
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'

import { Fleet, run } from './fleet-nodes.mjs'
import { stop } from './processes.mjs'
import { Traffic, label } from './upgrade-traffic.mjs'

const RUN_MS = 170_000
const NODES = 3
/** What an older binary ends with on a newer schema. */
const NEWER_SCHEMA = 78
/** Writes to wait for through each version that runs, before the next node is touched. */
const WRITES_EACH = 8
const WRITES_MS = 20_000
/** Ended keys that a node which comes up is asked about, the latest ones. */
const ASKED_AGAIN = 20
const STORY_LINES = 10

const [previous, next] = process.argv.slice(2)
const postgres = process.env.KEYWARD_TEST_POSTGRES_URL
if (!previous || !next || !postgres) {
  console.error('usage: script/upgrade-check --previous PATH|GIT-REF [--new PATH]')
  process.exit(64)
}

// -- steps ------------------------------------------------------------------------------------

/** What was expected did not hold; the rest would say nothing. */
class Failed extends Error {}
let passed = 0

async function step(name, work) {
  const notes = []
  try {
    await work((text) => notes.push(text))
  } catch (error) {
    console.log(`✗ ${name}${notes.length ? `  [${notes.join('; ')}]` : ''}`)
    const text = error instanceof Failed ? error.message : error.stack
    for (const line of text.split('\n')) console.log(`    ${line}`)
    throw error
  }
  passed += 1
  console.log(`✓ ${name}${notes.length ? `  [${notes.join('; ')}]` : ''}`)
}

function expectThat(what, holds, got) {
  if (!holds) throw new Failed(`${what}: got ${JSON.stringify(got)}`)
}

// -- nodes of two versions --------------------------------------------------------------------

const past = []

async function startAs(version, position) {
  fleet.binary = version === 'new' ? next : previous
  const node = await fleet.startNode(position)
  // the traffic leaves a node alone until it has a version
  return Object.assign(node, { version, position })
}

/** Stops a node, which must end well and be off the register at once. */
async function leave(node, note) {
  const began = Date.now()
  const ended = await stop(node)
  past.push(node)
  expectThat(`the exit of ${label(node)}`, ended.code === 0, ended)
  const registered = await fleet.registered()
  expectThat('registered without it', registered === NODES - 1, registered)
  note(`stopped in ${Date.now() - began} ms`)
}

/** An older binary refuses to start in the place of a stopped node, and enters nothing. */
async function cannotStart(position) {
  const registered = await fleet.registered()
  fleet.binary = previous
  const ended = await fleet.startNode(position).then(
    async (started) => ({ ...(await stop(started)), code: 'it started' }),
    (error) => error.ended ?? { code: error.message },
  )
  expectThat('the exit of the older binary', ended.code === NEWER_SCHEMA, ended)
  const after = await fleet.registered()
  expectThat('registered as before', after === registered, after)
}

/** The version of the schema. */
async function schema() {
  const text = await fleet.sql('SELECT max(version) FROM keyward.schema_history', 'keyward')
  return Number(text)
}

/** Waits until every version that runs was written through, and shows that all is well so far. */
async function goesOn(note) {
  const from = traffic.writes.length
  const versions = [...new Set(fleet.nodes.map((node) => node.version))]
  const deadline = Date.now() + WRITES_MS
  let counts
  do {
    await pause(100)
    const writes = traffic.writes.slice(from)
    counts = versions.map((version) => writes.filter((it) => it.version === version).length)
  } while (counts.some((count) => count < WRITES_EACH) && Date.now() < deadline && !isBad())
  isWell()
  const registered = await fleet.registered()
  expectThat('registered', registered === NODES, registered)
  const enough = counts.every((count) => count >= WRITES_EACH)
  expectThat(`${WRITES_EACH} writes through each of ${versions}`, enough, counts)
  note(`writes: ${versions.map((version, at) => `${counts[at]} ${version}`).join(', ')}`)
}

const isBad = () => traffic.failures.length + traffic.late.length + traffic.unknown.length > 0

function isWell() {
  const story = (title, lines) => (lines.length === 0 ? [] :
    [`${title}: ${lines.length}`, ...lines.slice(0, STORY_LINES).map((line) => `  ${line}`)])
  const text = [
    ...story('accepted after its end was effective', traffic.late),
    ...story('refused although it is valid', traffic.unknown),
    ...story('failed', traffic.failures),
  ]
  if (text.length > 0) throw new Failed(text.join('\n'))
}

/** Starts this version in the place of a stopped node, which knows what was revoked without it. */
async function comesUp(version, position, note) {
  const began = Date.now()
  const node = await startAs(version, position)
  note(`ready in ${Date.now() - began} ms`)
  const ended = traffic.ended.slice(-ASKED_AGAIN)
  await traffic.staysOver([node], ended)
  note(`refuses ${ended.length} ended keys`)
  await goesOn(note)
}

// -- the upgrade ------------------------------------------------------------------------------

async function prepare(note) {
  await fleet.prepare()
  const known = await fleet.sql("SELECT to_regclass('keyward.nodes') IS NOT NULL", 'keyward')
  expectThat('the previous version has a register of nodes', known === 't', known)
  await fleet.startUpstream()
  for (let position = 0; position < NODES; position += 1) await startAs('previous', position)
  await fleet.makeTenant()
  note(`${await fleet.describe()}, schema ${await schema()}`)
}

async function upgrade() {
  const before = await schema()
  await step('the new binary migrates the schema while the previous one serves', async (note) => {
    fleet.binary = next
    const owner = ['--store-migrate-url-file', fleet.file('migrate-url')]
    await fleet.keyward(['migrate', 'up', ...owner, ...fleet.settings('migration')])
    note(`schema ${before} to ${await schema()}`)
    await goesOn(note)
  })
  const isNewer = (await schema()) > before
  for (const position of fleet.nodes.keys()) {
    await step(`node ${position + 1} is upgraded`, async (note) => {
      await leave(fleet.nodes[position], note)
      if (isNewer && position === 0) {
        await cannotStart(position)
        note(`the older binary would end with ${NEWER_SCHEMA}, where it runs it goes on`)
      }
      await comesUp('new', position, note)
    })
  }
  return isNewer
}

async function goBack(isNewer) {
  for (const position of fleet.nodes.keys()) {
    const name = `node ${position + 1}`
    const what = isNewer
      ? `${name} cannot go back: the older binary ends with ${NEWER_SCHEMA}, the others go on`
      : `${name} goes back`
    await step(what, async (note) => {
      await leave(fleet.nodes[position], note)
      if (isNewer) await cannotStart(position)
      await comesUp(isNewer ? 'new' : 'previous', position, note)
    })
  }
}

async function judge() {
  await step('no request failed, and none was accepted after its key was over', async (note) => {
    await traffic.staysOver(fleet.nodes)
    await traffic.stop()
    isWell()
    const of = (kind) => traffic.writes.filter((it) => it.kind === kind).length
    note(`${traffic.sent} requests of the load, ${traffic.retried} requests sent elsewhere, ` +
      `${traffic.slowestMs} ms the slowest of the load`)
    note(`${of('create')} creates, ${of('rotate')} rotations, ${of('revoke')} revocations, ` +
      `${traffic.writes.filter((it) => it.mixed).length} of them while both versions ran`)
    const waits = traffic.waits.sort((a, b) => a - b)
    note(`${traffic.checks} answers to their keys, ${traffic.ended.length} keys over: answered ` +
      `after ${waits[waits.length >> 1]} ms in the middle, ${waits.at(-1)} ms at most`)
  })
  await step('stopped, every node ends with 0 and leaves the register', async () => {
    const ended = await Promise.all(fleet.nodes.map((node) => stop(node)))
    expectThat('exits', ended.every((it) => it.code === 0), ended)
    const registered = await fleet.registered()
    expectThat('registered', registered === 0, registered)
  })
}

// -- from start to end ------------------------------------------------------------------------

const begun = Date.now()
const folder = await mkdtemp(join(tmpdir(), 'keyward-upgrade-'))
const fleet = new Fleet(previous, folder, postgres)
const traffic = new Traffic(fleet)

async function clean() {
  traffic.going = false
  await fleet.stopAll()
  await rm(folder, { recursive: true, force: true })
}
function giveUp(why, code) {
  console.log(`✗ ${why}\n${fleet.logs()}`)
  clean().finally(() => process.exit(code))
}
for (const name of ['SIGINT', 'SIGTERM']) process.once(name, () => giveUp(name, 130))
const overdue = setTimeout(() => giveUp(`took more than ${RUN_MS / 1000} s`, 1), RUN_MS)

try {
  const versions = await Promise.all([previous, next].map((it) => run(it, ['--version'])))
  console.log(`previous: ${previous} (${versions[0]})\nnew: ${next} (${versions[1]})`)
  await step(`${NODES} nodes of the previous version get ready`, prepare)
  await step('under load, keys are made, rotated and revoked through every node', async (note) => {
    await traffic.start()
    await goesOn(note)
  })
  await goBack(await upgrade())
  await judge()
} catch (error) {
  const ends = past.map((node) => `-- ${label(node)}, stopped\n${node.log().slice(-1_500)}`)
  console.log(`\nThe ends of the logs:\n${[...ends, fleet.logs()].join('\n')}`)
  process.exitCode = 1
}
clearTimeout(overdue)
await clean()
const seconds = ((Date.now() - begun) / 1000).toFixed(1)
console.log(`\n${passed} passed, ${process.exitCode ? '1 failed' : '0 failed'}, ${seconds} s`)
