import type { Connection } from "../calls.js";
import { streamSignal } from "../closer.js";
import { RunNotSucceeded } from "../errors.js";
import type { Event } from "../gen/lavant/v1/event_pb.js";
import { StreamEndReason, type StreamEventsResponse } from "../gen/lavant/v1/event_service_pb.js";
import { type Run, type RunFinished, RunState } from "../gen/lavant/v1/run_pb.js";
import { type Position, parsePosition, type ReadOptions, streamRequest } from "./options.js";
import { TextProjection, type ToolCall, ToolCallProjection } from "./projections.js";
import { readFrames } from "./reader.js";

/** Where a stream's frames come from: the protocol of docs/protocol.md over gRPC or gRPC-Web, or server-sent events. */
export type Frames = AsyncGenerator<StreamEventsResponse, StreamEndReason>;

/**
 * Events of one run, in order, over as many calls as needed. Iterate it once, with `for await`; leaving the loop closes
 * it, which never cancels the run.
 *
 * Throws StreamCut, ConsumerBusy, StreamDisplaced, StaleAttempt, ResumeTokenInvalid, StoreEpochChanged and RunNotFound.
 */
export class EventStream implements AsyncIterableIterator<Event> {
  /** The run when the stream was opened last; absent before, and while the run does not exist. */
  run: Run | undefined;
  /** Number of the lease, greater for every later stream of the consumer. */
  fence: bigint | undefined;
  /** Whether all events that were recorded when the stream was opened have been returned. */
  caughtUp = false;
  /** Why the stream ended, such as "RUN_FINISHED"; absent before. */
  endReason: keyof typeof StreamEndReason | undefined;
  /** The run's end, once it was received. */
  finished: RunFinished | undefined;

  readonly #runId: string;
  readonly #frames: Frames;
  readonly #stop: () => void;
  #isStopped = false;
  #before: string; // token before the present frame
  #after: string; // token after it
  #events: readonly Event[] = [];
  #index = 0;
  #skip: bigint; // events up to this sequence were returned before the position that the stream began with
  #filling: Promise<boolean> | undefined;

  constructor(runId: string, frames: Frames, start: Position, stop: () => void) {
    this.#runId = runId;
    this.#frames = frames;
    this.#stop = stop;
    this.#before = this.#after = start.token;
    this.#skip = start.sequence;
  }

  /**
   * Position after the last event that was returned, where a new stream continues; "" before the first frame.
   *
   * The server sends a token per frame. Between events of one frame this is the token before the frame, `~` and the
   * sequence of the last event returned, which only streams of a lavant client accept.
   */
  get resumeToken(): string {
    const isWhole = this.#index === this.#events.length;
    const last = isWhole || this.#index === 0 ? this.#skip : (this.#events[this.#index - 1]?.sequence ?? 0n);
    const token = isWhole ? this.#after : this.#before;
    return last > 0n ? `${token}~${last}` : token;
  }

  next(): Promise<IteratorResult<Event, undefined>> {
    const event = this.#events[this.#index];
    if (event !== undefined) {
      this.#index += 1;
      return Promise.resolve({ value: event, done: false });
    }
    return this.#nextOfLaterFrame();
  }

  /** Close the stream. May be called again, and while an event is awaited. */
  async return(): Promise<IteratorResult<Event, undefined>> {
    this.#end();
    await this.#frames.return(StreamEndReason.UNSPECIFIED).catch(() => undefined);
    return { value: undefined, done: true };
  }

  /** Close the stream. */
  async close(): Promise<void> {
    await this.return();
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Open the stream without reading an event. Throws what the server refuses it with. */
  async open(): Promise<void> {
    while (this.fence === undefined && this.endReason === undefined) await this.#fill();
  }

  /** Yield the pieces of the text of the run's own agent, as they arrive. */
  async *textChunks(): AsyncGenerator<string, void> {
    const text = new TextProjection();
    for await (const event of this) {
      const piece = text.add(event);
      if (piece !== "") yield piece;
    }
  }

  /** Yield each tool call when it has ended. */
  async *toolCalls(): AsyncGenerator<ToolCall, void> {
    const calls = new ToolCallProjection();
    for await (const event of this) {
      const call = calls.add(event);
      if (call !== undefined) yield call;
    }
  }

  /** Wait for the run's end, and return the text of its own agent. Throws RunNotSucceeded. */
  async text(): Promise<string> {
    const text = new TextProjection();
    for await (const event of this) text.add(event);
    this.#checkSucceeded();
    return text.text;
  }

  /** Wait for the run's end, and return its output. Throws RunNotSucceeded. */
  async result<T = unknown>(): Promise<T> {
    for await (const _ of this);
    const finished = this.#checkSucceeded();
    return (finished.outputJson === "" ? undefined : JSON.parse(finished.outputJson)) as T;
  }

  async #nextOfLaterFrame(): Promise<IteratorResult<Event, undefined>> {
    while (this.#index >= this.#events.length) if (!(await this.#fill())) return { value: undefined, done: true };
    const event = this.#events[this.#index] as Event;
    this.#index += 1;
    return { value: event, done: false };
  }

  /** Take the next frame. Returns false at the end. Calls at the same time share one frame. */
  #fill(): Promise<boolean> {
    this.#filling ??= this.#takeFrame().finally(() => {
      this.#filling = undefined;
    });
    return this.#filling;
  }

  async #takeFrame(): Promise<boolean> {
    const next = await this.#frames.next().catch((thrown: unknown) => {
      this.#end();
      throw thrown;
    });
    if (next.done) {
      if (this.endReason === undefined && next.value) {
        this.endReason = StreamEndReason[next.value] as keyof typeof StreamEndReason;
      }
      this.#end();
      return false;
    }
    this.#accept(next.value);
    return true;
  }

  #end(): void {
    if (this.#isStopped) return;
    this.#isStopped = true;
    this.#stop();
  }

  #accept(frame: StreamEventsResponse): void {
    this.#before = frame.opened?.startToken || this.#after;
    this.#after = frame.resumeToken || this.#before;
    if (frame.opened !== undefined) {
      this.run = frame.opened.run ?? this.run;
      this.fence = frame.opened.fence;
    }
    const events = frame.events?.events ?? [];
    this.#events = this.#skip === 0n ? events : events.filter((event) => event.sequence > this.#skip);
    this.#index = 0;
    const last = events[events.length - 1];
    if (last !== undefined && last.sequence >= this.#skip) this.#skip = 0n;
    if (last?.payload.case === "runFinished") this.finished = last.payload.value;
    if (frame.caughtUp !== undefined) this.caughtUp = true;
  }

  #checkSucceeded(): RunFinished {
    const finished = this.finished ?? this.run?.result;
    if (finished?.state !== RunState.SUCCEEDED) throw new RunNotSucceeded(this.#runId, finished);
    return finished;
  }
}

/** Return a stream of a run over gRPC or gRPC-Web. */
export function readRun(connection: Connection, runId: string, options: ReadOptions): EventStream {
  const start = parsePosition(options.resumeToken ?? "");
  const session = connection.sessions.begin(runId, options.consumer, options.takeOver ?? false);
  const { signal, stop } = streamSignal(connection.closer, options.signal);
  const frames = readFrames(connection, {
    request: streamRequest(runId, session.id, options),
    session,
    token: start.token,
    reconnectTimeoutMs: options.reconnectTimeoutMs ?? 60_000,
    signal,
  });
  return new EventStream(runId, frames, start, () => {
    stop();
    connection.sessions.close(session);
  });
}
