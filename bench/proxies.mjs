// What Keyward is compared with, and the upstream behind all of them: nginx and HAProxy.
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { PATH } from './load.mjs'
import { answers, binaries, firstLine } from './servers.mjs'

const ANSWER = '{"generatedAt":"2026-11-22T07:00:00Z","reportsTotal":24,"reportsByState":'
  + '{"completed":21,"running":1,"queued":1,"failed":1},"controlsTotal":41,"controlsByStatus":'
  + '{"passing":33,"failing":3,"not_tested":5}}'
const SAMPLE = 'deploy/proxies/nginx/keyward.conf'
/** Connections that nginx keeps to an upstream, and for how long: none is made anew in a run. */
const KEEP = 'keepalive 256; keepalive_requests 1000000000; keepalive_timeout 1h;'

async function nginx({ folder, start }, name, { core, workers = 1 }, http) {
  const own = (what) => `${folder}/${name}-${what}`
  const file = own('nginx.conf')
  await writeFile(file, `
worker_processes ${workers};
daemon off;
pid ${own('pid')};
error_log ${own('log')} error;
events { worker_connections 4096; }
http {
  access_log off;
  client_body_temp_path ${own('body')};
  proxy_temp_path ${own('proxy')};
  fastcgi_temp_path ${own('fastcgi')};
  uwsgi_temp_path ${own('uwsgi')};
  scgi_temp_path ${own('scgi')};
  keepalive_requests 1000000000;
  keepalive_timeout 1h;
  tcp_nodelay on;
${http}
}
`)
  return start(core, 'nginx', ['-c', file, '-e', own('log')])
}

async function ready(server, port, secret) {
  const init = secret === undefined ? {} : { headers: { authorization: `Bearer ${secret}` } }
  await answers(server, `http://127.0.0.1:${port}${PATH}`, 200, init)
  return server
}

/** The same answer over TCP from a program that does nothing else: it shares a core with the
 * client, and with a whole server there that core is what limits a gateway on the other one. */
export async function bareUpstream(place, core) {
  const file = join(place.folder, 'upstream-answer')
  await writeFile(file, ['HTTP/1.1 200 OK', 'Server: bare', `Date: ${new Date().toUTCString()}`,
    'Content-Type: application/json', `Content-Length: ${Buffer.byteLength(ANSWER)}`,
    'Connection: keep-alive', '', ANSWER].join('\r\n'))
  const server = place.start(core, join(binaries, 'bare-upstream'), ['127.0.0.1:0', file])
  return { tcp: new URL(await firstLine(server)).host }
}

/** The product's API: one answer, over TCP, a Unix socket and HTTP/2 by prior knowledge. */
export async function upstream(place, core, [port, http2Port]) {
  const socket = join(place.folder, 'upstream.sock')
  const server = await nginx(place, 'upstream', { core }, `
  default_type application/json;
  server {
    listen 127.0.0.1:${port};
    listen unix:${socket};
    location / { return 200 '${ANSWER}'; }
  }
  server {
    listen 127.0.0.1:${http2Port} http2;
    http2_max_concurrent_streams 256;
    location / { return 200 '${ANSWER}'; }
  }`)
  await ready(server, port)
  return { tcp: `127.0.0.1:${port}`, unix: `unix:${socket}`, http2: `127.0.0.1:${http2Port}` }
}

const TO_API = `
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Authorization "";
      proxy_set_header Keyward-Key-Id $key;
      add_header x-request-id $request_id;
      proxy_pass http://api;`

/** What one would configure instead: keys in a map, a limit for each, the key taken off. */
export async function mappedNginx(place, { port, name, to, secrets, core, workers }) {
  const entries = secrets.map((secret, at) => `    "Bearer ${secret}" "key_${at}";`)
  const server = await nginx(place, name, { core, workers }, `
  map_hash_max_size 65536;
  map_hash_bucket_size 256;
  map $http_authorization $key {
    default "";
${entries.join('\n')}
  }
  limit_req_zone $key zone=keys:16m rate=1000000r/s;
  upstream api { server ${to}; ${KEEP} }
  server {
    listen 127.0.0.1:${port} backlog=1024;
    location / {
      if ($key = "") { return 401; }
      limit_req zone=keys burst=100000 nodelay;${TO_API}
    }
  }`)
  return ready(server, port, secrets[0])
}

