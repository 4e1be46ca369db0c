// The two kinds of load: as fast as the server answers (wrk), and at an offered rate (open-loop).
import { execFile } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { binaries } from './servers.mjs'

/** What a load may need beyond its own time. */
const OTHERS_NEED_MS = 60_000
export const PATH = '/v1/reports/overview'

/** wrk's program: takes requests made beforehand in turn, so that Lua costs next to nothing. */
const LUA = `
local requests, position = {}, 0
function init(arguments)
  for key in io.lines(os.getenv("BENCH_KEYS")) do
    if os.getenv("BENCH_KIND") == "verify" then
      local body = '{"key":"' .. key .. '","method":"GET","path":"${PATH}"}'
      local headers = { ["content-type"] = "application/json" }
      local token = os.getenv("BENCH_TOKEN")
      if token ~= "" then headers["authorization"] = "Bearer " .. token end
      requests[#requests + 1] = wrk.format("POST", "/v1/verify", headers, body)
    else
      requests[#requests + 1] =
        wrk.format("GET", "${PATH}", { ["authorization"] = "Bearer " .. key })
    end
  end
end
function request()
  position = position % #requests + 1
  return requests[position]
end
`

/** Writes wrk's program into the folder; answers with its path. */
export async function program(folder) {
  const file = join(folder, 'load.lua')
  await writeFile(file, LUA)
  return file
}

function onCore(core, program_, arguments_) {
  const pinned = core === undefined ? [] : ['taskset', '-c', String(core)]
  const [first, ...rest] = [...pinned, program_, ...arguments_.map(String)]
  return [first, rest]
}

/** Connections that send their next request when they have the answer; every answer is a 200. */
export async function closedLoop(subject, setting) {
  const { clientCore, clientThreads, connections, seconds, lua } = setting
  const [first, rest] = onCore(clientCore, 'wrk', [`-t${clientThreads}`, `-c${connections}`,
    `-d${seconds}s`, '-s', lua, subject.url])
  const { stdout } = await promisify(execFile)(first, rest, {
    env: {
      ...process.env, BENCH_KEYS: subject.keys, BENCH_KIND: subject.kind,
      BENCH_TOKEN: subject.token ?? '',
    },
    timeout: seconds * 1000 + OTHERS_NEED_MS,
  })
  if (/Non-2xx|Socket errors/.test(stdout)) throw new Error(`${subject.name}:\n${stdout}`)
  return {
    requests: Number(/(\d+) requests in/.exec(stdout)[1]),
    perSecond: Number(/Requests\/sec:\s+([\d.]+)/.exec(stdout)[1]),
  }
}

/** Requests that are due at random instants, `rate` of them in a second. */
export async function openLoop(subject, setting, { rate, seed }) {
  const { clientCore, connections, openConnections, seconds } = setting
  const [first, rest] = onCore(clientCore, join(binaries, 'open-loop'), [
    new URL(subject.url).host, PATH, subject.keys, rate, seconds, openConnections ?? connections,
    seed,
  ])
  const { stdout } = await promisify(execFile)(first, rest,
    { timeout: seconds * 1000 + OTHERS_NEED_MS })
  return JSON.parse(stdout)
}
