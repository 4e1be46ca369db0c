// What script/fleet.mjs stands on: the nodes of a fleet, and calls to them.
import { execFile } from 'node:child_process'
import { mkdir, writeFile } from 'node:fs/promises'
import http from 'node:http'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { parsed, root, start, stop } from './processes.mjs'

const READY_MS = 30_000
const CALL_MS = 10_000
const COMMAND_MS = 30_000

const profile = join(root, 'profiles/asiri')

// -- calls ------------------------------------------------------------------------------------

/** One request on a connection of `agent`, or of its own. Answers with status, headers, body. */
export function call(base, method, path, { key, body, agent = false } = {}) {
  const headers = {}
  if (key) headers.authorization = `Bearer ${key}`
  const payload = body === undefined ? undefined : JSON.stringify(body)
  if (payload !== undefined) {
    headers['content-type'] = 'application/json'
    headers['content-length'] = Buffer.byteLength(payload)
  }
  return new Promise((resolve, reject) => {
    const options = { method, headers, agent, timeout: CALL_MS }
    const request = http.request(base + path, options, (answer) => {
      let text = ''
      answer.setEncoding('utf8')
      answer.on('data', (chunk) => { text += chunk })
      answer.on('error', reject)
      answer.on('end', () => {
        resolve({ status: answer.statusCode, headers: answer.headers, body: parsed(text), text })
      })
    })
    request.on('timeout', () => request.destroy(new Error(`no answer in ${CALL_MS} ms`)))
    request.on('error', reject)
    request.end(payload)
  })
}

/** Runs a command to its end and answers with its stdout. */
export function run(command, arguments_, { input, env = {} } = {}) {
  return new Promise((resolve, reject) => {
    const options = { env: { ...process.env, ...env }, timeout: COMMAND_MS, cwd: root }
    const child = execFile(command, arguments_, options, (error, stdout, stderr) => {
      if (error) reject(new Error(`${command} ${arguments_.join(' ')}: ${stderr || error.message}`))
      else resolve(stdout.trim())
    })
    child.stdin.end(input)
  })
}

// -- the fleet --------------------------------------------------------------------------------

/** Nodes on one database, and the upstream behind all of them. */
export class Fleet {
  constructor(binary, folder, postgres) {
    this.binary = binary
    this.folder = folder
    this.postgres = new URL(postgres)
    this.nodes = []
  }

  file(name) {
    return join(this.folder, name)
  }

  /** The roles, the database and its schema, the secrets, and an administrator. */
  async prepare() {
    await mkdir(this.file('secrets'), { mode: 0o700 })
    const { hostname, port } = this.postgres
    const roles = { owner: 'migrate-url', control: 'store-url' }
    for (const [role, file] of Object.entries(roles)) {
      const password = `fleet-${role}`
      await this.secret(`secrets/${role}-password`, password)
      const address = `postgres://keyward_${role}:${password}@${hostname}:${port}/keyward`
      await this.secret(file, address)
    }
    const env = { PGHOST: hostname, PGPORT: port, SECRETS: this.file('secrets') }
    await run(join(root, 'deploy/compose/postgres/roles.sh'), [], { env })
    await this.keyward(['config', 'init', '--secrets-file', this.file('secrets.toml')])
    const owner = ['--store-migrate-url-file', this.file('migrate-url')]
    await this.keyward(['migrate', 'up', ...owner, ...this.settings('migration')])
    const admin = ['admin', 'create', '--email', 'ada@example.com', '--name', 'Ada',
      '--password-stdin', '--with-token', ...this.settings('admin')]
    this.token = await this.keyward(admin, 'correct horse battery staple')
    await this.secret('token', `${this.token}\n`)
  }

  secret(name, text) {
    return writeFile(this.file(name), text, { mode: 0o600 })
  }

  keyward(arguments_, input) {
    return run(this.binary, arguments_, { input })
  }

  /** Rows of a statement as the superuser, as text. */
  sql(statement, database = 'postgres') {
    const address = new URL(this.postgres)
    address.pathname = `/${database}`
    return run('psql', ['-XAtq', '-v', 'ON_ERROR_STOP=1', '-c', statement, address.href])
  }

  /** How many nodes are on the register. */
  async registered() {
    return Number(await this.sql('SELECT count(*) FROM keyward.nodes', 'keyward'))
  }

