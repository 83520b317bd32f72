/** What both entry points export: everything but the client. */
export type { CallOptions } from "./calls.js";
export type { BaseClient, BaseOptions } from "./client.js";
export type { TokenSource } from "./credentials.js";
export * from "./errors.js";
export {
  type Event,
  EventSchema,
  EventType,
  Role,
  type Score,
  type ScoreRecorded,
  StepKind,
  ToolCallOutcome,
} from "./gen/lavant/v1/event_pb.js";
export { type Run, RunKind, type RunSettings, RunState, type TokenUsage } from "./gen/lavant/v1/run_pb.js";
export { CancelRequested } from "./publishing/answers.js";
export type { EventInit, RunSettingsInit } from "./publishing/events.js";
export type { Publisher, PublishOptions } from "./publishing/publisher.js";
export type { OnError, RunProducer } from "./publishing/run-producer.js";
export type { Scope, StepOptions, ToolScope } from "./publishing/scope.js";
export type { EventStream } from "./reading/event-stream.js";
export type { EventTypeName, ReadOptions } from "./reading/options.js";
export type { ToolCall } from "./reading/projections.js";
export type { ListEventsOptions, Runs, StartOptions } from "./runs.js";
export type { ScoreOptions } from "./scores.js";
export type { RunChange, RunFilterInit } from "./watch.js";
