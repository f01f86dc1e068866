// Conversations as files: JSON with every branch, and Markdown with the branch that is shown.
// Files come from anywhere, so only known fields of the right type are taken.

import { type Conversation, type Finish, type Message, type Stats, append, newConversation, path } from './tree'

const HEADINGS = { user: '## You', assistant: '## Assistant' } as const
const THOUGHT = '> **Thinking**'
const FILE = '**File:** '
const FORMAT = { format: 'cachalot-conversations', version: 1 } as const
const TITLE_MAX = 200

/** The branch that is shown, as Markdown; thoughts become quotations, files become code blocks. */
export function toMarkdown(conversation: Conversation): string {
  const blocks = path(conversation).map((message) => {
    const parts: string[] = [HEADINGS[message.role]]
    for (const file of message.files ?? []) {
      const fence = '`'.repeat(Math.max(3, longestRun(file.content) + 1))
      parts.push(`${FILE}${oneLine(file.name)}\n\n${fence}\n${escaped(file.content)}\n${fence}`)
    }
    if (message.reasoning) {
      const lines = message.reasoning.trim().split('\n')
      parts.push([THOUGHT, '>', ...lines.map((line) => `> ${line}`.trimEnd())].join('\n'))
    }
    parts.push(escaped(message.content.trim()).replace(/^\\*(?:\*\*File:\*\* |> \*\*Thinking\*\*)/, '\\$&'))
    return parts.filter((part) => part !== '').join('\n\n')
  })
  return `# ${oneLine(conversation.title)}\n\n${blocks.join('\n\n')}\n`
}

