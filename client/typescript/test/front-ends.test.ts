import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { after, before, test } from "node:test";
import { HttpAgent } from "@ag-ui/client";
import { EventSchema } from "@ag-ui/core/schemas";
import { Chat } from "@ai-sdk/react";
import { asSchema, DefaultChatTransport, type UIMessage, uiMessageChunkSchema } from "ai";
import { Client, type EventInit, RunState, StepKind, ToolCallOutcome } from "../src/index.js";
import { createResumingFetch } from "../src/web.js";
import { finished, started } from "./support/events.js";
import { Server } from "./support/server.js";

type Payload = NonNullable<EventInit["payload"]>;

let server: Server;
let producer: Client;
before(async () => {
  server = await Server.start();
  producer = new Client({ targets: server.grpc });
});
after(async () => {
  producer.close();
  await server[Symbol.asyncDispose]();
});

const event = (payload: Payload): EventInit => ({ payload });
const text = (piece: string, partIndex = 0) =>
  event({ case: "textDelta", value: { messageId: "answer", partIndex, text: piece } });
const call = { toolCallId: "call", toolName: "search", argumentsJson: '{"q":"Oslo"}' };

/** A run with an event of each type that a producer can publish. */
const RICH: EventInit[] = [
  started,
  event({ case: "stepStarted", value: { stepId: "s", name: "look", kind: StepKind.TOOL } }),
  event({ case: "messageStarted", value: { messageId: "plan" } }),
  event({ case: "reasoningDelta", value: { messageId: "plan", text: "Search first." } }),
  event({ case: "toolArgumentsDelta", value: { ...call, messageId: "plan", partIndex: 1, arguments: '{"q":' } }),
  event({
    case: "messageFinished",
    value: {
      messageId: "plan",
      parts: [
        { content: { case: "reasoning", value: "Search first." } },
        { content: { case: "toolCall", value: call } },
      ],
    },
  }),
  event({ case: "toolCallStarted", value: { call } }),
  event({ case: "toolOutputDelta", value: { toolCallId: "call", text: "-4" } }),
  event({
    case: "toolCallFinished",
    value: { toolCallId: "call", outcome: ToolCallOutcome.SUCCEEDED, resultJson: '{"celsius":-4}' },
  }),
  ...[ToolCallOutcome.FAILED, ToolCallOutcome.DENIED, ToolCallOutcome.RETRY_REQUESTED].flatMap((outcome) => [
    event({ case: "toolCallStarted", value: { call: { toolCallId: `call${outcome}`, toolName: "search" } } }),
    event({
      case: "toolCallFinished",
      value: { toolCallId: `call${outcome}`, outcome, error: { message: "no" } },
    }),
  ]),
  event({ case: "stepStarted", value: { stepId: "s", name: "look", attempt: 2 } }),
  event({ case: "stepFinished", value: { stepId: "s", state: RunState.FAILED, error: { message: "no" } } }),
  event({ case: "runStateChanged", value: { state: RunState.INPUT_REQUIRED } }),
  event({ case: "inputRequested", value: { inputId: "i", prompt: "May I?", schemaJson: "{}" } }),
  event({ case: "inputResolved", value: { inputId: "i", answerJson: "true" } }),
  event({ case: "progressReported", value: { label: "rows", completed: 1n } }),
  event({ case: "errorReported", value: { error: { message: "odd" } } }),
  event({ case: "stateSnapshot", value: { valueJson: '{"a":null}' } }),
  event({ case: "stateDelta", value: { patchJson: '[{"op":"replace","path":"/a","value":1}]' } }),
  event({ case: "stateDelta", value: { patchJson: '{"no":"patch"}' } }),
  event({ case: "stateSnapshot", value: { name: "other", valueJson: "1" } }),
  event({ case: "artifactUpdated", value: { artifactId: "a", content: { case: "data", value: new Uint8Array(3) } } }),
  event({ case: "custom", value: { name: "acme.note", valueJson: "" } }),
  event({ case: "stepStarted", value: { stepId: "open", name: "left open" } }),
  event({ case: "messageStarted", value: { messageId: "answer" } }),
  text("It is "),
  text("cold."),
  event({
    case: "runFinished",
    value: { state: RunState.SUCCEEDED, outputJson: '{"answer":"cold"}', usage: { model: "m", inputTokens: 3n } },
  }),
];

async function publish(events: EventInit[], runId: string = crypto.randomUUID()): Promise<string> {
  const publisher = producer.runs.publish(runId, { create: { name: "test", conversationId: "talk" } });
  publisher.put(...events);
  await publisher.finish();
  return runId;
}

