import { create, fromBinary } from "@bufbuild/protobuf";
import { type Empty, EmptySchema, type Timestamp } from "@bufbuild/protobuf/wkt";
import type { Transport } from "@connectrpc/connect";
import { type Event, EventSchema } from "../gen/lavant/v1/event_pb.js";
import {
  EventBatchSchema,
  EventService,
  type StreamEventsResponse,
  StreamEventsResponseSchema,
} from "../gen/lavant/v1/event_service_pb.js";

/** Return the text between two positions of some bytes of UTF-8. */
export type DecodeText = (from: number, to: number) => string;

// The call with a response whose fields are all unknown: a frame comes here before it is parsed.
const RAW = { ...EventService.method.streamEvents, output: EmptySchema };
const EVENTS = 3; // field of a frame
// Tags: the number of a field and its wire type.
const SEQUENCE = (1 << 3) | 0;
const EVENT_ID = (2 << 3) | 2;
const EVENT_TIME = (3 << 3) | 2;
const RECORD_TIME = (4 << 3) | 2;
const STEP_ID = (5 << 3) | 2;
const TEXT_DELTA = (31 << 3) | 2;
const REASONING_DELTA = (32 << 3) | 2;
const [VARINT_1, VARINT_2] = [(1 << 3) | 0, (2 << 3) | 0];
const [BYTES_1, BYTES_3] = [(1 << 3) | 2, (3 << 3) | 2];
const MAX_INT32 = 0x7fff_ffff;
const MAX_SECONDS = 1e12;

/**
 * Return a transport that decodes the events of streams in half the time: most are deltas of text or reasoning, whose
 * fields are known here, and `fromBinary` decodes the others. The messages equal those that `fromBinary` returns.
 */
export function withFastEvents(transport: Transport, textOf: (bytes: Uint8Array) => DecodeText): Transport {
  return {
    unary: transport.unary.bind(transport),
    async stream(method, signal, timeoutMs, headers, input) {
      if (method.name !== RAW.name) return transport.stream(method, signal, timeoutMs, headers, input);
      const raw = await transport.stream(RAW, signal, timeoutMs, headers, input as AsyncIterable<never>);
      return { ...raw, method, message: framesOf(raw.message, textOf) } as never;
    },
  };
}

async function* framesOf(
  frames: AsyncIterable<Empty>,
  textOf: (bytes: Uint8Array) => DecodeText,
): AsyncGenerator<StreamEventsResponse> {
  for await (const { $unknown = [] } of frames) {
    const others: number[] = [];
    let events: Event[] | undefined;
    for (const { no, wireType, data } of $unknown) {
      if (no !== EVENTS) {
        if (no < 16) others.push((no << 3) | wireType, ...data); // later ones are not known here either
        continue;
      }
      events ??= [];
      new EventDecoder(data, textOf(data)).addTo(events); // batches of one frame are one batch
    }
    const frame = fromBinary(StreamEventsResponseSchema, Uint8Array.from(others));
    if (events !== undefined) frame.events = Object.assign(create(EventBatchSchema), { events });
    yield frame;
  }
}

/** Decodes an EventBatch that has its length before it. */
class EventDecoder {
  readonly #bytes: Uint8Array;
  readonly #text: DecodeText;
  #at = 0;
  // Most events of a batch belong to one message, and happened within a second: their values are shared.
  #messageId = "";
  #messageIdAt = 0;
  #messageIdLength = 0;
  #seconds = 0;
  #secondsValue = 0n;

  constructor(bytes: Uint8Array, text: DecodeText) {
    this.#bytes = bytes;
    this.#text = text;
  }

