// The walk-through of the demo, unattended: `node script/demo-smoke.mjs PATH-TO-keyward`.
// Starts a server of its own on free ports with a temporary data directory, drives it over HTTP
// and the command line, prints every step with its result, and leaves nothing behind.
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { isDeepStrictEqual, promisify } from 'node:util'
import { start, stop } from './processes.mjs'

const RUN_MS = 180_000
const CALL_MS = 10_000

const binary = process.argv[2]
if (!binary) {
  console.error('usage: node script/demo-smoke.mjs PATH-TO-keyward')
  process.exit(64)
}

// -- steps and expectations -------------------------------------------------------------------

class Failed extends Error {}
const results = { passed: 0, failed: 0 }
let notes = []
let interrupted = false

/** Runs one step; its expectations throw, what it notes is printed beside its name. */
async function step(name, run) {
  if (interrupted) return
  notes = []
  try {
    await run()
    results.passed += 1
    console.log(`✓ ${name}${notes.length ? `  [${notes.join('; ')}]` : ''}`)
  } catch (error) {
    if (interrupted) return
    results.failed += 1
    console.log(`✗ ${name}`)
    for (const line of String(error.message).split('\n')) console.log(`    ${line}`)
    if (!(error instanceof Failed) && error.cause) console.log(`    ${error.cause}`)
  }
}

const note = (text) => notes.push(text)
const show = (value) => JSON.stringify(value)

function expect(what, got, wanted) {
  if (!isDeepStrictEqual(got, wanted)) {
    throw new Failed(`${what}: expected ${show(wanted)}, got ${show(got)}`)
  }
}

function expectThat(what, holds, got) {
  if (!holds) throw new Failed(`${what}: got ${show(got)}`)
}

/** A success of this status; answers with the body. */
function succeeded(answer, status) {
  const body = answer.status === status ? '' : ` with ${show(answer.body)}`
  if (body) throw new Failed(`status: expected ${status}, got ${answer.status}${body}`)
  note(String(status))
  return answer.body
}

/** The one error envelope with this status and code; answers with its details. */
function refused(answer, status, code, failed) {
  const error = answer.body?.error ?? {}
  const got = { status: answer.status, code: error.code, failed: error.details?.failed }
  const wanted = { status, code, failed }
  expect('refusal', got, wanted)
  expect('request id of header and body', answer.headers.get('x-request-id'), error.requestId)
  if (status === 401) {
    expectThat('WWW-Authenticate', answer.headers.has('www-authenticate'), 'no such header')
  }
  note(failed ? `${status} ${code}, failed ${failed}` : `${status} ${code}`)
  return error.details ?? {}
}

// -- calls ------------------------------------------------------------------------------------

async function call(base, method, path, { key, body, headers = {} } = {}) {
  const init = { method, headers: { ...headers }, signal: AbortSignal.timeout(CALL_MS) }
  if (key) init.headers.authorization = `Bearer ${key}`
  if (body !== undefined) {
    init.headers['content-type'] = 'application/json'
    init.body = JSON.stringify(body)
  }
  const response = await fetch(base + path, init)
  const text = await response.text()
  let parsed
  try {
    parsed = JSON.parse(text)
  } catch {
    parsed = undefined
  }
  return { status: response.status, headers: response.headers, body: parsed, text }
}

/** Asks again until the predicate holds; what takes longer than a call may take has failed. */
async function until(what, ask, holds) {
  const deadline = Date.now() + CALL_MS
  for (;;) {
    const answer = await ask()
    if (holds(answer)) return answer
    if (Date.now() > deadline) throw new Failed(`${what}: last seen ${show(answer.body)}`)
    await pause(100)
  }
}

// -- the server -------------------------------------------------------------------------------

/** `keyward dev` with a listener for live keys and one for all others. */
function startDemo(folder) {
  const arguments_ = [
    'dev', '--profile', 'asiri', '--json', '--data-dir', join(folder, 'data'),
    '--control-listen', '127.0.0.1:0', '--internal-listen', '127.0.0.1:0',
    '--sandbox-listen', '127.0.0.1:0',
    '--gateway-listener', '{ listen = "127.0.0.1:0", environments = ["live"] }',
    '--gateway-listener',
    '{ listen = "127.0.0.1:0", environments = ["staging", "development", "test"] }',
  ]
  return start(binary, 'keyward dev', arguments_, 'stdout', (line) => line)
}

