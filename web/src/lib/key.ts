// The API key: in session storage unless the person asks to keep it.

const KEY = 'cachalot-key'
/** Where storage is forbidden, the key lasts as long as the page. */
let unstored: string | null = null

function attempt<T>(action: () => T): T | null {
  try {
    return action()
  } catch {
    return null // Storage may be forbidden.
  }
}

export const currentKey = (): string | null =>
  unstored ?? attempt(() => sessionStorage.getItem(KEY)) ?? attempt(() => localStorage.getItem(KEY))

export function useKey(key: string, remember: boolean): void {
  forgetKey()
  attempt(() => (remember ? localStorage : sessionStorage).setItem(KEY, key))
  if (currentKey() === null) unstored = key
}

export function forgetKey(): void {
  unstored = null
  attempt(() => sessionStorage.removeItem(KEY))
  attempt(() => localStorage.removeItem(KEY))
}
