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
// Lengths are bounded, and a paragraph ends only before a formula that is complete: else the time would grow
// with the square of a text's length.
const blockRules: RegExp[] = [
  /^ {0,3}\$\$((?:(?!\$\$)[\s\S]){1,4000})\$\$ *(?:\n+|$)/,
  /^ {0,3}\\\[([\s\S]{1,4000}?)\\\] *(?:\n+|$)/,
]
const blockStart = /^ {0,3}(?:\$\$(?:(?!\$\$)[\s\S]){1,4000}\$\$|\\\[[\s\S]{1,4000}?\\\]) *$/m

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
  start: (src) => blockStart.exec(src)?.index,
  tokenizer(src) {
    for (const rule of blockRules) {
      const match = rule.exec(src)
      if (match) return { type: 'math', raw: match[0], text: match[1]!.trim(), display: true }
    }
    return undefined
  },
}

// Models write lists of short lines without marks: a line break is one.
const marked = new Marked({ gfm: true, breaks: true, extensions: [] })
marked.use({ extensions: [blockMath, inlineMath] })

/** Quotations, lists and emphasis inside each other beyond this are shown as they were written. */
export const DEPTH_MAX = 24
/** A longer piece of text without a break is shown as it was written: parsing it might take minutes. */
const INLINE_MAX = 6000
/** Longer than any answer of a model: a text that is, is shown as it was written. */
const TEXT_MAX = 200_000
// Markers of quotations and lists in a row, or an indentation that only a deep list would have.
const TOO_DEEP = new RegExp(`^(?:[ \\t]*(?:>|[-*+][ \\t]|\\d{1,9}[.)][ \\t])){${DEPTH_MAX},}|^[ \\t]{160,}\\S`, 'm')

/** The blocks of a text. Whatever the text is, this ends soon, and does not throw. */
export function parse(text: string): Token[] {
  if (text.length > TEXT_MAX || TOO_DEEP.test(text)) return [plain(text)]
  try {
    const lexer = new Lexer(marked.defaults)
    lexer.blockTokens(text.replace(/\r\n|\r/g, '\n'), lexer.tokens)
    for (const { src, tokens } of lexer.inlineQueue) {
      if (src.length > INLINE_MAX) tokens.push({ type: 'text', raw: src, text: src, escaped: false })
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
