import { expect, test } from 'vitest'
import {
  type Conversation,
  append,
  contains,
  latestLeaf,
  newConversation,
  path,
  renamed,
  siblings,
  titleOf,
  withFiles,
} from '../../src/lib/tree'
import { parseExport, parseMarkdown, toExport, toMarkdown } from '../../src/lib/exchange'

function talk(): Conversation {
  const c = newConversation()
  const question = append(c, { parent: null, role: 'user', content: 'Is 17 prime?', finish: 'stop' })
  append(c, { parent: question.id, role: 'assistant', content: 'Yes.', reasoning: 'Try 2,\n3.', finish: 'stop' })
  return c
}

test('regenerating adds a version and keeps the first', () => {
  const c = talk()
  const [question, first] = path(c)
  const second = append(c, { parent: question!.id, role: 'assistant', content: 'It is.', finish: 'stop' })
  expect(path(c).map((m) => m.content)).toEqual(['Is 17 prime?', 'It is.'])
  expect(siblings(c, second).map((m) => m.content)).toEqual(['Yes.', 'It is.'])
  c.leaf = latestLeaf(c, first!.id)
  expect(path(c).at(-1)!.content).toBe('Yes.')
})

test('choosing a branch shows its latest leaf', () => {
  const c = talk()
  const answer = path(c).at(-1)!
  append(c, { parent: answer.id, role: 'user', content: 'And 21?', finish: 'stop' })
  const edited = append(c, { parent: null, role: 'user', content: 'Is 18 prime?', finish: 'stop' })
  expect(path(c)).toHaveLength(1)
  expect(siblings(c, edited)).toHaveLength(2)
  c.leaf = latestLeaf(c, path(c, answer.id)[0]!.id)
  expect(path(c).map((m) => m.content)).toEqual(['Is 17 prime?', 'Yes.', 'And 21?'])
})

test('an export comes back as it was', () => {
  const c = talk()
  const [back] = parseExport(toExport([c]))
  expect(path(back!)).toEqual(path(c))
  expect(back!.title).toBe('Is 17 prime?')
  expect(back!.id).not.toBe(c.id) // an import never overwrites
})

test('files that are no export say why', () => {
  expect(() => parseExport('{')).toThrow()
  expect(() => parseExport('{"a":1}')).toThrow('conversations')
  expect(() => parseExport('{"conversations":[{}]}')).toThrow('messages')
  expect(() => parseExport('{"conversations":[{"messages":{"x":{"role":"root"}}}]}')).toThrow('role')
})

test('an import with links in a circle or to nothing ends', () => {
  const messages = {
    a: { role: 'user', content: 'a', parent: 'b' },
    b: { role: 'assistant', content: 'b', parent: 'a' },
    c: { role: 'user', content: 'c', parent: 'nowhere' },
    __proto__x: { role: 'user', content: 7, parent: 3 },
  }
  const [c] = parseExport(JSON.stringify({ conversations: [{ messages, leaf: 'a' }] }))
  expect(path(c!).length).toBeLessThanOrEqual(2)
  c!.leaf = 'c'
  expect(path(c!).map((m) => m.content)).toEqual(['c'])
})

test('files are given as the model card of R1 says', () => {
  const message = { ...path(talk())[0]!, files: [{ name: 'a.txt', content: 'one\ntwo' }] }
  expect(withFiles(message)).toBe(
    '[file name]: a.txt\n[file content begin]\none\ntwo\n[file content end]\nIs 17 prime?',
  )
})

test('Markdown quotes thoughts and fences files safely', () => {
  const c = talk()
  path(c)[0]!.files = [{ name: 'x.md', content: '````' }]
  const markdown = toMarkdown(c)
  expect(markdown).toContain('> Try 2,\n> 3.')
  expect(markdown).toContain('`````\n````\n`````')
})

test('Markdown comes back as it was', () => {
  const c = talk()
  path(c)[0]!.files = [{ name: 'x.md', content: '````\n## You' }]
  append(c, { parent: c.leaf, role: 'user', content: 'And\n\n## You\n\\## Assistant', finish: 'stop' })
  append(c, { parent: c.leaf, role: 'assistant', content: '> quoted, not thought', finish: 'stop' })
  const back = parseMarkdown(toMarkdown(c))
  const shape = (conversation: Conversation) => path(conversation).map(({ role, content, reasoning, files }) => ({ role, content, reasoning, files }))
  expect(shape(back)).toEqual(shape(c))
  expect(back.title).toBe(c.title)
  expect(() => parseMarkdown('# Something else')).toThrow('heading')
})

