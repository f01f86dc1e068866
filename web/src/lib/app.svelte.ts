// The state of the page: conversations, the answers being written, and what the server says.

import { SvelteMap } from 'svelte/reactivity'
import { Api, ApiError } from './api'
import { Answer } from './answer.svelte'
import { Store } from './db'
import { parseExport, parseMarkdown } from './exchange'
import { currentKey, forgetKey, useKey } from './key'
import { type Settings, keep, load, requestFields } from './settings'
import { text } from './text'
import {
  type Attachment,
  type Conversation,
  type Message,
  append,
  latestLeaf,
  newConversation,
  newId,
  path,
  renamed,
  withFiles,
} from './tree'

const HEALTH_INTERVAL_MS = 1000

interface ChatMessage {
  role: 'system' | 'user' | 'assistant'
  content: string
  reasoning_content?: string
}

/**
 * Runs `work` when no other tab writes this answer: the lock tells other tabs, and this one after a reload,
 * whether an answer has a writer. Pages that came over plain HTTP from another machine have no locks.
 */
function whenUnwritten(messageId: string, work: () => Promise<void>): void {
  if (navigator.locks) void navigator.locks.request(`answer:${messageId}`, work)
  else void work()
}

export class App {
  api = new Api(currentKey)
  #store = new Store()

  conversations = new SvelteMap<string, Conversation>()
  currentId = $state<string | null>(null)
  settings = $state<Settings>(load())
  /** `true` when the server answers, a share from 0 to 1 while it loads, `null` when unreachable. */
  health = $state<true | number | null>(0)
  model = $state('')
  contextLength = $state<number | null>(null)
  parallel = $state<number | null>(null)
  view = $state<'chat' | 'machine'>('chat')
  notice = $state<string | null>(null)
  live = $state('')
  keyNeeded = $state<{ refused: boolean } | null>(null)
  persistent = $state(true)
  /** What was typed and attached and not sent yet, by conversation. */
  readonly drafts = new Map<string, string>()
  readonly draftFiles = new Map<string, Attachment[]>()
  #connecting = false

  /** Answers that this tab writes, by message. */
  answers = new SvelteMap<string, Answer>()
  /** Conversations that this tab or another one deleted: nothing brings them back. */
  #deleted = new Set<string>()
  /** Unfinished answers that another tab writes, or did. */
  #awaited = new Set<string>()

  get current(): Conversation | null {
    return this.currentId === null ? null : (this.conversations.get(this.currentId) ?? null)
  }