// A line of a message or a file that looks like a heading of this format gets a backslash, as Markdown has it.
const escaped = (content: string): string => content.replace(/^(\\*## (?:You|Assistant))$/gm, '\\$1')
const unescaped = (content: string): string => content.replace(/^\\(\\*## (?:You|Assistant))$/gm, '$1')

function longestRun(content: string): number {
  return (content.match(/`+/g) ?? []).reduce((longest, run) => Math.max(longest, run.length), 0)
}

/** Reads what `toMarkdown` writes; throws with a reason if the file is something else. */
export function parseMarkdown(markdown: string): Conversation {
  const sections = markdown.replace(/\r\n/g, '\n').split(/^## (You|Assistant)$/m)
  if (sections.length < 3) throw new Error('it has no heading "## You" or "## Assistant"')
  const conversation = newConversation()
  for (let i = 1; i + 1 < sections.length; i += 2) {
    const role = sections[i] === 'You' ? 'user' : 'assistant'
    append(conversation, { parent: conversation.leaf, role, finish: 'stop', ...sectionOf(sections[i + 1]!) })
  }
  const title = /^# (.+)$/m.exec(sections[0]!)
  if (title) conversation.title = title[1]!.trim()
  return conversation
}

function sectionOf(section: string): Pick<Message, 'content' | 'reasoning' | 'files'> {
  let rest = section.trim()
  const files: NonNullable<Message['files']> = []
  for (;;) {
    const file = /^\*\*File:\*\* ([^\n]*)\n\n(`{3,})\n([\s\S]*?)\n\2(?:\n\n|$)/.exec(rest)
    if (!file) break
    files.push({ name: file[1]!, content: unescaped(file[3]!) })
    rest = rest.slice(file[0].length)
  }
  const parsed: Pick<Message, 'content' | 'reasoning' | 'files'> = { content: '' }
  if (files.length > 0) parsed.files = files
  if (rest.startsWith(THOUGHT)) {
    const lines = rest.split('\n')
    const end = lines.findIndex((line) => !line.startsWith('>'))
    const quoted = lines.slice(2, end < 0 ? undefined : end)
    parsed.reasoning = quoted.map((line) => line.replace(/^> ?/, '')).join('\n')
    rest = end < 0 ? '' : lines.slice(end).join('\n').trim()
  }
  parsed.content = unescaped(rest.replace(/^\\(?=\\*(?:\*\*File:\*\* |> \*\*Thinking\*\*))/, ''))
  return parsed
}

/** Reads what `toExport` writes; throws with a reason if the file is something else. */
export function parseExport(json: string): Conversation[] {
  const value: unknown = JSON.parse(json)
  const list = isRecord(value) && Array.isArray(value.conversations) ? value.conversations : null
  if (list === null) throw new Error('it has no list named "conversations"')
  if (isRecord(value) && numberOr(value.version, FORMAT.version) > FORMAT.version) {
    throw new Error('it was written by a newer version of this page')
  }
  return list.map(conversationOf)
}

/** Conversations with all their branches, as JSON. */
export function toExport(conversations: Conversation[]): string {
  return JSON.stringify({ ...FORMAT, conversations }, null, 1)
}

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

const stringOr = (value: unknown, other: string): string => (typeof value === 'string' ? value : other)
const oneLine = (value: string): string => [...value.replace(/[\s\p{Cc}]+/gu, ' ').trim()].slice(0, TITLE_MAX).join('')
/** Not far in the future, where nothing could be newer. */
const timeOf = (value: unknown): number => Math.min(numberOr(value, Date.now()), Date.now() + 86_400_000)
const numberOr = (value: unknown, other: number): number =>
  typeof value === 'number' && Number.isFinite(value) ? value : other

// Links between messages are checked, too: a parent must exist.
function conversationOf(value: unknown): Conversation {
  if (!isRecord(value) || !isRecord(value.messages)) throw new Error('a conversation has no messages')
  const messages: Record<string, Message> = Object.create(null)
  for (const [id, raw] of Object.entries(value.messages)) {
    if (!isRecord(raw) || (raw.role !== 'user' && raw.role !== 'assistant')) {
      throw new Error('a message has neither the role user nor assistant')
    }
    messages[id] = messageOf(id, raw, raw.role)
  }
  cutLooseEnds(messages)
  const conversation = newConversation()
  conversation.title = oneLine(stringOr(value.title, ''))
  conversation.created = timeOf(value.created)
  conversation.updated = timeOf(value.updated)
  conversation.messages = { ...messages }
  if (typeof value.system === 'string') conversation.system = value.system
  const leaf = stringOr(value.leaf, '')
  const last = Object.values(messages).sort((a, b) => a.created - b.created).at(-1)
  conversation.leaf = messages[leaf] ? leaf : (last?.id ?? null)
  return conversation
}

/** Makes roots of messages whose parent is not there, or that their parents lead back to. */
function cutLooseEnds(messages: Record<string, Message>): void {
  const checked = new Set<string>()
  for (const start of Object.keys(messages)) {
    const trail = new Set<string>()
    for (let id: string | null = start; id !== null && !checked.has(id); ) {
      trail.add(id)
      const message: Message = messages[id]!
      if (message.parent !== null && !messages[message.parent]) message.parent = null
      if (message.parent !== null && trail.has(message.parent)) {
        messages[message.parent]!.parent = null
        break
      }
      id = message.parent
    }
    for (const id of trail) checked.add(id)
  }
}

function messageOf(id: string, raw: Record<string, unknown>, role: Message['role']): Message {
  const message: Message = {
    id,
    parent: typeof raw.parent === 'string' ? raw.parent : null,
    role,
    content: stringOr(raw.content, ''),
    created: timeOf(raw.created),
    finish: 'stop',
  }
  if (typeof raw.reasoning === 'string') message.reasoning = raw.reasoning
  const finishes: Finish[] = ['stop', 'length', 'cancelled', 'lost', 'error']
  if (finishes.includes(raw.finish as Finish)) message.finish = raw.finish as Finish
  if (isRecord(raw.stats)) message.stats = statsOf(raw.stats)
  if (Array.isArray(raw.files)) {
    message.files = raw.files
      .filter(isRecord)
      .map((f) => ({ name: oneLine(stringOr(f.name, 'file')), content: stringOr(f.content, '') }))
  }
  return message
}

function statsOf(raw: Record<string, unknown>): Stats {
  const names = ['promptTokens', 'cachedTokens', 'answerTokens', 'thoughtTokens', 'tokensPerSecond', 'thoughtSeconds'] as const
  const stats: Stats = {}
  for (const name of names) {
    const value = numberOr(raw[name], -1)
    if (value >= 0) stats[name] = value
  }
  return stats
}
