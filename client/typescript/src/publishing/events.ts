import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampNow } from "@bufbuild/protobuf/wkt";
import { type Event, EventSchema } from "../gen/lavant/v1/event_pb.js";
import {
  ErrorSchema,
  type Error as RunError,
  type RunKind,
  type RunSettings,
  RunSettingsSchema,
} from "../gen/lavant/v1/run_pb.js";
import { duration } from "../time.js";

/** An event without what the server sets, such as `{ payload: { case: "custom", value: { name: "acme.hit" } } }`. */
export type EventInit = MessageInitShape<typeof EventSchema>;
/** Settings of a run. They never change once it is created. */
export interface RunSettingsInit {
  /** Name of the agent or evaluation: 1 to 256 characters. */
  name: string;
  /** Default AGENT. */
  kind?: RunKind;
  labels?: Record<string, string>;
  /** ID of the run that starts this one. */
  parentRunId?: string;
  conversationId?: string;
  /** Milliseconds without a batch from a producer after which the server ends the run as ABANDONED. Default: never. */
  producerTimeoutMs?: number | undefined;
}

/** Return an event with an ID and a time: those given, or new ones. */
export function eventOf(init: EventInit): Event {
  const event = create(EventSchema, init);
  if (event.eventId === "") event.eventId = crypto.randomUUID();
  event.eventTime ??= timestampNow();
  return event;
}

/** Return the settings of a run. */
export function settingsOf({ producerTimeoutMs, ...init }: RunSettingsInit): RunSettings {
  const settings = create(RunSettingsSchema, init);
  if (producerTimeoutMs !== undefined) settings.producerTimeout = duration(producerTimeoutMs);
  return settings;
}

/** Return a value as JSON text; "" for undefined. */
export function json(value: unknown): string {
  return value === undefined ? "" : (JSON.stringify(value) ?? "");
}

/** Return a description of anything that was thrown: its text and its class. */
export function errorOf(thrown: unknown): RunError {
  if (!(thrown instanceof Error)) return create(ErrorSchema, { message: String(thrown) });
  return create(ErrorSchema, { message: thrown.message || thrown.name, type: thrown.name });
}
