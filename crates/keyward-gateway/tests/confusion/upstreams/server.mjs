// An API on Node that decides its route from the path as a URL parser reads it, and tells in its
// log what it did. The runtime's own HTTP parser is what is looked at here.
import { appendFileSync } from 'node:fs'
import { createServer } from 'node:http'

const LOG = '{{folder}}/told'
const tell = (entry) => appendFileSync(LOG, `${JSON.stringify(entry)}\n`)

function route(path) {
  if (path === '/v1/reports') return 'reports'
  if (path === '/v1/reports:build') return 'build'
  if (/^\/v1\/reports\/[^/]+$/.test(path)) return 'report'
  if (/^\/v1\/reports\/[^/]+\/files\/[^/]+$/.test(path)) return 'file'
  return /admin/i.test(path) ? 'admin' : 'other'
}

const server = createServer({ maxHeaderSize: 64 * 1024 }, (request, response) => {
  const chunks = []
  request.on('data', (chunk) => chunks.push(chunk))
  request.on('end', () => {
    const executed = decodeURIComponent(new URL(request.url, 'http://upstream').pathname)
    const headers = []
    for (let at = 0; at < request.rawHeaders.length; at += 2) {
      headers.push([request.rawHeaders[at].toLowerCase(), request.rawHeaders[at + 1]])
    }
    const trailers = Object.keys(request.trailers)
    const body = Buffer.concat(chunks).toString('latin1')
    const { method, url: target } = request
    tell({ method, target, executed, route: route(executed), headers, trailers, body })
    response.end('executed')
  })
})
server.on('clientError', (error, socket) => {
  // a connection that is given up within a body is no request
  if (error.code !== 'ECONNRESET' && error.code !== 'HPE_INVALID_EOF_STATE') {
    tell({ garbage: error.code })
  }
  socket.destroy()
})
server.keepAliveTimeout = 60_000
server.listen({{port}}, '127.0.0.1')
