// Browsers open six connections to a server of HTTP/1.1, and the stream of an answer holds one for minutes: if
// answers held all of them, none could be stopped or told to answer now, and no other tab could load the page.

/** Answers that are received at the same time, in all tabs together. */
const PLACES = 5

/** Waits for a place; the function that comes leaves it. Rejects if `signal` aborts before. */
export function takePlace(signal: AbortSignal): Promise<() => void> {
  const { locks } = navigator
  if (!locks) return Promise.resolve(() => {}) // Plain HTTP from another machine.
  const wanting = new AbortController()
  signal.addEventListener('abort', () => wanting.abort(), { once: true })
  if (signal.aborted) wanting.abort()
  return new Promise((resolve, reject) => {
    let taken = false
    const hold = (): Promise<void> | undefined => {
      if (taken) return undefined
      taken = true
      wanting.abort() // One place is enough.
      return new Promise((leave) => resolve(leave))
    }
    for (let i = 0; i < PLACES; i += 1) locks.request(`stream:${i}`, { signal: wanting.signal }, hold).catch(reject)
  })
}
