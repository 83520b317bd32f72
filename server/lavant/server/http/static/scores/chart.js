// Scores over time: a line per group, dots sized by their number of scores, and bars of all scores below.
//
// Everything that can be clicked can be reached by keyboard: arrow keys move along a line and between lines, Enter selects.

import { STATISTICS, written } from "./model.js";
import { h, replace, svg } from "../shared/elements.js";
import { clock, count, date, moment } from "../shared/format.js";

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const STEPS = [5 * MINUTE, 10 * MINUTE, 15 * MINUTE, 30 * MINUTE, HOUR, 2 * HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, DAY, 2 * DAY, 7 * DAY, 14 * DAY, 30 * DAY];
export function stretch(start, length) {
  if (length >= DAY) return length === DAY ? date(start) : `${date(start)} – ${date(start + length - DAY)}`;
  return `${moment(start)} – ${clock(start + length)}`;
}

// At most `most` round times between two, each with what it is called.
function timeMarks(start, end, most) {
  const step = STEPS.find((one) => (end - start) / one <= most) ?? STEPS.at(-1);
  const marks = [];
  for (let time = Math.ceil(start / step) * step; time <= end; time += step) {
    marks.push({ time, text: time % DAY ? clock(time) : date(time) });
  }
  return marks;
}

// The values that an axis spans: 0 to 1 if all lie there, else round ones around them.
export function valueMarks(values) {
  const [low, high] = [Math.min(0, ...values), Math.max(1, ...values)];
  const step = (low === 0 && high === 1) ? 0.25 : roundStep((high - low) / 4);
  const [first, last] = [Math.floor(low / step + 1e-9), Math.ceil(high / step - 1e-9)];
  const marks = [];
  for (let index = first; index <= last; index += 1) marks.push(Number((index * step).toPrecision(12)));
  return marks;
}

function roundStep(step) {
  const power = 10 ** Math.floor(Math.log10(step));
  return [1, 2, 2.5, 5, 10].find((one) => one * power >= step * (1 - 1e-9)) * power;
}

// Runs of a line's points that follow each other, and the gaps between them.
function segments(points, bucket) {
  const solid = [];
  const gaps = [];
  for (const [index, point] of points.entries()) {
    const previous = points[index - 1];
    if (previous && point.time - previous.time === bucket) solid.at(-1).push(point);
    else {
      if (previous) gaps.push([previous, point]);
      solid.push([point]);
    }
  }
  return { solid: solid.filter((part) => part.length > 1), gaps };
}

const LEFT = 46;
const RIGHT = 14;
const TOP = 10;
const PLOT = 230;
const LANE = 22; // For what has no value: classes, and buckets of failures alone.
const BARS = 46;
const FLOOR = TOP + PLOT + LANE + BARS;
const HEIGHT = FLOOR + 22;
const NEAR = 24; // How far from a dot a click still means it.
const FAILING = 0.2; // The part of a dot's scores whose failures make it stand out.
const SHAPES = [
  (r) => `M${-r},0a${r},${r} 0 1 0 ${2 * r},0a${r},${r} 0 1 0 ${-2 * r},0`,
  (r) => `M${-r},${-r}h${2 * r}v${2 * r}h${-2 * r}z`,
  (r) => `M0,${-1.3 * r}L${1.3 * r},0L0,${1.3 * r}L${-1.3 * r},0z`,
  (r) => `M0,${-1.2 * r}L${1.2 * r},${r}H${-1.2 * r}z`,
];

const mark = (index, size) => svg("path", { d: SHAPES[index % SHAPES.length](size), class: "mark", "data-line": index });

