// Which page is shown: #/runs, #/runs/ID, #/evaluations, #/evaluations/ID, #/scores?WHAT.

import { evaluationPage } from "./evaluation_page.js";
import { runPage } from "./run_page.js";
import { runsPage } from "./runs_page.js";
import { scoresPage } from "./scores_page.js";

const main = document.querySelector("main");
const state = document.querySelector("#state");
let leave = () => {};

function setState(text) {
  state.textContent = text;
  state.dataset.state = text;
}

function show() {
  leave();
  setState("connecting");
  window.scrollTo(0, 0);
  const [path, query = ""] = location.hash.split("?");
  const [, section = "runs", id = ""] = path.split("/").map(decoded);
  const kind = section === "evaluations" ? "evaluation" : "agent";
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#/${section}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (section === "scores") leave = scoresPage(main, query, setState);
  else if (!id) leave = runsPage(main, kind, setState);
  else if (kind === "evaluation") leave = evaluationPage(main, id, setState);
  else leave = runPage(main, id, setState);
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

window.addEventListener("hashchange", show);
show();
