// Text that means harm: it is shown, and nothing else happens.

import assert from 'node:assert/strict'
import { after, afterEach, before, beforeEach, test } from 'node:test'
import { answers, ask, browser as launch, contextOf, done, importAnswer, open, serve } from './harness.mjs'

let browser, server, context, page, complaints, outside

before(async () => {
  browser = await launch()
  server = await serve()
})
after(async () => {
  await browser?.close()
  await server?.stop()
})
beforeEach(async () => {
  context = await contextOf(browser)
  complaints = []
  page = await open(context, server.url, complaints)
  outside = []
  page.on('request', (request) => request.url().startsWith(server.url) || outside.push(request.url()))
})
afterEach(async () => {
  await context.close()
  assert.deepEqual(outside, [], 'nothing is asked of anyone but the server')
  assert.deepEqual(complaints, [], 'nothing had to be refused by the CSP')
})

test('model output and imports are never HTML', async () => {
  const content = [
    '<script>window.hacked = 1</script>',
    '<img src=x onerror="window.hacked = 1">',
    '[click](javascript:window.hacked=1) [data](data:text/html,<script>1</script>) <javascript:window.hacked=1>',
    '[ref][r] ![picture](http://127.0.0.1:1/picture.png) ![data](data:image/svg+xml,<svg onload=1>)',
    '<a href="javascript:window.hacked=1">x</a> <iframe src="/"></iframe> <style>*{display:none}</style>',
    '```html\n<script>window.hacked = 1</script>\n```',
    '```"><img src=x onerror=window.hacked=1>\ncode\n```',
    '| <img src=x onerror=window.hacked=1> | [x](javascript:1) |\n|-|-|\n| <b>1</b> | ![x](http://127.0.0.1:1/t.png) |',
    '[r]: javascript:window.hacked=1',
  ].join('\n\n')
  await importAnswer(page, content, '<img src=x onerror=window.hacked=1>')
  await answers(page).getByRole('button', { name: 'Thought' }).click()
  await page.waitForTimeout(1000)
  assert.equal(await page.evaluate(() => window.hacked), undefined)
  const article = answers(page)
  for (const tag of ['script', 'img', 'iframe', 'style', 'b']) assert.equal(await article.locator(tag).count(), 0, tag)
  for (const href of await article.locator('a').evaluateAll((links) => links.map((a) => a.href))) {
    assert.match(href, /^https?:/)
  }
})

test('formulas load nothing, link nowhere and keep to their place', async () => {
  const content = [
    '$\\href{javascript:window.hacked=1}{x}$ $\\url{javascript:1}$ $\\includegraphics{http://127.0.0.1:1/x.png}$',
    '$\\htmlStyle{position:fixed;inset:0;background:url(http://127.0.0.1:1/)}{x}$ $\\htmlClass{primary}{x}$',
    '$\\textcolor{red;background:url(http://127.0.0.1:1/)}{x}$ $\\colorbox{url(http://127.0.0.1:1/)}{x}$',
    '$\\rule{100000em}{100000em}$ $\\def\\x{\\x\\x}\\x$ $\\kern{-9999em}x$',
    'and $x^2 + 1$',
  ].join('\n\n')
  await importAnswer(page, content)
  await answers(page).locator('.katex').first().waitFor()
  await page.waitForTimeout(500)
  assert.equal(await page.evaluate(() => window.hacked), undefined)
  assert.equal(await answers(page).locator('a, img').count(), 0)
  const styles = await answers(page).locator('[style]').evaluateAll((nodes) => nodes.map((n) => n.getAttribute('style')))
  for (const style of styles) assert.doesNotMatch(style, /url|fixed/)
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth > innerWidth), false)
  const widest = await answers(page).locator('.katex *').evaluateAll((nodes) => Math.max(...nodes.map((n) => n.getBoundingClientRect().height)))
  assert.ok(widest < 1000, `no formula covers the page: ${widest}`)
  const send = page.getByRole('button', { name: 'New chat' })
  await send.click({ trial: true })
})

test('formulas that define macros or are many do not stop the page', async () => {
  // Drawn, the first would be 380,000 elements, and the second would not end.
  const bombs = [`$\\def\\a{${'x'.repeat(2000)}}${'\\a'.repeat(190)}$`, `$\\edef\\a{x}${'\\Edef\\a{\\a\\a}'.repeat(30)}\\a$`]
  await importAnswer(page, `${bombs.join('\n\n')}\n\n${'$\\frac{x^2}{y}$ and\n\n'.repeat(3000)}`)
  await page.getByText('def').first().waitFor()
  await page.getByRole('button', { name: 'New chat' }).click()
  await page.getByRole('heading', { name: 'What would you like to know?' }).waitFor({ timeout: 10_000 })
})

test('very deep and very long answers leave the page usable', async () => {
  const deep = `${'> '.repeat(5000)}deep\n\n${'- '.repeat(200)}x\n\n${'*'.repeat(5000)}`
  await importAnswer(page, deep, 'Deep')
  await page.getByText('deep').first().waitFor()
  const long = 'A line of a very long answer with *stars*, `code` and $x$.\n'.repeat(17_500) // 1 MB
  await importAnswer(page, long, 'Long')
  await page.getByText(/A line of a very long answer/).first().waitFor()
  const sections = Array.from({ length: 2000 }, (_, i) => `## Part ${i}\n\nText with **bold** and a [link](https://example.org).\n`)
  await importAnswer(page, sections.join('\n'), 'Sections')
  await answers(page).getByRole('heading', { name: 'Part 1999', exact: true }).waitFor()
  await page.getByRole('button', { name: 'New chat' }).click()
  await ask(page, 'What is 47 + 38?')
  await done(page)
  assert.match(await answers(page).last().innerText(), /85/)
})

test('files that are no exports are refused with a reason', async () => {
  const input = page.getByLabel('Import', { exact: true }).last()
  const file = (name, content) => ({ name, mimeType: 'application/json', buffer: Buffer.from(content) })
  const wrong = ['', '{}', '[]', 'null', '{"conversations":[{"messages":{"a":{"role":"system"}}}]}', '\u0000\u0001']
  for (const content of wrong) {
    await input.setInputFiles(file('x.json', content))
    await page.getByText(/cannot be imported/).waitFor()
    await page.getByRole('button', { name: 'Close', exact: true }).click()
  }
  const odd = '{"conversations":[{"title":7,"leaf":"z","messages":{"__proto__":{"role":"user","content":9,"parent":"q"}}}]}'
  await input.setInputFiles(file('x.json', odd))
  await page.getByText('Imported one conversation.').waitFor()
})