  settings(name) {
    return ['--profile', profile, '--data-dir', this.file(name),
      '--secrets-file', this.file('secrets.toml'), '--store-url-file', this.file('store-url')]
  }

  /** The sandbox of the product: that of a `keyward dev` that nobody calls otherwise. */
  async startUpstream() {
    const any = '127.0.0.1:0'
    const arguments_ = ['dev', '--json', '--profile', profile, '--data-dir', this.file('upstream'),
      '--secrets-file', this.file('secrets.toml'), '--control-listen', any, '--internal-listen', any,
      '--gateway-listen', any, '--sandbox-listen', any, '--log-level', 'warn']
    this.upstream = await start(this.binary, 'upstream', arguments_, 'stdout', (line) => line)
  }

  /** Starts a node; one that ran before gets its old addresses. */
  async startNode(position) {
    const before = this.nodes[position]
    const any = { control: '127.0.0.1:0', internal: '127.0.0.1:0', gateway: '127.0.0.1:0' }
    const at = before?.addresses ?? any
    const url = this.upstream.info.sandbox
    const arguments_ = ['serve', ...this.settings(`node-${position + 1}`),
      '--control-listen', at.control, '--internal-listen', at.internal,
      '--gateway-listener', `{ listen = "${at.gateway}", environments = ["live"] }`,
      '--upstream', `{ url = "${url}", audience = "sandbox", environments = ["live"] }`,
      '--gateway-threads', '1', '--shutdown-drain-delay', '1s', '--log-format', 'json',
      '--log-requests=false']
    const isReady = (line) => (line?.msg === 'ready' ? line : undefined)
    const name = `node ${position + 1}`
    const node = await start(this.binary, name, arguments_, 'stderr', isReady)
    const { control, internal, gateways } = node.info
    node.addresses = { control, internal, gateway: gateways.replace(/[[\]]/g, '') }
    node.control = `http://${control}`
    node.internal = `http://${internal}`
    node.gateway = `http://${node.addresses.gateway}`
    this.nodes[position] = node
    await this.untilReady(node)
    return node
  }

  async untilReady(node) {
    const deadline = Date.now() + READY_MS
    for (;;) {
      const answer = await call(node.internal, 'GET', '/readyz').catch(() => undefined)
      if (answer?.status === 200) return
      if (Date.now() > deadline) throw new Error(`${node.name} is not ready: ${answer?.text}`)
      await pause(20)
    }
  }

  /** A tenant, and a service account in it that owns keys. */
  async makeTenant() {
    const admin = (path, body) => this.admin(this.nodes[0], 'POST', path, body)
    const tenant = await admin('/v1/tenants', { name: 'Lagos Pay', slug: 'lagos-pay' })
    const account = { name: 'billing', role: 'owner' }
    const owner = await admin(`/v1/tenants/${tenant.id}/service-accounts`, account)
    this.tenant = tenant.id
    this.owner = owner.id
  }

  /** Calls Keyward's own API through one node; answers with the body of a success. */
  async admin(node, method, path, body) {
    const answer = await call(node.control, method, path, { key: this.token, body })
    if (answer.status >= 300) {
      throw new Error(`${node.name}: ${method} ${path}: ${answer.status} ${answer.text}`)
    }
    return answer.body
  }

  /** A new key through one node. */
  mint(node, name) {
    const body = {
      name, environment: 'live', scopes: ['reports:read'], ownerId: this.owner,
    }
    return this.admin(node, 'POST', `/v1/tenants/${this.tenant}/keys`, body)
  }

  /** Revokes a key through one node. */
  revoke(node, key) {
    const path = `/v1/tenants/${this.tenant}/keys/${key.key.id}/revoke`
    return this.admin(node, 'POST', path, { reason: 'leaked' })
  }

  /** A request of the product with a key through one node. */
  use(node, key, agent) {
    return call(node.gateway, 'GET', '/v1/reports/overview', { key: key.secret, agent })
  }

  /** Ends every process, and answers with how each node ended. */
  async stopAll() {
    const nodes = await Promise.all(this.nodes.map((node) => stop(node)))
    if (this.upstream) await stop(this.upstream)
    return nodes
  }

  logs() {
    return this.nodes.map((node) => `-- ${node.name}\n${node.log().slice(-3_000)}`).join('\n')
  }

  /** The versions of what runs. */
  async describe() {
    const version = await this.sql('SHOW server_version')
    const binary = await this.keyward(['--version'])
    return `${binary}, PostgreSQL ${version}`
  }
}
