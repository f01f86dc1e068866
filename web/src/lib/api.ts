// The server as the page sees it: chat completions as a stream of events, and a few facts.

import { events } from './sse'
import { text } from './text'

/** What went wrong, in words for a person. `kind` says what the page can do about it. */
export class ApiError extends Error {
  constructor(
    readonly kind: 'connection' | 'key' | 'queue' | 'loading' | 'context' | 'server' | 'gone' | 'model',
    message: string,
    readonly retryAfter: number | null = null,
  ) {
    super(message)
  }
}

export type StreamEvent =
  | { type: 'id'; id: string }
  | { type: 'queued'; position: number }
  | { type: 'prefill'; done: number; total: number; cached: number; seconds: number }
  | { type: 'reasoning'; text: string }
  | { type: 'content'; text: string }
  | { type: 'timings'; tokensPerSecond: number; cached: number; prompt: number; predicted: number }
  | { type: 'usage'; prompt: number; completion: number; cached: number; reasoning: number }
  | { type: 'finish'; reason: string }
  | { type: 'error'; message: string }
  | { type: 'done' }

/** The events of a chunk, and the bytes of the stream up to its end. */
export interface Received {
  events: StreamEvent[]
  received: number
}

interface Chunk {
  id?: string
  choices?: { delta?: { content?: string | null; reasoning_content?: string | null }; finish_reason?: string | null }[]
  prompt_progress?: { total?: number; cache?: number; processed?: number; time_ms?: number }
  queue_position?: number
  timings?: { cache_n?: number; prompt_n?: number; predicted_n?: number; predicted_per_second?: number }
  usage?: {
    prompt_tokens?: number
    completion_tokens?: number
    prompt_tokens_details?: { cached_tokens?: number }
    completion_tokens_details?: { reasoning_tokens?: number }
  } | null
  error?: { message?: string }
}

/** The events in one chunk of a chat completion. */
export function interpret(data: string): StreamEvent[] {
  if (data === '[DONE]') return [{ type: 'done' }]
  let chunk: Chunk
  try {
    chunk = JSON.parse(data) as Chunk
  } catch {
    return [{ type: 'error', message: data }]
  }
  const found: StreamEvent[] = []
  if (chunk.error) found.push({ type: 'error', message: chunk.error.message ?? data })
  if (chunk.id) found.push({ type: 'id', id: chunk.id })
  if (chunk.queue_position !== undefined) found.push({ type: 'queued', position: chunk.queue_position })
  const progress = chunk.prompt_progress
  if (progress) {
    const { total = 0, cache = 0, processed = 0, time_ms = 0 } = progress
    found.push({ type: 'prefill', done: processed, total, cached: cache, seconds: time_ms / 1000 })
  }
  const choice = chunk.choices?.[0]
  if (choice?.delta?.reasoning_content) found.push({ type: 'reasoning', text: choice.delta.reasoning_content })
  if (choice?.delta?.content) found.push({ type: 'content', text: choice.delta.content })
  if (chunk.timings) found.push(timingsOf(chunk.timings))
  if (chunk.usage) found.push(usageOf(chunk.usage))
  if (choice?.finish_reason) found.push({ type: 'finish', reason: choice.finish_reason })
  return found
}

function timingsOf(timings: NonNullable<Chunk['timings']>): StreamEvent {
  const { predicted_per_second = 0, cache_n = 0, prompt_n = 0, predicted_n = 0 } = timings
  const counts = { cached: cache_n, prompt: prompt_n, predicted: predicted_n }
  return { type: 'timings', tokensPerSecond: predicted_per_second, ...counts }
}

function usageOf(usage: NonNullable<Chunk['usage']>): StreamEvent {
  return {
    type: 'usage',
    prompt: usage.prompt_tokens ?? 0,
    completion: usage.completion_tokens ?? 0,
    cached: usage.prompt_tokens_details?.cached_tokens ?? 0,
    reasoning: usage.completion_tokens_details?.reasoning_tokens ?? 0,
  }
}

