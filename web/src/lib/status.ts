// What `GET /api/cachalot/status` says. Any number may be null when it is not known.

export interface Status {
  version: string
  state: 'loading' | 'ready' | 'draining' | 'failed'
  model: {
    id: string
    identity: string
    parameters: number | null
    bytes: number | null
    quantization: string | null
    context: number | null
  } | null
  layout: { what: string; where: string; bytes: number | null }[]
  parallel: number
  queue: { waiting: number; limit: number }
  sequences: { id: string; phase: string; position: number | null; tokens: number; tokens_per_s: number | null }[]
  kv: { type: string; pages: number; pages_used: number; pages_cached: number; bytes: number | null } | null
  experts: { cache_bytes: number | null; routed_bytes: number | null; hit_rate: number | null; used?: number | null } | null
  drive: { read_per_s: number | null; limit_per_s: number | null } | null
  memory: { read_per_s: number | null; limit_per_s: number | null; peak_bytes: number | null } | null
  prediction: { tokens_per_s: number; low: number | null; high: number | null; bound: string | null } | null
  measured: { tokens_per_s: number | null; prompt_tokens_per_s: number | null } | null
  advice: string[]
}

/** The newest values of a series, oldest first. */
export function pushed(series: number[], value: number, length = 60): number[] {
  return [...series, value].slice(-length)
}
