// The page as a person uses it, in a real browser, against a real server with calf.

import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { after, afterEach, before, beforeEach, test } from 'node:test'
import { answers, ask, browser as launch, contextOf, done, open as openIn, serve, thinking } from './harness.mjs'

const QUESTION = "How many r's are in strawberry?"
let browser, fast, slow, context, page, complaints

before(async () => {
  browser = await launch()
  fast = await serve()
  slow = await serve({ slow: true })
})
after(async () => {
  await browser?.close()
  await fast?.stop()
  await slow?.stop()
})
beforeEach(async () => {
  context = await contextOf(browser)
  page = await open(fast.url)
})
afterEach(async () => {
  await context.close()
  assert.deepEqual(complaints, [], 'the console is silent: no script error, nothing refused by the CSP')
})

function open(url) {
  complaints = []
  return openIn(context, url, complaints)
}

test('a question is thought about, the thought folds, and the answer stands', async () => {
  await ask(page, QUESTION)
  await done(page)
  const answer = answers(page).last()
  assert.match(await answer.innerText(), /3/)
  const thought = answer.getByRole('button', { name: /Thought for/ })
  assert.equal(await thought.getAttribute('aria-expanded'), 'false')
  await thought.click()
  assert.match(await answer.getByRole('region', { name: 'Thinking' }).innerText(), /strawberry/)
  assert.match(await page.getByText(/of .* tokens/).first().innerText(), /\d/)
  await answer.getByRole('button', { name: 'Copy', exact: true }).click()
  assert.match(await page.evaluate(() => navigator.clipboard.readText()), /3/)
})

test('Stop keeps what was written, and Continue goes on', async () => {
  page = await open(slow.url)
  slow.pace(1000) // Looking for violations takes a while, too.
  await ask(page, QUESTION)
  await thinking(page)
  assert.deepEqual(await violations(page), [], 'while it thinks')
  await page.getByRole('button', { name: 'Stop' }).click()
  await page.getByText('Stopped', { exact: true }).waitFor()
  await page.keyboard.type('typed at once') // Stop is gone, and focus with it.
  assert.equal(await page.getByLabel('Message', { exact: true }).inputValue(), 'typed at once')
  assert.match(await answers(page).last().innerText(), /Thought for/)
  slow.pace(100)
  await page.reload()
  await page.getByText('Stopped', { exact: true }).waitFor()
  await page.getByRole('button', { name: 'Continue' }).click()
  await done(page)
})

test('Answer now ends the thought', async () => {
  page = await open(slow.url)
  await ask(page, 'Sort these numbers: 31, 7, 19, 4, 88, 23, 5')
  await page.getByRole('button', { name: 'Answer now' }).click()
  await done(page)
  assert.match(await answers(page).last().innerText(), /Thought for/)
})

test('a reload in the middle of an answer finds it again and goes on', async () => {
  page = await open(slow.url)
  slow.pace(400)
  await ask(page, QUESTION)
  await thinking(page)
  await page.waitForTimeout(1200) // what was received is stored once a second
  await page.reload()
  slow.pace(100)
  await done(page)
  const answer = answers(page).last()
  assert.match(await answer.innerText(), /3/)
  await answer.getByRole('button', { name: /Thought for/ }).click()
  const thought = await answer.getByRole('region', { name: 'Thinking' }).innerText()
  assert.equal(thought.split('count r').length, 2, `no part is missing or doubled: ${thought}`)
})

test('an answer is found again, or stopped, before anything of it came', async () => {
  page = await open(slow.url)
  slow.pace(400)
  await ask(page, QUESTION)
  await page.reload()
  await thinking(page)
  slow.pace(100)
  await done(page)
  assert.match(await answers(page).last().innerText(), /Thought for[^]*3/)
  slow.pace(400)
  await page.getByRole('button', { name: 'Regenerate' }).click()
  await page.getByRole('button', { name: 'Stop' }).click()
  await page.getByText('Stopped', { exact: true }).waitFor()
  slow.pace(100)
  await page.waitForTimeout(500)
  assert.deepEqual((await (await fetch(`${slow.url}api/cachalot/status`)).json()).sequences, [])
})

