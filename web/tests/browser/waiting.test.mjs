// What is seen while one waits, and when something goes wrong.

import assert from 'node:assert/strict'
import { after, afterEach, before, beforeEach, test } from 'node:test'
import { answers, ask, browser as launch, contextOf, done, open, outerAddress, serve, thinking } from './harness.mjs'

const QUESTION = "How many r's are in strawberry?"
let browser, fast, context, complaints

before(async () => {
  browser = await launch()
  fast = await serve()
})
after(async () => {
  await browser?.close()
  await fast?.stop()
})
beforeEach(async () => {
  context = await contextOf(browser)
  complaints = []
})
afterEach(async () => {
  await context.close()
  const real = complaints.filter((text) => !/net::ERR_|Failed to load resource/.test(text))
  assert.deepEqual(real, [], 'no script error, nothing refused by the CSP')
})

test('places in the queue are told, and one that is full says when to try again', async () => {
  const slow = await serve({ slow: true, args: ['--queue', '2'] })
  try {
    const tabs = []
    for (let i = 0; i < 4; i += 1) tabs.push(await open(context, slow.url, complaints))
    const [first, second, third, fourth] = tabs
    slow.pace(2500)
    await ask(first, QUESTION)
    await thinking(first)
    await ask(second, QUESTION)
    await second.getByText('Waiting in the queue: next').waitFor()
    await ask(third, QUESTION)
    await third.getByText('Waiting in the queue: 1 before this one').waitFor()
    await ask(fourth, QUESTION)
    await fourth.getByText(/The queue is full\. Try again in \d+ s\./).first().waitFor()
    await first.getByRole('button', { name: 'Stop' }).click()
    await third.getByText('Waiting in the queue: next').waitFor()
    await second.getByRole('button', { name: 'Stop' }).click()
    await third.getByRole('button', { name: 'Stop' }).click()
  } finally {
    await slow.stop()
  }
})

test('with many answers at once, each can still be told to answer now', async () => {
  const slow = await serve({ slow: true })
  try {
    const page = await open(context, slow.url, complaints)
    slow.pace(400)
    for (let i = 0; i < 6; i += 1) {
      await page.getByRole('button', { name: 'New chat' }).click()
      await ask(page, `Sort these numbers: 31, 7, 19, 4, 88, 23, 5 (${i})`)
    }
    await page.getByText(/Waiting until another answer in this browser is complete/).waitFor()
    await page.getByRole('link', { name: '(0)' }).click()
    await page.getByRole('button', { name: 'Answer now' }).click()
    await page.getByRole('button', { name: 'Answer now' }).waitFor({ state: 'detached' })
    const other = await context.newPage()
    await other.goto(slow.url)
    await other.getByRole('link', { name: '(0)' }).waitFor()
    await page.getByRole('link', { name: '(4)' }).click()
    await page.getByRole('button', { name: 'Stop' }).click()
    await page.getByRole('link', { name: '(5)' }).click()
    await page.getByText(/Waiting until another answer/).waitFor({ state: 'detached' })
    await page.getByRole('button', { name: 'Stop' }).waitFor()
  } finally {
    slow.kill() // It would finish the other answers.
  }
})

test('a long prompt shows how much of it is done and when it will be, and is cached afterwards', async () => {
  const slow = await serve({ slow: true })
  try {
    const page = await open(context, slow.url, complaints)
    await ask(page, `${'31, 7, 19, 4, 88, 23, 5, '.repeat(60)}\nSort these numbers`)
    await page.getByRole('progressbar', { name: 'Processing prompt' }).waitFor()
    await page.getByText(/\d+ of [\d,]+ tokens/).first().waitFor()
    await page.getByText(/ left$/).waitFor()
    await done(page)
    await page.getByRole('button', { name: 'Regenerate' }).click()
    await page.getByText(/\d+ cached/).first().waitFor()
  } finally {
    await slow.stop()
  }
})

