import assert from "node:assert/strict";
import { test } from "node:test";
import { Client, type EventInit } from "../src/index.js";
import { Site } from "./support/browser.js";
import { finished, started } from "./support/events.js";
import { bundled } from "./support/react.js";
import { Relay } from "./support/relay.js";
import { Server } from "./support/server.js";

const text = (piece: string): EventInit => ({
  payload: { case: "textDelta", value: { messageId: "m", text: piece } },
});

// It shows a text, reports each one, and reloads itself once in the middle.
const PAGE = `
  import { useEffect as useReport } from "react";
  import { createRoot } from "react-dom/client";
  let reported = Promise.resolve();
  export function Shown({ text }: { text: string }) {
    useReport(() => {
      reported = reported.then(() => report(text));
      if (text.endsWith(".")) reported.then(() => report("end"));
      if (text === "It is " && !sessionStorage.reloaded) {
        sessionStorage.reloaded = "once";
        reported.then(() => location.reload());
      }
    }, [text]);
    return <p>{text}</p>;
  }
  const root = createRoot(document.body.appendChild(document.createElement("main")));
`;

/** Show a page that reads a run, which is written as the page reports; the connection is cut once. */
async function show(script: string): Promise<string[]> {
  await using server = await Server.start();
  await using relay = await Relay.to(server.http);
  await using producer = new Client({ targets: server.grpc });
  const publisher = producer.runs.publish("run", { create: { name: "test" } });
  publisher.put(started, { payload: { case: "messageStarted", value: { messageId: "m" } } }, text("It "));
  await publisher.flush();
  let hasReloaded = false;
  await using site = await Site.serve({
    script,
    api: relay.target,
    received: (shown) => {
      if (shown === "It " && !hasReloaded) {
        relay.cut();
        publisher.put(text("is "));
      }
      if (shown === "It is ") {
        if (hasReloaded) publisher.put(text("cold."), finished);
        hasReloaded = true;
      }
    },
  });
  await site.show();
  await publisher.finish();
  return site.reports;
}

test("the hook of the README continues after a reload", async () => {
  const script = await bundled(
    "README.md",
    `${PAGE}
    function Page() { return <Shown text={useRunText("run")} />; }
    root.render(<Page />);`,
  );
  assert.deepEqual(await show(script), ["", "It ", "It is ", "It is ", "It is cold.", "end"]);
});

test("the AI SDK's useChat shows a run again after a reload, and follows it", async () => {
  const script = await bundled("../../docs/http.md", `${PAGE}\nroot.render(<Chat runId="run" />);`);
  const reports = await show(script);
  const said = JSON.stringify(reports);
  assert.deepEqual(reports.slice(-2), ["It is cold.", "end"], said);
  // How often a page renders is React's matter, and what it shows is always a beginning of the text.
  assert.ok(
    reports.slice(0, -2).every((text) => ["", "It ", "It is "].includes(text)),
    said,
  );
  assert.ok(reports.indexOf("It is ") < reports.lastIndexOf("It is "), said);
});
