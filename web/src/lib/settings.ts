// What a person can set, with DeepSeek's recommendations for R1 as defaults.

import { text } from './text'

export interface Settings {
  system: string
  temperature: number
  top_p: number
  top_k: number
  min_p: number
  repeat_penalty: number
  presence_penalty: number
  frequency_penalty: number
  seed: number | null
  max_tokens: number | null
  thinking: 'auto' | 'on' | 'off'
  budget: number | null
  stop: string
  schema: string
  showThoughts: boolean
  theme: 'system' | 'light' | 'dark'
}

export const defaults: Settings = {
  system: '',
  temperature: 0.6,
  top_p: 0.95,
  top_k: 0,
  min_p: 0,
  repeat_penalty: 1,
  presence_penalty: 0,
  frequency_penalty: 0,
  seed: null,
  max_tokens: null,
  thinking: 'auto',
  budget: null,
  stop: '',
  schema: '',
  showThoughts: true,
  theme: 'system',
}

const KEY = 'cachalot-settings'

/** The settings kept in this browser; whatever does not fit is the default. */
export function load(storage?: Storage): Settings {
  const settings: Settings = { ...defaults }
  try {
    const kept: unknown = JSON.parse((storage ?? localStorage).getItem(KEY) ?? '{}')
    for (const [name, value] of Object.entries(kept ?? {})) {
      if (name in defaults && fits(name as keyof Settings, value)) {
        Object.assign(settings, { [name]: value })
      }
    }
  } catch {
    // Damaged or forbidden storage: the defaults.
  }
  return settings
}

function fits(name: keyof Settings, value: unknown): boolean {
  if (name === 'thinking') return ['auto', 'on', 'off'].includes(value as string)
  if (name === 'theme') return ['system', 'light', 'dark'].includes(value as string)
  if (defaults[name] === null) return value === null || typeof value === 'number'
  return typeof value === typeof defaults[name]
}

export function keep(settings: Settings, storage?: Storage): void {
  try {
    ;(storage ?? localStorage).setItem(KEY, JSON.stringify(settings))
  } catch {
    // Storage may be full or forbidden; settings then last as long as the tab.
  }
}

const SAMPLING = [
  'temperature',
  'top_p',
  'top_k',
  'min_p',
  'repeat_penalty',
  'presence_penalty',
  'frequency_penalty',
] as const

/** The fields of a chat completion request that settings decide. */
export function requestFields(settings: Settings): Record<string, unknown> {
  const fields: Record<string, unknown> = {}
  // A field that was emptied is null, whatever its type says.
  for (const name of SAMPLING) fields[name] = settings[name] ?? defaults[name]
  if (settings.seed !== null) fields.seed = settings.seed
  if (settings.max_tokens !== null) fields.max_tokens = settings.max_tokens
  if (settings.thinking !== 'auto') {
    const on = settings.thinking === 'on'
    fields.chat_template_kwargs = { enable_thinking: on, thinking: on }
  }
  if (settings.budget !== null) fields.reasoning_budget_tokens = settings.budget
  const stop = settings.stop.split('\n').filter((line) => line !== '')
  if (stop.length > 0) fields.stop = stop
  if (settings.schema.trim() !== '') {
    const schema = parseSchema(settings.schema)
    fields.response_format = { type: 'json_schema', json_schema: { name: 'answer', strict: true, schema } }
  }
  return fields
}

/** The schema that was typed. Throws with a sentence for a person if it is not JSON. */
function parseSchema(typed: string): unknown {
  try {
    return JSON.parse(typed)
  } catch {
    throw new Error(text.errors.schema)
  }
}
