// A run's steps and tool calls as a tree with bars over time. Arrow keys move, Enter shows one.

import { fault, field, h, notes, replace } from "../shared/elements.js";
import { cost, count, pretty, shortName, span, tokens } from "../shared/format.js";

const SHOWN = 500;

export class Timeline {
  constructor(model) {
    this.model = model;
    this.limit = SHOWN;
    this.rows = new Map();
    this.changed = new Set();
    this.selected = undefined;
    this.list = h("div", { class: "steps", role: "tree", "aria-label": "Steps and tool calls", onkeydown: (event) => this.#onKey(event) });
    this.more = h("button", { class: "more", type: "button", hidden: true, onclick: () => this.#showMore() });
    this.details = h("div", { class: "details", "aria-live": "polite" });
    this.element = h("section", { class: "timeline", "aria-label": "Timeline" }, h("h2", {}, "Timeline"), this.list, this.more, this.details);
  }

  // A step or a tool call has changed. One that is all of a step is shown by the step's row.
  touch(one) {
    this.changed.add(one.parent?.call === one ? one.parent : one);
  }

  // A step or a tool call has another place in the tree.
  move(one) {
    this.rows.get(one)?.element.remove();
    this.rows.delete(one);
    this.touch(one);
  }

  draw() {
    const { began, last, ended } = this.model;
    const now = ended ? last : Math.max(Date.now(), last ?? 0);
    if (began !== undefined) this.list.style.setProperty("--whole", String(Math.max(1, (now ?? began) - began)));
    for (const step of this.changed) this.#update(step);
    this.changed.clear();
    const all = this.model.steps.length + this.model.leaves.length;
    const hidden = all - this.rows.size;
    this.more.hidden = hidden <= 0;
    this.more.textContent = `Show more of ${count(hidden)} steps and tool calls`;
    this.element.classList.toggle("empty", all === 0);
  }

  #update(step) {
    let row = this.rows.get(step);
    if (!row) {
      if (this.rows.size >= this.limit) return;
      row = this.#add(step);
    }
    row.update(step, this.model.began);
    if (step === this.selected) this.#show(step);
  }

  #add(step) {
    const row = new Row(() => this.#select(step));
    this.rows.set(step, row);
    // Below its parent and whatever is below that already.
    let after = step.parent && this.rows.get(step.parent);
    if (!after) {
      this.list.append(row.element);
    } else {
      let next = after.element.nextElementSibling;
      while (next && Number(next.getAttribute("aria-level")) > step.depth) next = next.nextElementSibling;
      this.list.insertBefore(row.element, next);
    }
    if (this.rows.size === 1) row.element.tabIndex = 0;
    return row;
  }

  #showMore() {
    this.limit += SHOWN;
    const all = [...this.model.steps, ...this.model.leaves].sort((one, other) => one.began - other.began);
    for (const step of all) if (!this.rows.has(step)) this.#update(step);
    this.draw();
  }

  #select(step) {
    this.rows.get(this.selected)?.element.removeAttribute("aria-selected");
    this.selected = step === this.selected ? undefined : step;
    if (!this.selected) return replace(this.details);
    this.rows.get(step).element.setAttribute("aria-selected", "true");
    return this.#show(step);
  }

  #show(step) {
    const used = step.usage ? `${count(tokens(step.usage))} tokens` : "";
    replace(
      this.details,
      h("h3", {}, step.name || step.id),
      h("p", {}, notes(kindOf(step), step.state, span(tookOf(step)), used, cost(step.usage))),
      fault(step.error ?? step.call?.error),
      field("Input", pretty(step.input)),
      ...callFields(step.kind === "call" ? step : step.call),
      field("Output", pretty(step.kind === "call" ? undefined : step.output)),
    );
  }

  #onKey(event) {
    const row = event.target.closest(".step");
    if (!row) return;
    const move = { ArrowDown: row.nextElementSibling, ArrowUp: row.previousElementSibling, Home: this.list.firstElementChild, End: this.list.lastElementChild };
    if (event.key === "Enter" || event.key === " ") row.click();
    else if (move[event.key]) focusOn(move[event.key], row);
    else return;
    event.preventDefault();
  }
}

class Row {
  constructor(onclick) {
    this.name = h("span", { class: "name" });
    this.bar = h("span", { class: "bar" });
    this.took = h("span", { class: "took" });
    this.element = h("div", { class: "step", role: "treeitem", tabindex: -1, onclick }, this.name, h("span", { class: "track" }, this.bar), this.took);
  }

  update(step, began) {
    this.element.setAttribute("aria-level", step.depth + 1);
    this.element.dataset.state = step.state;
    this.element.classList.toggle("superseded", Boolean(step.superseded));
    this.name.style.setProperty("--depth", String(Math.min(step.depth, 12)));
    const again = step.attempt > 1 ? h("span", { class: "note" }, `attempt ${step.attempt}`) : null;
    replace(this.name, h("i", { class: "kind" }, kindOf(step)), step.name || step.id, again);
    this.bar.style.setProperty("--from", String(Math.max(0, step.began - began)));
    if (step.ended === undefined) this.bar.style.removeProperty("--length");
    else this.bar.style.setProperty("--length", String(Math.max(0, step.ended - step.began)));
    this.took.textContent = step.ended === undefined ? step.state : span(tookOf(step));
    this.element.setAttribute("aria-label", `${kindOf(step)} ${step.name}, ${step.state}, ${span(tookOf(step))}`);
  }
}

const kindOf = (step) => (step.kind === "call" ? "tool call" : shortName(step.stepKind, "STEP_KIND_") || "step");
const callFields = (call) =>
  call ? [field("Arguments", pretty(call.arguments)), field("Output so far", call.done ? "" : call.output), field("Result", pretty(call.result))] : [];
const tookOf = (step) => (step.ended === undefined ? undefined : (step.ended - step.began) / 1000);

function focusOn(row, last) {
  last.tabIndex = -1;
  row.tabIndex = 0;
  row.focus();
}
