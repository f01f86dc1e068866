// A real server with calf and a real browser. CACHALOT names the program, CHROMIUM the browser.

import { spawn } from 'node:child_process'
import { createServer } from 'node:net'
import { chromium } from 'playwright-core'

const PROGRAM = process.env.CACHALOT ?? '../target/release/cachalot'
const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium'
const START_MS = 60_000

async function freePort() {
  const server = createServer()
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address()
  await new Promise((resolve) => server.close(resolve))
  return port
}

/**
 * Starts `cachalot serve` and waits until it is ready. A `slow` one computes with the scalar reference
 * on one thread, and is stopped for most of the time by signals, so that on any machine there is
 * time to act while an answer is written.
 */
export async function serve({ args = [], slow = false } = {}) {
  const port = await freePort()
  const env = { ...process.env, CACHALOT_RECORD: 'off', ...(slow ? { CACHALOT_CPU: 'scalar' } : {}) }
  const threads = slow ? ['--threads', '1'] : []
  const child = spawn(PROGRAM, ['serve', '--port', String(port), ...threads, ...args], { env })
  let log = ''
  child.stdout.on('data', (data) => (log += data))
  child.stderr.on('data', (data) => (log += data))
  const url = `http://127.0.0.1:${port}/`
  const until = Date.now() + START_MS
  for (;;) {
    if (child.exitCode !== null || Date.now() > until) throw new Error(`the server did not start:\n${log}`)
    const ready = await fetch(`${url}health`).then((r) => r.ok, () => false)
    if (ready) {
      const release = slow ? throttle(child) : () => {}
      return { url, stop: () => (release(), stopped(child)) }
    }
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
}

/** Lets a process run for a tenth of the time, until the returned function is called. */
function throttle(child) {
  let ended = false
  const timer = setInterval(() => {
    child.kill('SIGCONT')
    setTimeout(() => ended || child.kill('SIGSTOP'), 10)
  }, 100)
  return () => {
    ended = true
    clearInterval(timer)
    child.kill('SIGCONT')
  }
}

function stopped(child) {
  return new Promise((resolve) => {
    if (child.exitCode !== null) return resolve()
    child.once('exit', resolve)
    child.kill('SIGTERM')
    setTimeout(() => child.kill('SIGKILL'), 10_000).unref()
  })
}

/** A browser that talks to loopback only. */
export function browser() {
  return chromium.launch({
    executablePath: CHROMIUM,
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
    ],
  })
}
