import { type CallOptions, type Connection, pages, unary } from "./calls.js";
import { streamSignal } from "./closer.js";
import { LavantError, WaitTimeout } from "./errors.js";
import type { Event, ScoreRecorded } from "./gen/lavant/v1/event_pb.js";
import { EventService, type ListEventsResponse } from "./gen/lavant/v1/event_service_pb.js";
import { type Run, RunState } from "./gen/lavant/v1/run_pb.js";
import { type ListRunsResponse, RunService } from "./gen/lavant/v1/run_service_pb.js";
import { type RunSettingsInit, settingsOf } from "./publishing/events.js";
import { Publisher, type PublishOptions } from "./publishing/publisher.js";
import { type OnError, RunProducer } from "./publishing/run-producer.js";
import { type EventStream, readRun } from "./reading/event-stream.js";
import { type EventTypeName, eventTypes, parsePosition, type ReadOptions } from "./reading/options.js";
import { listScores, recordScore, type ScoreOptions } from "./scores.js";
import { Backoff, duration, sleep } from "./time.js";
import { type RunChange, type RunFilterInit, watchRuns } from "./watch.js";

export interface StartOptions extends Omit<RunSettingsInit, "name"> {
  /** ID of the run. Default: a new random one. */
  runId?: string;
  /** Input of the run: any value that JSON can represent. */
  input?: unknown;
  model?: string;
  version?: string;
  /** "log" (default) keeps the agent running without a record; "throw" throws what the server refuses. */
  onError?: OnError;
  maxQueueBytes?: number | undefined;
}

export interface ListEventsOptions extends CallOptions {
  types?: readonly EventTypeName[];
  /** Events per call: 1 to 1,000. Default 100. */
  pageSize?: number;
  /** Position to continue after: a resume token of the run. */
  resumeToken?: string;
  /** Called with the position after each page. */
  onPage?: (resumeToken: string) => void;
}

const LONGEST_WAIT_MS = 30_000;

/**
 * Calls about runs, at `client.runs`. While no server can be reached, calls are repeated within their time: repeating
 * them has no second effect. Calls with a run ID throw RunNotFound.
 */
