// A conversation is a tree of messages: editing or regenerating adds a sibling, and the current
// leaf says which branch is shown. Conversations as files: exchange.ts.

export interface Attachment {
  name: string
  content: string
}

export interface Stats {
  promptTokens?: number
  cachedTokens?: number
  answerTokens?: number
  thoughtTokens?: number
  tokensPerSecond?: number
  thoughtSeconds?: number
  /** When the thought began, in milliseconds of `Date.now()`; absent once it has ended. */
  thoughtStart?: number
}

export type Finish = 'stop' | 'length' | 'cancelled' | 'lost' | 'error'

export interface Message {
  id: string
  parent: string | null
  role: 'user' | 'assistant'
  content: string
  reasoning?: string
  files?: Attachment[]
  created: number
  /** Absent while the answer is being written. */
  finish?: Finish
  error?: string
  stats?: Stats
  /**
   * What an unfinished answer is asked for again with: the server's id (empty until the first event), the name of
   * its stream, which is this page's and known before the request is sent, and the bytes received.
   */
  resume?: { id: string; stream: string; received: number }
}

export interface Conversation {
  id: string
  title: string
  created: number
  updated: number
  messages: Record<string, Message>
  leaf: string | null
  system?: string
}

/** A name that nothing else has. `crypto.randomUUID` is missing where plain HTTP comes from another machine. */
export function newId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16))
  return [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join('')
}

export function newConversation(): Conversation {
  const now = Date.now()
  return { id: newId(), title: '', created: now, updated: now, messages: {}, leaf: null }
}

/** The same messages under names that no other conversation has: one may be imported twice. */
export function renamed(conversation: Conversation): Conversation {
  const names = new Map(Object.keys(conversation.messages).map((id) => [id, newId()]))
  const nameOf = (id: string | null): string | null => (id === null ? null : (names.get(id) ?? null))
  const messages = Object.values(conversation.messages).map((m) => ({ ...m, id: nameOf(m.id)!, parent: nameOf(m.parent) }))
  return { ...conversation, leaf: nameOf(conversation.leaf), messages: Object.fromEntries(messages.map((m) => [m.id, m])) }
}

/** The messages from the root to the current leaf. */
export function path(conversation: Conversation, leaf = conversation.leaf): Message[] {
  const messages: Message[] = []
  const seen = new Set<string>()
  for (let id = leaf; id !== null && !seen.has(id); ) {
    seen.add(id)
    const message: Message | undefined = conversation.messages[id]
    if (!message) break
    messages.push(message)
    id = message.parent
  }
  return messages.reverse()
}

/** All versions of a message, itself included, oldest first. */
export function siblings(conversation: Conversation, message: Message): Message[] {
  return Object.values(conversation.messages)
    .filter((other) => other.parent === message.parent && other.role === message.role)
    .sort((a, b) => a.created - b.created || a.id.localeCompare(b.id))
}

/** The latest leaf below a message: what is shown when its branch is chosen. */
export function latestLeaf(conversation: Conversation, id: string): string {
  const latest = new Map<string, Message>()
  for (const message of Object.values(conversation.messages)) {
    if (message.parent === null) continue
    const known = latest.get(message.parent)
    if (!known || message.created >= known.created) latest.set(message.parent, message)
  }
  for (;;) {
    const child = latest.get(id)
    if (!child) return id
    latest.delete(id) // No message is passed twice, whatever a file says of parents.
    id = child.id
  }
}

/** Tokens in the context window after an answer. */
export const contextUsed = (stats: Stats | undefined): number =>
  (stats?.promptTokens ?? 0) + (stats?.answerTokens ?? 0)

/** Adds a message below `parent` and makes it the leaf. */
export function append(
  conversation: Conversation,
  message: Omit<Message, 'id' | 'created'>,
): Message {
  const newest = Object.values(conversation.messages).reduce((latest, { created }) => Math.max(latest, created), 0)
  const added = { ...message, id: newId(), created: Math.max(Date.now(), newest + 1) }
  conversation.messages[added.id] = added
  conversation.leaf = added.id
  conversation.updated = Date.now()
  if (conversation.title === '' && message.role === 'user') {
    conversation.title = titleOf(message.content || (message.files?.[0]?.name ?? ''))
  }
  return conversation.messages[added.id]!
}

/** The first words of a message, at most 60 characters, cut between words. */
export function titleOf(content: string): string {
  const line = content.trim().split('\n', 1)[0]!.replace(/\s+/g, ' ')
  const characters = [...line]
  if (characters.length <= 60) return line
  return `${characters.slice(0, 60).join('').replace(/\s+\S*$/, '')}…`
}

/** R1's own template for files, from its model card. */
export function withFiles(message: Message): string {
  const files = (message.files ?? []).map(
    ({ name, content }) =>
      `[file name]: ${name}\n[file content begin]\n${content}\n[file content end]\n`,
  )
  return files.join('') + message.content
}

/** Whether a conversation contains a text, in its title or any message. */
export function contains(conversation: Conversation, query: string): boolean {
  const wanted = query.toLocaleLowerCase()
  const texts = Object.values(conversation.messages).flatMap((m) => [m.content, m.reasoning ?? ''])
  return [conversation.title, ...texts].some((t) => t.toLocaleLowerCase().includes(wanted))
}
