import type { Transport } from "@connectrpc/connect";

/** Connection to one server. `close` cuts its calls. */
export interface Channel {
  readonly transport: Transport;
  close(): void;
}

/** Right to make one call on a channel, until it is released. */
export interface CallSlot {
  readonly target: string;
  readonly transport: Transport;
  /** Free the slot. A channel that was silent gets no further calls: a dead connection swallows the next one too. */
  release(options?: { silent?: boolean }): void;
}

// The server allows 1,280 calls per connection; further ones would wait in the HTTP/2 library without an error.
const CALLS_PER_CHANNEL = 1_000;

class Pooled {
  calls = 0;
  isRetired = false;

  constructor(
    readonly target: string,
    readonly channel: Channel,
  ) {}

  get hasRoom(): boolean {
    return !this.isRetired && this.calls < CALLS_PER_CHANNEL;
  }
}

/**
 * Channels of a client to its servers: short calls share one per server, long calls have others, of at most 1,000 calls
 * each, and are spread over the servers.
 */
export class Channels {
  readonly #targets: readonly string[];
  readonly #open: (target: string) => Channel;
  readonly #short = new Map<string, Pooled>();
  #long: Pooled[] = [];
  #turn: number;
  #isClosed = false;

  constructor(targets: readonly string[], open: (target: string) => Channel) {
    if (targets.length === 0) throw new TypeError("targets must name at least one server");
    this.#targets = targets;
    this.#open = open;
    this.#turn = Math.floor(Math.random() * targets.length);
  }

  /** Return a slot for a short call: to the same server as the last one, unless `avoid` names it. */
  short(avoid?: string): CallSlot {
    if (avoid === this.#target()) this.#turn += 1;
    const target = this.#target();
    let pooled = this.#short.get(target);
    if (pooled === undefined || !pooled.hasRoom) {
      pooled = this.#create(target);
      this.#short.set(target, pooled);
    }
    return this.#slot(pooled);
  }

  /** Return a slot for a stream or another long call: to the next server, and not to `avoid` if there is another one. */
  long(avoid?: string): CallSlot {
    this.#turn += 1;
    if (avoid === this.#target()) this.#turn += 1;
    const target = this.#target();
    let pooled = this.#long.find((one) => one.target === target && one.hasRoom);
    if (pooled === undefined) {
      pooled = this.#create(target);
      this.#long.push(pooled);
    }
    return this.#slot(pooled);
  }

  /** Close all channels, which cuts their calls. */
  close(): void {
    this.#isClosed = true;
    for (const pooled of [...this.#short.values(), ...this.#long]) pooled.channel.close();
    this.#short.clear();
    this.#long = [];
  }

  #target(): string {
    return this.#targets[this.#turn % this.#targets.length] as string;
  }

  #create(target: string): Pooled {
    if (this.#isClosed) throw new TypeError("the client is closed");
    return new Pooled(target, this.#open(target));
  }

  #slot(pooled: Pooled): CallSlot {
    pooled.calls += 1;
    let isFree = false;
    return {
      target: pooled.target,
      transport: pooled.channel.transport,
      release: ({ silent = false } = {}) => {
        if (isFree) return;
        isFree = true;
        pooled.calls -= 1;
        if (silent) this.#retire(pooled);
        if (pooled.isRetired && pooled.calls === 0) pooled.channel.close();
      },
    };
  }

  #retire(pooled: Pooled): void {
    pooled.isRetired = true;
    this.#long = this.#long.filter((one) => one !== pooled);
    if (this.#short.get(pooled.target) === pooled) this.#short.delete(pooled.target);
  }
}
