import { create } from "@bufbuild/protobuf";
import type { Connection } from "../calls.js";
import type { CallSlot } from "../channels.js";
import { LavantError, StreamCut } from "../errors.js";
import {
  EventService,
  type StreamEnd,
  StreamEndReason,
  type StreamEventsRequest,
  StreamEventsRequestSchema,
  type StreamEventsResponse,
} from "../gen/lavant/v1/event_service_pb.js";
import { fromCall, isCut } from "../status.js";
import { Backoff, milliseconds, sleep } from "../time.js";
import type { Session } from "./sessions.js";
import { untilSilent } from "./watchdog.js";

export interface ReaderOptions {
  readonly request: StreamEventsRequest;
  readonly session: Session;
  readonly token: string;
  readonly reconnectTimeoutMs: number;
  /** Ends the stream. */
  readonly signal: AbortSignal;
}

// What a reason of the server, and no cut connection, has a reader call again after.
const RETRIED = new Set(["UNAVAILABLE", "SLOW_CONSUMER"]);

/**
 * Yield the frames of a stream over as many calls as needed, and return the reason of its end: "Reading a stream" of
 * docs/protocol.md, step by step. Ask for the next frame after you have handled one: then its token is kept.
 */
export async function* readFrames(
  connection: Connection,
  { request, session, token, reconnectTimeoutMs, signal }: ReaderOptions,
): AsyncGenerator<StreamEventsResponse, StreamEndReason> {
  const { channels, credentials, timeoutMs } = connection;
  const backoff = new Backoff();
  let wasCaughtUp = false;
  let avoid: string | undefined;
  for (;;) {
    signal.throwIfAborted();
    session.attempt += 1n;
    const next = create(StreamEventsRequestSchema, {
      ...request,
      attempt: session.attempt,
      takeOver: request.takeOver && !session.wasOpened, // again, it would displace whoever displaced this session
      startFrom: token === "" ? request.startFrom : { case: "resumeToken", value: token },
    });
    let pause: number;
    let end: StreamEnd | undefined;
    let slot: CallSlot | undefined;
    let sent: Record<string, string> = {};
    const call = new AbortController();
    const stop = () => call.abort(signal.reason);
    signal.addEventListener("abort", stop, { once: true });
    const dog = { silent: false, intervalMs: timeoutMs };
    try {
      sent = await credentials.headers();
      slot = channels.long(avoid);
      avoid = slot.target;
      const response = slot.transport.stream(
        EventService.method.streamEvents,
        call.signal,
        undefined,
        sent,
        once(next),
      );
      for await (const frame of untilSilent(response, dog, call)) {
        if (frame.opened !== undefined) {
          session.wasOpened = true;
          backoff.opened();
          credentials.accepted();
          dog.intervalMs = 3 * milliseconds(frame.opened.heartbeatInterval) || dog.intervalMs;
        }
        if (frame.events?.events.length || (frame.caughtUp && !wasCaughtUp)) backoff.progressed();
        wasCaughtUp ||= frame.caughtUp !== undefined;
        yield frame;
        token = frame.resumeToken || token;
        end = frame.end;
        if (end !== undefined) break;
      }
      if (end === undefined) throw new LavantError("the connection ended without a last frame");
      if (!end.reconnect) return end.reason;
      if (end.reason === StreamEndReason.CREDENTIAL_EXPIRED) credentials.renew();
      if (end.reason !== StreamEndReason.DRAINING) avoid = undefined;
      pause = backoff.afterEnd(milliseconds(end.retryDelay));
    } catch (thrown) {
      signal.throwIfAborted();
      const error = fromCall(thrown);
      if (credentials.mayRetry(error, sent)) continue;
      if (!RETRIED.has(error.reason) && !dog.silent && !isCut(thrown)) throw error;
      pause = backoff.afterCut(error.retryAfterMs);
      if (backoff.isExhausted(reconnectTimeoutMs, pause)) throw cut(error, reconnectTimeoutMs);
    } finally {
      signal.removeEventListener("abort", stop);
      call.abort(); // also when the reader leaves the loop: the server then releases the lease
      slot?.release({ silent: dog.silent });
    }
    await sleep(pause, signal);
  }
}

async function* once<T>(value: T): AsyncGenerator<T> {
  yield value;
}

function cut(error: LavantError, timeoutMs: number): StreamCut {
  const message = `no server could be reached for ${timeoutMs / 1000} s: ${error.message}`;
  return new StreamCut(message, { reason: error.reason, code: error.code, cause: error });
}
