// A deployment of Keyward for the benchmarks: `keyward serve` on SQLite with the profile asiri.
import { execFileSync } from 'node:child_process'
import { cp } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { answers, binaries, freePorts, privateFile } from './servers.mjs'

const MINT_AT_ONCE = 8
export const binary = process.env.BENCH_KEYWARD ?? join(binaries, 'keyward')

/**
 * Settings of a node whose upstream is this address: request log off, one gateway thread. What may
 * change are the `protocol` of the upstream, proxies that are `trusted`, and the folder of `data`;
 * with a `certificate` the gateway also listens for TLS.
 */
export async function configure({ folder }, upstream, changes = {}) {
  const { protocol = 'auto', trusted = [], data = 'data', certificate } = changes
  const [gateway, control, internal, secure] = await freePorts(4)
  const config = join(folder, `${data}.toml`)
  await privateFile(config, `
environment = "development"
data-dir = ${JSON.stringify(join(folder, data))}
profile = ${JSON.stringify(resolve('profiles/asiri'))}
[control]
listen = "127.0.0.1:${control}"
[internal]
listen = "127.0.0.1:${internal}"
[gateway]
threads = 1
trusted-proxies = ${JSON.stringify(trusted)}
[[gateway.listener]]
listen = "127.0.0.1:${gateway}"
environments = ["live"]
[[upstream]]
environments = ["live"]
url = "${upstream}"
protocol = "${protocol}"
audience = "bench"
[log]
requests = false
[shutdown]
drain-delay = "0s"
${certificate === undefined ? '' : secureListener(secure, certificate)}`)
  const url = (port) => `http://127.0.0.1:${port}`
  return {
    config,
    gateway: url(gateway),
    control: url(control),
    internal: url(internal),
    secure: `https://127.0.0.1:${secure}`,
  }
}

const secureListener = (port, { chain, key }) => `
[[gateway.listener]]
listen = "127.0.0.1:${port}"
environments = ["live"]
tls = { certificate = [{ chain-file = "${chain}", key-file = "${key}" }] }
`

/** A node with the same keys as one that has been stopped, and other settings. */
export async function copied({ folder }, upstream, changes) {
  await cp(join(folder, 'data'), join(folder, changes.data), { recursive: true })
  return configure({ folder }, upstream, changes)
}

/** Starts a configured node and waits until it is ready. */
export async function serve({ start }, core, configured) {
  const server = start(core, binary, ['serve', '--config', configured.config])
  await answers(server, `${configured.internal}/readyz`)
  return { ...configured, server, pid: server.pid }
}

/** Makes the first administrator, before the node starts, and answers with their admin token. */
export function administrator(node) {
  const arguments_ = ['admin', 'create', '--email', 'bench@example.com', '--name', 'Bench',
    '--password-stdin', '--with-token', '--config', node.config]
  return execFileSync(binary, arguments_, {
    input: 'a password for a benchmark', encoding: 'utf8', stdio: ['pipe', 'pipe', 'pipe'],
  }).trim()
}

/** A call of Keyward's own API. */
export async function call(node, method, path, body) {
  const response = await fetch(node.control + path, {
    method,
    headers: { authorization: `Bearer ${node.token}`, 'content-type': 'application/json' },
    body: body === undefined ? undefined : JSON.stringify(body),
  })
  const text = await response.text()
  if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`)
  return JSON.parse(text)
}

/** A tenant with a member and this many keys; answers with the secrets. */
export async function mint(node, count) {
  const tenant = await call(node, 'POST', '/v1/tenants', { slug: 'bench', name: 'Bench' })
  const member = await call(node, 'POST', `/v1/tenants/${tenant.id}/members`,
    { email: 'bench@bench.example', name: 'Bench', role: 'owner' })
  const secrets = []
  let left = count
  const worker = async () => {
    while (left > 0) {
      left -= 1
      const made = await call(node, 'POST', `/v1/tenants/${tenant.id}/keys`, {
        name: `bench-${left}`, environment: 'live', ownerId: member.userId,
        scopes: ['reports:read', 'audit:read', 'controls:read'],
      })
      secrets.push(made.secret)
    }
  }
  await Promise.all(Array.from({ length: MINT_AT_ONCE }, worker))
  return secrets
}
