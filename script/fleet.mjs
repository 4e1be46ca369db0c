// The fleet of script/fleet: `node script/fleet.mjs PATH-TO-keyward stay|smoke NODES`, with the
// superuser's address of a private PostgreSQL in KEYWARD_TEST_POSTGRES_URL.
import http from 'node:http'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'

import { Fleet, call } from './fleet-nodes.mjs'
import { stop } from './processes.mjs'

const RUN_MS = 150_000
/** A node that is away holds up a revocation for its lease, which is 2 s, and a margin. */
const DEAD_NODE_MS = 2_300
/** How often the load looks which nodes are ready, as a load balancer would. */
const PROBE_MS = 100
const LOAD_CLIENTS = 8
const LOAD_PAUSE_MS = 10
const HEALTHY_REVOCATIONS = 25

const [binary, mode, count] = process.argv.slice(2)
const postgres = process.env.KEYWARD_TEST_POSTGRES_URL
if (!binary || !['stay', 'smoke'].includes(mode) || !(Number(count) >= 1) || !postgres) {
  console.error('usage: script/fleet [--smoke] [--nodes 1..7]')
  process.exit(64)
}

// -- steps ------------------------------------------------------------------------------------

class Failed extends Error {}
const results = { passed: 0, failed: 0 }
let notes = []
const note = (text) => notes.push(text)
const show = (value) => JSON.stringify(value)

async function step(name, work) {
  notes = []
  try {
    await work()
    results.passed += 1
    console.log(`✓ ${name}${notes.length ? `  [${notes.join('; ')}]` : ''}`)
  } catch (error) {
    results.failed += 1
    console.log(`✗ ${name}`)
    const text = error instanceof Failed ? error.message : error.stack
    for (const line of text.split('\n')) console.log(`    ${line}`)
  }
}

function expectThat(what, holds, got) {
  if (!holds) throw new Failed(`${what}: got ${show(got)}`)
}

/** Every one of these nodes accepts the key. */
async function accepted(fleet, nodes, key) {
  const answers = await Promise.all(nodes.map((node) => fleet.use(node, key)))
  const statuses = answers.map((answer) => answer.status)
  expectThat('accepted everywhere', statuses.every((status) => status === 200), statuses)
}

/** Every one of these nodes refuses the key, because it was revoked. */
async function refused(fleet, nodes, key) {
  const answers = await Promise.all(nodes.map((node) => fleet.use(node, key)))
  const got = answers.map((it) => [it.status, it.body?.error?.code, it.body?.error?.details?.reason])
  const holds = got.every((it) => show(it) === show([401, 'unauthorized', 'revoked']))
  expectThat('refused everywhere', holds, got)
}

/** Revokes through one node, and shows that the others refuse what is sent after the answer. */
async function revoked(fleet, through, others, key) {
  const { fence } = await fleet.revoke(through, key)
  await refused(fleet, [...others, through], key)
  expectThat('effective', fence.status === 'effective', fence)
  return fence
}

// -- load -------------------------------------------------------------------------------------

/** Callers behind a balancer that asks each node whether it is ready. */
class Load {
  constructor(fleet, key) {
    Object.assign(this, { fleet, key, sent: 0, failures: [], ready: [], going: true, turn: 0 })
    this.agents = new Map()
  }

  async start() {
    await this.probe()
    this.tasks = [this.probing(), ...Array.from({ length: LOAD_CLIENTS }, () => this.calling())]
  }

  async probe() {
    const asked = await Promise.all(this.fleet.nodes.map(async (node) => {
      const answer = await call(node.internal, 'GET', '/readyz').catch(() => undefined)
      return answer?.status === 200 ? node : undefined
    }))
    this.ready = asked.filter(Boolean)
  }

  async probing() {
    while (this.going) {
      await pause(PROBE_MS)
      await this.probe()
    }
  }

  agent(node) {
    const known = this.agents.get(node.gateway) ?? new http.Agent({ keepAlive: true })
    this.agents.set(node.gateway, known)
    return known
  }