test('loading is shown with its progress, and the chat begins when it is over', async () => {
  // calf is loaded before anybody could look, so the server's answer while loading is given here.
  let progress = 0.25
  await context.route('**/health', (route) => {
    const error = { message: 'Loading model', type: 'unavailable_error', code: 503, progress }
    return progress < 1 ? route.fulfill({ status: 503, json: { error } }) : route.continue()
  })
  const page = await open(context, fast.url, complaints)
  await page.getByText('25 %').waitFor()
  await page.getByRole('progressbar', { name: /Loading the model/ }).waitFor()
  await page.getByLabel('Message', { exact: true }).fill(QUESTION)
  assert.equal(await page.getByRole('button', { name: 'Send' }).isDisabled(), true)
  progress = 1
  await page.getByRole('button', { name: 'Send', disabled: false }).click()
  await done(page)
})

test('the context window fills, says so, and is refused when a message is too long', async () => {
  const small = await serve({ args: ['--ctx', '128'] })
  try {
    const page = await open(context, small.url, complaints)
    await ask(page, 'Sort these numbers: 31, 7, 19, 4, 88, 23, 5, 90, 14, 52, 67, 3, 41, 28, 77, 60')
    await page.getByText(/The context window is full/).waitFor()
    await page.getByText('128 of 128 tokens').waitFor()
    await page.getByRole('button', { name: 'New chat' }).click()
    await ask(page, 'word '.repeat(300))
    await page.getByText(/The conversation has \d+ tokens, but the context window holds 128\./).first().waitFor()
  } finally {
    await small.stop()
  }
})

test('a lost connection is shown, keeps what was written, and is found again', async () => {
  const slow = await serve({ slow: true })
  const page = await open(context, slow.url, complaints)
  await ask(page, QUESTION)
  slow.pace(800)
  await thinking(page)
  await page.waitForTimeout(1500)
  slow.kill()
  await page.getByText('Reconnecting to the answer').waitFor()
  await page.getByText(/The server cannot be reached/).waitFor()
  await page.waitForTimeout(4000) // Then it waits for seconds until it tries again.
  await page.getByRole('button', { name: 'Stop' }).click()
  await page.getByRole('button', { name: 'Send' }).waitFor({ timeout: 1500 })
  await page.getByText('Stopped', { exact: true }).waitFor()
  await page.getByRole('button', { name: /Thought for/ }).waitFor()
  await page.getByRole('button', { name: 'Regenerate' }).click()
  await page.getByText(/The connection was lost\. Check that cachalot serve is running/).first().waitFor()
  await page.getByText(/The server cannot be reached/).waitFor()
  const again = await serve({ port: new URL(slow.url).port })
  try {
    await page.getByText(/The server cannot be reached/).waitFor({ state: 'detached' })
    await page.getByRole('button', { name: 'Regenerate' }).click()
    await done(page)
    assert.match(await answers(page).last().innerText(), /3/)
  } finally {
    await again.stop()
  }
})

test('a server that serves another model now says so, and is asked for it', async () => {
  const args = (name) => ['--strict-model', '--alias', name]
  const before = await serve({ args: args('first') })
  const page = await open(context, before.url, complaints)
  await page.getByText('first', { exact: true }).waitFor()
  await before.stop()
  const after = await serve({ args: args('second'), port: new URL(before.url).port })
  try {
    await ask(page, QUESTION)
    await page.getByText(/the model `first` is not served here, but `second`/).first().waitFor()
    await page.getByText('second', { exact: true }).waitFor()
    await page.getByRole('button', { name: 'Regenerate' }).click()
    await page.getByRole('button', { name: /Thought for/ }).waitFor()
    await done(page)
  } finally {
    await after.stop()
  }
})

