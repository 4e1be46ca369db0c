// Drives schemathesis: `node script/schemathesis.mjs PATH-TO-keyward PATH-TO-schemathesis`.
// A server of its own for each document; prints what was found, exits 0 when that is nothing.
import { spawn } from 'node:child_process'
import { resolve as absolute } from 'node:path'
import { startDev } from './dev-server.mjs'

const EXAMPLES = process.env.KEYWARD_EXAMPLES ?? '10'
const SEED = '20270115'
const RUN_MS = 15 * 60_000

const [binary, schemathesis] = process.argv.slice(2)
if (!binary || !schemathesis) {
  console.error('usage: node script/schemathesis.mjs PATH-TO-keyward PATH-TO-schemathesis')
  process.exit(64)
}

/** Runs it over one document; true when it found nothing. */
async function run(title, cwd, document, url, credential, more = []) {
  console.log(`\n== ${title}`)
  const arguments_ = [
    '--config-file', absolute('script/schemathesis.toml'), 'run', absolute(document),
    '--url', url,
    '--header', `Authorization: Bearer ${credential}`,
    '--phases', 'examples,coverage,fuzzing', '--max-examples', EXAMPLES, '--seed', SEED,
    '--request-timeout', '20', '--warnings', 'off', '--no-color', ...more,
  ]
  const env = { ...process.env, NO_PROXY: '127.0.0.1' }
  // it leaves files where it runs
  const options = { cwd, env, stdio: 'inherit', timeout: RUN_MS }
  const child = spawn(schemathesis, arguments_, options)
  const [code] = await new Promise((resolve) => child.once('exit', (...end) => resolve(end)))
  return code === 0
}

const own = 'openapi/keyward.json'
const verify = '/v1/verify'
const runs = [
  ["Keyward's own API", ({ info }) => [own, info.control, info.adminToken,
    ['--exclude-path', verify]]],
  ['verify', ({ info }) => [own, info.internal, info.adminToken, ['--include-path', verify]]],
  ["the product's API through the gateway", ({ info }) =>
    ['profiles/asiri/openapi.yaml', info.gateways[0], info.tenants[0].keys.live]],
]
let clean = true
for (const [title, arrange] of runs) {
  // each on its own: what one run revokes or suspends is nothing to the next
  const server = await startDev(binary)
  try {
    clean = (await run(title, server.folder, ...arrange(server))) && clean
  } finally {
    await server.stop()
  }
}
console.log(clean ? '\nnothing was found' : '\nsomething was found')
process.exit(clean ? 0 : 1)
