// Elements made of data, and small ones that several pages show alike. Text only ever becomes text nodes: no data is read as HTML.

import { count, pretty } from "./format.js";

export const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);

// The same for what is drawn.
export const svg = (tag, attributes, ...children) => fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

function fill(element, attributes = {}, children = []) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

export function replace(element, ...children) {
  element.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
}

// Calls `draw` once per frame of the screen, however often it is asked to.
export function perFrame(draw) {
  let asked = 0;
  return () => {
    asked ||= requestAnimationFrame(() => {
      asked = 0;
      draw();
    });
  };
}

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

// Renders again, and returns the focus to the button that had it: the one of the same data-key.
export function redraw(element, ...children) {
  const focused = element.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  replace(element, ...children);
  if (focused) [...element.querySelectorAll("[data-key]")].find((one) => one.dataset.key === focused)?.focus();
}

export function progressBar({ label, completed, total }) {
  const known = total !== undefined && Number(total) > 0;
  const text = known ? `${count(completed)} of ${count(total)}` : completed === undefined ? "" : count(completed);
  return h(
    "div",
    { class: "progress" },
    h("progress", known ? { max: Number(total), value: Math.min(Number(completed ?? 0), Number(total)) } : {}),
    notes(text, label),
  );
}
