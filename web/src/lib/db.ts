// Conversations in IndexedDB, and word of changes to the other tabs. Without IndexedDB (some
// private windows) conversations live as long as the tab.

import { type DBSchema, type IDBPDatabase, openDB } from 'idb'
import type { Conversation } from './tree'

interface Schema extends DBSchema {
  conversations: { key: string; value: Conversation }
}

/** A conversation that another tab changed, or a message whose answer it wants to be stopped. */
export type Change = { id: string; what: 'changed' | 'deleted' | 'stop' }

export class Store {
  #db: IDBPDatabase<Schema> | null = null
  #channel = new BroadcastChannel('cachalot-conversations')

  /** Whether conversations outlive this tab. */
  get persistent(): boolean {
    return this.#db !== null
  }

  async open(): Promise<Conversation[]> {
    try {
      this.#db = await openDB<Schema>('cachalot', 1, {
        upgrade: (db) => void db.createObjectStore('conversations', { keyPath: 'id' }),
      })
      return await this.#db.getAll('conversations')
    } catch {
      this.#db = null
      return []
    }
  }

  /** Calls `heard` for each change that another tab makes. */
  onChange(heard: (change: Change) => void): void {
    this.#channel.onmessage = (event: MessageEvent<Change>) => heard(event.data)
  }

  /** Asks the tab that writes an answer to stop it. */
  askToStop(messageId: string): void {
    this.#channel.postMessage({ id: messageId, what: 'stop' } satisfies Change)
  }

  async get(id: string): Promise<Conversation | undefined> {
    return this.#db?.get('conversations', id)
  }

  async put(conversation: Conversation): Promise<void> {
    await this.#db?.put('conversations', conversation)
    this.#channel.postMessage({ id: conversation.id, what: 'changed' } satisfies Change)
  }

  async delete(id: string): Promise<void> {
    await this.#db?.delete('conversations', id)
    this.#channel.postMessage({ id, what: 'deleted' } satisfies Change)
  }
}
