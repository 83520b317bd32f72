import type { MessageInitShape } from "@bufbuild/protobuf";
import type { Connection } from "./calls.js";
import type { CallSlot } from "./channels.js";
import { type LavantError, StreamCut } from "./errors.js";
import type { Run } from "./gen/lavant/v1/run_pb.js";
import { type RunFilterSchema, RunService, type WatchRunsResponse } from "./gen/lavant/v1/run_service_pb.js";
import { untilSilent } from "./reading/watchdog.js";
import { fromCall, isCut } from "./status.js";
import { Backoff, milliseconds, sleep } from "./time.js";

/** Conditions that a run must meet, all of them, such as `{ names: ["weather-*"], states: [RunState.SUCCEEDED] }`. */
export type RunFilterInit = MessageInitShape<typeof RunFilterSchema>;

/** A change to the runs that match. `resumeToken` is the position after it: a later watch continues there. */
export type RunChange = { readonly resumeToken: string } & (
  | { readonly type: "run"; readonly run: Run }
  | { readonly type: "left" | "deleted"; readonly runId: string }
  | { readonly type: "caught_up" }
);

export interface WatchOptions {
  readonly filter: RunFilterInit;
  readonly token: string;
  readonly reconnectTimeoutMs: number;
  readonly signal: AbortSignal;
}

const SILENCE_MS = 45_000;

/** Yield the changes of a watch over as many calls as needed: "Watching runs" of docs/protocol.md. Never ends. */
export async function* watchRuns(
  { channels, credentials, timeoutMs }: Connection,
  { filter, token, reconnectTimeoutMs, signal }: WatchOptions,
): AsyncGenerator<RunChange, void> {
  const backoff = new Backoff();
  let wasCaughtUp = false;
  let avoid: string | undefined;
  for (;;) {
    signal.throwIfAborted();
    let pause: number | undefined;
    let slot: CallSlot | undefined;
    let sent: Record<string, string> = {};
    const call = new AbortController();
    const stop = () => call.abort(signal.reason);
    signal.addEventListener("abort", stop, { once: true });
    const dog = { silent: false, intervalMs: timeoutMs + SILENCE_MS };
    try {
      sent = await credentials.headers();
      slot = channels.long(avoid);
      avoid = slot.target;
      const request = (async function* () {
        yield { filter, resumeToken: token };
      })();
      const response = slot.transport.stream(RunService.method.watchRuns, call.signal, undefined, sent, request);
      for await (const frame of untilSilent(response, dog, call)) {
        dog.intervalMs = SILENCE_MS;
        backoff.opened();
        credentials.accepted();
        const changes = changesOf(frame);
        if (changes.some(({ type }) => type !== "caught_up" || !wasCaughtUp)) backoff.progressed();
        wasCaughtUp ||= frame.caughtUp;
        for (const [index, change] of changes.entries()) {
          // Between changes of one frame the position is still before the frame.
          yield { ...change, resumeToken: index + 1 < changes.length ? token : frame.resumeToken || token };
        }
        token = frame.resumeToken || token;
        if (frame.end === undefined) continue;
        pause = backoff.afterEnd(milliseconds(frame.end.retryDelay));
        break;
      }
      pause ??= backoff.afterCut(); // a proxy closed the stream
    } catch (thrown) {
      signal.throwIfAborted();
      const error = fromCall(thrown);
      if (credentials.mayRetry(error, sent)) continue;
      if (isStale(error) && token !== "") {
        token = ""; // older than 24 hours, or of another store: start with the current state
        continue;
      }
      const isRetried = error.reason === "UNAVAILABLE" || error.reason === "SLOW_CONSUMER";
      if (!isRetried && !dog.silent && !isCut(thrown)) throw error;
      pause = backoff.afterCut(error.retryAfterMs);
      if (backoff.isExhausted(reconnectTimeoutMs, pause)) {
        throw new StreamCut(`no server could be reached for ${reconnectTimeoutMs / 1000} s: ${error.message}`, {
          reason: error.reason,
          code: error.code,
          cause: error,
        });
      }
    } finally {
      signal.removeEventListener("abort", stop);
      call.abort();
      slot?.release({ silent: dog.silent });
    }
    await sleep(pause, signal);
  }
}

type Change = RunChange extends infer C ? (C extends RunChange ? Omit<C, "resumeToken"> : never) : never;

function changesOf(frame: WatchRunsResponse): Change[] {
  return [
    ...frame.deletedRunIds.map((runId) => ({ type: "deleted" as const, runId })),
    ...frame.leftRunIds.map((runId) => ({ type: "left" as const, runId })),
    ...frame.runs.map((run) => ({ type: "run" as const, run })),
    ...(frame.caughtUp ? [{ type: "caught_up" as const }] : []),
  ];
}

function isStale(error: LavantError): boolean {
  return error.reason === "INVALID_FIELD" && error.violations.some(({ field }) => field === "resume_token");
}
