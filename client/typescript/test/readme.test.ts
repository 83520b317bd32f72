import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { test } from "node:test";
import { Server } from "./support/server.js";

const PACKAGE = resolve(import.meta.dirname, "../..");

test("the examples of the README run", async () => {
  await using server = await Server.start();
  const blocks = [...readFileSync(join(PACKAGE, "README.md"), "utf8").matchAll(/```js\n(.*?)```/gs)];
  assert.ok(blocks.length >= 3);
  const folder = join(PACKAGE, "build", "readme"); // within the package, so that they import it by its name
  mkdirSync(folder, { recursive: true });
  const said = blocks.map(([, code = ""], index) => {
    const path = join(folder, `${index}.js`);
    const runnable = code.replace("await using client", "const client").replaceAll("localhost:7447", server.grpc);
    writeFileSync(path, `${runnable}\nclient.close();\n`);
    return execFileSync(process.execPath, [path], { encoding: "utf8", timeout: 30_000 });
  });
  assert.match(said[1] ?? "", /It is cold in Oslo\..*answer.*search_web/s);
  assert.match(said[2] ?? "", /weather-agent SUCCEEDED/);
});