  async calling() {
    while (this.going) {
      this.turn += 1
      const node = this.ready[this.turn % this.ready.length]
      if (!node) {
        // the only one restarts, and there is nowhere to go
        await pause(LOAD_PAUSE_MS)
        continue
      }
      this.sent += 1
      try {
        const answer = await this.fleet.use(node, this.key, this.agent(node))
        if (answer.status !== 200) this.failures.push(`${node.name}: ${answer.status} ${answer.text}`)
      } catch (error) {
        this.failures.push(`${node.name}: ${error.code ?? error.message}`)
      }
      await pause(LOAD_PAUSE_MS)
    }
  }

  async stop() {
    this.going = false
    await Promise.all(this.tasks)
    for (const agent of this.agents.values()) agent.destroy()
  }
}

// -- the two ways to run ----------------------------------------------------------------------

/** What one sees in both: one key, three nodes, one revocation. */
async function showRevocation(fleet) {
  const [first, ...others] = fleet.nodes
  let key
  await step('a key made through node 1 is accepted on every node at once', async () => {
    key = await fleet.mint(first, 'first')
    await accepted(fleet, fleet.nodes, key)
    note(`${key.key.id} on ${fleet.nodes.length} nodes`)
  })
  await step('revoked through node 1, it is refused on every node once that is answered', async () => {
    const fence = await revoked(fleet, first, others, key)
    note(`${fence.status}, epoch ${fence.epoch}, ${fence.nodes} nodes, waited ${fence.waitedMs} ms`)
    expectThat('nodes', fence.nodes === fleet.nodes.length, fence)
  })
}

async function smoke(fleet) {
  await step(`${HEALTHY_REVOCATIONS} more, through every node in turn`, async () => {
    const waits = []
    for (let turn = 0; turn < HEALTHY_REVOCATIONS; turn += 1) {
      const through = fleet.nodes[turn % fleet.nodes.length]
      const key = await fleet.mint(through, `turn-${turn}`)
      await accepted(fleet, fleet.nodes, key)
      const rest = fleet.nodes.filter((node) => node !== through)
      waits.push((await revoked(fleet, through, rest, key)).waitedMs)
    }
    waits.sort((a, b) => a - b)
    note(`waited ${waits[waits.length >> 1]} ms in the middle, ${waits.at(-1)} ms at most`)
  })
  await rollingRestart(fleet)
  await step('every node that stopped is off the register', async () => {
    const registered = await fleet.registered()
    expectThat('registered', registered === fleet.nodes.length, registered)
    note(`${registered} registered`)
  })
  if (fleet.nodes.length > 1) await withADeadNode(fleet)
  await step('stopped, every node ends with 0', async () => {
    const ended = await Promise.all(fleet.nodes.map((node) => stop(node)))
    expectThat('exits', ended.every((it) => it.code === 0), ended)
    // the one that was killed is forgotten by and by
    const registered = await fleet.registered()
    expectThat('registered', registered <= 1, registered)
  })
  await step('no key and no token is in a log', async () => {
    const log = fleet.nodes.map((node) => node.log()).join('')
    expectThat('the token', !log.includes(fleet.token.split('_').at(-1)), 'found')
    note(`${log.length} characters searched`)
  })
}

async function withADeadNode(fleet) {
  const [first] = fleet.nodes
  const dead = fleet.nodes.at(-1)
  const alive = fleet.nodes.filter((node) => node !== dead)
  let key
  await step('with a node killed, a revocation waits until its lease is over', async () => {
    key = await fleet.mint(first, 'survivor')
    await accepted(fleet, fleet.nodes, key)
    await stop(dead, 'SIGKILL')
    const fence = await revoked(fleet, first, alive.slice(1), key)
    note(`${fence.status}, ${fence.nodes} nodes, waited ${fence.waitedMs} ms`)
    expectThat('waited no longer', fence.waitedMs <= DEAD_NODE_MS, fence)
  })
  await step('started again, the node refuses what was revoked without it', async () => {
    const again = await fleet.startNode(fleet.nodes.indexOf(dead))
    await refused(fleet, [again], key)
  })
}

