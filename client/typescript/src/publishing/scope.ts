import { Role, StepKind, ToolCallOutcome } from "../gen/lavant/v1/event_pb.js";
import { RunState } from "../gen/lavant/v1/run_pb.js";
import { duration } from "../time.js";
import { type EventInit, errorOf, json } from "./events.js";

// The last event of a message repeats its text, and has to fit into a batch of 1 MiB, at up to 3 bytes per character.
const MAX_MESSAGE_LENGTH = 250_000;

type Payload = NonNullable<EventInit["payload"]>;

export interface StepOptions {
  kind?: StepKind;
  /** Input of the step: any value that JSON can represent. */
  input?: unknown;
  /** Number of the attempt, for a step that is tried again with the same `id`. Default 1. */
  attempt?: number;
  /** ID of the step. Default: a new one. */
  id?: string;
}

/** A tool call that is being executed. */
export interface ToolScope {
  readonly id: string;
  /** Publish a piece of the tool's output. */
  output(text: string): void;
}

/** What a run or one of its steps publishes. Blocks end with their function: SUCCEEDED, or FAILED if it throws. */
export class Scope {
  readonly #stepId: string;
  readonly #put: (event: EventInit) => void;
  #message: { id: string; parts: { kind: "text" | "reasoning"; text: string }[]; length: number } | undefined;

  constructor(stepId: string, put: (event: EventInit) => void) {
    this.#stepId = stepId;
    this.#put = put;
  }

  /** Publish any event. */
  put(payload: Payload): void {
    this.#put({ stepId: this.#stepId, payload });
  }

  /** Publish a piece of an assistant's text. The message ends with the scope, or when a step or a tool begins in it. */
  text(piece: string): void {
    this.#piece("text", piece);
  }

  /** Publish a piece of a model's reasoning, as part of the same message as the text. */
  reasoning(piece: string): void {
    this.#piece("reasoning", piece);
  }

  /** Publish a message that is complete, such as a user's question. */
  message(role: Role, text: string): void {
    this.endMessage();
    const messageId = crypto.randomUUID();
    this.put({ case: "messageStarted", value: { messageId, role } });
    this.put({
      case: "messageFinished",
      value: { messageId, role, parts: [{ content: { case: "text", value: text } }] },
    });
  }

  /** End the open message: the next text begins another one. */
  endMessage(): void {
    if (this.#message === undefined) return;
    const { id: messageId, parts } = this.#message;
    this.#message = undefined;
    const whole = parts.map(({ kind, text }) => ({ content: { case: kind, value: text } }));
    this.put({ case: "messageFinished", value: { messageId, role: Role.ASSISTANT, parts: whole } });
  }

  /** Execute a function as a step, and return what it returns, which is the step's output. */
  async step<T>(name: string, body: (step: Scope) => Promise<T> | T, options: StepOptions = {}): Promise<T> {
    this.endMessage();
    const { kind = StepKind.WORKFLOW, input, attempt = 1, id: stepId = crypto.randomUUID() } = options;
    const step = new Scope(stepId, this.#put);
    const parentStepId = this.#stepId;
    this.put({ case: "stepStarted", value: { stepId, parentStepId, name, kind, inputJson: json(input), attempt } });
    const began = performance.now();
    const finish = (outcome: { state: RunState; outputJson?: string; error?: ReturnType<typeof errorOf> }) => {
      step.endMessage();
      const took = duration(performance.now() - began);
      this.put({ case: "stepFinished", value: { stepId, duration: took, ...outcome } });
    };
    try {
      const output = await body(step);
      finish({ state: RunState.SUCCEEDED, outputJson: json(output) });
      return output;
    } catch (thrown) {
      finish({ state: RunState.FAILED, error: errorOf(thrown) });
      throw thrown;
    }
  }

  /** Execute a function as a tool call, and return what it returns, which is the call's result. */
  async tool<T>(name: string, args: unknown, body: (tool: ToolScope) => Promise<T> | T, id?: string): Promise<T> {
    this.endMessage();
    const toolCallId = id ?? crypto.randomUUID();
    const call = { toolCallId, toolName: name, argumentsJson: json(args) };
    this.put({ case: "toolCallStarted", value: { call } });
    const began = performance.now();
    const finish = (outcome: { outcome: ToolCallOutcome; resultJson?: string; error?: ReturnType<typeof errorOf> }) => {
      const took = duration(performance.now() - began);
      this.put({ case: "toolCallFinished", value: { toolCallId, toolName: name, duration: took, ...outcome } });
    };
    try {
      const output = (text: string) => this.put({ case: "toolOutputDelta", value: { toolCallId, text } });
      const result = await body({ id: toolCallId, output });
      finish({ outcome: ToolCallOutcome.SUCCEEDED, resultJson: json(result) });
      return result;
    } catch (thrown) {
      finish({ outcome: ToolCallOutcome.FAILED, error: errorOf(thrown) });
      throw thrown;
    }
  }

  /** Publish how much is done. */
  progress(label: string, completed?: number, total?: number): void {
    this.put({
      case: "progressReported",
      value: {
        label,
        ...(completed !== undefined && { completed: BigInt(completed) }),
        ...(total !== undefined && { total: BigInt(total) }),
      },
    });
  }

  /** Publish an event of your own kind, such as "acme.cache_hit". */
  custom(name: string, value?: unknown): void {
    this.put({ case: "custom", value: { name, valueJson: json(value) } });
  }

  /** Publish the complete value of a state that readers can rebuild. */
  state(value: unknown, name = ""): void {
    this.put({ case: "stateSnapshot", value: { name, valueJson: json(value) } });
  }

  /** Publish an error that does not end the run. */
  error(thrown: unknown): void {
    this.put({ case: "errorReported", value: { error: errorOf(thrown) } });
  }

  #piece(kind: "text" | "reasoning", text: string): void {
    if ((this.#message?.length ?? 0) + text.length > MAX_MESSAGE_LENGTH) this.endMessage();
    if (this.#message === undefined) {
      this.#message = { id: crypto.randomUUID(), parts: [], length: 0 };
      this.put({ case: "messageStarted", value: { messageId: this.#message.id, role: Role.ASSISTANT } });
    }
    this.#message.length += text.length;
    const { id: messageId, parts } = this.#message;
    const last = parts[parts.length - 1];
    if (last?.kind === kind) last.text += text;
    else parts.push({ kind, text });
    const value = { messageId, partIndex: parts.length - 1, text };
    this.put(kind === "text" ? { case: "textDelta", value } : { case: "reasoningDelta", value });
  }
}
