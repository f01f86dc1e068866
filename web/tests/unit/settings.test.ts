import { expect, test } from 'vitest'
import { defaults, keep, load, requestFields } from '../../src/lib/settings'

function storageOf(value: string | null): Storage {
  let kept = value
  return { getItem: () => kept, setItem: (_: string, v: string) => (kept = v) } as unknown as Storage
}

test('R1’s recommendations are the defaults', () => {
  expect(requestFields(defaults)).toMatchObject({ temperature: 0.6, top_p: 0.95 })
  expect(requestFields(defaults)).not.toHaveProperty('seed')
})

test('settings come back; damaged ones are the defaults', () => {
  const storage = storageOf(null)
  keep({ ...defaults, temperature: 0.1, seed: 7 }, storage)
  expect(load(storage)).toMatchObject({ temperature: 0.1, seed: 7 })
  expect(load(storageOf('{"temperature":"hot","seed":"x","theme":"pink","evil":1}'))).toEqual(defaults)
  expect(load(storageOf('{'))).toEqual(defaults)
})

test('stop strings are lines, and a schema must be JSON', () => {
  expect(requestFields({ ...defaults, stop: 'END\n\n###' }).stop).toEqual(['END', '###'])
  const fields = requestFields({ ...defaults, schema: '{"type":"object"}' })
  expect(fields.response_format).toMatchObject({ json_schema: { schema: { type: 'object' } } })
  expect(() => requestFields({ ...defaults, schema: '{' })).toThrow('JSON schema')
})

test('thinking is switched for both spellings of templates', () => {
  expect(requestFields({ ...defaults, thinking: 'off' }).chat_template_kwargs).toEqual({ enable_thinking: false, thinking: false })
  expect(requestFields(defaults)).not.toHaveProperty('chat_template_kwargs')
})
