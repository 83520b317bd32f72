import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import {
  Client,
  type Event,
  LavantError,
  RunNotSucceeded,
  type RunProducer,
  RunState,
  StepKind,
  Unavailable,
  WaitTimeout,
} from "../src/index.js";
import { collect, record } from "./support/events.js";
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

async function weather(run: RunProducer): Promise<{ answer: string }> {
  await run.step("plan", async (step) => {
    step.reasoning("Search first.");
    const found = await step.tool("search_web", { q: "Oslo" }, () => ({ celsius: -4 }));
    step.custom("acme.found", found);
  });
  run.text("It is cold ");
  run.text("in Oslo.");
  run.progress("cities", 1, 1);
  return { answer: "cold" };
}

test("a run is executed as a block, and read as text, result and tool calls", async () => {
  const answer = await client.runs.start("weather-agent", { runId: "weather", input: { city: "Oslo" } }, weather);
  assert.deepEqual(answer, { answer: "cold" });
  assert.equal(await client.runs.read("weather").text(), "It is cold in Oslo.");
  assert.deepEqual(await client.runs.read("weather").result(), { answer: "cold" });
  assert.equal((await collect(client.runs.read("weather").textChunks())).join(""), "It is cold in Oslo.");
  const [call, ...others] = await collect(client.runs.read("weather").toolCalls());
  assert.deepEqual(others, []);
  assert.deepEqual(
    [call?.name, call?.arguments, call?.outcome, call?.result],
    ["search_web", { q: "Oslo" }, "SUCCEEDED", { celsius: -4 }],
  );
  const events: Event[] = await collect(client.runs.events("weather"));
  assert.deepEqual(
    events.map((event) => event.payload.case),
    [
      ...["runStarted", "stepStarted", "messageStarted", "reasoningDelta", "messageFinished", "toolCallStarted"],
      ...["toolCallFinished", "custom", "stepFinished", "messageStarted", "textDelta", "textDelta"],
      ...["progressReported", "messageFinished", "runFinished"],
    ],
  );
});

test("a nested agent's text is not the run's", async () => {
  await client.runs.start("outer", { runId: "nested" }, async (run) => {
    run.text("outer ");
    await run.step("inner", (step) => step.text("inner "), { kind: StepKind.AGENT });
    run.text("again");
  });
  assert.equal(await client.runs.read("nested").text(), "outer again");
});

test("a long message is published in several", async () => {
  const piece = "x".repeat(100_000);
  await client.runs.start("long", { runId: "long", onError: "throw" }, (run) => {
    for (let count = 0; count < 12; count += 1) run.text(piece);
  });
  assert.equal((await client.runs.read("long").text()).length, 1_200_000);
});

test("an error of the body ends the run as failed and is thrown", async () => {
  const failing = client.runs.start("agent", { runId: "failed" }, () => {
    throw new RangeError("no such city");
  });
  await assert.rejects(failing, RangeError);
  await assert.rejects(client.runs.read("failed").text(), (error) => {
    assert.ok(error instanceof RunNotSucceeded);
    assert.equal(error.result.error?.message, "no such city");
    assert.equal(error.result.error?.type, "RangeError");
    return error.message === "run failed failed: no such city";
  });
});

test("a run stops when it is cancelled, and ends as cancelled", async () => {
  const running = client.runs.start("agent", { runId: "stopped" }, async (run) => {
    await run.flush();
    await client.runs.cancel("stopped", "too slow");
    assert.equal(await run.waitCancelled(), "too slow");
    run.signal.throwIfAborted();
  });
  await assert.rejects(running, /too slow/);
  assert.equal((await client.runs.wait("stopped")).state, RunState.CANCELLED);
});

test("a refused event is logged once, and does not affect the body", async (context) => {
  const warn = context.mock.method(console, "warn", () => undefined);
  const output = await client.runs.start("agent", {}, async (run) => {
    run.put({ case: "textDelta", value: { messageId: "none", text: "x" } });
    await run.flush();
    run.text("dropped");
    return 1;
  });
  assert.equal(output, 1);
  assert.equal(warn.mock.callCount(), 1);
});

test("runs are created, listed in pages, and waited for", async () => {
  for (const runId of ["a", "b", "c"]) await client.runs.create({ name: "listed", labels: { team: "x" } }, { runId });
  await client.runs.create({ name: "listed", labels: { team: "x" } }, { runId: "a" });
  const listed = await collect(client.runs.list({ labels: { team: "x" } }, { pageSize: 2 }));
  assert.deepEqual(
    listed.map((run) => run.runId),
    ["c", "b", "a"],
  );
  await assert.rejects(client.runs.wait("a", { timeoutMs: 50 }), WaitTimeout);
  const runId = await record(client, 1);
  assert.equal((await client.runs.wait(runId)).state, RunState.SUCCEEDED);
  await client.runs.delete(runId);
  await assert.rejects(
    client.runs.get(runId),
    (error) => error instanceof LavantError && error.reason === "RUN_NOT_FOUND",
  );
});

test("a watch reports current runs, changes and deletions, over a killed server", async () => {
  await using killed = await Server.start();
  await using watcher = new Client({ targets: killed.grpc });
  await watcher.runs.create({ name: "watched" }, { runId: "one" });
  const seen: string[] = [];
  for await (const change of watcher.runs.watch({ names: ["watched"] })) {
    seen.push(change.type === "run" ? `${change.run.runId} ${RunState[change.run.state]}` : change.type);
    if (seen.length === 2) {
      await killed.kill();
      await killed.start();
      await watcher.runs.start("watched", { runId: "two" }, () => undefined);
      await watcher.runs.delete("two");
    }
    if (change.type === "deleted") {
      assert.equal(change.runId, "two");
      assert.notEqual(change.resumeToken, "");
      break;
    }
  }
  assert.deepEqual(seen.slice(0, 2), ["one QUEUED", "caught_up"]);
});

test("scores are recorded once per ID", async () => {
  const runId = await record(client, 1);
  const score = { name: "helpful", value: false, evaluator: "ada", explanation: "It was warm.", scoreId: "s1" };
  assert.equal(await client.runs.score(runId, score), "s1");
  await client.runs.score(runId, score);
  await client.runs.score(runId, { name: "rating", value: 4 });
  const scores = await collect(client.runs.scores(runId));
  assert.deepEqual(scores.map(({ score }) => [score?.name, score?.value.value]).sort(), [
    ["helpful", false],
    ["rating", 4],
  ]);
});

test("a call to a server that is out of reach fails within its time", async () => {
  await using away = new Client({ targets: "127.0.0.1:1", timeoutMs: 300 });
  const began = performance.now();
  await assert.rejects(away.runs.get("run"), Unavailable);
  assert.ok(performance.now() - began < 2_000);
});
