// What happens to the nodes of script/upgrade-check.mjs while they are upgraded: a steady load, and
// keys that are created, rotated and revoked through any of them.
import http from 'node:http'
import { setTimeout as pause } from 'node:timers/promises'

import { call } from './fleet-nodes.mjs'

/** How often it is looked which nodes are ready, as a load balancer would. */
const PROBE_MS = 100
const LOAD_CLIENTS = 6
const LOAD_PAUSE_MS = 15
const WRITERS = 2
const WRITE_PAUSE_MS = 60
/** Nodes tried for one request that never began. */
const TRIES = 10
const TRY_PAUSE_MS = 50
/** Keys a writer keeps before it revokes some. */
const POOL = 4
const OVERLAP_S = 600
const MAX_STORY = 50

/** Nothing of the request was sent: there was no connection, or it took no byte any more. */
const unsent = (error) => error.syscall === 'connect' || error.code === 'EPIPE'

const pick = (list) => list[Math.floor(Math.random() * list.length)]

export class Traffic {
  constructor(fleet) {
    Object.assign(this, { fleet, ready: [], going: false, tasks: [], agents: new Set() })
    Object.assign(this, { sent: 0, retried: 0, checks: 0, writes: [], ended: [], waits: [], slowestMs: 0 })
    // what went wrong, as lines to read
    Object.assign(this, { failures: [], late: [], unknown: [] })
    this.began = Date.now()
  }

  tell(list, text) {
    if (list.length < MAX_STORY) list.push(`${Date.now() - this.began} ms: ${text}`)
  }

  // -- which nodes --------------------------------------------------------------------------

  async probe() {
    const asked = await Promise.all(this.fleet.nodes.map(async (node) => {
      const answer = await call(node.internal, 'GET', '/readyz').catch(() => undefined)
      return answer?.status === 200 && node.version ? node : undefined
    }))
    this.ready = asked.filter(Boolean)
  }

  async probing() {
    while (this.going) {
      await pause(PROBE_MS)
      await this.probe()
    }
  }

  /** Sends through a ready node, and through another one when nothing could be sent. */
  async through(choose, send) {
    for (let left = TRIES; ; left -= 1) {
      const node = choose(this.ready)
      try {
        if (!node) throw Object.assign(new Error('no node is ready'), { syscall: 'connect' })
        return { node, answer: await send(node) }
      } catch (error) {
        if (!unsent(error) || left === 0) {
          throw new Error(`${label(node)}: ${error.code ?? error.message}`)
        }
        this.retried += 1
        await pause(TRY_PAUSE_MS)
      }
    }
  }

  // -- the load -----------------------------------------------------------------------------

  async start() {
    this.going = true
    await this.probe()
    this.keys = []
    for (const node of this.fleet.nodes) this.keys.push(await this.fleet.mint(node, 'load'))
    this.tasks = [
      this.probing(),
      ...Array.from({ length: LOAD_CLIENTS }, (_, client) => this.calling(client)),
      ...Array.from({ length: WRITERS }, () => this.writing()),
    ]
  }

  /** A client that keeps its connections, prefers one node, and has every load key in turn. */
  async calling(client) {
    const agents = this.fleet.nodes.map(() => new http.Agent({ keepAlive: true, maxSockets: 1 }))
    for (const agent of agents) this.agents.add(agent)
    for (let turn = 0; this.going; turn += 1) {
      const home = this.fleet.nodes[client % this.fleet.nodes.length]
      const key = this.keys[turn % this.keys.length]
      const choose = (ready) => (ready.includes(home) ? home : pick(ready))
      const began = Date.now()
      this.sent += 1
      try {
        const { node, answer } = await this.through(choose, (node) =>
          this.fleet.use(node, key, agents[node.position]))
        if (answer.status !== 200) {
          this.tell(this.failures, `load on ${label(node)}: ${answer.status} ${answer.text}`)
        }
      } catch (error) {
        this.tell(this.failures, `load on ${error.message}`)
      }
      this.slowestMs = Math.max(this.slowestMs, Date.now() - began)
      await pause(LOAD_PAUSE_MS)
    }
  }

  // -- the writes ---------------------------------------------------------------------------

