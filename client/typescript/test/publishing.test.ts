import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import {
  CancelRequested,
  Client,
  InvalidField,
  ProducerFenced,
  ProducerOverloaded,
  RunExists,
  RunState,
} from "../src/index.js";
import { collect, custom, finished, started } from "./support/events.js";
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

async function values(runId: string, reader = client): Promise<unknown[]> {
  const events = await collect(reader.runs.events(runId, { types: ["CUSTOM"], pageSize: 1_000 }));
  return events.map(({ payload }) => payload.case === "custom" && JSON.parse(payload.value.valueJson));
}

test("events are stored once and in order while connections are cut", async () => {
  await using relay = await Relay.to(server.grpc);
  await using cut = new Client({ targets: relay.target });
  const publisher = cut.runs.publish("cut", { create: { name: "test" } });
  publisher.put(started);
  const sent = Array.from({ length: 3_000 }, (_, index) => index);
  for (const value of sent) {
    publisher.put(custom(value));
    if (value % 300 !== 150) continue;
    if (value % 600 === 150) await publisher.flush();
    await new Promise(setImmediate); // let some of it be sent
    relay.cut();
  }
  publisher.put(finished);
  await publisher.finish();
  assert.deepEqual(await values("cut"), sent);
  assert.ok(relay.connections > 5);
});

test("events are stored once and in order while the server is killed", async () => {
  await using killed = await Server.start();
  await using producer = new Client({ targets: killed.grpc });
  const publisher = producer.runs.publish("killed", { create: { name: "test" } });
  publisher.put(started);
  const sent = Array.from({ length: 400 }, (_, index) => index);
  for (const value of sent) {
    publisher.put(custom(value));
    if (value % 100 !== 50) continue;
    await new Promise(setImmediate);
    await killed.kill();
    await killed.start();
  }
  publisher.put(finished);
  await publisher.finish();
  assert.deepEqual(await values("killed", producer), sent);
});

test("a batch never exceeds the limits of the server", async () => {
  const publisher = client.runs.publish("large", { create: { name: "test" } });
  publisher.put(started, ...Array.from({ length: 1_500 }, (_, index) => custom(index)));
  publisher.put(...Array.from({ length: 5 }, () => custom("x".repeat(500_000))));
  assert.throws(() => publisher.put(custom("x".repeat(1 << 20))), InvalidField);
  publisher.put(finished);
  await publisher.finish();
  assert.equal((await values("large")).length, 1_505);
});

test("a full queue refuses events until there is room", async () => {
  const publisher = client.runs.publish("full", { create: { name: "test" }, maxQueueBytes: 1_000 });
  publisher.put(started, custom("x".repeat(1_000)));
  assert.throws(() => publisher.put(custom("more")), ProducerOverloaded);
  await publisher.ready();
  publisher.put(custom("more"), finished);
  await publisher.finish();
});

test("a request to cancel reaches the publisher with its reason", async () => {
  const publisher = client.runs.publish("cancelled", { create: { name: "test" } });
  publisher.put(started);
  await publisher.flush();
  const asked = new Promise((resolve) => publisher.cancelled.addEventListener("abort", resolve));
  await client.runs.cancel("cancelled", "too slow");
  await asked;
  assert.ok(publisher.cancelled.reason instanceof CancelRequested);
  assert.equal(publisher.cancelled.reason.message, "too slow");
  const error = { message: "cancelled" };
  publisher.put({ payload: { case: "runFinished", value: { state: RunState.CANCELLED, error } } });
  await publisher.finish();
  assert.equal((await client.runs.get("cancelled")).state, RunState.CANCELLED);
});

test("a request to cancel reaches a publisher that was cut off and has nothing to send", async () => {
  await using relay = await Relay.to(server.grpc);
  await using cut = new Client({ targets: relay.target });
  const publisher = cut.runs.publish("cut-off", { create: { name: "test" } });
  publisher.put(started);
  await publisher.flush();
  const asked = new Promise((resolve) => publisher.cancelled.addEventListener("abort", resolve));
  relay.cut();
  await client.runs.cancel("cut-off");
  await asked;
  publisher.close();
});

test("a newer epoch fences the older one", async () => {
  const settings = { create: { name: "test" }, producerId: "agent" };
  const older = client.runs.publish("fenced", settings);
  older.put(started);
  await older.flush();
  const newer = client.runs.publish("fenced", { ...settings, producerEpoch: 1n });
  newer.put(custom("newer"));
  await newer.flush();
  older.put(custom("older"));
  await assert.rejects(older.flush(), ProducerFenced);
  assert.throws(() => older.put(custom("again")), ProducerFenced);
  newer.close();
});

test("another run with the ID, and an event that breaks the order, are refused", async () => {
  await client.runs.create({ name: "first" }, { runId: "taken" });
  const taken = client.runs.publish("taken", { create: { name: "second" } });
  taken.put(started);
  await assert.rejects(taken.flush(), RunExists);
  const wrong = client.runs.publish("wrong", { create: { name: "test" } });
  wrong.put({ payload: { case: "textDelta", value: { messageId: "none", text: "x" } } });
  await assert.rejects(wrong.flush(), (error) => error instanceof InvalidField && error.violations.length > 0);
});

test("heartbeats keep a silent run alive", async () => {
  const publisher = client.runs.publish("alive", { create: { name: "test", producerTimeoutMs: 1_000 } });
  publisher.put(started);
  await publisher.flush();
  const run = await client.runs.wait("alive", { timeoutMs: 2_500 }).catch(() => undefined);
  assert.equal(run, undefined);
  publisher.close();
  assert.equal((await client.runs.wait("alive", { timeoutMs: 10_000 })).state, RunState.ABANDONED);
});
