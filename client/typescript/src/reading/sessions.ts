/** Session of one stream: the server takes a higher attempt of it for a reconnect, and another session for a rival. */
export interface Session {
  readonly id: string;
  readonly key: string | undefined;
  attempt: bigint;
  wasOpened: boolean;
}

const REMEMBERED = 1_000;

/**
 * Continues the session of a consumer's closed stream in its next one, which the server lets in at once. Another session
 * would be refused until the server has noticed the end of the first. Remembers the last 1,000 sessions.
 */
export class Sessions {
  readonly #closed = new Map<string, Session>();

  /** Begin a session. To take over, it has to be a new one: the server ignores `takeOver` of one that was displaced. */
  begin(runId: string, consumer: string | undefined, takeOver: boolean): Session {
    const key = consumer === undefined ? undefined : JSON.stringify([runId, consumer]);
    const earlier = key === undefined || takeOver ? undefined : this.#closed.get(key);
    if (earlier === undefined) return { id: crypto.randomUUID(), key, attempt: 0n, wasOpened: false };
    this.#closed.delete(earlier.key as string);
    return { ...earlier, wasOpened: false };
  }

  /** Let the consumer's next stream continue a session. */
  close({ key, ...session }: Session): void {
    // One that was not let in must not hide the session that was.
    if (key === undefined || !session.wasOpened) return;
    this.#closed.delete(key);
    this.#closed.set(key, { key, ...session });
    for (const oldest of this.#closed.keys()) {
      if (this.#closed.size <= REMEMBERED) break;
      this.#closed.delete(oldest);
    }
  }
}