test('editing and regenerating make branches', async () => {
  await ask(page, 'What is 47 + 38?')
  await done(page)
  await page.getByRole('button', { name: 'Regenerate' }).click()
  await page.getByText('2 / 2').waitFor()
  await done(page)
  await page.getByRole('button', { name: 'Previous version' }).click()
  await page.getByText('1 / 2').waitFor()
  await page.getByRole('button', { name: 'Edit' }).click()
  await page.getByLabel('Edit', { exact: true }).last().fill('What is 12 + 30?')
  await page.getByRole('button', { name: 'Send' }).first().click()
  await page.getByRole('article', { name: 'You' }).getByText('2 / 2').waitFor()
  await done(page)
  assert.match(await answers(page).last().innerText(), /Thought for/)
})

test('conversations are exported, deleted, imported, found and renamed', async () => {
  await ask(page, 'What is 47 + 38?')
  await done(page)
  const [download] = await Promise.all([
    page.waitForEvent('download'),
    page.getByRole('button', { name: 'Export', exact: true }).click(),
  ])
  const exported = await readFile(await download.path(), 'utf8')
  const actions = page.getByRole('button', { name: /Conversation actions/ })
  await actions.click()
  const [markdown] = await Promise.all([
    page.waitForEvent('download'),
    page.getByRole('button', { name: 'Export as Markdown' }).click(),
  ])
  assert.match(await readFile(await markdown.path(), 'utf8'), /^# What is 47 \+ 38\?\n\n## You\n[^]*> \*\*Thinking\*\*[^]*85/)
  await actions.click()
  await page.getByRole('button', { name: 'Delete' }).click()
  const confirm = page.getByRole('dialog', { name: /Delete/ })
  await confirm.getByRole('button', { name: 'Cancel' }).click()
  await page.getByRole('link', { name: 'What is 47 + 38?' }).waitFor()
  await actions.click()
  await page.getByRole('button', { name: 'Delete' }).click()
  await confirm.getByRole('button', { name: 'Delete' }).click()
  await page.getByText('Conversations are kept in this browser only.').waitFor()
  const file = { name: 'export.json', mimeType: 'application/json', buffer: Buffer.from(exported) }
  await page.getByLabel('Import', { exact: true }).last().setInputFiles(file)
  await page.getByText('Imported one conversation.').waitFor()
  await actions.click()
  await page.getByRole('button', { name: 'Rename' }).click()
  await page.getByLabel('Name of the conversation').fill('Addition')
  await page.keyboard.press('Enter')
  await page.getByRole('link', { name: 'Addition' }).click()
  assert.match(await answers(page).last().innerText(), /85/)
  await page.getByLabel('Search').fill('no such text')
  await page.getByText('No conversation contains this text.').waitFor()
  await page.getByLabel('Search').fill('47')
  await page.getByRole('link', { name: 'Addition' }).waitFor()
})

test('two tabs share the queue and do not disturb each other', async () => {
  page = await open(slow.url)
  const second = await context.newPage()
  await second.goto(slow.url)
  await ask(page, QUESTION)
  await thinking(page)
  await ask(second, 'Which is larger, 9.11 or 9.9?')
  await second.getByText(/Waiting in the queue|Waiting for the server/).waitFor()
  await done(page)
  await done(second)
  assert.match(await answers(second).last().innerText(), /9\.9/)
  assert.match(await answers(page).last().innerText(), /3/)
  assert.equal(await page.getByRole('link', { name: 'Which is larger, 9.11 or 9.9?' }).count(), 1)
})

test('a server with a key asks for it, and says so when it is wrong', async () => {
  const locked = await serve({ args: ['--api-key', 'a-long-test-key-0123456789'] })
  try {
    await page.goto(locked.url)
    const field = page.getByRole('textbox', { name: 'API key' })
    await field.waitFor()
    assert.deepEqual(await violations(page), [])
    await field.fill('wrong')
    await page.getByRole('button', { name: 'Use this key' }).click()
    await page.getByText('The server refused this API key.').waitFor()
    await field.fill('a-long-test-key-0123456789')
    await page.getByRole('button', { name: 'Use this key' }).click()
    await ask(page, 'What is 47 + 38?')
    await done(page)
    assert.equal(await page.evaluate(() => Object.keys(localStorage).some((k) => k.includes('key'))), false)
  } finally {
    await locked.stop()
  }
})

test('the keyboard alone is enough', async () => {
  await page.getByLabel('Message', { exact: true }).and(page.locator(':focus')).waitFor()
  await page.keyboard.type('What is 47 + 38?')
  await page.keyboard.press('Enter')
  await done(page)
  await page.keyboard.press('Control+,')
  await page.getByRole('dialog', { name: 'Settings' }).waitFor()
  await page.keyboard.press('Escape')
  await page.keyboard.press('Control+k')
  await page.keyboard.type('47')
  await page.keyboard.press('Control+Shift+O')
  await page.getByRole('heading', { name: 'What would you like to know?' }).waitFor()
})

test('shortcuts leave dialogs alone, and focus comes back', async () => {
  const focused = () => page.evaluate(() => document.activeElement.getAttribute('aria-label') ?? document.activeElement.tagName)
  await page.keyboard.press('Control+,')
  const drawer = page.getByRole('dialog', { name: 'Settings' })
  await drawer.waitFor()
  await page.keyboard.press('Control+Shift+M')
  await page.keyboard.press('Control+k')
  await drawer.waitFor()
  assert.equal(new URL(page.url()).hash, '')
  await page.keyboard.press('Control+,')
  await drawer.waitFor({ state: 'detached' })
  assert.equal(await focused(), 'TEXTAREA')
  await ask(page, 'What is 47 + 38?')
  await done(page)
  const actions = page.getByRole('button', { name: /^Conversation actions/ })
  await actions.click()
  await page.getByRole('button', { name: 'Rename' }).click()
  await page.keyboard.type('Sum')
  await page.keyboard.press('Enter')
  await page.getByRole('link', { name: 'Sum' }).waitFor()
  assert.match(await focused(), /^Conversation actions/)
  await page.getByRole('button', { name: 'Edit' }).click()
  await page.keyboard.press('Escape')
  await page.getByRole('button', { name: 'Edit' }).and(page.locator(':focus')).waitFor()
  await page.setViewportSize({ width: 320, height: 560 })
  await page.getByRole('button', { name: 'Conversations', exact: true }).click()
  assert.equal(await focused(), 'Close conversations')
  await page.keyboard.press('Escape')
  assert.equal(await focused(), 'Conversations')
})

test('text from right to left, and text without an end, keep to their places', async () => {
  const content = `שלום עולם\n\n- פריט\n\n${'W'.repeat(300)}\n\n$$${'a'.repeat(200)}$$\n\nEnglish`
  await page.setViewportSize({ width: 320, height: 560 })
  const messages = { a: { id: 'a', parent: null, role: 'assistant', content, created: 1 } }
  const buffer = Buffer.from(JSON.stringify({ conversations: [{ title: 'L'.repeat(150), messages, leaf: 'a' }] }))
  await page.getByLabel('Import', { exact: true }).last().setInputFiles({ name: 'x.json', mimeType: 'application/json', buffer })
  await page.getByText('Imported one conversation.').waitFor()
  await page.getByRole('button', { name: 'Conversations', exact: true }).click()
  await page.getByRole('link', { name: /LLLL/ }).click()
  await answers(page).locator('.katex').first().waitFor()
  await page.waitForTimeout(300)
  const directions = await answers(page).locator('p, li').evaluateAll((nodes) => nodes.map((node) => getComputedStyle(node).direction))
  assert.deepEqual([directions[0], directions[1], directions.at(-1)], ['rtl', 'rtl', 'ltr'])
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth > innerWidth), false)
  assert.deepEqual(await violations(page), [])
})

