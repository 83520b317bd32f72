// Which page is shown: #/runs, #/runs/ID, #/evaluations, #/evaluations/ID, #/scores?WHAT.

import { signInPage } from "./access/sign_in.js";
import { evaluationPage } from "./evaluation/page.js";
import { runPage } from "./run/page.js";
import { runsPage } from "./runs/page.js";
import { scoresPage } from "./scores/page.js";
import { get } from "./shared/api.js";
import { hasCredential, setCredential, whenUnauthenticated } from "./shared/credential.js";

const RETRY = 2_000;
const main = document.querySelector("main");
const state = document.querySelector("#state");
const principal = document.querySelector("#principal");
const signOut = document.querySelector("#sign-out");
let leave = () => {};
let isSignedIn = false;

function setState(text) {
  state.textContent = text;
  state.dataset.state = text;
}

function show() {
  leave();
  leave = () => {};
  if (!isSignedIn) return;
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

// Shows whose data the pages show, then the pages; or asks for a key if the server wants one.
async function enter() {
  try {
    const caller = await get("/api/v1/principal");
    isSignedIn = true;
    principal.textContent = `${caller.tenant} · ${caller.principal}`;
    principal.title = (caller.scopes ?? []).join(" ");
    signOut.hidden = !hasCredential();
    show();
  } catch (error) {
    if (error.status !== 401) setState(error.message);
    if (error.status !== 401) setTimeout(enter, RETRY);
  }
}

function askForKey(message) {
  isSignedIn = false;
  leave();
  leave = () => {};
  setCredential("");
  setState("");
  principal.textContent = "";
  principal.title = "";
  signOut.hidden = true;
  signInPage(main, message, (key) => {
    setCredential(key);
    enter();
  });
}

whenUnauthenticated((message) => askForKey(hasCredential() ? message : ""));
signOut.addEventListener("click", () => askForKey(""));
window.addEventListener("hashchange", show);
enter();
