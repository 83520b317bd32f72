import {
  type Event,
  type MessageFinished,
  Role,
  StepKind,
  type StepStarted,
  ToolCallOutcome,
} from "../gen/lavant/v1/event_pb.js";
import type { Error as RunError } from "../gen/lavant/v1/run_pb.js";

interface Place {
  readonly isNested: boolean;
  readonly isInAgent: boolean;
}

const RUN: Place = { isNested: false, isInAgent: false };
const ACTS = new Set(["messageStarted", "textDelta", "messageFinished", "toolCallStarted"]);

/**
 * Knows for every step whether it is part of a nested agent.
 *
 * A step is nested within a tool's step, and within an agent's step inside another agent. The run itself is an agent
 * once it writes text, requests a model or calls a tool outside of agents' steps: every agent's step that starts later
 * is nested. A step whose start was not read counts as the run's own.
 */
class Speakers {
  readonly #places = new Map<string, Place>();
  #runIsAgent = false;

  add(event: Event): void {
    if (event.payload.case === "stepStarted") this.#start(event.payload.value);
    else if (!this.#runIsAgent && ACTS.has(event.payload.case ?? "")) {
      this.#runIsAgent = !this.#place(event.stepId).isInAgent;
    }
  }

  isNested(stepId: string): boolean {
    return this.#place(stepId).isNested;
  }

  #start({ stepId, parentStepId, kind }: StepStarted): void {
    const around = this.#place(parentStepId);
    const isAgent = kind === StepKind.AGENT;
    const isTool = kind === StepKind.TOOL;
    if ((isTool || kind === StepKind.MODEL_REQUEST) && !around.isInAgent) this.#runIsAgent = true;
    this.#places.set(stepId, {
      isNested: around.isNested || isTool || (isAgent && (around.isInAgent || this.#runIsAgent)),
      isInAgent: around.isInAgent || isAgent,
    });
  }

  #place(stepId: string): Place {
    return this.#places.get(stepId) ?? RUN;
  }
}

/**
 * Collects the text of a run's own agent, message by message. `add` returns the text to show next.
 *
 * A message without deltas adds its text when it is complete, and one that is longer than its deltas the rest: the text
 * does not depend on the deltas. When a step is tried again, the text of its earlier attempts and of their children is
 * removed from `text`; text that was shown stays shown.
 */
export class TextProjection {
  readonly #speakers = new Speakers();
  readonly #messages = new Map<string, string>();
  readonly #steps = new Map<string, string>(); // of a message
  readonly #parents = new Map<string, string>(); // of a step
  readonly #silent = new Set<string>();
  readonly #begun = new Set<string>();

  /** Text so far. */
  get text(): string {
    return [...this.#messages.values()].join("");
  }

  /** Return the text that an event adds. */
  add(event: Event): string {
    const { payload, stepId } = event;
    this.#speakers.add(event);
    switch (payload.case) {
      case "textDelta":
        return this.#speak(payload.value.messageId, payload.value.text, stepId);
      case "messageStarted": {
        const { messageId, role } = payload.value;
        this.#steps.set(messageId, stepId);
        this.#begun.add(messageId);
        if (isAssistant(role) && !this.#speakers.isNested(stepId)) this.#silent.delete(messageId);
        else this.#silent.add(messageId);
        return "";
      }
      case "messageFinished":
        return this.#finish(payload.value, stepId);
      case "stepStarted":
        if (payload.value.attempt > 1) this.#drop(payload.value.stepId);
        this.#parents.delete(payload.value.stepId); // to the end of the order
        this.#parents.set(payload.value.stepId, payload.value.parentStepId);
        return "";
      default:
        return "";
    }
  }

  #speak(messageId: string, text: string, stepId: string): string {
    if (this.#silent.has(messageId)) return "";
    if (!this.#messages.has(messageId)) {
      if (!this.#steps.has(messageId)) this.#steps.set(messageId, stepId);
      if (this.#speakers.isNested(this.#steps.get(messageId) ?? "")) {
        this.#silent.add(messageId);
        return "";
      }
    }
    this.#messages.set(messageId, (this.#messages.get(messageId) ?? "") + text);
    return text;
  }

  #finish(finished: MessageFinished, stepId: string): string {
    const { messageId, role, parts } = finished;
    if (!this.#steps.has(messageId)) this.#steps.set(messageId, stepId);
    const step = this.#steps.get(messageId) ?? "";
    if (this.#silent.has(messageId) || !isAssistant(role) || this.#speakers.isNested(step)) return "";
    const whole = parts.map(({ content }) => (content.case === "text" ? content.value : "")).join("");
    const shown = this.#messages.get(messageId) ?? "";
    const beganHere = this.#begun.has(messageId) || shown === "";
    this.#messages.set(messageId, whole);
    // Of a message whose beginning was not read, nobody knows which part of the whole was shown.
    return beganHere && whole.startsWith(shown) ? whole.slice(shown.length) : "";
  }

  #drop(stepId: string): void {
    const dropped = new Set([stepId]);
    // Parents come before their children: one pass finds all that are below.
    for (const [child, parent] of this.#parents) if (dropped.has(parent)) dropped.add(child);
    for (const child of dropped) this.#parents.delete(child);
    for (const [messageId, step] of this.#steps) {
      if (!dropped.has(step)) continue;
      this.#messages.delete(messageId);
      this.#steps.delete(messageId);
      this.#silent.add(messageId);
    }
  }
}

/** A tool call with its result. */
export interface ToolCall {
  readonly id: string;
  readonly name: string;
  /** Arguments, decoded; absent if there were none, or if the start of the call was not read. */
  readonly arguments: unknown;
  readonly outcome: keyof typeof ToolCallOutcome;
  /** Result, decoded; absent if there is none. */
  readonly result: unknown;
  readonly error: RunError | undefined;
  readonly stepId: string;
}

/** Pairs the start and the end of each tool call. `add` returns a call when it has ended. */
export class ToolCallProjection {
  readonly #arguments = new Map<string, string>();

  add({ payload, stepId }: Event): ToolCall | undefined {
    if (payload.case === "toolCallStarted" && payload.value.call !== undefined) {
      this.#arguments.set(payload.value.call.toolCallId, payload.value.call.argumentsJson);
    }
    if (payload.case !== "toolCallFinished") return undefined;
    const { toolCallId, toolName, outcome, resultJson, error } = payload.value;
    const argumentsJson = this.#arguments.get(toolCallId);
    this.#arguments.delete(toolCallId);
    return {
      id: toolCallId,
      name: toolName,
      arguments: decode(argumentsJson),
      outcome: (ToolCallOutcome[outcome] ?? "UNSPECIFIED") as keyof typeof ToolCallOutcome,
      result: decode(resultJson),
      error,
      stepId,
    };
  }
}

function isAssistant(role: Role): boolean {
  return role === Role.ASSISTANT || role === Role.UNSPECIFIED; // as an unset one is taken to be
}

function decode(json: string | undefined): unknown {
  return json ? JSON.parse(json) : undefined;
}
