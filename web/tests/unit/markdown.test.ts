import { expect, test } from 'vitest'
import { type MathToken, type Token, parse, reuse, safeUrl, unescape } from '../../src/lib/markdown'

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

test('hostile text is shown as it was written, and soon', () => {
  const plain = (source: string): void => expect(parse(source)).toEqual([{ type: 'plain', raw: source }])
  plain('>'.repeat(1000))
  plain('- '.repeat(30) + 'x')
  plain(Array.from({ length: 300 }, (_, i) => `${' '.repeat(i)}- x`).join('\n'))
  plain('word '.repeat(200_000))
  // Each of these once took a time that grew with the square of its length.
  for (const piece of ['$$a\n', '$$a\n\n', 'setext\n------\n', '> quotation\ncontinued\n', '1) item\n   2) ', '\\[a\n', '[', '*a**a', '`a', '<a ', '$a', '_a']) {
    expect(parse(piece.repeat(190_000 / piece.length)).length).toBeGreaterThan(0)
  }
})

test('a table that would have millions of cells is shown as it was written', () => {
  const [columns, rows] = [2000, 15_000]
  const table = `${'|a'.repeat(columns)}|\n${'|-'.repeat(columns)}|\n${'|a\n'.repeat(rows)}`
  expect(parse(table).map((t) => t.type)).not.toContain('table')
  expect(parse('|a|b|\n|-|-|\n|1|2|\n').map((t) => t.type)).toEqual(['table'])
})

test('two formulas in brackets on a line are two, and a text may follow them', () => {
  expect(formulas('\\[a\\] and \\[b\\]')).toEqual([['a', true], ['b', true]])
  expect(parse('so\n\\[\na\n\n+ b\n\\]\nnext').map((t) => t.type)).toEqual(['paragraph', 'math', 'paragraph'])
})

test('formulas may hold line breaks of TeX', () => {
  expect((parse('\\[\na \\\\[4pt] b\n\\]')[0] as MathToken).text).toBe('a \\\\[4pt] b')
})

test('blocks that did not change keep their objects', () => {
  const [before, after] = [parse('a\n\nb'), parse('a\n\nbc')]
  const reused = reuse(before, after)
  expect(reused.map((token, i) => token === before[i])).toEqual([true, true, false])
  expect(reused.at(-1)).toBe(after.at(-1))
})