export class Runs {
  readonly #connection: Connection;

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  /** Create a run without starting it, or return the run that has this ID and the same settings. Throws RunExists. */
  async create(settings: RunSettingsInit, options: CallOptions & { runId?: string } = {}): Promise<Run> {
    // The server would generate an ID, and another one for a retry.
    const request = { runId: options.runId || crypto.randomUUID(), settings: settingsOf(settings) };
    return known(await unary(this.#connection, RunService.method.createRun, request, options));
  }

  /** Return a run with its current state. */
  async get(runId: string, options?: CallOptions): Promise<Run> {
    return known(await unary(this.#connection, RunService.method.getRun, { runId }, options));
  }

  /** Yield the runs that match, the newest first. */
  async *list(
    filter: RunFilterInit = {},
    options: CallOptions & { pageSize?: number } = {},
  ): AsyncGenerator<Run, void> {
    const { pageSize } = options;
    const request = (pageToken: string) => ({ filter, pageToken, ...(pageSize !== undefined && { pageSize }) });
    for await (const page of pages(this.#connection, RunService.method.listRuns, request, options)) {
      yield* (page as ListRunsResponse).runs;
    }
  }

  /** Yield the recorded events of a run, in order. Needs no lease. */
  async *events(runId: string, options: ListEventsOptions = {}): AsyncGenerator<Event, void> {
    const { types = [], pageSize, resumeToken = "", onPage } = options;
    const start = parsePosition(resumeToken);
    const request = (pageToken: string) => ({
      runId,
      types: eventTypes(types),
      pageToken: pageToken || start.token,
      ...(pageSize !== undefined && { pageSize }),
    });
    for await (const page of pages(this.#connection, EventService.method.listEvents, request, options)) {
      const { events, resumeToken: after } = page as ListEventsResponse;
      for (const event of events) if (event.sequence > start.sequence) yield event;
      onPage?.(after);
    }
  }

  /**
   * Wait until a run has ended in any state, and return it. Throws WaitTimeout after `timeoutMs`, by default never, and
   * Unavailable if no server can be reached for the client's own timeout.
   */
  async wait(runId: string, { timeoutMs = Number.POSITIVE_INFINITY, signal }: CallOptions = {}): Promise<Run> {
    const deadline = Date.now() + timeoutMs;
    const backoff = new Backoff();
    for (;;) {
      backoff.opened();
      const wait = Math.min(LONGEST_WAIT_MS, Math.max(0, deadline - Date.now()));
      const run = known(
        await unary(
          this.#connection,
          RunService.method.waitRun,
          { runId, timeout: duration(wait) },
          { signal, timeoutMs: wait + this.#connection.timeoutMs, long: true },
        ),
      );
      if (run.state >= RunState.SUCCEEDED) return run;
      if (Date.now() >= deadline) {
        throw new WaitTimeout(`run ${runId} is ${RunState[run.state]?.toLowerCase()} after ${timeoutMs / 1000} s`);
      }
      // A server that drains, or whose call's credential expires, returns early.
      await sleep(Math.min(backoff.afterEnd(0), Math.max(0, deadline - Date.now())), signal);
    }
  }

  /**
   * Yield each run that matches with its current state, then "caught_up", then every change. Never ends, and reconnects
   * by itself; after a reconnect a run may be repeated. Throws StreamCut.
   */
  async *watch(
    filter: RunFilterInit = {},
    options: { resumeToken?: string; reconnectTimeoutMs?: number; signal?: AbortSignal } = {},
  ): AsyncGenerator<RunChange, void> {
    const { signal, stop } = streamSignal(this.#connection.closer, options.signal);
    const { resumeToken: token = "", reconnectTimeoutMs = 60_000 } = options;
    try {
      yield* watchRuns(this.#connection, { filter, token, reconnectTimeoutMs, signal });
    } finally {
      stop();
    }
  }

  /** Ask the producer of a run to stop, and return the run. The run ends when its producer ends it. */
  async cancel(runId: string, reason = "", options?: CallOptions): Promise<Run> {
    return known(await unary(this.#connection, RunService.method.cancelRun, { runId, reason }, options));
  }

  /** Delete a run that has ended, and its log. Throws RunNotEnded. */
  async delete(runId: string, options?: CallOptions): Promise<void> {
    await unary(this.#connection, RunService.method.deleteRun, { runId }, options);
  }

  /** Return a stream of a run's events: recorded ones first, then new ones. The first read opens it. */
  read(runId: string, options: ReadOptions = {}): EventStream {
    return readRun(this.#connection, runId, options);
  }

  /** Execute a function as a run, and return what it returns, which is the run's output. */
  async start<T>(name: string, options: StartOptions, body: (run: RunProducer) => Promise<T> | T): Promise<T> {
    const { runId = crypto.randomUUID(), input, model = "", version = "", onError = "log", ...rest } = options;
    const { maxQueueBytes, ...settings } = rest;
    const publisher = this.publish(runId, { create: { ...settings, name }, maxQueueBytes });
    return new RunProducer(runId, publisher, onError).execute(input, { model, version }, body);
  }

  /** Return a publisher of a run's events, for events that another framework made. `start` is built on it. */
  publish(runId: string, options: Omit<PublishOptions, "create"> & { create?: RunSettingsInit } = {}): Publisher {
    const { create, ...rest } = options;
    return new Publisher(this.#connection, runId, { ...rest, create: create && settingsOf(create) });
  }

  /** Record a score on a run, such as a user's feedback, and return the score's ID. The run need not have ended. */
  score(runId: string, options: ScoreOptions): Promise<string> {
    return recordScore(this.#connection, runId, options);
  }

  /** Yield the scores of a run, of rules and of people. */
  scores(runId: string, options?: CallOptions): AsyncGenerator<ScoreRecorded, void> {
    return listScores(this.#connection, runId, options);
  }
}

function known(response: { run?: Run | undefined }): Run {
  if (response.run === undefined) throw new LavantError("the server's response has no run");
  return response.run;
}
