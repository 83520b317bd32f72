// A run, made of its events. Pure: knows nothing of the page.
//
// Entries are what a transcript shows, in the order in which they began: messages, tool calls, errors,
// questions, artifacts. Steps and tool calls are a tree, over time. `apply` returns the entry or step that an event
// changed. A tool call that is all that a step is for, of its name, is that step's `call`; any other is a leaf of its own.

import { hasEnded, milliseconds, seconds, stateName } from "../shared/format.js";

export const EVENTS = [
  "run_started", "run_state_changed", "run_finished", "step_started", "step_finished",
  "message_started", "text_delta", "reasoning_delta", "tool_arguments_delta", "message_finished",
  "tool_call_started", "tool_output_delta", "tool_call_finished", "progress_reported", "error_reported",
  "state_snapshot", "state_delta", "artifact_updated", "input_requested", "input_resolved", "custom",
  "row_finished", "score_recorded", "alert_changed", "audit_recorded",
];

export class RunModel {
  constructor() {
    this.run = undefined;
    this.events = 0;
    this.entries = [];
    this.steps = [];
    this.leaves = []; // tool calls without a step of their own
    this.progress = undefined;
    this.result = undefined;
    this.started = undefined;
    this.began = undefined;
    this.last = undefined;
    this.said = { input: 0, output: 0, cost: undefined };
    this.byStep = new Map();
    this.orphans = new Map(); // steps by the parent that they name, which has not started
    this.moved = []; // steps and calls that were moved in the tree since it was drawn
    this.byMessage = new Map();
    this.byCall = new Map();
    this.byInput = new Map();
    this.byArtifact = new Map();
  }

  get state() {
    return this.result ? stateName(this.result.state) : stateName(this.run?.state);
  }

  get ended() {
    return hasEnded(this.result?.state ?? this.run?.state);
  }

  // Tokens and cost of the run; before its end, of its steps and messages so far.
  get usage() {
    const usage = this.result?.usage ?? this.run?.result?.usage;
    if (usage) return usage;
    return { input_tokens: this.said.input, output_tokens: this.said.output, cost_usd: this.said.cost };
  }

  open(run) {
    this.run = run;
    this.began ??= milliseconds(run?.create_time);
  }

  apply(name, event) {
    this.events = Number(event.sequence ?? this.events);
    this.last = milliseconds(event.event_time) ?? this.last;
    return this[name]?.(event[name] ?? {}, event);
  }

  run_started(started, event) {
    this.started = started;
    this.began = milliseconds(event.event_time) ?? this.began;
  }

  run_state_changed(changed) {
    if (this.run) this.run.state = changed.state;
  }

  run_finished(finished) {
    this.result = finished;
    if (finished.error) return this.#add({ kind: "error", error: finished.error, ends: true });
    return undefined;
  }

  step_started(started, event) {
    const before = this.byStep.get(started.step_id);
    const parent = this.byStep.get(started.parent_step_id);
    const step = before ?? { kind: "step", id: started.step_id, children: [], depth: parent ? parent.depth + 1 : 0 };
    if (before) this.#supersede(before);
    Object.assign(step, {
      name: started.name, stepKind: started.kind, input: started.input_json, attempt: started.attempt ?? 1, parent,
      began: milliseconds(event.event_time), ended: undefined, state: "running",
      output: undefined, error: undefined, usage: undefined, call: undefined,
    });
    if (!before) {
      this.byStep.set(step.id, step);
      this.steps.push(step);
      parent?.children.push(step);
      if (!parent && started.parent_step_id) listIn(this.orphans, started.parent_step_id).push(step);
      this.#adopt(step);
    }
    return step;
  }

  step_finished(finished, event) {
    const step = this.byStep.get(finished.step_id);
    if (!step) return undefined;
    const took = seconds(finished.duration);
    const ended = took === undefined ? milliseconds(event.event_time) : step.began + took * 1000;
    Object.assign(step, {
      state: stateName(finished.state), ended, output: finished.output_json, error: finished.error,
      usage: finished.usage,
    });
    this.#count(finished.usage);
    return step;
  }

  message_started(started, event) {
    return this.#message(started.message_id, event, started);
  }

  text_delta(delta, event) {
    const message = this.#message(delta.message_id, event);
    message.text += delta.text ?? "";
    return message;
  }

  reasoning_delta(delta, event) {
    const message = this.#message(delta.message_id, event);
    message.reasoning += delta.text ?? "";
    return message;
  }

  message_finished(finished, event) {
    const message = this.#message(finished.message_id, event, finished);
    const parts = finished.parts ?? [];
    message.text = parts.map((part) => part.text ?? "").join("");
    message.reasoning = parts.map((part) => part.reasoning ?? "").join("");
    message.done = true;
    message.usage = finished.usage;
    if (!this.byStep.has(event.step_id)) this.#count(finished.usage);
    return message;
  }

  tool_call_started(started, event) {
    const call = started.call ?? {};
    const entry = this.#call(call.tool_call_id, event);
    Object.assign(entry, { name: call.tool_name, arguments: call.arguments_json, began: milliseconds(event.event_time) });
    this.#place(entry, event);
    return entry;
  }

