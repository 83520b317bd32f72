// Small pieces that several pages show alike.

import { h, replace } from "./dom.js";
import { pretty } from "./format.js";

export const notes = (...texts) => texts.filter(Boolean).map((text) => h("span", { class: "note" }, text));

export function field(name, text) {
  return text ? h("div", { class: "field" }, h("h4", {}, name), h("pre", { tabindex: 0 }, text)) : null;
}

export function fault(error) {
  if (!error) return null;
  return h("div", { class: "fault" }, error.type ? h("code", {}, error.type) : null, h("pre", {}, error.message ?? ""), field("Details", pretty(error.details_json)));
}

export const badge = (state) => h("span", { class: "badge", "data-state": state }, state);

export function labels(of) {
  const pairs = Object.entries(of ?? {}).sort();
  return h("span", { class: "labels" }, pairs.map(([name, value]) => h("span", { class: "label" }, `${name}=${value}`)));
}

// A figure with what it means above it.
export const figure = (name, value) => h("div", { class: "figure" }, h("dt", {}, name), h("dd", {}, value || "–"));

// Columns whose names begin with # hold numbers.
export const header = (...names) =>
  h("thead", {}, h("tr", {}, names.map((name) => h("th", { scope: "col", class: name.startsWith("#") && "number" }, name.replace("#", "")))));

// Draws anew, and gives the focus back to the button that had it: the one of the same data-key.
export function redraw(element, ...children) {
  const focused = element.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  replace(element, ...children);
  if (focused) [...element.querySelectorAll("[data-key]")].find((one) => one.dataset.key === focused)?.focus();
}