test('what was typed and attached is still there after a look at another place', async () => {
  const file = { name: 'notes.txt', mimeType: 'text/plain', buffer: Buffer.from('31, 7, 19') }
  await page.getByLabel('Attach text files').last().setInputFiles(file)
  await page.getByLabel('Message', { exact: true }).fill('Sort these')
  await page.getByRole('link', { name: 'Machine' }).click()
  await page.getByRole('link', { name: 'Back to the chat' }).click()
  await page.getByText('notes.txt').waitFor()
  assert.equal(await page.getByLabel('Message', { exact: true }).inputValue(), 'Sort these')
})

test('files are attached and sent as R1’s template for files', async () => {
  const [request] = await Promise.all([
    page.waitForRequest((r) => r.url().endsWith('/v1/chat/completions')),
    (async () => {
      const file = { name: 'notes.txt', mimeType: 'text/plain', buffer: Buffer.from('31, 7, 19') }
      await page.getByLabel('Attach text files').last().setInputFiles(file)
      await page.getByText('notes.txt').waitFor()
      await ask(page, 'Sort these numbers')
    })(),
  ])
  const { messages } = request.postDataJSON()
  const expected = '[file name]: notes.txt\n[file content begin]\n31, 7, 19\n[file content end]\nSort these numbers'
  assert.equal(messages.at(-1).content, expected)
  await done(page)
})

