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

/** Delays between attempts to reach a server: 0.1 s, doubled up to 5 s, half of it random. */
export class Backoff {
  #next = 100;

  /** Return the next delay in milliseconds. */
  next(): number {
    const full = this.#next;
    this.#next = Math.min(full * 2, 5_000);
    return full / 2 + (Math.random() * full) / 2;
  }

  /** Begin with the shortest delay again. */
  reset(): void {
    this.#next = 100;
  }
}