// -- the walk-through -------------------------------------------------------------------------

async function walk(server, folder) {
  const { info } = server
  const [live, other] = info.gateways
  const { control, internal } = info
  const tenant = (slug) => info.tenants.find((it) => it.slug === slug)
  const lagos = tenant('lagos-pay')
  const kuramo = tenant('kuramo-health')
  const demo = lagos.keys.live
  const admin = (method, path, body, headers) =>
    call(control, method, path, { key: info.adminToken, body, headers })
  const api = (key, method, path, body) => call(live, method, path, { key, body })
  const inLagos = (path) => `/v1/tenants/${lagos.id}${path}`
  const cli = (...arguments_) => promisify(execFile)(binary, arguments_, {
    env: { ...process.env, KEYWARD_URL: control, KEYWARD_TOKEN_FILE: join(folder, 'token') },
    timeout: CALL_MS,
  })
  await writeFile(join(folder, 'token'), `${info.adminToken}\n`, { mode: 0o600 })
  const members = succeeded(await admin('GET', inLagos('/members?limit=100')), 200).data
  const memberId = (role) => members.find((it) => it.role === role).userId
  const mint = async (name, role, scopes) => {
    const body = { name, environment: 'live', scopes, ownerId: memberId(role) }
    return succeeded(await admin('POST', inLagos('/keys'), body), 201)
  }

  console.log('\nCalls through the gateway')
  await step('no key is refused', async () => {
    const answer = await api(undefined, 'GET', '/v1/reports/overview')
    refused(answer, 401, 'missing_api_key', 'credential')
  })
  await step('a mistyped key is refused by its checksum', async () => {
    const torn = demo.slice(0, -1) + (demo.endsWith('a') ? 'b' : 'a')
    const details = refused(
      await api(torn, 'GET', '/v1/reports/overview'), 401, 'invalid_api_key', 'credential')
    expect('reason', details.reason, 'malformed')
  })
  await step('a key of an environment not served here is refused', async () => {
    const details = refused(await api(lagos.keys.test, 'GET', '/v1/reports/overview'),
      401, 'environment_mismatch', 'environment')
    expect('environments', [details.keyEnvironment, details.servedEnvironments], ['test', ['live']])
  })
  await step('the same key works where its environment is served', async () => {
    succeeded(await call(other, 'GET', '/v1/reports', { key: lagos.keys.test }), 200)
  })
  await step('a browser is refused, and so is a key in the address', async () => {
    const headers = { origin: 'https://app.example' }
    const answer = await call(live, 'GET', '/v1/reports/overview', { key: demo, headers })
    refused(answer, 403, 'browser_origin_refused', 'browser_origin')
    expect('CORS', answer.headers.get('access-control-allow-origin'), null)
    refused(await api(demo, 'GET', `/v1/reports?api_key=${demo}`), 400, 'credential_in_url')
  })
  await step('the demo key gets the compliance overview', async () => {
    const answer = await api(demo, 'GET', '/v1/reports/overview')
    const body = succeeded(answer, 200)
    expectThat('reports', body.reportsTotal > 0, body)
    expect('scopes that would do', answer.headers.get('keyward-accepted-scopes'), 'reports:read')
    note(`${body.reportsTotal} reports`)
  })

  console.log('\nA key with few scopes')
  let narrow
  await step('keyward demo-key --tenant lagos-pay --name docs-demo', async () => {
    const { stdout } = await cli('demo-key', '--tenant', 'lagos-pay', '--name', 'docs-demo')
    narrow = stdout.trim()
    expectThat('one token alone on stdout', /^asiri_live_[A-Za-z0-9]{71}$/.test(narrow), stdout)
    note(`•••••${narrow.slice(-4)}`)
  })
  await step('it reads reports', async () => {
    succeeded(await api(narrow, 'GET', '/v1/reports/overview'), 200)
  })
  await step('refused for its scopes, which are named', async () => {
    const details = refused(
      await api(narrow, 'GET', '/v1/controls/status'), 403, 'forbidden', 'scope')
    expect('required', details.requiredScopes, [['controls:read']])
    expect('granted', details.grantedScopes.toSorted(),
      ['audit:read', 'reports:read', 'webhooks:write'])
  })
  await step('refused for a route that is not public', async () => {
    refused(await api(narrow, 'GET', '/v1/settings/billing'), 403, 'forbidden', 'route')
  })
  await step('refused for the role of its owner', async () => {
    const { secret } = await mint('bi-dashboard', 'analyst', ['reports:read', 'controls:read'])
    succeeded(await api(secret, 'GET', '/v1/controls/status'), 200)
    const owner = inLagos(`/members/${memberId('analyst')}`)
    const change = succeeded(await admin('PATCH', owner, { role: 'auditor' }), 200)
    expect('fence', change.fence.status, 'effective')
    const details = refused(
      await api(secret, 'GET', '/v1/controls/status'), 403, 'rbac_denied', 'role')
    expect('role', details.role, 'auditor')
    succeeded(await admin('PATCH', owner, { role: 'analyst' }), 200)
    succeeded(await api(secret, 'GET', '/v1/controls/status'), 200)
  })
  for (const scopes of [['reports'], ['*'], ['tenant:settings'], ['reports:raed']]) {
    await step(`minting with the scope ${scopes[0]} is refused`, async () => {
      const body = { name: 'x', environment: 'live', scopes, ownerId: memberId('owner') }
      const answer = await admin('POST', inLagos('/keys'), body)
      const error = answer.body?.error
      expect('status and code', [answer.status, error?.code], [422, 'validation_failed'])
      note(error.message)
    })
  }

  console.log('\nThe product behind it')
  await step('a report is built in the background', async () => {
    const queued = succeeded(
      await api(demo, 'POST', '/v1/reports/build', { type: 'audit_summary', format: 'json' }), 202)
    expect('state', queued.state, 'queued')
    const built = await until('the build',
      () => api(demo, 'GET', `/v1/reports/${queued.id}`), (it) => it.body?.state === 'completed')
    note(`${built.body.id} ${built.body.state}`)
  })
  await step('high-risk evidence is unusable until a qualified owner has reviewed it', async () => {
    const payload = 'leavers: 3, removed in time: 2'
    const item = succeeded(await api(demo, 'POST', '/v1/evidence/items', {
      sourceId: 'src_lp_identity', title: 'Accounts of leavers', riskLevel: 'high',
      collectedAt: new Date().toISOString(), controlMappings: ['ctl_lp_iam02'],
      rawPayload: payload,
    }), 201)
    expect('hash of the raw payload', item.rawPayloadHash,
      `sha256:${createHash('sha256').update(payload).digest('hex')}`)
    const use = (key) => api(key, 'POST', `/v1/evidence/items/${item.id}/use`,
      { purpose: 'regulator_submission' })
    refused(await use(demo), 409, 'conflict')
    const developer = await mint('collector', 'developer', ['evidence:write', 'evidence:read'])
    const review = (key) => api(key, 'POST', `/v1/evidence/items/${item.id}/review`,
      { decision: 'approve' })
    refused(await review(developer.secret), 403, 'rbac_denied')
    expect('after review', succeeded(await review(demo), 200).workflowState, 'approved')
    succeeded(await use(demo), 201)
  })
  await step("another tenant's key does not see the data", async () => {
    const reports = await api(demo, 'GET', '/v1/reports')
    const [mine] = succeeded(reports, 200).data
    succeeded(await api(demo, 'GET', `/v1/reports/${mine.id}`), 200)
    refused(await api(kuramo.keys.live, 'GET', `/v1/reports/${mine.id}`), 404, 'not_found')
  })
  await step("another tenant's record is not found on the control plane", async () => {
    const token = succeeded(await admin('POST', '/v1/admin-tokens', {
      name: 'kuramo-admin', tenantId: kuramo.id, role: 'owner', scopes: ['keys:read'],
    }), 201).secret
    const ask = (path) => call(control, 'GET', path, { key: token })
    succeeded(await ask(`/v1/tenants/${kuramo.id}/keys`), 200)
    refused(await ask(`/v1/tenants/${lagos.id}/keys`), 404, 'not_found')
  })

  console.log('\nThe life of a key')
  await step('a repeated creation makes one key, and shows its secret once', async () => {
    const body = {
      name: 'payroll', environment: 'live', scopes: ['reports:read'], ownerId: memberId('owner'),
    }
    const again = { 'idempotency-key': 'walk-through-1' }
    const first = succeeded(await admin('POST', inLagos('/keys'), body, again), 201)
    const second = succeeded(await admin('POST', inLagos('/keys'), body, again), 201)
    expect('the same key', second.key.id, first.key.id)
    expect('its secret', [second.secret, second.secretNotReplayable], [null, true])
  })
  const worker = await mint('settlement-worker', 'owner', ['reports:read', 'audit:read'])
  let successor
  await step('rotated: both keys work during the overlap', async () => {
    successor = succeeded(await admin('POST', inLagos(`/keys/${worker.key.id}/rotate`),
      { overlapSeconds: 3600 }), 201)
    for (const key of [worker.secret, successor.secret]) {
      succeeded(await api(key, 'GET', '/v1/reports/overview'), 200)
    }
    expect('lineage', successor.key.lineageId, worker.key.id)
  })
  await step('the end of the overlap stops the old key', async () => {
    const ended = succeeded(
      await admin('POST', inLagos(`/keys/${worker.key.id}/end-overlap`)), 200)
    expect('fence', ended.fence.status, 'effective')
    refused(await api(worker.secret, 'GET', '/v1/reports/overview'), 401, 'unauthorized', 'state')
    succeeded(await api(successor.secret, 'GET', '/v1/reports/overview'), 200)
  })
  await step('revoked: the very next request is refused', async () => {
    const revoked = succeeded(await admin('POST', inLagos(`/keys/${successor.key.id}/revoke`),
      { reason: 'leaked' }), 200)
    expect('fence', revoked.fence.status, 'effective')
    const details = refused(await api(successor.secret, 'GET', '/v1/reports/overview'),
      401, 'unauthorized', 'state')
    expect('reason', details.reason, 'revoked')
    note(`fence waited ${revoked.fence.waitedMs} ms`)
  })
  await step('two keys in one request are refused', async () => {
    const answer = await new Promise((resolve, reject) => twoKeys(live, demo, resolve, reject))
    refused(answer, 401, 'ambiguous_api_key', 'credential')
  })
  await step('a suspended tenant stops, a resumed one goes on', async () => {
    const path = `/v1/tenants/${kuramo.id}`
    const suspended = succeeded(
      await admin('POST', `${path}/suspend`, { reason: 'unpaid invoice' }), 200)
    expect('fence', suspended.fence.status, 'effective')
    const ask = () => api(kuramo.keys.live, 'GET', '/v1/reports/overview')
    const details = refused(await ask(), 401, 'unauthorized', 'state')
    expect('reason', details.reason, 'tenant_suspended')
    succeeded(await admin('POST', `${path}/resume`), 200)
    succeeded(await ask(), 200)
  })

  console.log('\nVerify, audit, documents, operations')
  const verify = async (body) => {
    const answer = await call(internal, 'POST', '/v1/verify', { key: info.adminToken, body })
    return succeeded(answer, 200)
  }
  await step('verify says yes and shows every check', async () => {
    const body = { key: demo, method: 'GET', path: '/v1/reports/overview', explain: true }
    const verdict = await verify(body)
    expect('verdict', [verdict.valid, verdict.code, verdict.tenantId], [true, 'valid', lagos.id])
    expectThat('trace', verdict.trace?.every((it) => it.outcome === 'passed'), verdict.trace)
    note(`${verdict.trace.length} checks`)
  })
  await step('verify says no and why', async () => {
    const verdict = await verify({ key: narrow, method: 'GET', path: '/v1/controls/status' })
    expect('verdict', [verdict.valid, verdict.code, verdict.failed], [false, 'forbidden', 'scope'])
    const gone = await verify({ key: successor.secret })
    expect('revoked', [gone.valid, gone.code, gone.failed], [false, 'unauthorized', 'state'])
  })
  await step('the audit trail says who did what, to which key', async () => {
    const path = inLagos(`/audit-events?keyId=${successor.key.id}`)
    const events = succeeded(await admin('GET', path), 200).data
    const revoked = events.find((it) => it.action === 'api_key.revoked')
    expectThat('an event of the revocation', revoked, events.map((it) => it.action))
    expect('target', revoked.target, { kind: 'api_key', id: successor.key.id })
    expectThat('actor and time', revoked.actor.id.startsWith('adm_') && revoked.at, revoked)
    note(`${revoked.action} by ${revoked.actor.name}`)
  })
  await step('the tenant reads the same trail with a key', async () => {
    const page = succeeded(await api(narrow, 'GET', '/v1/audit/events?limit=200'), 200)
    expectThat('events', page.data.some((it) => it.action === 'api_key.rotated'),
      page.data.map((it) => it.action))
    expectThat('no other tenant', page.data.every((it) => it.tenantId === lagos.id), page.data)
  })
  await step('the chain of the audit trail holds', async () => {
    const chain = succeeded(await admin('GET', inLagos('/audit-events/verify')), 200)
    expect('valid', chain.valid, true)
    note(`${chain.events} events, head ${chain.headHash.slice(0, 12)}`)
  })
  await step("the product's document, without the sandbox's members", async () => {
    const answer = await api(demo, 'GET', '/v1/openapi.json')
    const document = succeeded(answer, 200)
    expectThat('OpenAPI 3.1', document.openapi.startsWith('3.1.'), document.openapi)
    expectThat('no x-sandbox', !answer.text.includes('"x-sandbox'), 'x-sandbox')
    note(`${Object.keys(document.paths).length} paths`)
  })
  await step("Keyward's own document", async () => {
    const document = succeeded(await call(control, 'GET', '/v1/openapi.json'), 200)
    expectThat('operations', document.paths['/v1/tenants/{tenantId}/keys']?.post, document.paths)
    note(`${Object.keys(document.paths).length} paths`)
  })
  await step('ready, alive and measured', async () => {
    for (const path of ['/livez', '/readyz']) {
      expect(path, (await call(internal, 'GET', path)).status, 200)
    }
    const metrics = (await call(internal, 'GET', '/metrics')).text
    expectThat('a counter', /^keyward_gateway_requests_total\{.*\} \d/m.test(metrics), metrics)
    expectThat('a whole histogram', /_bucket\{le="\+Inf"\} \d/.test(metrics), metrics)
  })
  await step('no key and no token is in the log', async () => {
    const secrets = [demo, narrow, worker.secret, successor.secret, info.adminToken]
    // without its head, which is public
    const found = secrets.filter((it) => server.diagnostics().includes(it.split('_').at(-1)))
    expect('secrets in the log', found.length, 0)
    note(`${server.diagnostics().length} characters searched`)
  })
}

