// Takes the screenshots in docs/images: `npm run screenshots`. The program is the one that the tests use;
// after `cachalot plan` the machine page shows this machine's figures.

import { mkdirSync } from 'node:fs'
import { ask, browser as launch, contextOf, done, open, serve, thinking } from './harness.mjs'

const OUT = new URL('../../../docs/images/', import.meta.url).pathname
const CALF = new URL('../../../models/calf.gguf', import.meta.url).pathname
const WIDE = { width: 1200, height: 760 }
const NARROW = { width: 400, height: 760 }

const question = 'Where does a thrown ball land, without air? Please derive it, and add a few lines of Python.'
const thought = 'The ball starts at height h with speed v at an angle. First the time of flight, then the distance.'
const answer = String.raw`Without air the two directions are independent:

$$x(t) = v \cos\alpha \; t, \qquad y(t) = h + v \sin\alpha \; t - \tfrac{1}{2} g t^2$$

It lands when $y(t) = 0$. The positive root of this **quadratic equation** is the time of flight:

$$T = \frac{v \sin\alpha + \sqrt{v^2 \sin^2\alpha + 2 g h}}{g}$$

| symbol | meaning | unit |
|---|---|---|
| $v$ | speed at the start | m/s |
| $h$ | height at the start | m |

${'```'}python
from math import cos, radians, sin, sqrt

def distance(v: float, angle: float, h: float = 0.0, g: float = 9.81) -> float:
    a = radians(angle)
    t = (v * sin(a) + sqrt((v * sin(a)) ** 2 + 2 * g * h)) / g
    return v * cos(a) * t
${'```'}
`

/** Conversations as they look after a few days of use. */
function history() {
  const day = 86_400_000
  const titles = ['Euler’s formula, twice', 'A regular expression for dates', 'Why is the sky dark at night?']
  const others = titles.map((title, i) => ({
    title,
    updated: Date.now() - (i + 1) * day,
    messages: { a: { role: 'user', parent: null, content: title, created: 1 } },
    leaf: 'a',
  }))
  const messages = {
    a: { role: 'user', parent: null, content: question, created: 1 },
    b: { role: 'assistant', parent: 'a', content: answer, reasoning: thought, created: 2 },
  }
  const first = { title: 'Where a thrown ball lands', updated: Date.now(), messages, leaf: 'b' }
  return Buffer.from(JSON.stringify({ conversations: [first, ...others] }))
}

const browser = await launch()
const quick = await serve()
const slow = await serve({ slow: true })
const streamed = await serve({ slow: true, model: CALF, args: ['--stream', 'always', '--parallel', '2'] })
mkdirSync(OUT, { recursive: true })
try {
  await chats()
  await machine()
} finally {
  await browser.close()
  await Promise.all([quick.stop(), slow.stop(), streamed.stop()])
}

async function shoot(page, name, size = WIDE) {
  await page.setViewportSize(size)
  await page.mouse.move(300, 5)
  await page.waitForTimeout(700)
  await page.screenshot({ path: `${OUT}${name}.png`, animations: 'disabled' })
}

async function withHistory(page) {
  const file = { name: 'history.json', mimeType: 'application/json', buffer: history() }
  await page.getByLabel('Import', { exact: true }).last().setInputFiles(file)
  await page.getByText('Imported 4 conversations.').waitFor()
  await page.getByRole('button', { name: 'Close', exact: true }).click()
}

async function chats() {
  const context = await contextOf(browser, { temperature: 0.6 })
  const page = await open(context, quick.url)
  await withHistory(page)
  await page.getByRole('link', { name: 'Where a thrown ball lands' }).click()
  await page.locator('.katex').first().waitFor()
  const toTop = () => page.locator('.messages').evaluate((node) => (node.scrollTop = 0))
  await page.setViewportSize(WIDE)
  await toTop()
  await shoot(page, 'chat')
  await page.emulateMedia({ colorScheme: 'dark' })
  await shoot(page, 'dark')
  await page.emulateMedia({ colorScheme: 'light' })
  await page.setViewportSize(NARROW)
  await toTop()
  await shoot(page, 'narrow', NARROW)
  await page.setViewportSize(WIDE)
  await page.getByRole('button', { name: 'Settings' }).click()
  await shoot(page, 'settings')
  await context.close()

  const live = await contextOf(browser)
  const thinks = await open(live, slow.url)
  await withHistory(thinks)
  await ask(thinks, "How many r's are in strawberry?")
  await thinking(thinks)
  await thinks.getByText(/^[4-7]\d tokens$/).waitFor()
  slow.pace(60_000)
  await shoot(thinks, 'thinking')
  slow.pace(100)
  await live.close()
}

async function machine() {
  const context = await contextOf(browser)
  const page = await open(context, streamed.url)
  await withHistory(page)
  const other = await open(context, streamed.url)
  await page.getByRole('link', { name: 'Machine' }).click()
  for (const number of [47, 31, 58]) {
    await ask(other, `What is ${number} + 38?`)
    await done(other)
  }
  await ask(other, "How many r's are in strawberry?")
  await thinking(other)
  await page.waitForTimeout(2500)
  await shoot(page, 'machine', { width: 1200, height: 960 })
  await context.close()
}
