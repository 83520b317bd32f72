import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer, type IncomingMessage, request, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join, normalize, resolve } from "node:path";
import { test } from "node:test";
import { Client } from "../src/index.js";
import { custom, finished, started } from "./support/events.js";
import { Relay } from "./support/relay.js";
import { Server } from "./support/server.js";

const PACKAGE = resolve(import.meta.dirname, "../..");
const IMPORTS = {
  "@lavant/client/web": "/build/src/web.js",
  "@bufbuild/protobuf": "/node_modules/@bufbuild/protobuf/dist/esm/index.js",
  "@bufbuild/protobuf/": "/node_modules/@bufbuild/protobuf/dist/esm/",
  "@bufbuild/protobuf/wkt": "/node_modules/@bufbuild/protobuf/dist/esm/wkt/index.js",
  "@bufbuild/protobuf/wire": "/node_modules/@bufbuild/protobuf/dist/esm/wire/index.js",
  "@bufbuild/protobuf/reflect": "/node_modules/@bufbuild/protobuf/dist/esm/reflect/index.js",
  "@bufbuild/protobuf/codegenv2": "/node_modules/@bufbuild/protobuf/dist/esm/codegenv2/index.js",
  "@connectrpc/connect": "/node_modules/@connectrpc/connect/dist/esm/index.js",
  "@connectrpc/connect/protocol": "/node_modules/@connectrpc/connect/dist/esm/protocol/index.js",
  "@connectrpc/connect/protocol-connect": "/node_modules/@connectrpc/connect/dist/esm/protocol-connect/index.js",
  "@connectrpc/connect/protocol-grpc-web": "/node_modules/@connectrpc/connect/dist/esm/protocol-grpc-web/index.js",
  "@connectrpc/connect-web": "/node_modules/@connectrpc/connect-web/dist/esm/index.js",
};
// It reads a run, reports each event, keeps its position, and reloads itself once.
const PAGE = `<!doctype html><script type="importmap">${JSON.stringify({ imports: IMPORTS })}</script>
<script type="module">
  const report = (text) => fetch("/report", { method: "POST", body: text });
  addEventListener("error", ({ message }) => report("error " + message));
  addEventListener("unhandledrejection", ({ reason }) => report("error " + reason));
  const { Client } = await import("@lavant/client/web");
  const stream = new Client().runs.read("run", { consumer: "page", resumeToken: localStorage.position });
  for await (const { sequence } of stream) {
    await report(String(sequence));
    localStorage.position = stream.resumeToken;
    if (sequence === 3n) { location.reload(); await new Promise(() => {}); }
  }
  await report("end " + stream.endReason);
</script>`;

test("a page in Chromium reads live, over two cuts and a reload", async () => {
  await using server = await Server.start();
  await using relay = await Relay.to(server.http);
  await using producer = new Client({ targets: server.grpc });
  const publisher = producer.runs.publish("run", { create: { name: "test" } });
  publisher.put(started);
  await publisher.flush();

  const reports: string[] = [];
  let end = () => {};
  const over = new Promise<void>((resolve) => {
    end = resolve;
  });
  const site = createServer((from: IncomingMessage, to: ServerResponse) => {
    const path = normalize(from.url ?? "/");
    if (path.startsWith("/api/")) return forward(relay.target, from, to);
    if (path === "/report") return void receive(from, to);
    if (!path.endsWith(".js")) return to.writeHead(200, { "content-type": "text/html" }).end(PAGE);
    to.writeHead(200, { "content-type": "text/javascript" }).end(readFileSync(join(PACKAGE, path)));
  });
  async function receive(from: IncomingMessage, to: ServerResponse): Promise<void> {
    let text = "";
    for await (const piece of from) text += piece;
    reports.push(text);
    if (text === "1" || text === "4") relay.cut();
    if (Number(text) > 0) publisher.put(...(Number(text) < 5 ? [custom(text)] : text === "5" ? [finished] : []));
    if (text.startsWith("e")) end();
    to.end();
  }
  site.listen(0, "127.0.0.1");
  await once(site, "listening");

  const profile = mkdtempSync(join(tmpdir(), "lavant-chromium-"));
  const url = `http://127.0.0.1:${(site.address() as AddressInfo).port}/`;
  const flags = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--remote-debugging-port=0",
    `--user-data-dir=${profile}`,
  ];
  const chromium = spawn("chromium", [...flags, url], { stdio: "ignore" });
  try {
    await Promise.race([over, once(chromium, "exit")]);
    assert.deepEqual(reports, ["1", "2", "3", "4", "5", "6", "end RUN_FINISHED"]);
    await publisher.finish();
  } finally {
    chromium.kill();
    if (chromium.exitCode === null) await once(chromium, "exit"); // its other processes write until then
    site.closeAllConnections();
    site.close();
    rmSync(profile, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
  }
});

/** Forward a request to the server, as a proxy in front of it does. */
function forward(target: string, from: IncomingMessage, to: ServerResponse): void {
  const upstream = request(`http://${target}${from.url}`, { headers: { ...from.headers, host: target } }, (answer) => {
    to.writeHead(answer.statusCode ?? 502, answer.headers);
    answer.on("error", () => to.destroy()).pipe(to);
  });
  upstream.on("error", () => to.destroy());
  to.on("close", () => upstream.destroy());
  upstream.end();
}