  async writing() {
    const pool = []
    while (this.going) {
      try {
        await this.write(pool)
      } catch (error) {
        this.tell(this.failures, `write: ${error.message}`)
      }
      await pause(WRITE_PAUSE_MS)
    }
  }

  /** One write of a random kind, through a random node, and what must hold everywhere after it. */
  async write(pool) {
    const kind = pool.length < 2 ? 'create' : pick(['create', 'revoke', 'rotate'])
    if (kind === 'create' && pool.length < POOL) {
      const { node, answer } = await this.through(pick, (node) => this.fleet.mint(node, 'made'))
      this.wrote('create', node)
      await this.works(answer, `created through ${label(node)}`)
      pool.push(answer)
    } else if (kind === 'rotate' && !pool[0].rotated) {
      await this.rotate(pool)
    } else {
      const [key] = pool.splice(0, 1)
      // in the memory of every node, which a node that was asked for it must forget
      await this.works(key, 'before its revocation')
      const { node, answer } = await this.through(pick, (node) => this.fleet.revoke(node, key))
      this.wrote('revoke', node)
      await this.isOver(key, answer.fence, `revoked through ${label(node)}`)
    }
  }

  async rotate(pool) {
    const [key] = pool.splice(0, 1)
    const overlapSeconds = pick([0, OVERLAP_S])
    await this.works(key, 'before its rotation')
    const path = `/v1/tenants/${this.fleet.tenant}/keys/${key.key.id}/rotate`
    const { node, answer } = await this.through(pick, (node) =>
      this.fleet.admin(node, 'POST', path, { overlapSeconds }))
    this.wrote('rotate', node)
    const how = `rotated through ${label(node)}`
    if (overlapSeconds === 0) await this.isOver(key, answer.fence, how)
    await this.works(answer, how)
    if (overlapSeconds > 0) {
      await this.works(key, `${how}, in its overlap`)
      pool.push({ ...key, rotated: true })
    }
    pool.push(answer)
  }

  wrote(kind, node) {
    this.writes.push({ kind, version: node.version, mixed: this.isMixed() })
  }

  isMixed() {
    return new Set(this.ready.map((node) => node.version)).size > 1
  }

  // -- what must hold -----------------------------------------------------------------------

  /** What the nodes answer to a key; of those among them that still take connections. */
  async ask(nodes, key) {
    const answers = await Promise.all(nodes.map(async (node) => {
      try {
        return { node, answer: await this.fleet.use(node, key) }
      } catch (error) {
        // it has stopped since it was looked at: it accepts nothing
        if (unsent(error)) return undefined
        this.tell(this.failures, `check on ${label(node)}: ${error.code ?? error.message}`)
        return undefined
      }
    }))
    const given = answers.filter(Boolean)
    this.checks += given.length
    return given
  }

  /** Every ready node accepts the key. */
  async works(key, how) {
    for (const { node, answer } of await this.ask(this.ready, key)) {
      if (answer.status === 200) continue
      const list = answer.status === 401 ? this.unknown : this.failures
      this.tell(list, `${key.key.id}, ${how}, on ${label(node)}: ${answer.status} ${answer.text}`)
    }
  }

  /** Its end was answered `effective`, and no ready node accepts it now. */
  async isOver(key, fence, how) {
    if (fence.status !== 'effective') {
      this.tell(this.failures, `${key.key.id}, ${how}: ${JSON.stringify(fence)}`)
      return
    }
    this.waits.push(fence.waitedMs)
    const ended = { key, how: `${how}, ${JSON.stringify(fence)}` }
    this.ended.push(ended)
    await this.staysOver(this.ready, [ended])
  }

  /** None of these nodes accepts a key of those that were answered to be over. */
  async staysOver(nodes, ended = this.ended) {
    for (const { key, how } of ended) {
      for (const { node, answer } of await this.ask(nodes, key)) {
        if (answer.status === 401) continue
        const list = answer.status < 300 ? this.late : this.failures
        this.tell(list, `${key.key.id}, ${how}, then on ${label(node)}: ${answer.status}`)
      }
    }
  }

  async stop() {
    this.going = false
    await Promise.all(this.tasks)
    for (const agent of this.agents) agent.destroy()
  }
}

/** How a node is called in what is printed. */
export function label(node) {
  return node ? `${node.name} (${node.version})` : 'no node'
}
