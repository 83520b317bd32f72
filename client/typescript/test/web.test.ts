import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { after, before, test } from "node:test";
import { Client as NodeClient } from "../src/index.js";
import { Client, createResumingFetch, RunNotFound, RunState, StreamDisplaced } from "../src/web.js";
import { collect, custom, finished, record, started } from "./support/events.js";
import { Relay } from "./support/relay.js";
import { Server } from "./support/server.js";

let server: Server;
let producer: NodeClient;
let client: Client;
before(async () => {
  server = await Server.start();
  producer = new NodeClient({ targets: server.grpc });
  client = new Client({ url: `http://${server.http}` });
});
after(async () => {
  client.close();
  producer.close();
  await server[Symbol.asyncDispose]();
});

test("a run is read over server-sent events", async () => {
  await producer.runs.start("agent", { runId: "read" }, (run) => {
    run.text("first line\n");
    run.text("second, with é and 🌊");
    return { n: 1 };
  });
  const stream = client.runs.read("read", { consumer: "ui" });
  const events = await collect(stream);
  assert.equal(events.length, 6);
  assert.equal(stream.endReason, "RUN_FINISHED");
  assert.ok(stream.caughtUp);
  assert.equal(stream.run?.state, RunState.SUCCEEDED);
  assert.equal(await client.runs.read("read").text(), "first line\nsecond, with é and 🌊");
  assert.deepEqual(await client.runs.read("read").result(), { n: 1 });
});

test("a position of server-sent events continues over gRPC, and the other way round", async () => {
  const runId = await record(producer, 4);
  const first = client.runs.read(runId);
  for (let count = 0; count < 3; count += 1) await first.next();
  const second = producer.runs.read(runId, { resumeToken: first.resumeToken });
  assert.equal((await second.next()).value?.sequence, 4n);
  const third = client.runs.read(runId, { resumeToken: second.resumeToken });
  assert.equal((await third.next()).value?.sequence, 5n);
  for (const stream of [first, second, third]) await stream.close();
});

test("a stream of server-sent events continues after cuts", async () => {
  await using relay = await Relay.to(server.http);
  await using cut = new Client({ url: `http://${relay.target}` });
  const publisher = producer.runs.publish("cut", { create: { name: "test" } });
  publisher.put(started);
  const read: number[] = [];
  for await (const event of cut.runs.read("cut", { consumer: "ui", waitForRun: true })) {
    read.push(Number(event.sequence));
    if (event.sequence > 3n) continue;
    relay.cut();
    publisher.put(event.sequence === 3n ? finished : custom(1));
  }
  assert.deepEqual(read, [1, 2, 3, 4]);
  assert.equal(relay.connections, 4);
  await publisher.finish();
});

test("errors over HTTP have the classes of those over gRPC", async () => {
  await assert.rejects(client.runs.get("no-such-run"), RunNotFound);
  await assert.rejects(client.runs.read("no-such-run").next(), RunNotFound);
  const publisher = producer.runs.publish("rivals", { create: { name: "test" } });
  publisher.put(started);
  await publisher.flush();
  const stream = client.runs.read("rivals", { consumer: "ui" });
  await stream.next();
  const rival = client.runs.read("rivals", { consumer: "ui", takeOver: true });
  await rival.next();
  await assert.rejects(collect(stream), StreamDisplaced);
  await rival.close();
  await assert.rejects(client.runs.create({ name: "new" }), /not available over HTTP/);
  publisher.close();
});

test("runs are listed and watched over HTTP", async () => {
  await producer.runs.create({ name: "listed", labels: { team: "x" } }, { runId: "listed" });
  const [run] = await collect(client.runs.list({ names: ["list*"], labels: { team: "x" }, states: [RunState.QUEUED] }));
  assert.equal(run?.runId, "listed");
  const runId = await record(producer, 300);
  assert.equal((await collect(client.runs.events(runId, { pageSize: 100, types: ["CUSTOM"] }))).length, 300);
  const seen: string[] = [];
  for await (const change of client.runs.watch({ names: ["listed", "later"] })) {
    seen.push(change.type === "run" ? change.run.runId : change.type);
    if (change.type === "caught_up") await producer.runs.create({ name: "later" }, { runId: "later" });
    if (seen.length === 3) break;
  }
  assert.deepEqual(seen, ["listed", "caught_up", "later"]);
});

