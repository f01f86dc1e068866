// Markdown to a tree of tokens that components draw. Text of models and users never becomes HTML:
// HTML in it is shown as it was written, links go to the web and to mail only, and images become
// links, so that nothing is loaded from elsewhere.

import { Lexer, Marked, type Token, type TokenizerAndRendererExtension } from 'marked'

export type { Token, Tokens } from 'marked'

export interface MathToken {
  type: 'math'
  raw: string
  text: string
  display: boolean
}

// Dollars around a formula as TeX users and models write them: no space inside the first and last,
// and no digit after, so that prices stay prices.
const inlineRules: [RegExp, boolean][] = [
  [/^\$\$([^$]+?)\$\$/, true],
  [/^\\\[([\s\S]{1,4000}?)\\\]/, true],
  [/^\\\(([\s\S]{1,4000}?)\\\)/, false],
  [/^\$(?![\s$])((?:\\.|[^$\\\n])+?)(?<!\s)\$(?!\d)/, false],
]
/** Longer formulas are none, so that the search for the end of one is short. */
const FORMULA_MAX = 4000
const blockOpening = /^ {0,3}(\$\$|\\\[)/
/** How many lines of a paragraph are looked at for the beginning of a formula. */
const OPENINGS_MAX = 100

/** The formula with lines of its own that a text begins with. */
function blockFormula(src: string): { raw: string; text: string } | undefined {
  const opening = blockOpening.exec(src)
  if (!opening) return undefined
  const begin = opening[0].length
  const length = src.slice(begin, begin + FORMULA_MAX + 2).indexOf(opening[1] === '$$' ? '$$' : '\\]')
  if (length < 1) return undefined
  const lineEnd = / *(?:\n+|$)/y
  lineEnd.lastIndex = begin + length + 2
  if (!lineEnd.test(src)) return undefined
  return { raw: src.slice(0, lineEnd.lastIndex), text: src.slice(begin, begin + length).trim() }
}

/**
 * Where the paragraph that a text begins with ends, because a complete formula follows. Only this paragraph is
 * searched: else the time would grow with the square of a text's length.
 */
function formulaInParagraph(src: string): number | undefined {
  const lines = /\n(?: *(\n)| {0,3}(?:\$\$|\\\[))|\n/g
  let tried = 0
  for (let line = lines.exec(src); line && line[1] === undefined; line = lines.exec(src)) {
    if (line[0] === '\n') continue
    if (blockFormula(src.slice(line.index + 1, line.index + 2 * FORMULA_MAX))) return line.index + 1
    tried += 1
    if (tried === OPENINGS_MAX) return undefined
  }
  return undefined
}

const inlineMath: TokenizerAndRendererExtension = {
  name: 'math',
  level: 'inline',
  start: (src) => /\$|\\\(|\\\[/.exec(src)?.index,
  tokenizer(src) {
    for (const [rule, display] of inlineRules) {
      const match = rule.exec(src)
      if (match) return { type: 'math', raw: match[0], text: match[1]!.trim(), display }
    }
    return undefined
  },
}

const blockMath: TokenizerAndRendererExtension = {
  name: 'blockMath',
  level: 'block',
  start: formulaInParagraph,
  tokenizer(src) {
    // This is asked at each block, so it is also where a parse that takes too long ends.
    if (performance.now() > deadline) throw new Error('too slow')
    const formula = blockFormula(src)
    return formula && { type: 'math', ...formula, display: true }
  },
}

// Models write lists of short lines without marks: a line break is one.
const marked = new Marked({ gfm: true, breaks: true, extensions: [] })
marked.use({
  extensions: [blockMath, inlineMath],
  tokenizer: {
    // Each row gets as many cells as the heading has, whatever it is written with.
    table(src) {
      const [, heading = '', , rows = ''] = this.rules.block.table.exec(src) ?? []
      return heading.split('|').length * rows.split('\n').length > CELLS_MAX ? undefined : false
    },
  },
})

/** Quotations, lists and emphasis inside each other beyond this are shown as they were written. */
export const DEPTH_MAX = 24
/** A longer piece of text without a break is shown as it was written: parsing it might take minutes. */
const INLINE_MAX = 6000
/** Longer than any answer of a model: a text that is, is shown as it was written. */
const TEXT_MAX = 200_000
const LINES_MAX = 20_000
/** A table with more cells is shown as it was written. */
const CELLS_MAX = 20_000
/** A text that takes longer is shown as it was written. */
const PARSE_MS = 1000
let deadline = Infinity
// Markers of quotations and lists in a row, or an indentation that only a deep list would have.
const TOO_DEEP = new RegExp(`^(?:[ \\t]*(?:>|[-*+][ \\t]|\\d{1,9}[.)][ \\t])){${DEPTH_MAX},}|^[ \\t]{160,}\\S`, 'm')

/** The blocks of a text. Whatever the text is, this ends soon, and does not throw. */
export function parse(text: string): Token[] {
  if (text.length > TEXT_MAX || text.split('\n').length > LINES_MAX || TOO_DEEP.test(text)) return [plain(text)]
  deadline = performance.now() + PARSE_MS
  try {
    const lexer = new Lexer(marked.defaults)
    lexer.blockTokens(text.replace(/\r\n|\r/g, '\n'), lexer.tokens)
    for (const { src, tokens } of lexer.inlineQueue) {
      if (src.length > INLINE_MAX || performance.now() > deadline) tokens.push({ type: 'text', raw: src, text: src, escaped: false })
      else lexer.inlineTokens(src, tokens)
    }
    return lexer.tokens
  } catch {
    return [plain(text)]
  }
}

const plain = (raw: string): Token => ({ type: 'plain', raw })

/** The tokens of `next`, in the objects of `last` where they are the same, so that those are not drawn again. */
export function reuse(last: Token[], next: Token[]): Token[] {
  return next.map((token, i) => {
    const before = last[i]
    return before && before.type === token.type && before.raw === token.raw ? before : token
  })
}

/** The address if it leads to the web or to mail; otherwise nothing. */
export function safeUrl(href: string): string | null {
  try {
    const url = new URL(href)
    return ['http:', 'https:', 'mailto:'].includes(url.protocol) ? url.href : null
  } catch {
    return null
  }
}

const ENTITIES: Record<string, string> = { amp: '&', lt: '<', gt: '>', quot: '"', '#39': "'", nbsp: ' ' }

/** Entities of Markdown's text as characters, since nothing here passes through HTML. */
export function unescape(text: string): string {
  return text.replace(/&(amp|lt|gt|quot|#39|nbsp);/g, (whole, name: string) => ENTITIES[name] ?? whole)
}
