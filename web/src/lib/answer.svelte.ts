// One answer being written: events of the stream into its message.

import { ApiError, type Received, type StreamEvent } from './api'
import type { App } from './app.svelte'
import { currentKey } from './key'
import { takePlace } from './places'
import { text } from './text'
import type { Conversation, Finish, Message } from './tree'

/** A shorter wait for a place is not told. */
const HELD_MS = 300
const SAVE_INTERVAL_MS = 1000
/** Waits before the attempts to reconnect, in seconds. */
const RECONNECT_S = [0, 1, 2, 4, 8, 15, ...Array.from({ length: 9 }, () => 30)] // As long as the server keeps answers.

export type Phase = 'held' | 'waiting' | 'queued' | 'prefill' | 'thinking' | 'answering' | 'reconnecting'

export class Answer {
  phase = $state<Phase>('waiting')
  queuePosition = $state(0)
  prefill = $state({ done: 0, total: 0, cached: 0, seconds: 0 })
  tokensPerSecond = $state(0)

  readonly conversationId: string
  #app: App
  #conversation: Conversation
  #message: Message
  #abort = new AbortController()
  #lastSave = 0
  #stopped = false

  constructor(app: App, conversation: Conversation, message: Message) {
    this.#app = app
    this.#conversation = conversation
    this.#message = message
    this.conversationId = conversation.id
  }

  /** Asks for the answer; `body` makes the request, and may refuse by throwing. */
  async start(body: () => object): Promise<void> {
    await this.#inPlace(async () => {
      try {
        const { resume } = this.#message
        await this.#follow(this.#app.api.chat(body(), resume!.stream, this.#abort.signal))
      } catch (error) {
        await this.#interrupted(error)
      }
    })
  }

  /** Goes on after what was received before a reload. */
  async resume(): Promise<void> {
    await this.#inPlace(() => this.#reconnect(new ApiError('gone', text.lost)))
  }

  async #inPlace(work: () => Promise<void>): Promise<void> {
    const timer = setTimeout(() => (this.phase = 'held'), HELD_MS)
    const leave = await takePlace(this.#abort.signal).catch(() => null)
    clearTimeout(timer)
    if (leave === null) return // It was stopped.
    this.phase = 'waiting'
    await work().finally(leave)
  }

  /** Ends the answer; what was written stays. */
  stop(): void {
    this.#stopped = true
    const { resume } = this.#message
    if (resume) void this.#app.api.cancel(resume.stream)
    this.#abort.abort()
    this.#end('cancelled')
    this.#app.live = text.live.stopped
  }

  async endThinking(): Promise<void> {
    const { resume } = this.#message
    if (!resume?.id) return
    await this.#app.api.endThinking(resume.id).catch((error: unknown) => this.#app.report(error))
  }

  async #follow(stream: AsyncGenerator<Received>): Promise<void> {
    for await (const { events, received } of stream) {
      if (this.#stopped) return
      for (const event of events) this.#take(event)
      if (this.#message.resume) this.#message.resume.received = received
      this.#saveSometimes()
    }
  }

  #take(event: StreamEvent): void {
    const message = this.#message
    switch (event.type) {
      case 'id':
        if (message.resume) message.resume.id = event.id
        break
      case 'queued':
        this.phase = 'queued'
        this.queuePosition = event.position + 1
        break
      case 'prefill':
        this.phase = 'prefill'
        this.prefill = event
        break
      case 'reasoning':
        if (this.phase !== 'thinking') this.#beginThought()
        message.reasoning = (message.reasoning ?? '') + event.text
        break
      case 'content':
        if (this.phase !== 'answering') this.#beginAnswer()
        message.content += event.text
        break
      case 'timings':
        this.tokensPerSecond = event.tokensPerSecond
        message.stats = {
          ...message.stats,
          tokensPerSecond: event.tokensPerSecond,
          promptTokens: event.cached + event.prompt,
          cachedTokens: event.cached,
          answerTokens: event.predicted,
        }
        if (this.phase === 'thinking') message.stats.thoughtTokens = event.predicted
        break
      case 'usage':
        message.stats = {
          ...message.stats,
          promptTokens: event.prompt,
          cachedTokens: event.cached,
          answerTokens: event.completion,
          thoughtTokens: event.reasoning,
        }
        break
      case 'error':
        throw new ApiError('server', text.errors.server(event.message))
      case 'finish':
        this.#end(event.reason === 'length' ? 'length' : 'stop')
        this.#app.live = text.live.done
        break
      case 'done':
        if (message.finish === undefined) this.#end('stop')
        break
    }
  }

  #beginThought(): void {
    this.phase = 'thinking'
    const { stats } = this.#message
    const before = (stats?.thoughtSeconds ?? 0) * 1000
    this.#message.stats = { ...stats, thoughtStart: stats?.thoughtStart ?? Date.now() - before }
    this.#app.live = text.live.thinking
  }

  #beginAnswer(): void {
    this.#endThought()
    this.phase = 'answering'
    this.#app.live = text.live.answering
  }

  #endThought(): void {
    const { stats } = this.#message
    if (stats?.thoughtStart === undefined) return
    const { thoughtStart, ...rest } = stats
    this.#message.stats = { ...rest, thoughtSeconds: (Date.now() - thoughtStart) / 1000 }
  }

  #end(finish: Finish): void {
    this.#endThought()
    this.#message.finish = finish
    delete this.#message.resume
  }

  async #interrupted(error: unknown): Promise<void> {
    if (this.#stopped || this.#message.finish !== undefined) return
    const isLost = error instanceof ApiError && error.kind === 'connection'
    // Before the first event, nobody knows whether the server has heard of the request.
    if (isLost && this.#message.resume?.id) return this.#reconnect(error)
    this.#fail(error, 'error')
  }

  async #reconnect(last: ApiError): Promise<void> {
    const { resume } = this.#message
    if (!resume) return this.#fail(last, 'lost')
    this.phase = 'reconnecting'
    for (const seconds of RECONNECT_S) {
      await this.#pause(seconds)
      if (this.#stopped) return
      try {
        return await this.#follow(this.#app.api.resume(resume.stream, resume.received, this.#abort.signal))
      } catch (error) {
        if (this.#stopped || this.#message.finish !== undefined) return
        if (!(error instanceof ApiError) || error.kind !== 'connection') return this.#fail(error, 'lost')
        void this.#app.connect()
      }
    }
    this.#fail(last, 'lost')
  }

  /** Waits, but not beyond Stop. */
  #pause(seconds: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, seconds * 1000)
      this.#abort.signal.addEventListener('abort', () => (clearTimeout(timer), resolve()), { once: true })
    })
  }

  #fail(error: unknown, finish: Finish): void {
    this.#end(finish)
    if (error instanceof ApiError) {
      if (error.kind === 'key') this.#app.report(error)
      // What is served may have changed, too.
      if (['connection', 'loading', 'model'].includes(error.kind)) void this.#app.connect()
    }
    const isAsked = error instanceof ApiError && error.kind === 'key' && currentKey() === null
    this.#message.error = isAsked ? text.errors.key : error instanceof Error ? error.message : String(error)
    this.#app.live = this.#message.error
  }

  #saveSometimes(): void {
    const now = performance.now()
    if (now - this.#lastSave < SAVE_INTERVAL_MS) return
    this.#lastSave = now
    void this.#app.save(this.#conversation)
  }
}
