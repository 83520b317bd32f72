import { create } from "@bufbuild/protobuf";
import { type Duration, DurationSchema } from "@bufbuild/protobuf/wkt";

/** Return a Duration of milliseconds. */
export function duration(ms: number): Duration {
  const seconds = Math.floor(ms / 1000);
  return create(DurationSchema, { seconds: BigInt(seconds), nanos: Math.round((ms - seconds * 1000) * 1e6) });
}

/** Return the milliseconds of a Duration; 0 if it is absent. */
export function milliseconds(value: Duration | undefined): number {
  return value === undefined ? 0 : Number(value.seconds) * 1000 + value.nanos / 1e6;
}

/** Wait. Rejects with the signal's reason once it aborts. */
export function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const over = () => {
      signal?.removeEventListener("abort", aborted);
      resolve();
    };
    const timer = setTimeout(over, ms);
    const aborted = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    signal?.addEventListener("abort", aborted, { once: true });
  });
}

const STEADY_MS = 1_000;

/**
 * Delays between attempts to reach a server: 0.1 s, doubled up to 5 s, half of it random, and short again after a call
 * that made progress: it brought something new, or stayed open for a second. A server that is not well may open and end
 * every call at once.
 */
export class Backoff {
  #next = 100;
  #openedAt: number | undefined;
  #failingSince: number | undefined;

  /** Note that a call is open. */
  opened(): void {
    this.#openedAt ??= Date.now();
  }

  /** Note that a call brought something new. */
  progressed(): void {
    this.#next = 100;
    this.#failingSince = undefined;
  }

  /** Note that the call ended as planned, and return the time until the next one, in milliseconds. */
  afterEnd(retryDelayMs: number): number {
    const isProgress = this.#ended() || this.#failingSince === undefined;
    this.#failingSince ??= Date.now();
    return isProgress ? retryDelayMs : Math.max(retryDelayMs, this.#delay());
  }

  /** Note that the call was cut, and return the time until the next one, in milliseconds. */
  afterCut(retryAfterMs = 0): number {
    this.#ended();
    this.#failingSince ??= Date.now();
    return Math.max(retryAfterMs, this.#delay());
  }

  /** Return whether all attempts within the last `timeoutMs`, the next one after `pauseMs` included, brought nothing. */
  isExhausted(timeoutMs: number, pauseMs: number): boolean {
    return this.#failingSince !== undefined && Date.now() + pauseMs > this.#failingSince + timeoutMs;
  }

  #ended(): boolean {
    const isSteady = this.#openedAt !== undefined && Date.now() - this.#openedAt >= STEADY_MS;
    this.#openedAt = undefined;
    if (isSteady) this.progressed();
    return isSteady;
  }

  #delay(): number {
    const full = this.#next;
    this.#next = Math.min(full * 2, 5_000);
    return full / 2 + (Math.random() * full) / 2;
  }
}