/** What a refusal means. */
export async function errorOf(response: Response): Promise<ApiError> {
  const body = await response.text().catch(() => '')
  let error: { message?: string; type?: string; n_prompt_tokens?: number; n_ctx?: number; position?: number; progress?: number } = {}
  try {
    error = (JSON.parse(body) as { error?: typeof error }).error ?? {}
  } catch {
    // A proxy may answer with a page; its status says enough.
  }
  const after = Number(response.headers.get('retry-after') ?? Number.NaN)
  const retryAfter = Number.isFinite(after) ? after : null
  const { errors } = text
  switch (response.status) {
    case 401:
      return new ApiError('key', errors.keyRefused)
    case 404:
      return new ApiError('model', errors.server(error.message ?? '404'))
    case 413:
      return new ApiError('server', errors.tooLong)
    case 503: {
      if (error.progress !== undefined) return new ApiError('loading', errors.loading, retryAfter)
      if (error.message !== undefined && error.position === undefined) break
      const when = retryAfter === null ? errors.queueSoon : errors.queueAfter(retryAfter)
      return new ApiError('queue', errors.queueFull(when), retryAfter)
    }
  }
  if (error.type === 'exceed_context_size_error' || error.n_ctx !== undefined) {
    const { n_prompt_tokens: prompt, n_ctx: limit } = error
    const known = prompt !== undefined && limit !== undefined
    const message = known ? errors.context(String(prompt), String(limit)) : errors.contextPlain
    return new ApiError('context', message)
  }
  return new ApiError('server', errors.server(error.message ?? `${response.status} ${response.statusText}`))
}

/** Facts that the server tells about itself; everything may be missing on other servers. */
export interface Props {
  default_generation_settings?: { n_ctx?: number }
  total_slots?: number
  model_alias?: string
  model_path?: string
}

export class Api {
  #key: () => string | null

  constructor(key: () => string | null) {
    this.#key = key
  }

  /** Starts an answer, which can be resumed and cancelled under the name of its stream. */
  chat(body: object, stream: string, signal: AbortSignal): AsyncGenerator<Received> {
    const init = { method: 'POST', body: JSON.stringify(body), signal }
    return this.#stream('v1/chat/completions', { ...init, headers: { 'X-Conversation-Id': stream } })
  }

  /** Goes on with an answer after the bytes that were received. */
  resume(id: string, received: number, signal: AbortSignal): AsyncGenerator<Received> {
    return this.#stream(`v1/stream?id=${encodeURIComponent(id)}&from=${received}`, { signal }, received)
  }

  /** Ends an answer on the server; one that has ended already is not an error. */
  async cancel(id: string): Promise<void> {
    const path = `v1/stream?id=${encodeURIComponent(id)}`
    await this.#fetch(path, { method: 'DELETE', keepalive: true }).catch(() => {})
  }

  /** Ends the thought of an answer, so that the answer itself begins. */
  async endThinking(id: string): Promise<void> {
    const body = JSON.stringify({ id, action: 'reasoning_end' })
    const response = await this.#fetch('v1/chat/completions/control', { method: 'POST', body })
    if (!response.ok) throw await errorOf(response)
  }

  /** Loading progress from 0 to 1, `true` once the server is ready, or `null` if it is unreachable. */
  async health(): Promise<true | number | null> {
    try {
      const response = await this.#fetch('health', {})
      if (response.ok) return true
      const body = (await response.json()) as { error?: { progress?: number }; progress?: number }
      return body.error?.progress ?? body.progress ?? 0
    } catch {
      return null
    }
  }

  async props(): Promise<Props> {
    return this.#json<Props>('props')
  }

  async status<T>(): Promise<T> {
    return this.#json<T>('api/cachalot/status')
  }

  async #json<T>(path: string): Promise<T> {
    const response = await this.#fetch(path, {})
    if (!response.ok) throw await errorOf(response)
    return (await response.json()) as T
  }

  async *#stream(path: string, init: RequestInit, from: number | null = null): AsyncGenerator<Received> {
    const response = await this.#fetch(path, init)
    if (from !== null && (response.status === 404 || response.status === 410)) throw new ApiError('gone', text.lost)
    if (!response.ok || !response.body) throw await errorOf(response)
    try {
      for await (const { data, end } of events(response.body)) {
        const found = interpret(data)
        yield { events: found, received: (from ?? 0) + end }
        if (found.some((event) => event.type === 'done')) return
      }
    } catch (error) {
      if (init.signal?.aborted || error instanceof ApiError) throw error
    }
    throw new ApiError('connection', text.errors.connection)
  }

  async #fetch(path: string, init: RequestInit): Promise<Response> {
    const headers = new Headers(init.headers)
    const key = this.#key()
    if (key !== null) headers.set('Authorization', `Bearer ${key}`)
    if (init.body) headers.set('Content-Type', 'application/json')
    try {
      return await fetch(path, { ...init, headers })
    } catch (error) {
      if (init.signal?.aborted) throw error
      throw new ApiError('connection', text.errors.connection)
    }
  }
}
