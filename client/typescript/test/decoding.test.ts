import assert from "node:assert/strict";
import { test } from "node:test";
import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import type { Transport } from "@connectrpc/connect";
import {
  EventService,
  type StreamEventsResponse,
  StreamEventsResponseSchema,
} from "../src/gen/lavant/v1/event_service_pb.js";
import type { EventInit } from "../src/index.js";
import { withFastEvents } from "../src/reading/decoding.js";
import { collect, custom, finished, started } from "./support/events.js";

type Frame = MessageInitShape<typeof StreamEventsResponseSchema>;

const encoded = (frame: Frame): Uint8Array =>
  toBinary(StreamEventsResponseSchema, create(StreamEventsResponseSchema, frame));

/** Decode frames as a stream does. */
async function decode(...frames: Uint8Array[]): Promise<StreamEventsResponse[]> {
  const inner = {
    unary: () => assert.fail(),
    async stream({ output }: { output: typeof StreamEventsResponseSchema }) {
      return {
        message: (async function* () {
          for (const frame of frames) yield fromBinary(output, frame);
        })(),
      };
    },
  };
  const transport = withFastEvents(inner as unknown as Transport, (bytes) => {
    const buffer = Buffer.from(bytes);
    return (from, to) => buffer.toString("utf8", from, to);
  });
  const request = (async function* () {})();
  const response = await transport.stream(EventService.method.streamEvents, undefined, undefined, {}, request);
  return collect(response.message);
}

const times = { eventTime: { seconds: 1_790_000_000n, nanos: 123_456_789 }, recordTime: { seconds: 1_790_000_001n } };
const delta = (text: string, more: EventInit = {}): EventInit =>
  Object.assign(
    { ...times, sequence: 1n, eventId: "e", payload: { case: "textDelta", value: { messageId: "m", text } } },
    more,
  ) as EventInit;

const EVENTS: EventInit[] = [
  delta("It is "),
  delta("cold", { sequence: 2n ** 31n, stepId: "s" }),
  delta("é🌊\ufeff", { eventId: "é", sequence: 300n }),
  delta("\ufeff"),
  delta(""),
  delta("x".repeat(300)),
  delta("part", { payload: { case: "textDelta", value: { messageId: "n".repeat(128), partIndex: 300, text: "x" } } }),
  delta("", { payload: { case: "reasoningDelta", value: { messageId: "n", partIndex: 1, text: "Hm." } } }),
  delta("", { payload: { case: "textDelta", value: {} } }),
  // Others than the usual ones.
  delta("attributes", { attributes: { a: "b" } }),
  delta("trace", { trace: { traceId: "t" } }),
  delta("source", { source: { protocol: "ag-ui" } }),
  delta("early", { eventTime: { seconds: -1n } }),
  delta("late", { sequence: 2n ** 60n }),
  delta("negative", { payload: { case: "textDelta", value: { messageId: "m", partIndex: -1 } } }),
  { eventId: "no times", payload: { case: "textDelta", value: { messageId: "m", text: "x" } } },
  { ...times, eventId: "no payload" },
  started,
  custom("é"),
  finished,
];

test("events are decoded as fromBinary does", async () => {
  const ids = Array.from({ length: 40 }, (_, index) =>
    delta(`${index}`, { payload: { case: "textDelta", value: { messageId: index % 3 ? "m" : `m${index % 5}` } } }),
  );
  const frames = [EVENTS, ids, [...EVENTS].reverse(), []].map((events) =>
    encoded({ resumeToken: "token", opened: { fence: 1n }, events: { events }, caughtUp: { lastSequence: 3n } }),
  );
  frames.push(encoded({ resumeToken: "token", heartbeat: {} }), encoded({ end: { reconnect: true } }));
  const expected = frames.map((frame) => fromBinary(StreamEventsResponseSchema, frame));
  assert.deepEqual(await decode(...frames), expected);
});

test("batches of one frame are one batch", async () => {
  const frames = ["a", "b"].map((text) => encoded({ resumeToken: text, events: { events: [delta(text)] } }));
  const joined = Buffer.concat(frames);
  assert.deepEqual(await decode(joined), [fromBinary(StreamEventsResponseSchema, joined)]);
});

test("a payload that this release does not know is kept as unknown", async () => {
  const known = encoded({ events: { events: [delta("x")] } });
  const later = Buffer.from(known);
  const at = later.indexOf(Buffer.from([0xfa, 0x01]));
  later.set([0xaa, 0x06], at); // field 101 in place of 31
  const [frame] = await decode(later);
  assert.deepEqual(frame, fromBinary(StreamEventsResponseSchema, later));
  assert.equal(frame?.events?.events[0]?.payload.case, undefined);
});

test("bytes that are no events are refused, and are no endless work", async () => {
  const whole = encoded({ events: { events: EVENTS } });
  for (let at = 0; at < whole.length; at += 1) {
    for (const value of [0, 1, 0x7f, 0xff]) {
      const broken = Uint8Array.from(whole);
      broken[at] = value;
      await decode(broken).catch((error: unknown) => assert.ok(error instanceof Error));
    }
  }
});
