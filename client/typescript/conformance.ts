/** Driver of the conformance suite: carries out commands in JSON lines with the public API of the client. */

import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { type DescMessage, fromJson, type JsonValue, type MessageShape, toJson } from "@bufbuild/protobuf";
import * as lavant from "./src/index.js";
import {
  CreateRunRequestSchema,
  ListRunsRequestSchema,
  RunSchema,
  RunSettingsSchema,
  WatchRunsRequestSchema,
} from "./src/protocol.js";

// biome-ignore lint/suspicious/noExplicitAny: the suite's commands are checked by the suite
type Command = any;
type Operation = { signal: AbortSignal; abort: AbortController; commands: (command: Command) => void };

let client: lavant.Client;
const running = new Map<number, Operation>();

function say(line: object): void {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

function message<S extends DescMessage>(schema: S, json: JsonValue = {}): MessageShape<S> {
  return fromJson(schema, json, { ignoreUnknownFields: true });
}

const runJson = (run: lavant.Run) => toJson(RunSchema, run);
const eventJson = (event: lavant.Event) => toJson(lavant.EventSchema, event);
const ms = (seconds: number | undefined) => (seconds === undefined ? undefined : seconds * 1000);

function settings(json: JsonValue | undefined): lavant.RunSettingsInit {
  const { $typeName: _, producerTimeout, ...rest } = message(RunSettingsSchema, json);
  return { ...rest, producerTimeoutMs: producerTimeout && Number(producerTimeout.seconds) * 1000 };
}

const operations: Record<string, (command: Command, operation: Operation) => Promise<object>> = {
  async connect({ targets, token_file, ca, deadline = 10 }) {
    const token = token_file === undefined ? undefined : () => readFileSync(token_file, "utf8").trim();
    client = new lavant.Client({ targets, token, ca, timeoutMs: deadline * 1000 });
    return {};
  },

  async read(command, operation) {
    const { signal } = operation;
    let position: string = command.resume_token ?? "";
    let release = () => {};
    signal.addEventListener("abort", () => release(), { once: true });
    operation.commands = ({ do: what }) => (what === "position" ? say({ id: command.id, position }) : release());
    const stream = client.runs.read(command.run, {
      signal,
      consumer: command.consumer,
      resumeToken: command.resume_token,
      takeOver: command.take_over,
      start: command.start,
      stop: command.stop,
      types: command.types,
      deltas: command.deltas,
      idleTimeoutMs: ms(command.idle_timeout),
      heartbeatIntervalMs: ms(command.heartbeat_interval),
      waitForRun: command.wait_for_run,
    });
    let fence: bigint | undefined;
    const showOpened = () => {
      if (stream.fence !== fence) say({ id: command.id, opened: { fence: `${stream.fence}` } });
      fence = stream.fence;
    };
    await stream.open();
    showOpened();
    position ||= stream.resumeToken;
    for await (const event of stream) {
      showOpened();
      say({ id: command.id, event: eventJson(event) });
      if (command.hold) {
        await new Promise<void>((resolve) => {
          release = resolve;
        });
        signal.throwIfAborted();
      }
      position = stream.resumeToken;
    }
    return { reason: stream.endReason, resume_token: stream.resumeToken };
  },

  async publish(command, operation) {
    const { run, producer, epoch, create } = command;
    const publisher = client.runs.publish(run, {
      producerId: producer,
      producerEpoch: epoch === undefined ? undefined : BigInt(epoch),
      create: create && settings(create),
    });
    if (create !== undefined) publisher.put({ payload: { case: "runStarted", value: {} } });
    return new Promise((resolve, reject) => {
      const attempt = (work: () => unknown) => Promise.resolve().then(work).catch(reject);
      operation.signal.addEventListener("abort", () => {
        publisher.close();
        reject(operation.signal.reason);
      });
      publisher.cancelled.addEventListener("abort", () => {
        say({ id: command.id, cancel_requested: publisher.cancelled.reason.message });
      });
      publisher.failed.addEventListener("abort", () => reject(publisher.failure));
      operation.commands = ({ do: what, events = [], tag, state, error_message }) => {
        if (what === "send") {
          attempt(async () => {
            const taken = events.map((event: JsonValue) => message(lavant.EventSchema, event));
            publisher.put(...taken);
            say({ id: command.id, queued: taken.length });
          });
        } else if (what === "flush") {
          attempt(async () => say({ id: command.id, flushed: `${await publisher.flush()}`, tag }));
        } else if (what === "finish") {
          attempt(async () => {
            const error = state === "SUCCEEDED" ? {} : { error: { message: error_message || state.toLowerCase() } };
            const value = { state: lavant.RunState[state as "SUCCEEDED"], ...error };
            publisher.put({ payload: { case: "runFinished", value } });
            const last = await publisher.flush();
            await publisher.finish();
            resolve({ last_producer_sequence: `${last}`, last_sequence: `${publisher.receipt?.lastSequence}` });
          });
        }
      };
      say({ id: command.id, ready: true });
    });
  },

  async read_fast({ run }, { signal }) {
    const began = performance.now();
    let events = 0;
    for await (const _ of client.runs.read(run, { signal })) events += 1;
    return { events, seconds: (performance.now() - began) / 1000 };
  },

  async publish_fast({ run, count }) {
    const began = performance.now();
    await client.runs.start("fast", { runId: run, onError: "throw" }, async (producer) => {
      for (let number = 0; number < count; number++) producer.custom("note", 1);
    });
    return { seconds: (performance.now() - began) / 1000 };
  },

  async create_run({ request }) {
    const { runId, settings: init } = message(CreateRunRequestSchema, request);
    const json = init && (toJson(RunSettingsSchema, init) as JsonValue);
    return { run: runJson(await client.runs.create(settings(json), { runId })) };
  },
  get_run: async ({ run }) => ({ run: runJson(await client.runs.get(run)) }),
  cancel_run: async ({ run, reason }) => ({ run: runJson(await client.runs.cancel(run, reason)) }),
  wait_run: async ({ run, timeout }, { signal }) => ({
    run: runJson(await client.runs.wait(run, { timeoutMs: ms(timeout), signal })),
  }),

  async list_runs({ request }) {
    const { filter, pageSize } = message(ListRunsRequestSchema, request);
    const runs = [];
    for await (const run of client.runs.list(filter, pageSize === undefined ? {} : { pageSize }))
      runs.push(runJson(run));
    return { runs };
  },

  async list_events({ run, types, page_size }) {
    let resume_token = "";
    const onPage = (token: string) => {
      resume_token = token;
    };
    const events = [];
    const options = { types, onPage, ...(page_size !== undefined && { pageSize: page_size }) };
    for await (const event of client.runs.events(run, options)) events.push(eventJson(event));
    return { events, resume_token };
  },

  async watch_runs({ id, request }, { signal }) {
    for await (const change of client.runs.watch(message(WatchRunsRequestSchema, request).filter, { signal })) {
      if (change.type === "run") say({ id, changed: runJson(change.run) });
      else if (change.type === "caught_up") say({ id, caught_up: true });
      else say({ id, [change.type]: change.runId });
    }
    return {};
  },

  text: async ({ run }, { signal }) => ({ text: await client.runs.read(run, { signal }).text() }),
  result: async ({ run }, { signal }) => ({ json: (await client.runs.read(run, { signal }).result()) ?? null }),
  async score({ run, name, value, evaluator }) {
    await client.runs.score(run, { name, value, evaluator });
    return {};
  },
};

async function carryOut(command: Command): Promise<void> {
  const { id } = command;
  const work = operations[command.do];
  if (work === undefined) return say({ id, unsupported: true });
  const abort = new AbortController();
  const operation: Operation = { signal: abort.signal, abort, commands: () => {} };
  running.set(id, operation);
  try {
    say({ id, done: await work(command, operation) });
  } catch (thrown) {
    if (abort.signal.aborted) say({ id, done: { reason: "CANCELLED" } });
    else if (thrown instanceof lavant.LavantError) {
      say({ id, error: { reason: thrown.reason, code: thrown.code, message: thrown.message } });
    } else {
      console.error(thrown);
      say({ id, error: { reason: "", code: "", message: String(thrown) } });
    }
  } finally {
    running.delete(id);
  }
}

createInterface({ input: process.stdin })
  .on("line", (line) => {
    const command: Command = JSON.parse(line);
    if (command.id !== undefined) return void carryOut(command);
    const operation = running.get(command.of);
    if (command.do === "cancel") operation?.abort.abort();
    else operation?.commands(command);
  })
  .on("close", () => {
    for (const { abort } of running.values()) abort.abort();
    client?.close();
    setTimeout(() => process.exit(0), 200);
  });