test('another tab shows an answer, stops it, and deletes its conversation', async () => {
  const slow = await serve({ slow: true })
  try {
    const first = await open(context, slow.url, complaints)
    slow.pace(600)
    await ask(first, QUESTION)
    await thinking(first)
    const second = await context.newPage()
    await second.goto(first.url())
    await second.getByText('Another tab is writing this answer.').waitFor()
    await second.getByRole('button', { name: 'Stop' }).click()
    await first.getByText('Stopped', { exact: true }).waitFor()
    await second.getByText('Stopped', { exact: true }).waitFor()
    await first.getByRole('button', { name: 'Continue' }).click()
    await thinking(first)
    await second.getByRole('button', { name: /Conversation actions/ }).click()
    await second.getByRole('button', { name: 'Delete' }).click()
    await second.getByRole('dialog').getByRole('button', { name: 'Delete' }).click()
    await first.getByRole('heading', { name: 'What would you like to know?' }).waitFor()
    await first.waitForTimeout(1500) // An answer that went on would be stored again.
    await second.reload()
    for (const page of [first, second]) await page.getByText('Conversations are kept in this browser only.').waitFor()
    assert.deepEqual((await (await fetch(`${slow.url}api/cachalot/status`)).json()).sequences, [])
  } finally {
    await slow.stop()
  }
})

test('the page works where storage is forbidden, and says that nothing is kept', async () => {
  await context.addInitScript(() => {
    for (const name of ['localStorage', 'sessionStorage', 'indexedDB']) {
      Object.defineProperty(window, name, { get: () => { throw new DOMException('denied', 'SecurityError') } })
    }
  })
  const locked = await serve({ args: ['--api-key', 'a-long-test-key-0123456789'] })
  try {
    const page = await open(context, locked.url, complaints)
    await page.getByText(/This browser does not keep conversations/).waitFor()
    await page.getByRole('textbox', { name: 'API key' }).fill('a-long-test-key-0123456789')
    await page.keyboard.press('Enter')
    await ask(page, QUESTION)
    await done(page)
    assert.match(await answers(page).last().innerText(), /3/)
  } finally {
    await locked.stop()
  }
})

test('storage that is full is told, and the answer still stands', async () => {
  await context.addInitScript(() => {
    IDBObjectStore.prototype.put = () => { throw new DOMException('full', 'QuotaExceededError') }
  })
  const page = await open(context, fast.url, complaints)
  await ask(page, QUESTION)
  await page.getByText(/The storage of this browser is full/).waitFor()
  await done(page)
})

test('an address that is none leads to a new chat', async () => {
  const page = await open(context, `${fast.url}#%`, complaints)
  await ask(page, QUESTION)
  await done(page)
})

test('long pasted text and dropped files are attached', async () => {
  const page = await open(context, fast.url, complaints)
  await page.evaluate(() => {
    const data = new DataTransfer()
    data.setData('text/plain', 'pasted '.repeat(1000))
    const box = document.querySelector('textarea')
    box.dispatchEvent(new ClipboardEvent('paste', { clipboardData: data, bubbles: true, cancelable: true }))
  })
  await page.getByText('pasted-text-1.txt').waitFor()
  await page.evaluate(() => {
    const data = new DataTransfer()
    data.items.add(new File(['dropped'], 'notes.md', { type: 'text/markdown' }))
    data.items.add(new File([new Uint8Array([0, 1, 2])], 'picture.png', { type: 'image/png' }))
    const chat = document.querySelector('.chat')
    chat.dispatchEvent(new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true }))
  })
  await page.getByText('notes.md', { exact: true }).waitFor()
  await page.getByText('picture.png is not a text file.').waitFor()
  await page.getByRole('button', { name: 'Remove pasted-text-1.txt' }).click()
  const [request] = await Promise.all([
    page.waitForRequest((r) => r.url().endsWith('/v1/chat/completions')),
    ask(page, 'What is this?'),
  ])
  const expected = '[file name]: notes.md\n[file content begin]\ndropped\n[file content end]\nWhat is this?'
  assert.equal(request.postDataJSON().messages.at(-1).content, expected)
  await done(page)
})

