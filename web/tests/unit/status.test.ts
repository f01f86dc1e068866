import { expect, test } from 'vitest'
import { type Status, pushed, sampleOf } from '../../src/lib/status'

const status = (hits: number, misses: number, readBytes: number, tokens: number): Status => ({
  version: '1',
  state: 'ready',
  model: null,
  layout: [],
  parallel: 2,
  queue: { waiting: 1, limit: 64 },
  sequences: [
    { id: 'a', phase: 'thinking', position: null, prompt_tokens: 9, prefill_done: 9, tokens, tokens_per_s: 2 },
    ...(tokens > 8
      ? [{ id: 'b', phase: 'answering' as const, position: null, prompt_tokens: 9, prefill_done: 9, tokens: 3, tokens_per_s: 1.5 }]
      : []),
    { id: 'c', phase: 'paused', position: null, prompt_tokens: 9, prefill_done: 9, tokens: 5, tokens_per_s: 8 },
    { id: 'd', phase: 'queued', position: 0, prompt_tokens: 9, prefill_done: 0, tokens: 0, tokens_per_s: 0 },
  ],
  kv: null,
  experts: { cache_bytes: 1, routed_bytes: 2, hits, misses, hit_rate: null },
  drive: { read_bytes: readBytes, read_per_s: null, limit_per_s: 7e9 },
  memory: { total_bytes: null, bytes_per_token: 10, read_per_s: 20, limit_per_s: null, peak_bytes: null },
  prediction: null,
  measured: { tokens_per_s: null, prompt_tokens_per_s: null },
  advice: [],
})

test('charts show what happened between two answers of the server', () => {
  const before = status(10, 10, 1000, 5)
  const first = sampleOf(before, null, 0)
  expect(first).toEqual({ tokensPerSecond: 0, memoryPerSecond: 0, drivePerSecond: 0, hitRate: null })
  const second = sampleOf(status(13, 11, 4000, 9), before, 2)
  expect(second).toEqual({ tokensPerSecond: 3.5, memoryPerSecond: 20, drivePerSecond: 1500, hitRate: 0.75 })
  const restarted = sampleOf(status(0, 0, 0, 1), before, 2)
  expect(restarted).toEqual({ tokensPerSecond: 0, memoryPerSecond: 0, drivePerSecond: 0, hitRate: null })
})

test('a series keeps its newest values', () => {
  expect(pushed([1, 2, 3], 4, 3)).toEqual([2, 3, 4])
})
