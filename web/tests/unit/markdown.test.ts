import { expect, test } from 'vitest'
import { type MathToken, type Token, parse, safeUrl, unescape } from '../../src/lib/markdown'

const inline = (source: string): Token[] => (parse(source)[0] as { tokens?: Token[] }).tokens ?? []
const formulas = (source: string): [string, boolean][] =>
  inline(source)
    .filter((t) => t.type === 'math')
    .map((t) => [(t as MathToken).text, (t as MathToken).display])

test('formulas are found in every notation that R1 writes', () => {
  expect(formulas('so $x^2$ and \\(y\\)')).toEqual([['x^2', false], ['y', false]])
  expect(formulas('thus $$a_b$$ and \\[c\\]')).toEqual([['a_b', true], ['c', true]])
  expect(parse('\\[\n\\boxed{4}\n\\]\n\nnext').map((t) => t.type)).toEqual(['math', 'paragraph'])
  expect((parse('$$\na\n\\\\ b\n$$')[0] as MathToken).text).toBe('a\n\\\\ b')
})

test('prices and lone dollars are no formulas', () => {
  for (const source of ['$5 and $6', 'costs $ 3 $', 'US$20 or US$30', '$', '\\$a$']) {
    expect(formulas(source)).toEqual([])
  }
})

test('emphasis inside a formula stays the formula’s', () => {
  expect(formulas('$a_1 * b_2 * c_3$')).toEqual([['a_1 * b_2 * c_3', false]])
})

test('only the web and mail are linked', () => {
  expect(safeUrl('https://example.org/a')).toBe('https://example.org/a')
  expect(safeUrl('mailto:a@example.org')).toBe('mailto:a@example.org')
  const bad = ['javascript:alert(1)', 'JaVaScRiPt:alert(1)', 'data:text/html,x', 'vbscript:x', ' \tjavascript:x', '/x', '']
  for (const href of bad) expect(safeUrl(href)).toBeNull()
})

test('HTML stays text', () => {
  const kinds = (source: string): string[] => parse(source).flatMap((t) => [t.type, ...('tokens' in t ? (t.tokens ?? []) : []).map((i) => i.type)])
  expect(kinds('<script>alert(1)</script>')).toContain('html')
  expect(kinds('a <img src=x onerror=alert(1)> b')).toContain('html')
})

test('entities in text become characters', () => {
  expect(unescape('a &lt;b&gt; &amp;amp; &quot;')).toBe('a <b> &amp; "')
})
