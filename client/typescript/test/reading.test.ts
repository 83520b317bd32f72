import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Client, ConsumerBusy, type Event, ResumeTokenInvalid, RunNotFound, StreamDisplaced } from "../src/index.js";
import { collect, custom, finished, record, started } from "./support/events.js";
import { Relay } from "./support/relay.js";
import { Server } from "./support/server.js";

let server: Server;
let client: Client;
before(async () => {
  server = await Server.start();
  client = new Client({ targets: server.grpc });
});
after(async () => {
  client.close();
  await server[Symbol.asyncDispose]();
});

const sequences = (events: readonly Event[]) => events.map((event) => Number(event.sequence));

test("a stream of an ended run returns all events and ends", async () => {
  const runId = await record(client, 8);
  const stream = client.runs.read(runId);
  const events = await collect(stream);
  assert.deepEqual(sequences(events), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
  assert.equal(stream.endReason, "RUN_FINISHED");
  assert.ok(stream.caughtUp);
});

test("a position within a frame resumes with the next event", async () => {
  const runId = await record(client, 8);
  const first = client.runs.read(runId, { consumer: "ui" });
  for (let count = 0; count < 4; count += 1) await first.next();
  const position = first.resumeToken;
  await first.close();
  const rest = await collect(client.runs.read(runId, { consumer: "ui", resumeToken: position }));
  assert.deepEqual(sequences(rest), [5, 6, 7, 8, 9, 10]);
});

test("types and deltas select events", async () => {
  const runId = await record(client, 3);
  const events = await collect(client.runs.read(runId, { types: ["RUN_STARTED", "RUN_FINISHED"] }));
  assert.deepEqual(sequences(events), [1, 5]);
});

test("a stream survives a server that is killed three times", async () => {
  await using killed = await Server.start();
  await using reader = new Client({ targets: killed.grpc });
  const publisher = reader.runs.publish("killed", { create: { name: "test" } });
  publisher.put(started);
  const read: number[] = [];
  for await (const event of reader.runs.read("killed", { consumer: "ui", waitForRun: true })) {
    read.push(Number(event.sequence));
    if (event.sequence > 3n) continue;
    await killed.kill();
    publisher.put(event.sequence === 3n ? finished : custom(Number(event.sequence)));
    await killed.start();
  }
  assert.deepEqual(read, [1, 2, 3, 4]);
  await publisher.finish();
});

test("a stream continues over another connection after a silent one", async () => {
  await using relay = await Relay.to(server.grpc);
  await using reader = new Client({ targets: relay.target });
  const publisher = client.runs.publish("silent", { create: { name: "test" } });
  publisher.put(started);
  const read: number[] = [];
  for await (const event of reader.runs.read("silent", { heartbeatIntervalMs: 1_000, waitForRun: true })) {
    read.push(Number(event.sequence));
    if (event.sequence > 1n) continue;
    relay.freeze();
    publisher.put(finished);
  }
  assert.deepEqual(read, [1, 2]);
  assert.equal(relay.connections, 2);
});

test("a rival is refused, and displaces the stream when it takes over", async () => {
  const publisher = client.runs.publish("rivals", { create: { name: "test" } });
  publisher.put(started);
  await publisher.flush();
  const stream = client.runs.read("rivals", { consumer: "ui" });
  await stream.next();
  await assert.rejects(client.runs.read("rivals", { consumer: "ui" }).next(), ConsumerBusy);
  const rival = client.runs.read("rivals", { consumer: "ui", takeOver: true });
  await rival.next();
  await assert.rejects(stream.next(), StreamDisplaced);
  await rival.close();
  publisher.close();
});

test("a stream that is closed frees its consumer's lease", async () => {
  const publisher = client.runs.publish("freed", { create: { name: "test" } });
  publisher.put(started);
  await publisher.flush();
  for (let turn = 0; turn < 5; turn += 1) {
    for await (const _ of client.runs.read("freed", { consumer: "ui" })) break;
  }
  publisher.close();
});

test("an abort ends a stream that waits with the signal's reason", async () => {
  const abort = new AbortController();
  const waiting = client.runs.read("not-yet", { waitForRun: true, signal: abort.signal });
  await waiting.open();
  const next = waiting.next();
  abort.abort(new Error("enough"));
  await assert.rejects(next, /enough/);
});

test("a bad token and an unknown run are typed errors", async () => {
  const runId = await record(client, 1);
  await assert.rejects(client.runs.read(runId, { resumeToken: "nonsense" }).next(), ResumeTokenInvalid);
  await assert.rejects(client.runs.read("no-such-run").next(), (error) => {
    assert.ok(error instanceof RunNotFound);
    assert.deepEqual([error.reason, error.code], ["RUN_NOT_FOUND", "NOT_FOUND"]);
    return true;
  });
});
