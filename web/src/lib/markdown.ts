// Markdown to a tree of tokens that components draw. Text of models and users never becomes HTML:
// HTML in it is shown as it was written, links go to the web and to mail only, and images become
// links, so that nothing is loaded from elsewhere.

import { Marked, type Token, type TokenizerAndRendererExtension } from 'marked'

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
  [/^\\\[([\s\S]+?)\\\]/, true],
  [/^\\\(([\s\S]+?)\\\)/, false],
  [/^\$(?![\s$])((?:\\.|[^$\\\n])+?)(?<!\s)\$(?!\d)/, false],
]
const blockRules: RegExp[] = [/^ {0,3}\$\$([\s\S]+?)\$\$ *(?:\n+|$)/, /^ {0,3}\\\[([\s\S]+?)\\\] *(?:\n+|$)/]

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
  start: (src) => /^ {0,3}(?:\$\$|\\\[)/m.exec(src)?.index,
  tokenizer(src) {
    for (const rule of blockRules) {
      const match = rule.exec(src)
      if (match) return { type: 'math', raw: match[0], text: match[1]!.trim(), display: true }
    }
    return undefined
  },
}

const marked = new Marked({ gfm: true, breaks: false, extensions: [] })
marked.use({ extensions: [blockMath, inlineMath] })

/** The blocks of a text. */
export function parse(text: string): Token[] {
  return marked.lexer(text)
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
