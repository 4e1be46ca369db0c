// Drives testssl.sh: `node script/tls-scan.mjs PATH-TO-keyward`. Prints what was found, exits 0 when
// that is nothing.
import { execFile, spawn } from 'node:child_process'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { startDev } from './dev-server.mjs'

const SCAN_MS = 5 * 60_000
/** What a scan that saw anything has looked at, whichever version it is. */
const LOOKED_AT = [
  'SSLv2', 'SSLv3', 'TLS1', 'TLS1_1', 'TLS1_2', 'TLS1_3', 'ALPN_HTTP2', 'cipherlist_NULL',
  'cipherlist_aNULL', 'heartbleed', 'CCS', 'secure_renego', 'secure_client_renego', 'CRIME_TLS',
  'fallback_SCSV', 'SWEET32', 'LUCKY13', 'RC4',
]
const FINE = ['OK', 'INFO']

const [binary] = process.argv.slice(2)
if (!binary) {
  console.error('usage: node script/tls-scan.mjs PATH-TO-keyward')
  process.exit(64)
}

/** A certificate that signs itself; what it is worth is not looked at. */
async function certificate(folder) {
  const [chain, key] = [join(folder, 'chain.pem'), join(folder, 'key.pem')]
  await promisify(execFile)('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt',
    'ec_paramgen_curve:P-256', '-nodes', '-keyout', key, '-out', chain, '-days', '90', '-subj',
    '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost'])
  return `tls = { certificate = [{ chain-file = "${chain}", key-file = "${key}" }] }`
}

/** Looks at protocols, ciphers, forward secrecy and known attacks. Not at whose order of ciphers
 * counts: all that are offered are strong, and a caller knows best which it is fast at. */
async function scan(folder, port) {
  const file = join(folder, 'found.json')
  const arguments_ = ['--quiet', '--color', '0', '--warnings', 'off', '--ip', '127.0.0.1',
    '-p', '-s', '-f', '-U', '--jsonfile', file, `localhost:${port}`]
  const child = spawn('testssl', arguments_, { cwd: folder, stdio: 'inherit', timeout: SCAN_MS })
  await new Promise((resolve) => child.once('exit', resolve))
  return JSON.parse(await readFile(file, 'utf8'))
}

const folder = await mkdtemp(join(tmpdir(), 'keyward-tls-'))
let wrong
try {
  const server = await startDev(binary, [], { gateway: await certificate(folder) })
  try {
    const found = await scan(folder, new URL(server.info.gateways[0]).port)
    const missing = LOOKED_AT.filter((id) => !found.some((it) => it.id === id))
    wrong = [
      ...missing.map((id) => `${id} was not looked at`),
      ...found.filter(({ severity }) => !FINE.includes(severity))
        .map(({ id, severity, finding }) => `${id}: ${severity}, ${finding}`),
    ]
  } finally {
    await server.stop()
  }
} finally {
  await rm(folder, { recursive: true, force: true })
}
console.log(wrong.length === 0 ? '\nnothing was found' : `\nfound:\n${wrong.join('\n')}`)
process.exit(wrong.length === 0 ? 0 : 1)
