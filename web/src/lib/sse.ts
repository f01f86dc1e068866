// Server-sent events from a byte stream (WHATWG HTML, section 9.2), as far as APIs use them.

export interface ServerEvent {
  data: string
  /** Bytes of the stream up to the end of this event: where a resumed stream goes on. */
  end: number
}

/** Yields each event that has data, `[DONE]` included; comments are dropped. */
export async function* events(stream: ReadableStream<Uint8Array>): AsyncGenerator<ServerEvent> {
  const decoder = new TextDecoder()
  const reader = stream.getReader()
  let buffer: Uint8Array = new Uint8Array()
  let consumed = 0
  try {
    for (;;) {
      const { done, value } = await reader.read()
      if (done) return
      buffer = joined(buffer, value)
      for (let length = eventLength(buffer); length > 0; length = eventLength(buffer)) {
        consumed += length
        const data = dataOf(decoder.decode(buffer.subarray(0, length)))
        buffer = buffer.subarray(length)
        if (data !== null) yield { data, end: consumed }
      }
    }
  } finally {
    reader.cancel().catch(() => {})
  }
}

function joined(first: Uint8Array, second: Uint8Array): Uint8Array {
  if (first.length === 0) return second
  const all = new Uint8Array(first.length + second.length)
  all.set(first)
  all.set(second, first.length)
  return all
}

const [LF, CR] = [10, 13]

/** The length of the first event with the empty line that ends it; 0 if it is not complete. */
function eventLength(buffer: Uint8Array): number {
  for (let i = 0; i + 1 < buffer.length; i += 1) {
    if (buffer[i] === LF && buffer[i + 1] === LF) return i + 2
    if (buffer[i] === LF && buffer[i + 1] === CR && buffer[i + 2] === LF) return i + 3
  }
  return 0
}

function dataOf(event: string): string | null {
  const lines = event.split(/\r?\n/).filter((line) => line.startsWith('data:'))
  return lines.length === 0 ? null : lines.map((line) => line.slice(5).replace(/^ /, '')).join('\n')
}