  async start(): Promise<void> {
    this.#store.onChange(({ id, what }) => {
      if (what === 'stop') this.answers.get(id)?.stop()
      else void this.#reload(id, what === 'deleted')
    })
    for (const conversation of await this.#store.open()) this.#adopt(conversation)
    this.persistent = this.#store.persistent
    if (!this.persistent) this.notice = text.errors.storage
    this.#route()
    addEventListener('hashchange', () => this.#route())
    await this.connect()
    if (this.current) this.#resumeUnfinished(this.current)
  }

  /** Waits until the server is ready, and learns what it serves. */
  async connect(): Promise<void> {
    if (this.#connecting) return
    this.#connecting = true
    for (;;) {
      this.health = await this.api.health()
      if (this.health === true) break
      await new Promise((resolve) => setTimeout(resolve, HEALTH_INTERVAL_MS))
    }
    this.#connecting = false
    try {
      const props = await this.api.props()
      this.contextLength = props.default_generation_settings?.n_ctx ?? null
      this.parallel = props.total_slots ?? null
      this.model = props.model_alias ?? props.model_path?.split('/').pop() ?? ''
    } catch (error) {
      this.report(error)
    }
  }

  #route(): void {
    const place = location.hash.slice(1) // Names of conversations need no escapes.
    this.view = place === 'machine' ? 'machine' : 'chat'
    if (this.view === 'machine') return
    this.currentId = this.conversations.has(place) ? place : null
    if (this.current) this.#resumeUnfinished(this.current)
  }

  show(id: string | null): void {
    this.currentId = id
    this.view = 'chat'
    location.hash = id ?? ''
  }

  // Objects from the database become reactive here, once.
  #adopt(conversation: Conversation): Conversation {
    const reactive = $state(conversation)
    this.conversations.set(conversation.id, reactive)
    return reactive
  }

  /** Another tab changed a conversation. Answers that this tab writes stay as they are. */
  async #reload(id: string, deleted: boolean): Promise<void> {
    if (deleted) {
      this.#drop(id)
      return
    }
    // Another tab saved it before it heard of the deletion.
    if (this.#deleted.has(id)) return this.#store.delete(id)
    const stored = await this.#store.get(id)
    if (!stored) return
    const mine = this.conversations.get(id)
    if (!mine) {
      this.#adopt(stored)
      return
    }
    Object.assign(mine, { title: stored.title, updated: stored.updated })
    for (const [messageId, message] of Object.entries(stored.messages)) {
      if (!this.answers.has(messageId)) mine.messages[messageId] = message
    }
    if (this.currentId === id) this.#resumeUnfinished(mine)
  }

  async save(conversation: Conversation): Promise<void> {
    if (this.#deleted.has(conversation.id)) return
    try {
      await this.#store.put($state.snapshot(conversation))
    } catch (error) {
      const isFull = error instanceof DOMException && error.name === 'QuotaExceededError'
      this.notice = isFull ? text.errors.storageFull : text.errors.storage
    }
  }

  saveSettings(): void {
    keep($state.snapshot(this.settings))
  }

  /** Sends a message below the current leaf, or below `parent` as a new branch. */
  send(content: string, files: Attachment[], parent?: string | null): void {
    const conversation = this.current ?? this.#adopt(newConversation())
    const below = parent === undefined ? conversation.leaf : parent
    append(conversation, { parent: below, role: 'user', content, files, finish: 'stop' })
    if (this.currentId !== conversation.id) this.show(conversation.id)
    this.answer(conversation, conversation.leaf!)
  }

  /** Another answer to the message before this one. */
  regenerate(message: Message): void {
    if (this.current && message.parent !== null) this.answer(this.current, message.parent)
  }

  /** Goes on with an answer that was stopped. */
  continueAnswer(message: Message): void {
    const conversation = this.current
    if (!conversation) return
    delete message.finish
    delete message.error
    this.#begin(conversation, message, () => this.#body(conversation, message.id, true))
  }

  answer(conversation: Conversation, userId: string): void {
    const message = append(conversation, { parent: userId, role: 'assistant', content: '' })
    this.#begin(conversation, message, () => this.#body(conversation, userId, false))
  }

  #body(conversation: Conversation, leaf: string, continues: boolean): object {
    const messages: ChatMessage[] = []
    const { system } = this.settings
    if (system.trim() !== '') messages.push({ role: 'system', content: system })
    for (const message of path(conversation, leaf)) {
      const content = message.role === 'user' ? withFiles(message) : message.content
      messages.push({ role: message.role, content })
      if (continues && message.id === leaf && message.reasoning) {
        messages.at(-1)!.reasoning_content = message.reasoning
      }
    }
    return {
      model: this.model || 'default',
      messages,
      stream: true,
      stream_options: { include_usage: true },
      return_progress: true,
      timings_per_token: true,
      reasoning_control: true,
      ...(continues ? { continue_final_message: true, add_generation_prompt: false } : {}),
      ...requestFields(this.settings),
    }
  }

  #begin(conversation: Conversation, message: Message, body: () => object): void {
    message.resume = { id: '', stream: newId(), received: 0 }
    const answer = new Answer(this, conversation, message)
    this.answers.set(message.id, answer)
    void this.save(conversation)
    whenUnwritten(message.id, async () => {
      await answer.start(body)
      await this.#finish(conversation, message.id)
    })
  }

  /** Takes up answers that a reload or a closed tab interrupted, as soon as no tab writes them. */
  #resumeUnfinished(conversation: Conversation): void {
    for (const { id, finish } of Object.values(conversation.messages)) {
      if (finish !== undefined || this.answers.has(id) || this.#awaited.has(id)) continue
      this.#awaited.add(id)
      whenUnwritten(id, async () => {
        this.#awaited.delete(id)
        const stored = await this.#store.get(conversation.id)
        if (stored?.messages[id]) conversation.messages[id] = stored.messages[id]
        const message = conversation.messages[id]
        if (!message || message.finish !== undefined) return
        const answer = new Answer(this, conversation, message)
        this.answers.set(id, answer)
        await answer.resume()
        await this.#finish(conversation, id)
      })
    }
  }

  /** Ends an answer, whichever tab writes it. */
  stop(messageId: string): void {
    const answer = this.answers.get(messageId)
    if (answer) answer.stop()
    else this.#store.askToStop(messageId)
  }

  async #finish(conversation: Conversation, messageId: string): Promise<void> {
    this.answers.delete(messageId)
    await this.save(conversation)
  }

  chooseBranch(conversation: Conversation, message: Message): void {
    conversation.leaf = latestLeaf(conversation, message.id)
    void this.save(conversation)
  }

  rename(conversation: Conversation, title: string): void {
    conversation.title = title
    void this.save(conversation)
  }

  async remove(conversation: Conversation): Promise<void> {
    this.#drop(conversation.id)
    await this.#store.delete(conversation.id).catch(() => (this.notice = text.errors.storage))
  }

  /** Forgets a conversation, and ends its answers. */
  #drop(id: string): void {
    this.#deleted.add(id)
    for (const answer of this.answers.values()) {
      if (answer.conversationId === id) answer.stop()
    }
    this.conversations.delete(id)
    if (this.currentId === id) this.show(null)
  }

  async importFile(file: File): Promise<void> {
    try {
      const content = await file.text()
      const isMarkdown = /\.(?:md|markdown)$/i.test(file.name)
      const imported = isMarkdown ? [parseMarkdown(content)] : parseExport(content)
      for (const conversation of imported) await this.save(this.#adopt(renamed(conversation)))
      this.notice = text.importDone(imported.length)
    } catch (error) {
      this.notice = text.importFailed(error instanceof Error ? error.message : String(error))
    }
  }

  useKey(key: string, remember: boolean): void {
    useKey(key, remember)
    this.keyNeeded = null
    void this.connect()
  }

  forgetKey(): void {
    forgetKey()
    this.notice = null
  }

  /** Shows an error where it can be acted on. */
  report(error: unknown): void {
    if (error instanceof ApiError && error.kind === 'key') {
      this.keyNeeded = { refused: currentKey() !== null }
    } else {
      this.notice = error instanceof Error ? error.message : String(error)
    }
  }
}