test('Markdown keeps a text that looks like a file or a thought of this format', () => {
  const c = talk()
  const texts = ['Output:\n\n```\n85\n```', '**File:** a\n\n```\nb\n```', '> **Thinking**\n>\n> a', '\\**File:** a']
  for (const content of texts) append(c, { parent: c.leaf, role: 'assistant', content, finish: 'stop' })
  append(c, { parent: c.leaf, role: 'user', content: '**File:** b', files: [{ name: 'a: b.txt', content: '' }], finish: 'stop' })
  const shape = (conversation: Conversation) => path(conversation).map(({ content, files }) => ({ content, files }))
  expect(shape(parseMarkdown(toMarkdown(c)))).toEqual(shape(c))
})

test('names from a file are one line, and do not end the heading they are in', () => {
  const files = [{ name: 'a\n## You\n', content: 'x' }]
  const messages = { a: { role: 'user', content: 'x', files } }
  const [c] = parseExport(JSON.stringify({ conversations: [{ title: 'a\n## You\nb', messages }] }))
  expect([c!.title, c!.messages.a!.files![0]!.name]).toEqual(['a ## You b', 'a ## You'])
  expect(path(parseMarkdown(toMarkdown(c!))).length).toBe(1)
})

test('large conversations are imported, continued and exported soon', () => {
  const entries = Array.from({ length: 150_000 }, (_, i) => [i, { role: 'user', content: 'x', parent: `${i - 1}`, created: i }])
  const [c] = parseExport(JSON.stringify({ conversations: [{ messages: Object.fromEntries(entries) }] }))
  append(c!, { parent: c!.leaf, role: 'user', content: '', files: [{ name: 'x', content: '` '.repeat(200_000) }], finish: 'stop' })
  expect(path(c!).length).toBe(150_001)
  expect(toMarkdown(c!)).toContain('```\n` `')
})

test('an export of a newer version is refused', () => {
  expect(() => parseExport('{"version":2,"conversations":[]}')).toThrow('newer')
})

test('what is imported twice has names of its own', () => {
  const [a, b] = [renamed(talk()), renamed(talk())]
  expect(path(a).map((m) => m.content)).toEqual(path(b).map((m) => m.content))
  expect(Object.keys(a.messages).some((id) => id in b.messages)).toBe(false)
})

test('titles end between words, and search looks everywhere', () => {
  expect(titleOf('  Why\tis it so?\nmore')).toBe('Why is it so?')
  expect(titleOf('word '.repeat(30)).length).toBeLessThanOrEqual(61)
  expect(titleOf('🐋'.repeat(70))).toBe(`${'🐋'.repeat(60)}…`)
  expect(contains(talk(), 'try 2')).toBe(true)
  expect(contains(talk(), '18')).toBe(false)
})

test('figures of an answer come back from a file, and nothing else that is called one', () => {
  const stats = { answerTokens: 7, tokensPerSecond: 1.5, thoughtSeconds: -1, promptTokens: '9', other: 1 }
  const messages = { a: { role: 'assistant', parent: null, content: 'x', created: 1, stats } }
  const [conversation] = parseExport(JSON.stringify({ conversations: [{ messages }] }))
  expect(conversation!.messages.a!.stats).toEqual({ answerTokens: 7, tokensPerSecond: 1.5 })
})

test('parents that lead in a circle are cut where they close it', () => {
  const message = (parent: string) => ({ parent, role: 'user', content: 'x', created: 1 })
  const file = JSON.stringify({ conversations: [{ messages: { a: message('b'), b: message('a') }, leaf: 'a' }] })
  const [conversation] = parseExport(file)
  expect(path(conversation!).map((m) => m.id)).toEqual(['a'])
  expect(Object.values(conversation!.messages).filter((m) => m.parent === null).length).toBe(1)
  const circle = { ...conversation!, messages: JSON.parse(file).conversations[0].messages }
  for (const id of ['a', 'b']) Object.assign(circle.messages[id], { id })
  expect(['a', 'b']).toContain(latestLeaf(circle, 'a'))
})