/** Two Authorization headers, which `fetch` would join into one. */
async function twoKeys(base, key, resolve, reject) {
  const { request } = await import('node:http')
  const bearer = `Bearer ${key}`
  const headers = ['host', new URL(base).host, 'authorization', bearer, 'authorization', bearer]
  const sent = request(`${base}/v1/reports/overview`, { headers, timeout: CALL_MS }, (answer) => {
    let text = ''
    answer.on('data', (chunk) => { text += chunk })
    answer.on('end', () => resolve({
      status: answer.statusCode, headers: new Headers(answer.headers), body: JSON.parse(text), text,
    }))
  })
  sent.on('error', reject)
  sent.end()
}

// -- from start to end ------------------------------------------------------------------------

const begun = Date.now()
const folder = await mkdtemp(join(tmpdir(), 'keyward-demo-'))
let server
let overdue
async function finish() {
  clearTimeout(overdue)
  const ended = server && await stop(server)
  await rm(folder, { recursive: true, force: true })
  return ended
}
for (const name of ['SIGINT', 'SIGTERM']) {
  process.once(name, () => {
    interrupted = true
    console.log('interrupted')
    finish().finally(() => process.exit(130))
  })
}
overdue = setTimeout(() => {
  console.log(`✗ the walk-through took more than ${RUN_MS / 1000} s`)
  finish().finally(() => process.exit(1))
}, RUN_MS)

try {
  await step('keyward dev --profile asiri --json gets ready', async () => {
    server = await startDemo(folder)
    note(`${Date.now() - begun} ms`)
  })
  if (server) await walk(server, folder)
} catch (error) {
  if (!interrupted) {
    results.failed += 1
    console.log(`✗ the walk-through broke off: ${error.stack}`)
  }
}
const ended = await finish()
if (interrupted) process.exit(130)
if (server) {
  await step('stops when told', async () => expect('exit', ended, { code: 0, signal: null }))
}
if (results.failed > 0 && server) {
  console.log(`\nThe end of its log:\n${server.diagnostics().slice(-4_000)}`)
}
const seconds = ((Date.now() - begun) / 1000).toFixed(1)
console.log(`\n${results.passed} passed, ${results.failed} failed, ${seconds} s`)
process.exitCode = results.failed > 0 ? 1 : 0
