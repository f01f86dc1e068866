// Syntax highlighting as a tree of elements, never as HTML.

import type { RootContent } from 'hast'
import { common, createLowlight } from 'lowlight'

const lowlight = createLowlight(common)

/** The colours of a piece of code; `null` if the language is not known. */
export function highlight(code: string, language: string): RootContent[] | null {
  return lowlight.registered(language) ? lowlight.highlight(language, code).children : null
}
