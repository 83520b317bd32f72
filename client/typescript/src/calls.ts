import type { DescMessage, DescMethodUnary, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import type { CallSlot, Channels } from "./channels.js";
import type { Closer } from "./closer.js";
import type { Credentials } from "./credentials.js";
import { LavantError, Unavailable } from "./errors.js";
import type { Sessions } from "./reading/sessions.js";
import { fromCall, isCut } from "./status.js";
import { Backoff, sleep } from "./time.js";

export interface CallOptions {
  /** Ends the call: it rejects with the signal's reason. */
  signal?: AbortSignal | undefined;
  /** Time for the call and its retries, in milliseconds. Default: the client's `timeoutMs`. */
  timeoutMs?: number | undefined;
}

/** What a client's calls have in common. */
export interface Connection {
  readonly channels: Channels;
  readonly credentials: Credentials;
  readonly sessions: Sessions;
  readonly closer: Closer;
  readonly timeoutMs: number;
}

/**
 * Make a call, and repeat it while no server can be reached or serves, within its time. Only for calls whose repetition
 * has no second effect, as all of lavant's are.
 */
export async function unary<I extends DescMessage, O extends DescMessage>(
  { channels, credentials, timeoutMs }: Connection,
  method: DescMethodUnary<I, O>,
  request: MessageInitShape<I>,
  options: CallOptions & { long?: boolean } = {},
): Promise<MessageShape<O>> {
  const { signal } = options;
  const deadline = Date.now() + (options.timeoutMs ?? timeoutMs);
  const backoff = new Backoff();
  let avoid: string | undefined;
  for (;;) {
    signal?.throwIfAborted();
    const sent = await credentials.headers();
    const slot: CallSlot = options.long ? channels.long(avoid) : channels.short(avoid);
    const left = Math.max(1, deadline - Date.now());
    let silent = false;
    try {
      const response = await slot.transport.unary(method, signal, left, sent, request);
      credentials.accepted();
      return response.message;
    } catch (thrown) {
      if (signal?.aborted) throw signal.reason;
      const error = fromCall(thrown);
      silent = error.code === "DEADLINE_EXCEEDED";
      if (credentials.mayRetry(error, sent)) continue;
      if (error.reason !== "UNAVAILABLE" && !isCut(thrown)) throw error;
      const pause = backoff.afterCut(error.retryAfterMs);
      if (Date.now() + pause >= deadline) throw outOfReach(error);
      avoid = slot.target;
      await sleep(pause, signal);
    } finally {
      slot.release({ silent });
    }
  }
}

/** Yield the pages of a list, following its page tokens. */
export async function* pages<I extends DescMessage, O extends DescMessage>(
  connection: Connection,
  method: DescMethodUnary<I, O>,
  request: (pageToken: string) => MessageInitShape<I>,
  options?: CallOptions,
): AsyncGenerator<MessageShape<O>> {
  let token = "";
  do {
    const page = await unary(connection, method, request(token), options);
    yield page;
    const next = (page as { nextPageToken?: string }).nextPageToken ?? "";
    if (next !== "" && next === token)
      throw new LavantError("the server's page token repeats: the list would never end");
    token = next;
  } while (token !== "");
}

function outOfReach(error: LavantError): LavantError {
  if (error.reason === "UNAVAILABLE") return error;
  return new Unavailable(`no server could be reached: ${error.message}`, { code: error.code, cause: error });
}