  addTo(events: Event[]): void {
    const bytes = this.#bytes;
    this.#varint();
    while (this.#at < bytes.length) {
      const tag = this.#varint();
      if (tag !== BYTES_1) throw new TypeError(`an EventBatch has the tag ${tag}`);
      const end = this.#varint() + this.#at;
      const from = this.#at;
      events.push(this.#event(end) ?? fromBinary(EventSchema, bytes.subarray(from, end)));
      this.#at = end;
    }
    if (this.#at > bytes.length) throw new RangeError("an EventBatch was cut");
  }

  /** Return an event of the usual kind; undefined for another one, whatever the reason. */
  #event(end: number): Event | undefined {
    let sequence = 0;
    let eventId = "";
    let stepId = "";
    let eventTime: Timestamp | undefined;
    let recordTime: Timestamp | undefined;
    let payload: Event["payload"] | undefined;
    while (this.#at < end) {
      const tag = this.#varint();
      if (tag === SEQUENCE) sequence = this.#varint();
      else if (tag === EVENT_ID) eventId = this.#string();
      else if (tag === STEP_ID) stepId = this.#string();
      else if (tag === EVENT_TIME && eventTime === undefined) {
        eventTime = this.#timestamp();
        if (eventTime === undefined) return undefined;
      } else if (tag === RECORD_TIME && recordTime === undefined) {
        recordTime = this.#timestamp();
        if (recordTime === undefined) return undefined;
      } else if ((tag === TEXT_DELTA || tag === REASONING_DELTA) && payload === undefined) {
        payload = this.#delta(tag);
        if (payload === undefined) return undefined;
      } else return undefined;
    }
    const isKnown = this.#at === end && payload !== undefined && eventTime !== undefined && recordTime !== undefined;
    if (!isKnown || !Number.isSafeInteger(sequence)) return undefined;
    return {
      $typeName: "lavant.v1.Event",
      sequence: BigInt(sequence),
      eventId,
      stepId,
      attributes: {},
      payload: payload as Event["payload"],
      eventTime: eventTime as Timestamp,
      recordTime: recordTime as Timestamp,
    };
  }

  #delta(kind: number): Event["payload"] | undefined {
    const end = this.#varint() + this.#at;
    let messageId = "";
    let partIndex = 0;
    let text = "";
    while (this.#at < end) {
      const tag = this.#varint();
      if (tag === BYTES_1) messageId = this.#id();
      else if (tag === VARINT_2) partIndex = this.#varint();
      else if (tag === BYTES_3) text = this.#string();
      else return undefined;
    }
    if (this.#at !== end || partIndex > MAX_INT32) return undefined;
    if (kind === TEXT_DELTA) {
      return { case: "textDelta", value: { $typeName: "lavant.v1.TextDelta", messageId, partIndex, text } };
    }
    return { case: "reasoningDelta", value: { $typeName: "lavant.v1.ReasoningDelta", messageId, partIndex, text } };
  }

  #timestamp(): Timestamp | undefined {
    const end = this.#varint() + this.#at;
    let seconds = 0;
    let nanos = 0;
    while (this.#at < end) {
      const tag = this.#varint();
      if (tag === VARINT_1) seconds = this.#varint();
      else if (tag === VARINT_2) nanos = this.#varint();
      else return undefined;
    }
    if (this.#at !== end || seconds > MAX_SECONDS || nanos > MAX_INT32) return undefined;
    if (seconds !== this.#seconds) {
      this.#seconds = seconds;
      this.#secondsValue = BigInt(seconds);
    }
    return { $typeName: "google.protobuf.Timestamp", seconds: this.#secondsValue, nanos };
  }

  #string(): string {
    const length = this.#varint();
    const from = this.#at;
    this.#at += length;
    return this.#text(from, this.#at);
  }

  #id(): string {
    const length = this.#varint();
    const bytes = this.#bytes;
    const [from, before] = [this.#at, this.#messageIdAt];
    this.#at += length;
    let index = length === this.#messageIdLength ? 0 : -1;
    while (index >= 0 && index < length) index = bytes[before + index] === bytes[from + index] ? index + 1 : -1;
    if (index < 0) this.#messageId = this.#text(from, this.#at);
    this.#messageIdAt = from;
    this.#messageIdLength = length;
    return this.#messageId;
  }

  #varint(): number {
    const bytes = this.#bytes;
    let byte = bytes[this.#at++] ?? 0;
    let value = byte & 0x7f;
    for (let factor = 0x80; byte >= 0x80; factor *= 0x80) {
      byte = bytes[this.#at++] ?? 0;
      value += (byte & 0x7f) * factor;
    }
    return value;
  }
}
