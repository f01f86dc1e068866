// A real server with calf and a real browser. CACHALOT names the program, CHROMIUM the browser; BUILT=1
// tests the page that `npm run build` wrote, without building the program again.

import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { createServer } from 'node:net'
import { networkInterfaces } from 'node:os'
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
export async function serve({ args = [], slow = false, host = '127.0.0.1', port: wanted, model } = {}) {
  const port = wanted ?? (await freePort())
  const env = { ...process.env, CACHALOT_RECORD: 'off', ...(slow ? { CACHALOT_CPU: 'scalar' } : {}) }
  const threads = slow ? ['--threads', '1'] : []
  const child = spawn(PROGRAM, ['serve', ...(model ? [model] : []), '--port', String(port), '--host', host, ...threads, ...args], { env })
  let log = ''
  child.stdout.on('data', (data) => (log += data))
  child.stderr.on('data', (data) => (log += data))
  const url = `http://${host}:${port}/`
  const until = Date.now() + START_MS
  for (;;) {
    if (child.exitCode !== null || Date.now() > until) throw new Error(`the server did not start:\n${log}`)
    const ready = await fetch(`${url}health`).then((r) => r.ok, () => false)
    if (ready) {
      let period = 100
      const release = slow ? throttle(child, () => period) : () => {}
      return {
        url,
        /** Makes a slow one slower: it runs for 10 of so many milliseconds. */
        pace: (milliseconds) => (period = milliseconds),
        stop: () => (release(), stopped(child)),
        kill: () => (release(), child.kill('SIGKILL')),
      }
    }
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
}

/** Lets a process run for 10 ms of every `period()`, until the returned function is called. */
function throttle(child, period) {
  let timer
  const run = () => {
    child.kill('SIGCONT')
    timer = setTimeout(() => {
      child.kill('SIGSTOP')
      timer = setTimeout(run, period() - 10)
    }, 10)
  }
  run()
  return () => {
    clearTimeout(timer)
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

/** An address of this machine that others reach, if it has one. */
export function outerAddress() {
  const addresses = Object.values(networkInterfaces()).flat()
  return addresses.find((address) => address.family === 'IPv4' && !address.internal)?.address
}

const WAIT_MS = 60_000

/** A browser of its own for a test, with the most likely token each time, so that answers are the same in every run. */
export async function contextOf(browser, settings = {}) {
  const context = await browser.newContext({ permissions: ['clipboard-read', 'clipboard-write'] })
  context.setDefaultTimeout(WAIT_MS)
  const kept = JSON.stringify(JSON.stringify({ temperature: 0, ...settings }))
  await context.addInitScript(`localStorage.setItem('cachalot-settings', ${kept})`)
  if (process.env.BUILT) await context.route(({ pathname }) => pathname === '/' || /\.\w+$/.test(pathname), fromDisk)
  return context
}

/** Answers with what `npm run build` wrote, under the policy that the server sends. */
export async function fromDisk(route) {
  const url = new URL(route.request().url())
  const path = `../crates/server/page${url.pathname === '/' ? '/index.html' : url.pathname}`
  if (!existsSync(path)) return route.continue()
  const { headers } = await fetch(url.origin).catch(() => ({ headers: new Headers() })) // It may be about to stop.
  const policy = headers.get('content-security-policy') ?? ''
  await route.fulfill({ path, headers: { 'content-security-policy': policy }, contentType: TYPES[path.split('.').pop()] })
}
const TYPES = { html: 'text/html', js: 'text/javascript', css: 'text/css', svg: 'image/svg+xml', woff2: 'font/woff2' }

/** Opens the page; `complaints` gets what the console says: script errors, and what the CSP refuses. */
export async function open(context, url, complaints = []) {
  const page = await context.newPage()
  page.on('pageerror', (error) => complaints.push(error.message))
  page.on('console', (message) => {
    const text = message.text()
    if (message.type() === 'error' && !/status of (400|401|404|503)/.test(text)) complaints.push(text)
  })
  await page.goto(url)
  await page.getByRole('heading', { name: 'What would you like to know?' }).waitFor()
  return page
}

export async function ask(page, question) {
  await page.getByLabel('Message', { exact: true }).fill(question)
  await page.getByRole('button', { name: 'Send' }).click()
}

export const answers = (page) => page.getByRole('article', { name: 'Assistant' })
export const done = (page) =>
  answers(page).last().getByRole('button', { name: 'Regenerate', disabled: false }).waitFor()
export const thinking = (page) => page.getByRole('button', { name: 'Answer now' }).waitFor()

/** Imports a conversation that has one answer, and shows it. */
export async function importAnswer(page, content, title = 'Imported') {
  const messages = { a: { id: 'a', parent: null, role: 'assistant', content, reasoning: content, created: 1 } }
  const exported = JSON.stringify({ conversations: [{ title, messages, leaf: 'a' }] })
  const file = { name: 'export.json', mimeType: 'application/json', buffer: Buffer.from(exported) }
  await page.getByLabel('Import', { exact: true }).last().setInputFiles(file)
  await page.getByRole('link', { name: title }).click()
}
