import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { Client, type EventStream, Unauthenticated } from "../src/index.js";
import { finished, started } from "./support/events.js";
import { Relay } from "./support/relay.js";
import { Server } from "./support/server.js";

test("1,050 streams of one client are open at once, over two connections", async () => {
  await using server = await Server.start();
  await using relay = await Relay.to(server.grpc);
  await using client = new Client({ targets: relay.target, timeoutMs: 60_000 });
  const publisher = client.runs.publish("many", { create: { name: "test" } });
  publisher.put(started);
  await publisher.flush();
  const before = relay.connections;
  const streams: EventStream[] = [];
  for (let group = 0; group < 21; group += 1) {
    const opened = Array.from({ length: 50 }, () => client.runs.read("many"));
    await Promise.all(opened.map((stream) => stream.open()));
    streams.push(...opened);
  }
  assert.equal(relay.connections, before + 1);
  assert.ok((await client.runs.get("many")).lastSequence === 1n);
  publisher.put(finished);
  await publisher.finish();
  const last = await Promise.all(
    streams.map(async (stream) => {
      for await (const _ of stream);
      return stream.endReason;
    }),
  );
  assert.deepEqual(new Set(last), new Set(["RUN_FINISHED"]));
});

test("a client continues on another address when its server is killed", async () => {
  await using server = await Server.start();
  await using first = await Relay.to(server.grpc);
  await using second = await Relay.to(server.grpc);
  await using client = new Client({ targets: [first.target, second.target] });
  const publisher = client.runs.publish("moved", { create: { name: "test" } });
  publisher.put(started);
  for await (const event of client.runs.read("moved", { waitForRun: true })) {
    if (event.sequence > 1n) break;
    await first[Symbol.asyncDispose]();
    publisher.put(finished);
  }
  await publisher.finish();
  assert.equal((await client.runs.get("moved")).lastSequence, 2n);
});

test("a token is renewed when the server refuses it, and an error when the new one is refused too", async () => {
  await using server = new Server("--auth", "keys", "--init-key");
  await server.start();
  const key = server.firstKey;
  assert.match(key, /^lvk_/);
  let asked = 0;
  const token = () => (asked++ === 0 ? "lvk_wrong" : key);
  await using client = new Client({ targets: server.grpc, token });
  const publisher = client.runs.publish("renewed", { create: { name: "test" } });
  publisher.put(started);
  await publisher.flush();
  publisher.close();
  assert.equal(asked, 2);
  await using refused = new Client({ targets: server.grpc, token: () => "lvk_wrong" });
  await assert.rejects(refused.runs.get("renewed"), Unauthenticated);
  await assert.rejects(refused.runs.read("renewed").next(), Unauthenticated);
});

test("TLS verifies the server by the CA that is given", async () => {
  const folder = mkdtempSync(join(tmpdir(), "lavant-tls-"));
  const [cert, key] = [join(folder, "cert.pem"), join(folder, "key.pem")];
  const subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"];
  const made = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"];
  execFileSync("openssl", [...made, "-keyout", key, "-out", cert, ...subject], { stdio: "ignore" });
  await using server = await Server.start("--tls-cert", cert, "--tls-key", key);
  await using client = new Client({ targets: server.grpc, ca: cert });
  await client.runs.create({ name: "test" }, { runId: "secret" });
  await using wrong = new Client({ targets: server.grpc, tls: true, timeoutMs: 500 });
  await assert.rejects(wrong.runs.get("secret"), /self-signed|certificate/);
  rmSync(folder, { recursive: true });
});

test("a token is not sent to another machine in plain text", () => {
  assert.throws(() => new Client({ targets: "192.0.2.1:7447", token: "lvk_x" }), /plain text/);
});
