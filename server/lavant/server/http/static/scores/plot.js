// The chart with all that explains it: the time it shows, a legend that adds up each line, the same as a table.

import { classesOf, ScoreChart, stretch, swatch } from "./chart.js";
import { STATISTICS, written } from "./model.js";
import { h, header, redraw, replace } from "../shared/elements.js";
import { count, moment } from "../shared/format.js";

const VISIBLE = 8; // As many lines as can be distinguished.

export class ScorePlot {
  // `on.choose(time, line)`, `on.change(changes)` to what is shown, `on.again()` after a failure; `display` stands above.
  constructor(display, on) {
    this.on = on;
    this.colours = new Map();
    this.picked = new Map();
    this.chart = new ScoreChart(on.choose);
    this.time = h("div", { class: "time" });
    this.status = h("div", { class: "plot-status", role: "status" });
    this.legend = h("div", { class: "scroll legend", role: "group", "aria-label": "Lines" });
    this.rows = h("details", { class: "numbers" }, h("summary", {}, "As a table"), h("div", { class: "scroll" }));
    this.rows.addEventListener("toggle", () => this.#drawRows());
    this.drawn = h("div", { class: "drawn" }, this.chart.element, this.legend, this.rows);
    this.element = h("section", { class: "card", "aria-label": "Scores by time" }, display, this.status, this.drawn);
    this.drawn.hidden = true;
  }

  close() {
    this.chart.close();
  }

  // What was shown stays, paler, until there is something new.
  wait() {
    this.element.setAttribute("aria-busy", "true");
    if (this.drawn.hidden) replace(this.status, "Loading …");
  }

  fail(error) {
    this.element.removeAttribute("aria-busy");
    this.drawn.hidden = true;
    replace(this.status, h("p", { class: "fault" }, error.message, " ", h("button", { type: "button", onclick: () => this.on.again() }, "Try again")));
  }

  draw(shown) {
    this.shown = shown;
    const { lines, bars, window, view } = shown;
    this.element.removeAttribute("aria-busy");
    this.drawn.hidden = !bars.length;
    for (const line of lines) line.index = this.#colourOf(line.key);
    const isVisible = (line, place) => this.picked.get(line.key) ?? place < VISIBLE;
    this.visible = lines.filter(isVisible);
    this.#drawTime(window, view);
    replace(this.status, this.#said(lines, bars, view));
    if (!bars.length) return;
    const selected = view.at === undefined ? undefined : { time: view.at, key: view.of ? JSON.stringify(view.of) : "" };
    this.chart.draw({ lines: this.visible, bars, window, statistic: view.statistic, selected });
    redraw(this.legend, this.#legend(lines, view.statistic));
    this.#drawRows();
  }

  #colourOf(key) {
    if (!this.colours.has(key)) this.colours.set(key, this.colours.size % VISIBLE);
    return this.colours.get(key);
  }

  #drawTime({ start, end, length }, view) {
    const later = end + length < Date.now() ? end + length : undefined;
    redraw(
      this.time,
      h("button", { type: "button", "data-key": "earlier", onclick: () => this.on.change({ until: start }) }, "‹ Earlier"),
      h("span", {}, `${moment(start)} – ${moment(end)} UTC`),
      h("button", { type: "button", "data-key": "later", disabled: view.until === undefined, onclick: () => this.on.change({ until: later }) }, "Later ›"),
      view.until === undefined ? null : h("button", { type: "button", "data-key": "now", onclick: () => this.on.change({ until: undefined }) }, "Now"),
    );
  }

  #said(lines, bars, { statistic }) {
    if (!bars.length) return h("p", { class: "nothing" }, "No scores here. They come from rules, as workers judge the runs that finish, and from feedback.");
    if (lines.some((line) => line.value !== undefined)) return "";
    const why = statistic === "pass_rate" ? "is a verdict" : "is a number or a verdict";
    return h("p", { class: "nothing" }, `None of these scores ${why}: there is no line to draw.`);
  }

  #legend(lines, statistic) {
    const rows = lines.map((line, place) => {
      const isVisible = this.picked.get(line.key) ?? place < VISIBLE;
      const pick = (event) => {
        this.picked.set(line.key, event.target.checked);
        this.draw(this.shown);
      };
      return h(
        "tr",
        {},
        h("th", { scope: "row" }, h("label", {}, h("input", { type: "checkbox", checked: isVisible, "data-key": line.key, onchange: pick }), swatch(line.index), h("span", {}, line.title)), line.classes.length ? h("div", { class: "note" }, classesOf(line)) : null),
        h("td", { class: "number" }, written(line.value, statistic)),
        h("td", { class: "number" }, count(line.count)),
        h("td", { class: "number", "data-verdict": line.errors ? "worse" : undefined }, count(line.errors)),
      );
    });
    return h("table", {}, header("Line", `#${STATISTICS[statistic].name}`, "#Scores", "#Failed"), h("tbody", {}, rows));
  }

  #drawRows() {
    if (!this.rows.open || !this.shown) return;
    const { window, view } = this.shown;
    const rows = this.visible
      .flatMap((line) => line.points.map((point) => ({ line, point })))
      .sort((a, b) => b.point.time - a.point.time)
      .map(({ line, point }) => {
        const choose = () => this.on.choose(point.time, line);
        const time = h("button", { type: "button", class: "link", "data-key": `${point.time} ${line.key}`, onclick: choose }, stretch(point.time, window.bucket));
        const numbers = [written(point.value, view.statistic), count(point.count), count(point.errors)];
        return h("tr", {}, h("th", { scope: "row" }, time), h("td", {}, line.title), numbers.map((text) => h("td", { class: "number" }, text)), h("td", {}, classesOf(point)));
      });
    redraw(this.rows.lastElementChild, h("table", {}, header("Time", "Line", `#${STATISTICS[view.statistic].name}`, "#Scores", "#Failed", "Classes"), h("tbody", {}, rows)));
  }
}
