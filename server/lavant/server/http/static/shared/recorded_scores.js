// Single scores: the runs that were evaluated, with which values and by whom.

import { get } from "./api.js";
import { fault, h, header, labels, notes, replace } from "./elements.js";
import { milliseconds, moment, score as shown } from "./format.js";

const PAGE = 50;
const LONG = 400;

// The scores of a list, a page at a time.
export class EvaluatedRuns {
  constructor() {
    this.element = h("section", { class: "evaluated", "aria-label": "Evaluated runs", "aria-live": "polite", tabindex: -1, hidden: true });
    this.round = 0;
  }

  hide() {
    this.round += 1;
    this.element.hidden = true;
  }

  // Shows those that the API returns for `asked` and that `belongs` keeps; `close` is what closes the list.
  async show(title, asked, belongs, close) {
    this.round += 1;
    const mine = this.round;
    const found = [];
    const draw = (told) => {
      if (mine !== this.round) return;
      this.element.hidden = false;
      const head = h("div", { class: "heading" }, h("h2", {}, title), h("button", { type: "button", onclick: close }, "Close"));
      replace(this.element, head, found.length ? h("div", { class: "scroll" }, judgements(found)) : null, told);
    };
    const load = async (token) => {
      draw(h("p", { class: "nothing" }, "Loading …"));
      try {
        const page = await get("/api/v1/scores", { ...asked, page_size: PAGE, page_token: token });
        found.push(...(page.scores ?? []).filter(belongs));
        const next = page.next_page_token;
        draw(next ? h("button", { type: "button", class: "more", onclick: () => load(next) }, "Show more") : found.length ? null : h("p", { class: "nothing" }, "No scores here."));
      } catch (error) {
        draw(h("p", { class: "fault" }, error.message, " ", h("button", { type: "button", onclick: () => load(token) }, "Try again")));
      }
    };
    await load("");
  }
}

export function toScore(score) {
  const value = score.passed ?? score.label ?? (score.number === undefined ? undefined : Number(score.number));
  return { name: score.name, value, why: score.explanation, version: score.evaluator?.version ?? "", error: score.error };
}

// Without `ofRuns` all are of one run, which is not named.
export function judgements(recorded, ofRuns = true) {
  const columns = [...(ofRuns ? ["Run"] : []), "Score", "#Value", "Explanation", "By"];
  return h("table", {}, header(...columns), h("tbody", {}, recorded.map((one) => row(one, ofRuns))));
}

function row(recorded, ofRuns) {
  const said = toScore(recorded.score ?? {});
  const { subject_run_id: id, subject_name: name, subject_time: time } = recorded;
  return h(
    "tr",
    { "data-failed": Boolean(said.error) },
    ofRuns ? h("td", {}, h("a", { href: `#/runs/${encodeURIComponent(id)}` }, id), h("div", { class: "note" }, name, " ", moment(milliseconds(time) ?? 0))) : null,
    h("th", { scope: "row" }, said.name, " ", labels(recorded.labels)),
    h("td", { class: "number", "data-passed": typeof said.value === "boolean" ? String(said.value) : undefined }, said.error ? h("span", { class: "badge", "data-state": "failed" }, "error") : shown(said.value)),
    h("td", {}, said.why ? h("div", { class: "why", tabindex: said.why.length > LONG ? 0 : undefined }, said.why) : null, fault(said.error)),
    h("td", {}, author(recorded)),
  );
}

function author({ score, rule_id: rule }) {
  const { name = "", version = "" } = score?.evaluator ?? {};
  return [h("span", {}, name), " ", notes(version && `v${version}`), h("div", { class: "note" }, rule ? `rule ${rule}` : "feedback")].flat();
}