test('stop strings, a schema and a budget of thought do what they say', async () => {
  const page = await open(context, fast.url, complaints)
  const set = async (label, value) => {
    await page.getByRole('button', { name: 'Settings' }).click()
    await page.getByRole('dialog', { name: 'Settings' }).getByLabel(label, { exact: true }).fill(value)
    await page.keyboard.press('Escape')
  }
  await set('Stop strings', 'times')
  await ask(page, QUESTION)
  await done(page)
  assert.doesNotMatch(await answers(page).last().locator('.markdown').last().innerText(), /times/)
  await set('Stop strings', '')
  await set('Thinking budget', '5')
  await page.getByRole('button', { name: 'New chat' }).click()
  await ask(page, QUESTION)
  await done(page)
  const thought = await answers(page).last().getByRole('button', { name: /Thought for/ }).innerText()
  assert.ok(Number(/(\d+) tokens/.exec(thought)[1]) <= 16, thought)
  await set('Thinking budget', '')
  await set('JSON schema', '{"type": "object"')
  await page.getByRole('button', { name: 'Settings' }).click()
  await page.getByText('This is not valid JSON.').waitFor()
  await page.keyboard.press('Escape')
  await ask(page, QUESTION)
  await page.getByText('The JSON schema is not valid JSON.').first().waitFor()
  await set('JSON schema', '{"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"], "additionalProperties": false}')
  await page.getByRole('button', { name: 'Regenerate' }).last().click()
  await done(page)
  const json = await answers(page).last().locator('.markdown').last().innerText()
  assert.equal(typeof JSON.parse(json).ok, 'boolean')
})

test('a screen reader hears when the model thinks, answers and is done', async () => {
  const page = await open(context, fast.url, complaints)
  await page.evaluate(() => {
    window.heard = []
    const region = document.querySelector('[aria-live="polite"]')
    new MutationObserver(() => window.heard.push(region.textContent)).observe(region, { childList: true, characterData: true, subtree: true })
  })
  await ask(page, QUESTION)
  await done(page)
  const heard = await page.evaluate(() => window.heard)
  assert.deepEqual(heard.filter((text) => text !== ''), [
    'The model is thinking.',
    'The answer has started.',
    'The answer is complete.',
  ])
})

test('the page works over plain HTTP from another machine', async (t) => {
  const host = outerAddress()
  if (!host) return t.skip('skipped: this machine has no address but loopback')
  const wide = await serve({ host, args: ['--insecure'] })
  try {
    const page = await open(context, wide.url, complaints)
    assert.equal(await page.evaluate(() => isSecureContext), false)
    await ask(page, QUESTION)
    await done(page)
    await answers(page).last().getByRole('button', { name: 'Copy', exact: true }).click()
    await page.getByText('Copied').waitFor()
    await page.reload()
    await done(page)
  } finally {
    await wide.stop()
  }
})

test('the chat is usable after 150 kB, and formulas and colours come when they are needed', async (t) => {
  if (process.env.BUILT) return t.skip('skipped: only the program sends compressed files')
  const sizes = new Map()
  const page = await context.newPage()
  const session = await context.newCDPSession(page)
  await session.send('Network.enable')
  session.on('Network.loadingFinished', (event) => sizes.set(event.requestId, event.encodedDataLength))
  await page.goto(fast.url)
  await ask(page, QUESTION)
  await done(page)
  const total = [...sizes.values()].reduce((sum, size) => sum + size, 0)
  assert.ok(total > 50_000 && total < 150_000, `${total} bytes, with the answer itself`)
  const loaded = () => page.evaluate(() => performance.getEntriesByType('resource').map(({ name }) => name).join(' '))
  assert.doesNotMatch(await loaded(), /katex|highlight/i)
})
