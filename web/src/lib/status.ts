// What `GET /api/cachalot/status` says. What is not known is null, and never zero.

export interface Status {
  version: string
  state: 'loading' | 'ready' | 'draining' | 'failed'
  model: {
    id: string
    identity: string
    parameters: number
    bytes: number
    quantization: string
    context: number
    experts: { total: number; used: number } | null
  } | null
  layout: { what: string; where: string; bytes: number }[]
  parallel: number
  queue: { waiting: number; limit: number }
  sequences: Sequence[]
  kv: { type: string; pages: number; pages_used: number; pages_cached: number; bytes: number } | null
  experts: { cache_bytes: number; routed_bytes: number; hits: number; misses: number; hit_rate: number | null } | null
  drive: { read_bytes: number; read_per_s: number | null; limit_per_s: number } | null
  memory: {
    total_bytes: number | null
    bytes_per_token: number | null
    read_per_s: number | null
    limit_per_s: number | null
    peak_bytes: number | null
  }
  prediction: { tokens_per_s: number; low: number; high: number; prompt_tokens_per_s: number; bound: string } | null
  measured: { tokens_per_s: number | null; prompt_tokens_per_s: number | null }
  advice: { what: string; tokens_per_s: number; gain: number | null; note: string | null; supported: boolean }[]
}

export interface Sequence {
  id: string
  phase: 'queued' | 'prefill' | 'thinking' | 'answering' | 'paused'
  position: number | null
  prompt_tokens: number
  prefill_done: number
  tokens: number
  tokens_per_s: number
}

/** What the charts show: a value for each time the server was asked. */
export interface Sample {
  tokensPerSecond: number
  memoryPerSecond: number
  drivePerSecond: number
  hitRate: number | null
}

/** The rates between what the server said `seconds` ago and what it says now. */
export function sampleOf(status: Status, before: Status | null, seconds: number): Sample {
  const since = (now: number | undefined, then: number | undefined): number =>
    now === undefined || then === undefined ? 0 : Math.max(0, now - then)
  const perSecond = (n: number): number => (seconds > 0 ? n / seconds : 0)
  const known = new Map(before?.sequences.map(({ id, tokens }) => [id, tokens]))
  // A sequence that was not there before has begun since then.
  const rates = status.sequences.map(({ id, tokens }) => perSecond(since(tokens, known.get(id) ?? 0)))
  const hits = since(status.experts?.hits, before?.experts?.hits)
  const misses = since(status.experts?.misses, before?.experts?.misses)
  return {
    tokensPerSecond: rates.reduce((sum, rate) => sum + rate, 0),
    // Sequences read the same weights at the same time, apart from experts.
    memoryPerSecond: (status.memory.bytes_per_token ?? 0) * Math.max(0, ...rates),
    drivePerSecond: perSecond(since(status.drive?.read_bytes, before?.drive?.read_bytes)),
    hitRate: hits + misses > 0 ? hits / (hits + misses) : null,
  }
}

/** The newest values of a series, oldest first. */
export function pushed<T>(series: T[], value: T, length = 80): T[] {
  return [...series, value].slice(-length)
}