/** Return what a run is in a format. */
async function read(runId: string, format: string): Promise<unknown[]> {
  const body = await (await fetch(urlOf(runId, format))).text();
  return [...body.matchAll(/^data: (\{.*)$/gm)].map(([, json = ""]) => JSON.parse(json) as unknown);
}

function urlOf(runId: string, format: string): string {
  return `http://${server.http}/api/v1/runs/${runId}/stream?format=${format}`;
}

test("every event is valid in both formats", async () => {
  const ends = [RunState.FAILED, RunState.CANCELLED].map((state) =>
    event({ case: "runFinished", value: { state, error: { message: "it broke" } } }),
  );
  const schema = asSchema(uiMessageChunkSchema);
  for (const log of [RICH, ...ends.map((end) => [started, end])]) {
    const runId = await publish(log);
    for (const data of await read(runId, "ag-ui")) EventSchema.parse(data);
    for (const data of await read(runId, "ai-sdk")) {
      const checked = await schema.validate?.(data);
      assert.ok(checked?.success, JSON.stringify(data));
    }
  }
});

class RunAgent extends HttpAgent {
  protected override requestInit(): RequestInit {
    return { headers: this.headers, signal: this.abortController.signal };
  }
}

/** Pieces of a run, each published once the one before was read. */
const PIECES: EventInit[][] = [
  [text("is ")],
  [text("cold")],
  [
    event({ case: "toolArgumentsDelta", value: { ...call, messageId: "answer", partIndex: 1, arguments: '{"q":' } }),
    event({ case: "toolArgumentsDelta", value: { ...call, messageId: "answer", partIndex: 1, arguments: '"Oslo"}' } }),
    event({ case: "toolCallStarted", value: { call } }),
    event({
      case: "toolCallFinished",
      value: { toolCallId: "call", outcome: ToolCallOutcome.SUCCEEDED, resultJson: '{"celsius":-4}' },
    }),
    text(".", 2),
  ],
  [finished],
];
const BEGINNING = [started, event({ case: "messageStarted", value: { messageId: "answer" } }), text("It ")];

/** Publish a piece of a run each time that its text is new; twice, kill the server and start it again. */
function writer(runId: string): { shown: (text: string) => void; end: () => Promise<void> } {
  const publisher = producer.runs.publish(runId, { create: { name: "test" } });
  publisher.put(...BEGINNING);
  let last = "";
  let killed = 0;
  let work: Promise<void> = publisher.flush().then(() => undefined);
  const pieces = [...PIECES];
  return {
    shown: (text) => {
      if (text === last || text === "") return;
      last = text;
      work = work.then(async () => {
        if (killed < 2) await server.kill();
        publisher.put(...(pieces.shift() ?? []));
        if (killed++ < 2) await server.start();
      });
    },
    end: async () => {
      await work;
      await publisher.finish();
      assert.equal(killed, 4);
    },
  };
}

test("AG-UI's HttpAgent reads a run over kills of the server", async () => {
  const runId = crypto.randomUUID();
  const { shown, end } = writer(runId);
  const agent = new RunAgent({ url: `${urlOf(runId, "ag-ui")}&wait_for_run=true`, fetch: createResumingFetch() });
  const { newMessages, result } = await agent.runAgent(
    {},
    { onTextMessageContentEvent: ({ event, textMessageBuffer }) => shown(textMessageBuffer + event.delta) },
  );
  await end();
  assert.equal(result, undefined);
  const [answer, found] = newMessages;
  assert.ok(answer?.role === "assistant" && found?.role === "tool");
  assert.equal(answer.content, "It is cold.");
  assert.deepEqual(answer.toolCalls?.[0]?.function, { name: "search", arguments: '{"q":"Oslo"}' });
  assert.deepEqual([found.toolCallId, found.content], ["call", '{"celsius":-4}']);
  assert.equal(newMessages.length, 2);
});

function textOf(messages: UIMessage[]): string {
  const parts = messages.flatMap(({ role, parts }) => (role === "assistant" ? parts : []));
  return parts.map((part) => (part.type === "text" ? part.text : "")).join("");
}

test("the AI SDK's chat resumes a run over kills of the server", async () => {
  const runId = crypto.randomUUID();
  const { shown, end } = writer(runId);
  const errors: Error[] = [];
  const chat = new Chat({
    id: runId,
    transport: new DefaultChatTransport({
      fetch: createResumingFetch(),
      prepareReconnectToStreamRequest: ({ id }) => ({ api: `${urlOf(id, "ai-sdk")}&wait_for_run=true` }),
    }),
    onError: (error) => errors.push(error),
  });
  chat["~registerMessagesCallback"](() => shown(textOf(chat.messages)));
  await chat.resumeStream();
  assert.deepEqual(errors, []);
  await end();
  assert.equal(chat.status, "ready");
  assert.equal(chat.messages.length, 1);
  assert.equal(chat.lastMessage?.id, runId);
  const parts = chat.lastMessage.parts.map((part) =>
    part.type === "text" ? part.text : part.type === "tool-search" ? [part.state, part.input, part.output] : part,
  );
  assert.deepEqual(parts, ["It is cold", ["output-available", { q: "Oslo" }, { celsius: -4 }], "."]);

  // As a page does that is reloaded: the run is read again, and its message is replaced.
  const before = structuredClone(chat.messages);
  await chat.resumeStream();
  assert.deepEqual(chat.messages, before);
});

test("a chat posts to the application, and continues at the run that it starts", async () => {
  const errors: Error[] = [];
  let posts = 0;
  const { shown, end } = writer("posted");
  const application = createServer((_, to) => {
    posts += 1;
    to.writeHead(303, { location: `${urlOf("posted", "ai-sdk")}&wait_for_run=true` }).end();
  });
  application.listen(0, "127.0.0.1");
  await once(application, "listening");
  const chat = new Chat({
    transport: new DefaultChatTransport({
      api: `http://127.0.0.1:${(application.address() as AddressInfo).port}/chat`,
      fetch: createResumingFetch(),
    }),
    onError: (error) => errors.push(error),
  });
  chat["~registerMessagesCallback"](() => shown(textOf(chat.messages)));
  await chat.sendMessage({ text: "How is Oslo?" });
  assert.deepEqual(errors, []);
  await end();
  assert.equal(posts, 1);
  assert.deepEqual(
    chat.messages.map(({ role }) => role),
    ["user", "assistant"],
  );
  assert.equal(textOf(chat.messages), "It is cold.");
  application.close();
});
