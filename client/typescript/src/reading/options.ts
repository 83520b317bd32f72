import { create } from "@bufbuild/protobuf";
import { EventType } from "../gen/lavant/v1/event_pb.js";
import {
  DeltaMode,
  StartPosition,
  StopPosition,
  type StreamEventsRequest,
  StreamEventsRequestSchema,
} from "../gen/lavant/v1/event_service_pb.js";
import { duration } from "../time.js";

/** Name of a type of events, such as "TEXT_DELTA". */
export type EventTypeName = Exclude<keyof typeof EventType, "UNSPECIFIED">;

export interface ReadOptions {
  /** Name of the reader, of which a run has at most one stream. Default: a new random one. */
  consumer?: string | undefined;
  /** Position to continue at: `resumeToken` of an earlier stream. */
  resumeToken?: string | undefined;
  /** Where a stream without a resume token starts. Default "beginning". */
  start?: "beginning" | "now" | undefined;
  /** Where the stream ends. Default "run_finished". */
  stop?: "run_finished" | "head" | undefined;
  /** Types of events to read. Default: those of the stream that issued the resume token, or all. */
  types?: readonly EventTypeName[] | undefined;
  /** Whether deltas are sent as published, merged where the reader is slow, or not at all. Default "all". */
  deltas?: "all" | "merged" | "none" | undefined;
  /** Milliseconds without an event after which the stream ends with reason IDLE. Default: never. */
  idleTimeoutMs?: number | undefined;
  /** Milliseconds for which a cut connection is restored before StreamCut is thrown. Default 60,000. */
  reconnectTimeoutMs?: number | undefined;
  /** Milliseconds of silence after which the server proves that it is alive. 1,000 to 60,000; default 15,000. */
  heartbeatIntervalMs?: number | undefined;
  /** Whether to acquire the consumer's lease from another session. Default false. */
  takeOver?: boolean | undefined;
  /** Whether to wait for a run that does not exist yet. Default false. */
  waitForRun?: boolean | undefined;
  /** Ends the stream: the loop throws the signal's reason. */
  signal?: AbortSignal | undefined;
}

const STARTS = { beginning: StartPosition.BEGINNING, now: StartPosition.NOW };
const STOPS = { run_finished: StopPosition.RUN_FINISHED, head: StopPosition.HEAD };
const DELTAS = { all: DeltaMode.ALL, merged: DeltaMode.MERGED, none: DeltaMode.NONE };

/** Return the request of a reader's calls, without what changes from call to call. */
export function streamRequest(runId: string, sessionId: string, options: ReadOptions): StreamEventsRequest {
  const { start = "beginning", stop = "run_finished", deltas = "all", types = [] } = options;
  return create(StreamEventsRequestSchema, {
    runId,
    consumerId: options.consumer ?? crypto.randomUUID(),
    sessionId,
    startFrom: { case: "start", value: STARTS[start] },
    stop: STOPS[stop],
    deltas: DELTAS[deltas],
    types: eventTypes(types),
    takeOver: options.takeOver ?? false,
    waitForRun: options.waitForRun ?? false,
    heartbeatInterval: duration(options.heartbeatIntervalMs ?? 15_000),
    ...(options.idleTimeoutMs !== undefined && { idleTimeout: duration(options.idleTimeoutMs) }),
  });
}

/** Return the types of these names. Throws TypeError for other names. */
export function eventTypes(names: readonly EventTypeName[]): EventType[] {
  return names.map((name) => {
    const type = EventType[name];
    if (type === undefined) throw new TypeError(`types: no type of events is named ${JSON.stringify(name)}`);
    return type;
  });
}

/** Position in a run: the server's token, and the sequence up to which the events after it were returned. */
export interface Position {
  readonly token: string;
  readonly sequence: bigint;
}

/**
 * Read a resume token of this client or of the server, or the ID of a server-sent event: the server's token, and after
 * `~`, or `.` in such an ID, the sequence of the last event that was returned after it.
 */
export function parsePosition(text: string): Position {
  const [, token = text, sequence = "0"] = /^([^.~]*)(?:[.~](\d{1,18}))?(?:~.*)?$/.exec(text) ?? [];
  return { token, sequence: BigInt(sequence) };
}
