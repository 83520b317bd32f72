import type { Message } from "@bufbuild/protobuf";
import { type Duration, timestampDate } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { EventType } from "../gen/lavant/v1/event_pb.js";
import {
  DeltaMode,
  type ListEventsRequest,
  StartPosition,
  StopPosition,
  type StreamEventsRequest,
} from "../gen/lavant/v1/event_service_pb.js";
import { RunKind, RunState } from "../gen/lavant/v1/run_pb.js";
import type { GetRunRequest, ListRunsRequest, RunFilter, WatchRunsRequest } from "../gen/lavant/v1/run_service_pb.js";
import type { ListScoresRequest } from "../gen/lavant/v1/score_service_pb.js";
import { milliseconds } from "../time.js";

type Value = string | number | boolean | undefined;
type Parameters = Record<string, Value | readonly string[]>;

/** Return the path and the query of a call over HTTP: see docs/http.md. Throws for calls that HTTP does not have. */
export function pathOf(method: string, message: Message): string {
  const request = REQUESTS[method];
  if (request === undefined) {
    throw new ConnectError(`${method} is not available over HTTP: use gRPC-Web`, Code.Unimplemented);
  }
  const [path, parameters = {}] = request(message);
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== undefined && one !== "" && one !== false) query.append(name, String(one));
    }
  }
  return query.size === 0 ? `/api/v1/${path}` : `/api/v1/${path}?${query}`;
}

// biome-ignore lint/suspicious/noExplicitAny: the name of a method decides about its request
const REQUESTS: Record<string, (message: any) => [string, Parameters?]> = {
  GetRun: ({ runId }: GetRunRequest) => [`runs/${runId}`],
  ListRuns: ({ filter, pageSize, pageToken }: ListRunsRequest) => [
    "runs",
    { ...filtered(filter), page_size: pageSize, page_token: pageToken },
  ],
  ListEvents: ({ runId, types, pageSize, pageToken }: ListEventsRequest) => [
    `runs/${runId}/events`,
    { type: words(EventType, types), page_size: pageSize, page_token: pageToken },
  ],
  ListScores: ({ filter, pageSize, pageToken }: ListScoresRequest) => [
    `runs/${filter?.subjectRunId}/scores`,
    { page_size: pageSize, page_token: pageToken },
  ],
  StreamEvents: (request: StreamEventsRequest) => [
    `runs/${request.runId}/stream`,
    {
      consumer: request.consumerId,
      session: request.sessionId,
      take_over: request.takeOver,
      last_event_id: request.startFrom.case === "resumeToken" ? request.startFrom.value : "",
      start: request.startFrom.case === "start" ? word(StartPosition, request.startFrom.value) : "",
      stop: word(StopPosition, request.stop),
      deltas: word(DeltaMode, request.deltas),
      type: words(EventType, request.types),
      idle_timeout: seconds(request.idleTimeout),
      heartbeat_interval: seconds(request.heartbeatInterval),
      wait_for_run: request.waitForRun,
    },
  ],
  WatchRuns: ({ filter, resumeToken }: WatchRunsRequest) => [
    "watch",
    { ...filtered(filter), last_event_id: resumeToken },
  ],
};

function filtered(filter: RunFilter | undefined): Parameters {
  if (filter === undefined) return {};
  return {
    kind: words(RunKind, filter.kinds),
    state: words(RunState, filter.states),
    name: filter.names,
    label: Object.entries(filter.labels).map(([name, value]) => `${name}=${value}`),
    conversation_id: filter.conversationId,
    parent_run_id: filter.parentRunId,
    created_after: filter.createdAfter && timestampDate(filter.createdAfter).toISOString(),
    created_before: filter.createdBefore && timestampDate(filter.createdBefore).toISOString(),
  };
}

function word(names: Record<number, string>, value: number): string {
  return value === 0 ? "" : (names[value] ?? `${value}`).toLowerCase();
}

function words(names: Record<number, string>, values: readonly number[]): string[] {
  return values.map((value) => word(names, value));
}

function seconds(value: Duration | undefined): number | undefined {
  return value && milliseconds(value) / 1000;
}
