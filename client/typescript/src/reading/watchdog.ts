import type { DescMessage, MessageShape } from "@bufbuild/protobuf";
import type { StreamResponse } from "@connectrpc/connect";
import { LavantError } from "../errors.js";

/** Longest silence on a stream. `silent` is set once it is exceeded; `intervalMs` may change from frame to frame. */
export interface Watchdog {
  silent: boolean;
  intervalMs: number;
}

/**
 * Yield the messages of a call, and cut it after a silence: a dead connection reports nothing. Time counts while a
 * message is awaited, not while one is handled.
 */
export async function* untilSilent<I extends DescMessage, O extends DescMessage>(
  response: Promise<StreamResponse<I, O>>,
  dog: Watchdog,
  call: AbortController,
): AsyncGenerator<MessageShape<O>> {
  const guarded = async <T>(work: Promise<T>): Promise<T> => {
    let bark: ReturnType<typeof setTimeout> | undefined;
    const silence = new Promise<never>((_, reject) => {
      bark = setTimeout(() => {
        dog.silent = true;
        call.abort();
        reject(new LavantError(`no frame arrived for ${dog.intervalMs / 1000} s`));
      }, dog.intervalMs);
    });
    try {
      return await Promise.race([work, silence]);
    } finally {
      clearTimeout(bark);
    }
  };
  const messages = (await guarded(response)).message[Symbol.asyncIterator]();
  for (;;) {
    const next = await guarded(messages.next());
    if (next.done) return;
    yield next.value as MessageShape<O>;
  }
}
