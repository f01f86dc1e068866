// The built page, as the server sends it: the compressed file where there is one.

import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'

const PAGE = '../crates/server/page'
const [ALL_MAX, CHAT_MAX] = [700_000, 150_000]

const files = readdirSync(PAGE, { recursive: true, encoding: 'utf8' }).filter((name) => statSync(join(PAGE, name)).isFile())
const sent = (name: string): number => statSync(join(PAGE, files.includes(`${name}.gz`) ? `${name}.gz` : name)).size
const sum = (names: string[]): number => names.reduce((bytes, name) => bytes + sent(name), 0)

test('all of the page, with formulas, their fonts and highlighting, is at most 700 kB', () => {
  const whole = files.filter((name) => !name.endsWith('.gz'))
  expect(whole.filter((name) => name.endsWith('.woff2')).length).toBeGreaterThan(10)
  expect(sum(whole)).toBeLessThan(ALL_MAX)
})

test('the chat is usable after at most 150 kB', () => {
  const index = readFileSync(join(PAGE, 'index.html'), 'utf8')
  const named = [...index.matchAll(/(?:src|href)="\.\/([^"]+)"/g)].map((match) => match[1]!)
  expect(named.some((name) => name.endsWith('.js')) && named.some((name) => name.endsWith('.css'))).toBe(true)
  // What the first script imports at once would be named here, too.
  const first = readFileSync(join(PAGE, named.find((name) => name.endsWith('.js'))!), 'utf8')
  expect(first).not.toMatch(/(?:^|[;}])import[^(]*?from?["']\.\//)
  expect(sum(['index.html', ...named])).toBeLessThan(CHAT_MAX)
})
