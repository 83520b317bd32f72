// Alerts as they change: those that fire, and what happened lately.

import { follow, get } from "./api.js";
import { h, replace } from "./dom.js";
import { age, count, score as shown } from "./format.js";
import { redraw } from "./parts.js";
import { instant } from "./score_view.js";

const AGAIN = 5000;

// Follows the run that tells of alerts, which is there from the first one on; returns a function that stops it.
export function followAlerts(on) {
  let stop = () => {};
  let timer = 0;
  let over = false;

  async function begin() {
    const { events } = await get("/api/v1/alerts", { page_size: 1 }).then(({ events = [] }) => ({ events }), () => ({}));
    if (over) return;
    if (events?.length) stop = follow("/api/v1/runs/lavant.alerts/stream", { type: "alert_changed" }, ["alert_changed"], { state: on.state, event: (_, event) => on.event(event) }, "");
    else {
      on.state(events ? "live" : "reconnecting");
      timer = setTimeout(begin, AGAIN);
    }
  }

  begin();
  return () => {
    over = true;
    clearTimeout(timer);
    stop();
  };
}

// `show(change)` is to show the scores that an alert is about.
export function drawAlerts(element, model, show) {
  redraw(
    element,
    model.firing.map((change) =>
      h(
        "article",
        { class: "alert" },
        h("b", {}, change.alert),
        h("span", {}, told(change)),
        h("span", { class: "note" }, `rule ${change.rule}, for ${age(instant(change.time))}`),
        h("button", { type: "button", class: "link", "data-key": `${change.rule} ${change.alert}`, onclick: () => show(change) }, "Show its scores"),
      ),
    ),
  );
}

export function drawChanges(element, model) {
  const lines = model.changes.map((change) =>
    h("li", {}, h("span", { class: "badge", "data-state": change.firing ? "failed" : "succeeded" }, change.firing ? "firing" : "over"), ` ${change.alert} `, h("span", { class: "note" }, `rule ${change.rule}, ${told(change)}, ${age(instant(change.time))} ago`)),
  );
  element.hidden = !lines.length;
  replace(element.querySelector("ul"), lines);
}

const told = ({ message, value, threshold, count: scores }) => message || `${shown(value)} where ${shown(threshold)} is the bound, over ${count(scores)} scores`;
