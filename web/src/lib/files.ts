// Files in and out of the page.

import type { Attachment } from './tree'
import { text } from './text'

const MAX_BYTES = 8 << 20

/** Offers a text to be saved as a file. */
export function saveFile(name: string, content: string): void {
  const url = URL.createObjectURL(new Blob([content], { type: 'text/plain;charset=utf-8' }))
  const link = document.createElement('a')
  link.href = url
  link.download = name
  link.click()
  setTimeout(() => URL.revokeObjectURL(url), 10_000)
}

/** Copies a text. Pages that came over plain HTTP from another machine have no clipboard API. */
export async function copyText(content: string): Promise<void> {
  try {
    return await navigator.clipboard.writeText(content)
  } catch {
    // Not there, or not allowed.
  }
  const box = document.createElement('textarea')
  box.value = content
  box.className = 'visually-hidden'
  document.body.append(box)
  box.select()
  document.execCommand('copy')
  box.remove()
}

/** Reads a text file; throws with a sentence for a person if it is none, or too large. */
export async function readText(file: File): Promise<Attachment> {
  if (file.size > MAX_BYTES) throw new Error(text.tooLarge(file.name))
  const bytes = new Uint8Array(await file.arrayBuffer())
  try {
    if (bytes.includes(0)) throw new Error()
    return { name: file.name, content: new TextDecoder('utf-8', { fatal: true }).decode(bytes) }
  } catch {
    throw new Error(text.notText(file.name))
  }
}
