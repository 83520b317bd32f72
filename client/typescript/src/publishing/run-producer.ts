import type { LavantError } from "../errors.js";
import { type Error as RunError, RunState } from "../gen/lavant/v1/run_pb.js";
import { duration } from "../time.js";
import type { CancelRequested } from "./answers.js";
import { type EventInit, errorOf, json } from "./events.js";
import type { Publisher } from "./publisher.js";
import { Scope } from "./scope.js";

/** What a producer does about an event that cannot be stored. */
export type OnError = "log" | "throw";

/**
 * A run that this process executes. Methods put events into an outbox and return.
 *
 * With `onError: "log"`, an event that cannot be published is logged once, and the rest of the run is dropped: the agent
 * is not affected.
 */
export class RunProducer extends Scope {
  /** ID of the run. */
  readonly id: string;
  readonly #publisher: Publisher;
  readonly #onError: OnError;
  readonly #began = performance.now();
  #isLogged = false;

  constructor(id: string, publisher: Publisher, onError: OnError) {
    super("", (event) => this.#put(event));
    this.id = id;
    this.#publisher = publisher;
    this.#onError = onError;
  }

  /** Aborts when somebody asks to cancel the run. Stop the work then: throw, for example by `throwIfAborted()`. */
  get signal(): AbortSignal {
    return this.#publisher.cancelled;
  }

  /** Wait until somebody asks to cancel the run, and return the reason that was given. */
  async waitCancelled(): Promise<string> {
    if (!this.signal.aborted) {
      await new Promise((resolve) => this.signal.addEventListener("abort", resolve, { once: true }));
    }
    return (this.signal.reason as CancelRequested).message;
  }

  /** Wait until the queue takes further events. */
  async ready(): Promise<void> {
    await this.#publisher.ready();
  }

  /** Wait until all events so far are durable. */
  async flush(): Promise<void> {
    await this.#guard(() => this.#publisher.flush());
  }

  /** @internal Run the body, and end the run with its outcome. */
  async execute<T>(
    input: unknown,
    about: { model: string; version: string },
    body: (run: this) => Promise<T> | T,
  ): Promise<T> {
    this.put({ case: "runStarted", value: { inputJson: json(input), ...about } });
    try {
      const output = await body(this);
      await this.#end(RunState.SUCCEEDED, output);
      return output;
    } catch (thrown) {
      const state = this.signal.aborted ? RunState.CANCELLED : RunState.FAILED;
      await this.#end(state, undefined, errorOf(thrown)).catch(() => undefined); // the body's error takes precedence
      throw thrown;
    } finally {
      this.#publisher.close();
    }
  }

  async #end(state: RunState, output: unknown, error?: RunError): Promise<void> {
    this.endMessage();
    const outputJson = json(output);
    const took = duration(performance.now() - this.#began);
    this.put({ case: "runFinished", value: { state, outputJson, duration: took, ...(error && { error }) } });
    await this.#guard(() => this.#publisher.finish());
  }

  #put(event: EventInit): void {
    try {
      this.#publisher.put(event);
    } catch (thrown) {
      if (this.#onError === "throw") throw thrown;
      this.#log(thrown as LavantError);
    }
  }

  async #guard(work: () => Promise<unknown>): Promise<void> {
    try {
      await work();
    } catch (thrown) {
      if (this.#onError === "throw") throw thrown;
      this.#log(thrown as LavantError);
    }
  }

  #log(error: LavantError): void {
    if (this.#isLogged) return;
    this.#isLogged = true;
    console.warn(`lavant: events of run ${this.id} are not recorded any more: ${error.message}`);
  }
}