test("a resuming fetch returns one body over cuts", async () => {
  await using relay = await Relay.to(server.http);
  const publisher = producer.runs.publish("fetched", { create: { name: "test" } });
  publisher.put(started);
  await publisher.flush();
  const response = await createResumingFetch()(`http://${relay.target}/api/v1/runs/fetched/stream?consumer=agui`);
  assert.equal(response.headers.get("content-type"), "text/event-stream; charset=utf-8");
  let text = "";
  for await (const bytes of response.body as ReadableStream<Uint8Array>) {
    const piece = new TextDecoder().decode(bytes);
    text += piece;
    if (!piece.startsWith("event: run_started") && !piece.startsWith("event: custom")) continue;
    relay.cut();
    publisher.put(piece.startsWith("event: custom") ? finished : custom("é"));
  }
  const types = [...text.matchAll(/^event: (?!opened|caught_up)(.*)$/gm)].map(([, type]) => type);
  assert.deepEqual(types, ["run_started", "custom", "run_finished", "end"]);
  assert.equal(relay.connections, 3);
});

/** An application that answers each request with the next of some bodies, and then cuts the connection. */
async function application(headers: Record<string, string>, ...bodies: string[]) {
  const requests: string[] = [];
  const server = createServer((from, to) => {
    requests.push(`${from.method} ${from.url} ${from.headers["last-event-id"] ?? ""}`);
    to.writeHead(200, { "content-type": "text/event-stream", ...headers });
    // A connection that is closed with unread bytes takes those that were sent along.
    from.resume().on("end", () => to.write(bodies.shift() ?? "", () => to.destroy()));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/run`;
  return { requests, url, [Symbol.dispose]: () => void server.close() };
}

test("a resuming fetch never posts twice", async () => {
  using plain = await application({}, 'data: {"n": 1}\nid: 1\n\n');
  const cut = await createResumingFetch()(plain.url, { method: "POST", body: "{}" });
  await assert.rejects(cut.text());
  assert.deepEqual(plain.requests, ["POST /run "]);

  const bodies = ['data: {"n": 1}\nid: 1\n\ndata: {"n": 2}\n\n', 'data: {"n": 2}\n\ndata: [DONE]\nid: 2\n\n'];
  using located = await application({ "content-location": "/stream?x" }, ...bodies);
  const whole = await createResumingFetch()(located.url, { method: "POST", body: "{}" });
  assert.equal(await whole.text(), 'data: {"n": 1}\n\ndata: {"n": 2}\n\ndata: [DONE]\n\n');
  assert.deepEqual(located.requests, ["POST /run ", "GET /stream?x 1"]);
});

test("a resuming fetch reconnects where a stream ends before its run", async () => {
  const early = 'data: {"n": 1}\nid: 1\n\nretry: 1\nevent: reconnect\ndata: {"type": "RUN_ERROR"}\nid: 1\n\n';
  using app = await application({}, early, 'data: {"type": "RUN_FINISHED"}\nid: 2\n\n');
  const body = await (await createResumingFetch()(app.url)).text();
  assert.equal(body, 'data: {"n": 1}\n\ndata: {"type": "RUN_FINISHED"}\n\n');
  assert.deepEqual(app.requests, ["GET /run ", "GET /run 1"]);
});

test("a resuming fetch ends its request when its body is cancelled", async () => {
  let closed = () => {};
  const over = new Promise<void>((resolve) => {
    closed = resolve;
  });
  const app = createServer((_, to) => {
    to.on("close", closed).writeHead(200, { "content-type": "text/event-stream" }).write("data: {}\nid: 1\n\n");
  });
  app.listen(0, "127.0.0.1");
  await once(app, "listening");
  const response = await createResumingFetch()(`http://127.0.0.1:${(app.address() as AddressInfo).port}/`);
  const reader = (response.body as ReadableStream<Uint8Array>).getReader();
  await reader.read();
  await reader.cancel();
  await over;
  app.close();
});