export class ScoreChart {
  // `onselect(time, line)` hears what was chosen; without a line, a whole bucket.
  constructor(onselect) {
    this.onselect = onselect;
    this.shown = undefined;
    this.items = new Map();
    this.drawing = svg("svg", { class: "chart", role: "group", "aria-label": "Scores by time", height: HEIGHT });
    this.readout = h("div", { class: "readout", hidden: true });
    this.element = h("div", { class: "plot" }, this.drawing, this.readout);
    this.drawing.addEventListener("click", (event) => this.#onClick(event));
    this.drawing.addEventListener("pointermove", (event) => this.#read(this.#timeAt(this.#placeOf(event).x)));
    this.drawing.addEventListener("pointerleave", () => this.#read(undefined));
    this.drawing.addEventListener("keydown", (event) => this.#onKey(event));
    this.drawing.addEventListener("focusout", () => this.#read(undefined));
    this.resizing = new ResizeObserver(() => this.shown && this.draw(this.shown));
    this.resizing.observe(this.element);
  }

  // Where the keyboard was, or would begin.
  focus() {
    this.drawing.querySelector('[tabindex="0"]')?.focus();
  }

  close() {
    this.resizing.disconnect();
  }

  draw(shown) {
    this.shown = shown;
    this.width = Math.max(240, this.element.clientWidth);
    const focused = this.drawing.contains(document.activeElement) ? document.activeElement.dataset.item : undefined;
    const values = shown.lines.flatMap((line) => line.points.map((point) => point.value)).filter((value) => value !== undefined);
    this.marks = valueMarks(values);
    this.items.clear();
    this.drawing.setAttribute("width", this.width);
    const busiest = Math.max(1, ...shown.lines.flatMap((line) => line.points.map((point) => point.count)));
    this.cursor = svg("line", { class: "cursor", y1: TOP, y2: FLOOR, visibility: "hidden" });
    replace(
      this.drawing,
      this.#grid(),
      this.#bars(),
      this.cursor,
      shown.lines.map((line) => this.#line(line)),
      shown.lines.map((line) => this.#dots(line, busiest)),
    );
    const first = this.items.get(focused) ?? [...this.items.values()].find((item) => item.isSelected) ?? [...this.items.values()].at(-1);
    first?.element.setAttribute("tabindex", 0);
    if (focused) first?.element.focus();
  }

  #x(time) {
    const { start, end } = this.shown.window;
    return LEFT + ((time - start) / (end - start)) * (this.width - LEFT - RIGHT);
  }

  #middle(time) {
    return this.#x(time + this.shown.window.bucket / 2);
  }

  #y(value) {
    const [low, high] = [this.marks[0], this.marks.at(-1)];
    return TOP + (1 - (value - low) / (high - low)) * PLOT;
  }

  #grid() {
    const { window, statistic } = this.shown;
    const rows = this.marks.map((value) => [
      svg("line", { class: "grid", x1: LEFT, x2: this.width - RIGHT, y1: this.#y(value), y2: this.#y(value) }),
      svg("text", { class: "tick", x: LEFT - 8, y: this.#y(value) + 4, "text-anchor": "end" }, written(value, statistic)),
    ]);
    const columns = timeMarks(window.start, window.end, Math.floor(this.width / 80)).map(({ time, text }) => [
      svg("line", { class: "grid", x1: this.#x(time), x2: this.#x(time), y1: FLOOR, y2: FLOOR + 5 }),
      svg("text", { class: "tick", x: this.#x(time), y: FLOOR + 18, "text-anchor": this.#anchor(this.#x(time)) }, text),
    ]);
    return [...rows, ...columns].flat();
  }

  #anchor(x) {
    return x < LEFT + 16 ? "start" : x > this.width - RIGHT - 16 ? "end" : "middle";
  }

  #bars() {
    const { bars, window, selected } = this.shown;
    const most = Math.max(1, ...bars.map((bar) => bar.count));
    const width = Math.max(2, (this.#x(window.start + window.bucket) - LEFT) * 0.7);
    const tall = (scores) => (scores ? Math.max(2, (scores / most) * BARS) : 0);
    const drawn = bars.map((bar) => {
      const x = this.#middle(bar.time) - width / 2;
      const isSelected = selected?.time === bar.time;
      const element = svg(
        "g",
        { class: "counted", ...asButton(`${stretch(bar.time, window.bucket)}: ${toldCount(bar)}`, isSelected && !selected.key) },
        svg("rect", { class: "count", x, y: FLOOR - tall(bar.count), width, height: tall(bar.count) }),
        svg("rect", { class: "errors", x, y: FLOOR - tall(bar.errors), width, height: tall(bar.errors) }),
      );
      return this.#register(element, "", bar.time, isSelected && !selected.key, undefined);
    });
    const above = svg("text", { class: "tick", x: LEFT - 8, y: FLOOR - BARS + 10, "text-anchor": "end" }, count(most));
    return [svg("line", { class: "grid", x1: LEFT, x2: this.width - RIGHT, y1: FLOOR, y2: FLOOR }), above, ...drawn];
  }

  #line(line) {
    const points = line.points.filter((point) => point.value !== undefined);
    const { solid, gaps } = segments(points, this.shown.window.bucket);
    const path = (part) => part.map((point, index) => `${index ? "L" : "M"}${this.#middle(point.time)},${this.#y(point.value)}`).join("");
    return [
      svg("path", { class: "line", "data-line": line.index, d: solid.map(path).join("") }),
      svg("path", { class: "line gap", "data-line": line.index, d: gaps.map(path).join("") }),
    ];
  }

  #dots(line, busiest) {
    const { window, statistic, selected } = this.shown;
    const seen = line.points.filter((point) => point.value !== undefined || point.errors || point.classes.length);
    return seen.map((point) => {
      const isSelected = selected?.time === point.time && selected.key === line.key;
      const size = 2.5 + 3.5 * Math.sqrt(point.count / busiest);
      const y = point.value === undefined ? TOP + PLOT + LANE / 2 : this.#y(point.value);
      const isLost = point.value === undefined && !point.classes.length;
      const value = point.value === undefined ? "" : `${STATISTICS[statistic].name} ${written(point.value, statistic)}, `;
      const element = svg(
        "g",
        {
          class: "dot",
          "data-errors": point.errors > 0,
          "data-failing": point.errors >= FAILING * point.count,
          transform: `translate(${this.#middle(point.time)},${y})`,
          ...asButton(`${line.title}, ${stretch(point.time, window.bucket)}: ${value}${toldCount(point)}`, isSelected),
        },
        isLost ? svg("path", { class: "lost", d: "M-4,-4L4,4M-4,4L4,-4" }) : mark(line.index, size),
        isSelected ? svg("circle", { class: "ring", r: size + 4 }) : null,
      );
      return this.#register(element, line.key, point.time, isSelected, line, y);
    });
  }

  #register(element, key, time, isSelected, line, y = HEIGHT) {
    const id = `${key}@${time}`;
    element.dataset.item = id;
    this.items.set(id, { element, key, time, isSelected, line, y });
    return element;
  }

  #timeAt(x) {
    const { start, end, bucket } = this.shown.window;
    const time = start + ((x - LEFT) / (this.width - LEFT - RIGHT)) * (end - start);
    return time < start || time >= end ? undefined : start + Math.floor((time - start) / bucket) * bucket;
  }

  #placeOf({ clientX, clientY }) {
    const { left, top } = this.drawing.getBoundingClientRect();
    return { x: clientX - left, y: clientY - top };
  }

  #onClick(event) {
    const { x, y } = this.#placeOf(event);
    const time = this.#timeAt(x);
    const column = [...this.items.values()].filter((item) => item.time === time);
    if (!column.length) return;
    const away = (item) => Math.abs(item.y - y);
    const nearest = column.filter((item) => item.line && away(item) <= NEAR).sort((a, b) => away(a) - away(b))[0];
    this.onselect(time, nearest?.line);
  }

  #onKey(event) {
    const item = this.items.get(event.target.dataset.item);
    if (!item) return;
    if (event.key === "Enter" || event.key === " ") this.onselect(item.time, item.line);
    else if (!this.#move(item, event.key)) return;
    event.preventDefault();
  }

  #move(item, key) {
    const rows = [...this.shown.lines.map((line) => line.key), ""];
    const inRow = (row) => [...this.items.values()].filter((one) => one.key === row);
    const row = inRow(item.key);
    const at = row.indexOf(item);
    const near = (others) => others.sort((a, b) => Math.abs(a.time - item.time) - Math.abs(b.time - item.time))[0];
    const beside = (step) => near(inRow(rows[rows.indexOf(item.key) + step]));
    const next = { ArrowLeft: () => row[at - 1], ArrowRight: () => row[at + 1], Home: () => row[0], End: () => row.at(-1), ArrowUp: () => beside(-1), ArrowDown: () => beside(1) }[key]?.();
    if (!next) return Boolean(key.startsWith("Arrow"));
    item.element.setAttribute("tabindex", -1);
    next.element.setAttribute("tabindex", 0);
    next.element.focus();
    this.#read(next.time);
    return true;
  }

  // What a bucket holds, beside it.
  #read(time) {
    const { lines, bars, window, statistic } = this.shown ?? {};
    const bar = bars?.find((one) => one.time === time);
    this.cursor?.setAttribute("visibility", bar ? "visible" : "hidden");
    this.readout.hidden = !bar;
    if (!bar) return;
    const x = this.#middle(time);
    this.cursor.setAttribute("x1", x);
    this.cursor.setAttribute("x2", x);
    const told = lines.flatMap((line) => line.points.filter((point) => point.time === time).map((point) => [line, point]));
    replace(
      this.readout,
      h("b", {}, stretch(time, window.bucket)),
      told.map(([line, point]) =>
        h("div", {}, swatch(line.index), h("span", {}, line.title), h("b", {}, classesOf(point) || written(point.value, statistic)), h("span", { class: "note" }, toldCount(point))),
      ),
    );
    this.readout.style.setProperty("--x", `${x}px`);
    this.readout.toggleAttribute("data-left", x > this.width / 2);
  }
}

export const swatch = (index) => svg("svg", { class: "swatch", width: 14, height: 14, viewBox: "-7 -7 14 14", "aria-hidden": "true" }, mark(index, 4.5));
const toldCount = ({ count: scores, errors }) => `${count(scores)} ${scores === 1 ? "score" : "scores"}${errors ? `, ${count(errors)} failed` : ""}`;
export const classesOf = ({ classes }) => classes.slice(0, 4).map(([name, times]) => `${name} ${count(times)}`).join(", ");

const asButton = (name, isPressed) => ({ role: "button", tabindex: -1, "aria-label": name, "aria-pressed": String(Boolean(isPressed)) });
