import assert from "node:assert/strict";
import { test } from "node:test";
import { Client } from "../src/index.js";
import { Site } from "./support/browser.js";
import { Envoy } from "./support/envoy.js";
import { collect, custom, finished, started } from "./support/events.js";
import { Relay } from "./support/relay.js";
import { Server } from "./support/server.js";

// It reads a run, reports each event, keeps its position, and reloads itself once.
const READER = `
  const { Client } = await import("@lavant/client/web");
  const stream = new Client().runs.read("run", { consumer: "page", resumeToken: localStorage.position });
  for await (const { sequence } of stream) {
    await report(String(sequence));
    localStorage.position = stream.resumeToken;
    if (sequence === 3n) { location.reload(); await new Promise(() => {}); }
  }
  await report("end " + stream.endReason);
`;

test("a page in Chromium reads live, over two cuts and a reload", async () => {
  await using server = await Server.start();
  await using relay = await Relay.to(server.http);
  await using producer = new Client({ targets: server.grpc });
  const publisher = producer.runs.publish("run", { create: { name: "test" } });
  publisher.put(started);
  await publisher.flush();
  await using site = await Site.serve({
    script: READER,
    api: relay.target,
    received: (text) => {
      if (text === "1" || text === "4") relay.cut();
      if (Number(text) > 0) publisher.put(...(Number(text) < 5 ? [custom(text)] : text === "5" ? [finished] : []));
    },
  });
  await site.show();
  assert.deepEqual(site.reports, ["1", "2", "3", "4", "5", "6", "end RUN_FINISHED"]);
  await publisher.finish();
});

// It does over gRPC-Web, from another origin, what a page can do with runs, and reads one as it is written.
const CALLER = `
  const { Client, RunNotFound, RunState } = await import("@lavant/client/web");
  const parameters = new URLSearchParams(location.search);
  const client = new Client({ url: parameters.get("url"), token: parameters.get("token"), transport: "grpc-web" });
  await report("created " + (await client.runs.create({ name: "page" }, { runId: "mine" })).name);
  await client.runs.cancel("mine");
  await report("missing " + await client.runs.get("none").catch((error) => error instanceof RunNotFound));
  const stream = client.runs.read("run", { consumer: "page" });
  for await (const { sequence } of stream) await report(String(sequence));
  await client.runs.score("run", { name: "helpful", value: true, evaluator: "page" });
  const run = await client.runs.wait("run");
  await report("end " + stream.endReason + " " + RunState[run.state]);
`;

test("a page in Chromium calls over gRPC-Web, and reads over the kills of Envoy and of the server", async () => {
  await using server = await Server.start("--auth", "keys", "--init-key");
  await using producer = new Client({ targets: server.grpc, token: server.firstKey });
  const publisher = producer.runs.publish("run", { create: { name: "test" } });
  publisher.put(started);
  await publisher.flush();
  const killed: string[] = [];
  await using site = await Site.serve({
    script: CALLER,
    received: async (text) => {
      const victim = text === "1" ? envoy : text === "3" ? server : undefined;
      if (victim !== undefined) {
        await victim.kill();
        await victim.start();
        killed.push(text);
      }
      if (Number(text) > 0) publisher.put(...(Number(text) < 4 ? [custom(text)] : text === "4" ? [finished] : []));
    },
  });
  await using envoy = await Envoy.before(server, site.origin);
  await site.show(`?${new URLSearchParams({ url: envoy.url, token: server.firstKey })}`);
  const expected = ["created page", "missing true", "1", "2", "3", "4", "5", "end RUN_FINISHED SUCCEEDED"];
  assert.deepEqual(site.reports, expected);
  assert.deepEqual(killed, ["1", "3"]);
  await publisher.finish();
});

test("a page of another origin calls nothing over gRPC-Web", async () => {
  await using server = await Server.start();
  await using producer = new Client({ targets: server.grpc });
  await using site = await Site.serve({
    script: `
      const { Client } = await import("@lavant/client/web");
      const client = new Client({ url: new URLSearchParams(location.search).get("url"), transport: "grpc-web" });
      const refused = client.runs.create({ name: "page" }, { timeoutMs: 1000 });
      await report("end " + await refused.then(() => "created", () => "refused"));
    `,
    received: () => undefined,
  });
  await using envoy = await Envoy.before(server, "https://ui.example");
  await site.show(`?${new URLSearchParams({ url: envoy.url })}`);
  assert.deepEqual(site.reports, ["end refused"]);
  assert.deepEqual(await collect(producer.runs.list()), []);
});
