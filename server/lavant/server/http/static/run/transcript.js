// What a run said and did, in order. Draws what changed, once per frame of the screen.

import { fault, field, h, notes, replace } from "../shared/elements.js";
import { cost, count, pretty, span, tokens } from "../shared/format.js";

const SHOWN = 500;

export class Transcript {
  constructor(model) {
    this.model = model;
    this.first = 0;
    this.nodes = new Map();
    this.changed = new Set();
    this.earlier = h("button", { class: "earlier", type: "button", hidden: true, onclick: () => this.showEarlier() });
    this.list = h("div", { class: "entries" });
    this.element = h("section", { class: "transcript", "aria-label": "Transcript" }, this.earlier, this.list);
  }

  touch(entry) {
    this.changed.add(entry);
  }

  draw() {
    if (!this.changed.size) return;
    const follows = window.innerHeight + window.scrollY >= document.body.scrollHeight - 80;
    const { entries, ended } = this.model;
    const wanted = Math.max(this.first, entries.length - SHOWN);
    // Earlier entries go away while a run is at work, so that a page that is left open stays small.
    if (!this.expanded && wanted > this.first) this.#drop(wanted);
    for (const entry of [...this.changed].sort((a, b) => a.index - b.index)) {
      if (entry.index >= this.first) this.#update(entry);
    }
    this.changed.clear();
    this.earlier.hidden = this.first === 0;
    this.earlier.textContent = `Show ${count(Math.min(SHOWN, this.first))} earlier of ${count(this.first)}`;
    if (follows && !ended) window.scrollTo({ top: document.body.scrollHeight });
  }

  showEarlier() {
    this.expanded = true;
    const before = this.list.scrollHeight;
    const from = Math.max(0, this.first - SHOWN);
    const made = this.model.entries.slice(from, this.first).map((entry) => this.#make(entry).element);
    this.list.prepend(...made);
    this.first = from;
    this.earlier.hidden = from === 0;
    this.earlier.textContent = `Show ${count(Math.min(SHOWN, from))} earlier of ${count(from)}`;
    window.scrollBy(0, this.list.scrollHeight - before);
  }

  #drop(until) {
    for (const entry of this.model.entries.slice(this.first, until)) {
      this.nodes.get(entry)?.element.remove();
      this.nodes.delete(entry);
    }
    this.first = until;
  }

  #update(entry) {
    let node = this.nodes.get(entry);
    if (!node) {
      node = this.#make(entry);
      this.list.append(node.element);
    } else {
      node.update(entry);
    }
    node.element.classList.toggle("superseded", Boolean(entry.superseded));
  }

  #make(entry) {
    const node = new NODES[entry.kind]();
    this.nodes.set(entry, node);
    node.update(entry);
    return node;
  }
}

class MessageNode {
  constructor() {
    this.head = h("header");
    this.text = document.createTextNode("");
    this.reasoning = document.createTextNode("");
    this.thoughts = h("details", { hidden: true }, h("summary", {}, "Reasoning"), h("pre", {}, this.reasoning));
    this.element = h("article", { class: "message" }, this.head, this.thoughts, h("div", { class: "text" }, this.text));
  }

  update(message) {
    this.element.dataset.role = message.role;
    this.element.toggleAttribute("data-open", !message.done);
    const used = message.usage ? `${count(tokens(message.usage))} tokens` : "";
    replace(this.head, h("b", {}, message.role), notes(message.model, used, cost(message.usage)));
    extend(this.text, message.text);
    extend(this.reasoning, message.reasoning);
    this.thoughts.hidden = !message.reasoning;
  }
}

class CallNode {
  constructor() {
    this.head = h("summary");
    this.body = h("div", { class: "body" });
    this.element = h("details", { class: "call" }, this.head, this.body);
    this.element.addEventListener("toggle", () => this.#fill());
  }

  update(call) {
    this.call = call;
    const outcome = call.done ? call.outcome || "done" : "running";
    this.element.dataset.state = outcome;
    replace(this.head, h("b", {}, call.name), notes(outcome, span(call.took)), errorLine(call.error));
    this.#fill();
  }

  #fill() {
    if (!this.element.open || !this.call) return;
    const { arguments: given, output, result, error } = this.call;
    replace(this.body, field("Arguments", pretty(given)), field("Output", output), field("Result", pretty(result)), fault(error));
  }
}

class ErrorNode {
  constructor() {
    this.element = h("article", { class: "error", role: "alert" });
  }

  update(entry) {
    replace(this.element, h("b", {}, entry.ends ? "The run failed" : "Error"), fault(entry.error));
  }
}

class InputNode {
  constructor() {
    this.element = h("article", { class: "input" });
  }

  update(entry) {
    const answer = entry.answer === undefined ? h("em", {}, "waiting for an answer") : field("Answer", pretty(entry.answer));
    replace(this.element, h("b", {}, "Input requested"), h("div", { class: "text" }, entry.prompt ?? ""), answer);
  }
}

class ArtifactNode {
  constructor() {
    this.element = h("article", { class: "artifact" });
  }

  update(entry) {
    replace(this.element, h("b", {}, entry.name || "artifact"), notes(entry.type, entry.uri));
  }
}

const NODES = { message: MessageNode, call: CallNode, error: ErrorNode, input: InputNode, artifact: ArtifactNode };

const errorLine = (error) => (error ? h("span", { class: "fault" }, error.message || error.type || "failed") : null);

// Appends what is new, so that a long text is not laid out again for each word.
function extend(node, text) {
  if (text.length > node.length && text.startsWith(node.data)) node.appendData(text.slice(node.length));
  else if (text !== node.data) node.data = text;
}