async function rollingRestart(fleet) {
  const key = await fleet.mint(fleet.nodes[0], 'load')
  const load = new Load(fleet, key)
  await load.start()
  for (const position of fleet.nodes.keys()) {
    const leaving = fleet.nodes[position]
    await step(`${leaving.name} restarts under load`, async () => {
      const began = Date.now()
      const ended = await stop(leaving)
      const took = Date.now() - began
      expectThat('exit', ended.code === 0, ended)
      const left = fleet.nodes.filter((node) => node !== leaving)
      if (left.length > 0) {
        // it said good-bye, so nobody waits for it
        const fence = await revoked(fleet, left[0], left.slice(1), await fleet.mint(left[0], 'x'))
        expectThat('nodes', fence.nodes >= left.length && fence.waitedMs < DEAD_NODE_MS / 2, fence)
        note(`meanwhile a revocation waited ${fence.waitedMs} ms`)
      }
      await fleet.startNode(position)
      note(`stopped in ${took} ms`)
    })
  }
  await load.stop()
  await step('no request of the load failed', async () => {
    expectThat('failures', load.failures.length === 0, load.failures.slice(0, 5))
    note(`${load.sent} requests`)
  })
}

async function stay(fleet) {
  const key = await fleet.mint(fleet.nodes[0], 'demo')
  console.log(`\nThe fleet is up. Ctrl-C stops it.\n`)
  for (const node of fleet.nodes) {
    const { name, control, gateway, internal, child } = node
    console.log(`  ${name}  gateway ${gateway}  control ${control}  internal ${internal}` +
      `  process ${child.pid}`)
  }
  console.log(`  upstream (the sandbox) ${fleet.upstream.info.sandbox}`)
  console.log(`  PostgreSQL ${fleet.postgres.href.replace(/[^/]*$/, 'keyward')}`)
  const [first] = fleet.nodes
  const last = fleet.nodes.at(-1)
  console.log(`\nTry: the key works on the last node, is revoked through the first, and then not.\n
  export KEYWARD_TOKEN_FILE=${fleet.file('token')} KEYWARD_URL=${first.control}
  export KEYWARD_TENANT=lagos-pay
  curl -s -H 'Authorization: Bearer ${key.secret}' ${last.gateway}/v1/reports/overview
  ${fleet.binary} key revoke ${key.key.id} --reason leaked --yes
  curl -s -H 'Authorization: Bearer ${key.secret}' ${last.gateway}/v1/reports/overview
  kill -STOP ${last.child.pid}    # a node that hangs: what is revoked now waits for its lease
`)
  await interrupted
}

// -- from start to end ------------------------------------------------------------------------

const begun = Date.now()
const folder = await mkdtemp(join(tmpdir(), 'keyward-fleet-'))
const fleet = new Fleet(binary, folder, postgres)
let interrupt
const interrupted = new Promise((resolve) => { interrupt = resolve })
async function clean() {
  await fleet.stopAll()
  await rm(folder, { recursive: true, force: true })
}
for (const name of ['SIGINT', 'SIGTERM']) {
  process.once(name, () => {
    interrupt()
    if (mode === 'smoke') clean().finally(() => process.exit(130))
  })
}
const overdue = setTimeout(() => {
  console.log(`✗ the fleet took more than ${RUN_MS / 1000} s\n${fleet.logs()}`)
  clean().finally(() => process.exit(1))
}, RUN_MS)

try {
  await step(`${count} nodes on one PostgreSQL get ready`, async () => {
    await fleet.prepare()
    await fleet.startUpstream()
    for (let position = 0; position < Number(count); position += 1) await fleet.startNode(position)
    await fleet.makeTenant()
    note(`${Date.now() - begun} ms, ${await fleet.describe()}`)
  })
  if (results.failed === 0) await showRevocation(fleet)
  if (mode === 'smoke' && results.failed === 0) {
    await smoke(fleet)
  } else if (results.failed === 0) {
    clearTimeout(overdue)
    await stay(fleet)
  }
} catch (error) {
  results.failed += 1
  console.log(`✗ the fleet broke off: ${error.stack}`)
}
clearTimeout(overdue)
if (results.failed > 0) console.log(`\nThe ends of the logs:\n${fleet.logs()}`)
await clean()
const seconds = ((Date.now() - begun) / 1000).toFixed(1)
if (mode === 'smoke') {
  console.log(`\n${results.passed} passed, ${results.failed} failed, ${seconds} s`)
}
process.exitCode = results.failed > 0 ? 1 : 0