/** No checks at all: what one hop costs. */
export async function plainNginx(place, { port, to, core, secret }) {
  const server = await nginx(place, 'plain', { core }, `
  upstream api { server ${to}; ${KEEP} }
  server {
    listen 127.0.0.1:${port} backlog=1024;
    set $key "-";
    location / {${TO_API}
    }
  }`)
  return ready(server, port, secret)
}

/** nginx that asks a server of one's own, which says yes to everything. */
export async function askingNginx(place, { port, to, asked, core, secret }) {
  const server = await nginx(place, 'asking', { core }, `
  upstream api { server ${to}; ${KEEP} }
  upstream asked { server ${asked}; ${KEEP} }
  server {
    listen 127.0.0.1:${port} backlog=1024;
    location / {
      auth_request /_asked;
      auth_request_set $key $upstream_http_x_request_id;${TO_API}
    }
    location = /_asked {
      internal;
      proxy_pass http://asked;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_pass_request_body off;
      proxy_set_header Content-Length "";
      proxy_set_header X-Original-URI $request_uri;
      proxy_set_header X-Original-Method $request_method;
    }
  }`)
  return ready(server, port, secret)
}

/** nginx that asks Keyward, with the configuration of deploy/proxies and addresses of this run. */
export async function keywardNginx(place, { port, to, internal, core, secret }) {
  const changes = [
    ['server 127.0.0.1:8789;', `server ${internal};`],
    ['server 127.0.0.1:9000;', `server ${to};`],
    ['listen 127.0.0.1:8080;', `listen 127.0.0.1:${port} backlog=1024;`],
    ['keepalive 32;', KEEP],
  ]
  const sample = await readFile(SAMPLE, 'utf8')
  const text = changes.reduce((whole, [from, into]) => {
    if (!whole.includes(from)) throw new Error(`${SAMPLE} has no '${from}' any more`)
    return whole.replaceAll(from, into)
  }, sample)
  const server = await nginx(place, 'forward-auth', { core }, text)
  return ready(server, port, secret)
}

/** HAProxy with the same: keys in a map, a rate of each in a stick table, the key taken off. */
export async function mappedHaproxy(place, { port, to, secrets, core, threads = 1 }) {
  const { folder, start } = place
  const map = join(folder, 'haproxy-keys.map')
  await writeFile(map, secrets.map((secret, at) => `${secret} key_${at}\n`).join(''),
    { mode: 0o600 })
  const file = join(folder, 'haproxy.cfg')
  await writeFile(file, `
global
  nbthread ${threads}
  maxconn 4096
  tune.idle-pool.shared on
defaults
  mode http
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  timeout http-keep-alive 1h
  option http-keep-alive
  http-reuse always
backend keys
  stick-table type string len 16 size 100k expire 10m store http_req_rate(1s)
frontend api
  bind 127.0.0.1:${port} backlog 1024
  unique-id-format %{+X}o\\ %ci:%cp_%fi:%fp_%Ts_%rt:%pid
  http-request set-var(txn.key) http_auth_bearer(Authorization),map_str(${map})
  http-request deny deny_status 401 unless { var(txn.key) -m found }
  http-request track-sc0 var(txn.key) table keys
  http-request deny deny_status 429 if { sc_http_req_rate(0) gt 1000000 }
  http-request del-header Authorization
  http-request set-header Keyward-Key-Id %[var(txn.key)]
  http-response set-header x-request-id %[unique-id]
  default_backend upstream
backend upstream
  server one ${to} pool-max-conn 256 pool-purge-delay 1h
`)
  const server = start(core, 'haproxy', ['-db', '-f', file])
  return ready(server, port, secrets[0])
}