  tool_output_delta(delta, event) {
    const entry = this.#call(delta.tool_call_id, event);
    entry.output += delta.text ?? "";
    return entry;
  }

  tool_call_finished(finished, event) {
    const entry = this.#call(finished.tool_call_id, event);
    Object.assign(entry, {
      name: finished.tool_name || entry.name, result: finished.result_json, error: finished.error,
      outcome: (finished.outcome ?? "").replace("TOOL_CALL_OUTCOME_", "").toLowerCase().replaceAll("_", " "),
      took: seconds(finished.duration), done: true,
    });
    this.#place(entry, event);
    entry.state = entry.outcome || "done";
    entry.ended = entry.took === undefined ? milliseconds(event.event_time) : entry.began + entry.took * 1000;
    return entry;
  }

  progress_reported(progress) {
    this.progress = progress;
  }

  error_reported(reported, event) {
    return this.#add({ kind: "error", error: reported.error ?? {}, stepId: event.step_id });
  }

  artifact_updated(updated) {
    const known = this.byArtifact.get(updated.artifact_id);
    const entry = known ?? this.#add({ kind: "artifact" });
    Object.assign(entry, { name: updated.name || entry.name, type: updated.media_type, uri: updated.uri });
    this.byArtifact.set(updated.artifact_id, entry);
    return entry;
  }

  input_requested(requested) {
    const entry = this.#add({ kind: "input", prompt: requested.prompt, answer: undefined });
    this.byInput.set(requested.input_id, entry);
    return entry;
  }

  input_resolved(resolved) {
    const entry = this.byInput.get(resolved.input_id);
    if (entry) entry.answer = resolved.answer_json ?? "";
    return entry;
  }

  #message(id, event, header = undefined) {
    let message = this.byMessage.get(id);
    if (!message) {
      message = this.#add({ kind: "message", text: "", reasoning: "", role: "assistant", stepId: event.step_id });
      this.byMessage.set(id, message);
    }
    if (header?.role) message.role = header.role.replace("ROLE_", "").toLowerCase();
    if (header?.model) message.model = header.model;
    return message;
  }

  #call(id, event) {
    let call = this.byCall.get(id);
    if (!call) {
      call = this.#add({ kind: "call", name: "tool", output: "", stepId: event.step_id, state: "running" });
      this.byCall.set(id, call);
    }
    return call;
  }

  // Puts a tool call into the tree, once its name is known.
  #place(call, event) {
    if (call.parent || call.depth !== undefined) return;
    call.began ??= milliseconds(event.event_time);
    call.parent = this.byStep.get(call.stepId);
    call.depth = call.parent ? call.parent.depth + 1 : 0;
    const step = call.parent;
    if (step?.stepKind === "STEP_KIND_TOOL" && step.name === call.name && !step.call) step.call = call;
    else this.leaves.push(call);
  }

  // Steps that have started before their parent move below it, with all that is below them.
  #adopt(parent) {
    const moved = new Set();
    for (const child of this.orphans.get(parent.id) ?? []) {
      if (isWithin(parent, child)) continue; // a cycle
      child.parent = parent;
      parent.children.push(child);
      const waiting = [child];
      while (waiting.length) {
        const one = waiting.pop();
        one.depth = one.parent.depth + 1;
        moved.add(one);
        waiting.push(...one.children.toReversed());
      }
    }
    this.orphans.delete(parent.id);
    if (moved.size === 0) return;
    const calls = this.leaves.filter((call) => moved.has(call.parent));
    for (const call of calls) call.depth = call.parent.depth + 1;
    this.moved.push(...moved, ...calls);
  }

  #add(entry) {
    entry.index = this.entries.push(entry) - 1;
    return entry;
  }

  #count(usage) {
    if (!usage) return;
    this.said.input += Number(usage.input_tokens ?? 0);
    this.said.output += Number(usage.output_tokens ?? 0);
    if (usage.cost_usd !== undefined) this.said.cost = (this.said.cost ?? 0) + usage.cost_usd;
  }

  // A step is tried again: what its last attempt said and did, in the steps below it too, no longer counts.
  #supersede(step) {
    const within = new Set();
    const below = [step];
    while (below.length) {
      const one = below.pop();
      within.add(one.id);
      below.push(...one.children);
    }
    for (const entry of this.entries) if (within.has(entry.stepId)) entry.superseded = true;
    for (const [id, message] of this.byMessage) if (message.superseded) this.byMessage.delete(id);
    for (const [id, call] of this.byCall) if (call.superseded) this.byCall.delete(id);
    for (const id of within) if (id !== step.id) this.byStep.get(id).superseded = true;
    step.children = [];
  }
}

function listIn(lists, key) {
  if (!lists.has(key)) lists.set(key, []);
  return lists.get(key);
}

function isWithin(step, other) {
  for (let one = step; one; one = one.parent) if (one === other) return true;
  return false;
}
