import { expect, test } from 'vitest'
import { errorOf, interpret } from '../../src/lib/api'
import { bandwidth, bytes, duration, rate } from '../../src/lib/format'

test('chunks become events', () => {
  const chunk = { id: 'chatcmpl-1', choices: [{ delta: { reasoning_content: 'hm' }, finish_reason: null }] }
  expect(interpret(JSON.stringify(chunk))).toEqual([{ type: 'id', id: 'chatcmpl-1' }, { type: 'reasoning', text: 'hm' }])
  expect(interpret('{"prompt_progress":{"total":9,"cache":2,"processed":4,"time_ms":500}}')).toEqual([
    { type: 'prefill', done: 4, total: 9, cached: 2, seconds: 0.5 },
  ])
  expect(interpret('{"choices":[{"delta":{},"finish_reason":"stop"}]}')).toEqual([{ type: 'finish', reason: 'stop' }])
  expect(interpret('{"queue_position":3}')).toEqual([{ type: 'queued', position: 3 }])
  expect(interpret('{"queue_position":0}')).toEqual([{ type: 'queued', position: 0 }])
  expect(interpret('[DONE]')).toEqual([{ type: 'done' }])
  expect(interpret('<html>')).toEqual([{ type: 'error', message: '<html>' }])
})

test('refusals say what to do', async () => {
  const error = (status: number, body: object, headers = {}) => errorOf(new Response(JSON.stringify(body), { status, headers }))
  expect(await error(401, {})).toMatchObject({ kind: 'key' })
  const queue = { error: { message: 'the queue is full', position: 64 } }
  expect(await error(503, queue, { 'retry-after': '7' })).toMatchObject({ kind: 'queue', retryAfter: 7 })
  expect(await error(503, { error: { message: 'Loading model', progress: 0.25 } })).toMatchObject({ kind: 'loading' })
  expect((await error(503, { error: { message: 'the server is shutting down' } })).message).toContain('shutting down')
  expect(await error(403, { error: { message: 'a foreign origin' } })).toMatchObject({ kind: 'server' })
  const full = await error(400, { error: { type: 'exceed_context_size_error', n_prompt_tokens: 9000, n_ctx: 4096 } })
  expect(full.kind).toBe('context')
  expect(full.message).toContain('9000')
  expect((await error(500, { error: { message: 'boom' } })).message).toContain('boom')
  expect((await errorOf(new Response('<html>', { status: 502 }))).kind).toBe('server')
})

test('numbers are read as people write them', () => {
  expect([duration(3.21), duration(75), duration(3700), duration(-1)]).toEqual(['3.2 s', '1 min 15 s', '1 h 1 min', '–'])
  expect([bytes(512), bytes(1536), bytes(404e9)]).toEqual(['512 B', '1.5 KiB', '376.3 GiB'])
  expect([bandwidth(6.94e9), bandwidth(7e8)]).toEqual(['6.9 GB/s', '700 MB/s'])
  expect([rate(0.1234), rate(4.567), rate(45.67), rate(1234)]).toEqual(['0.123', '4.57', '45.7', '1,234'])
})
