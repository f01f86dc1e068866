import { expect, test } from 'vitest'
import { type ServerEvent, events } from '../../src/lib/sse'

function streamOf(bytes: Uint8Array, size: number): ReadableStream<Uint8Array> {
  return new ReadableStream({
    start(controller) {
      for (let i = 0; i < bytes.length; i += size) controller.enqueue(bytes.slice(i, i + size))
      controller.close()
    },
  })
}

async function read(source: string, size: number): Promise<ServerEvent[]> {
  const found: ServerEvent[] = []
  for await (const event of events(streamOf(new TextEncoder().encode(source), size))) found.push(event)
  return found
}

const SOURCE = ': ping\n\ndata: {"a":"ü🐋"}\n\ndata:two\ndata: lines\n\nevent: x\r\ndata: crlf\r\n\r\ndata: [DONE]\n\n'

test('events are the same however the bytes are cut, inside characters too', async () => {
  for (let size = 1; size < 40; size += 1) {
    const found = await read(SOURCE, size)
    expect(found.map((e) => e.data)).toEqual(['{"a":"ü🐋"}', 'two\nlines', 'crlf', '[DONE]'])
  }
})

test('the end of an event is where a resumed stream goes on', async () => {
  const bytes = new TextEncoder().encode(SOURCE)
  const all = await read(SOURCE, 7)
  for (const [i, { end }] of all.entries()) {
    const rest = new TextDecoder().decode(bytes.slice(end))
    expect((await read(rest, 5)).map((e) => e.data)).toEqual(all.slice(i + 1).map((e) => e.data))
  }
})

test('an event that was cut off is not an event', async () => {
  expect(await read('data: whole\n\ndata: ha', 3)).toEqual([{ data: 'whole', end: 13 }])
})
