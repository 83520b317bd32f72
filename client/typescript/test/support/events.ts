import type { Client, EventInit } from "../../src/index.js";
import { RunState } from "../../src/index.js";

export const started: EventInit = { payload: { case: "runStarted", value: {} } };
export const finished: EventInit = { payload: { case: "runFinished", value: { state: RunState.SUCCEEDED } } };

/** Return an event with a value by which tests recognize it. */
export function custom(value: unknown): EventInit {
  return { payload: { case: "custom", value: { name: "test", valueJson: JSON.stringify(value) } } };
}

/** Publish a run with `count` custom events between its first and last one, and return its ID. */
export async function record(client: Client, count: number): Promise<string> {
  const runId = crypto.randomUUID();
  const publisher = client.runs.publish(runId, { create: { name: "test" } });
  publisher.put(started, ...Array.from({ length: count }, (_, index) => custom(index)), finished);
  await publisher.finish();
  return runId;
}

/** Return all that an iterable yields. */
export async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const collected: T[] = [];
  for await (const item of items) collected.push(item);
  return collected;
}