test('the machine page shows weights and speed', async () => {
  await ask(page, 'What is 47 + 38?')
  await done(page)
  await page.getByRole('link', { name: 'Machine' }).click()
  await page.getByRole('region', { name: 'Where the weights are' }).getByText(/MiB/).first().waitFor()
  await page.getByRole('region', { name: 'Speed' }).getByText(/tokens\/s/).first().waitFor()
  await page.getByRole('link', { name: 'Back to the chat' }).click()
  await done(page)
})

test('no serious violation of accessibility, in light and dark, wide and at 400 pixels', async () => {
  await ask(page, 'What is 47 + 38?')
  await done(page)
  // What each state needs to be there, and to be left again.
  const openMenu = () => page.getByRole('button', { name: /^Conversation actions/ }).first().click()
  const states = {
    chat: [async () => {}, async () => {}],
    settings: [() => page.keyboard.press('Control+,'), () => page.keyboard.press('Escape')],
    machine: [() => page.getByRole('link', { name: 'Machine' }).click(), () => page.goBack()],
    menu: [openMenu, () => page.keyboard.press('Escape')],
    confirm: [
      async () => {
        await openMenu()
        await page.getByRole('button', { name: 'Delete' }).click()
        await page.getByRole('dialog', { name: /Delete/ }).waitFor()
      },
      () => page.keyboard.press('Escape'),
    ],
  }
  for (const colorScheme of ['light', 'dark']) {
    for (const width of [1200, 400]) {
      await page.emulateMedia({ colorScheme })
      await page.setViewportSize({ width, height: 800 })
      const overflow = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth)
      assert.equal(overflow, false, `nothing is wider than ${width} pixels`)
      for (const [state, [enter, leave]] of Object.entries(states)) {
        // On narrow screens the list of conversations is behind a button, and the same as here.
        if (width < 600 && (state === 'menu' || state === 'confirm')) continue
        await enter()
        await page.waitForTimeout(300)
        assert.deepEqual(await violations(page), [], `${state}, ${colorScheme}, ${width}`)
        await leave()
      }
    }
  }
})

/** What axe finds that is serious. */
async function violations(page) {
  const axe = await readFile(new URL('../../node_modules/axe-core/axe.min.js', import.meta.url), 'utf8')
  const { violations } = await page.evaluate(`${axe}; axe.run()`)
  const serious = violations.filter((v) => ['serious', 'critical'].includes(v.impact))
  return serious.map((v) => `${v.id}: ${v.nodes.map((n) => n.html).join(' ')}`)
}
