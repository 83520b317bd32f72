// The server's HTTP API: pages of JSON, and streams that resume where they were cut.

import { request } from "./credential.js";
import { events } from "./event_stream.js";

const LONGEST_PAUSE = 10_000;

class Refused extends Error {
  constructor(status, body) {
    super(body?.error?.message ?? `the server answered ${status}`);
    this.status = status;
  }
}

export async function get(path, parameters = {}, signal = undefined) {
  const response = await request(address(path, parameters), { signal, headers: { Accept: "application/json" } });
  const body = await response.json().catch(() => undefined);
  if (!response.ok) throw new Refused(response.status, body);
  return body;
}

// Every item of a list, page by page.
export async function* pages(path, name, parameters = {}, signal = undefined) {
  let token = "";
  do {
    const page = await get(path, { ...parameters, page_token: token }, signal);
    yield page[name] ?? [];
    token = page.next_page_token ?? "";
  } while (token);
}

// Follows a stream of server-sent events until `end` says that it is over; returns a function that stops it.
//
// After a cut it resumes with the last event that came, as an EventSource does; while the server refuses, as one that
// shuts down does, with growing pauses. `on.event(name, data)` gets each event once; `on.state(text)` receives "live",
// "reconnecting", "ended" or why there is nothing more. Nothing follows the event `last`.
export function follow(path, parameters, names, on, last = "run_finished") {
  const asking = new AbortController();
  const wanted = new Set(names);
  let lastId = "";
  let retry = 1_000;
  let refusals = 0;
  let isComplete = false;

  // Returns why the stream is over, or undefined after a cut.
  async function read() {
    const headers = { Accept: "text/event-stream", ...(lastId ? { "Last-Event-ID": lastId } : {}) };
    const response = await request(address(path, parameters), { signal: asking.signal, headers });
    if (response.status === 204) return "ended";
    if (!response.ok) throw new Refused(response.status, await response.json().catch(() => undefined));
    on.state("live");
    refusals = 0;
    for await (const event of events(response)) {
      lastId = event.id ?? lastId;
      retry = event.retry ?? retry;
      if (event.data === undefined) continue;
      const data = JSON.parse(event.data);
      if (event.name === "end" && data.reconnect === false) return "ended";
      isComplete ||= event.name === last;
      if (wanted.has(event.name)) handle(event.name, data);
    }
    return undefined;
  }

  // A fault of a page is reported, and is no cut of the stream.
  function handle(name, data) {
    try {
      on.event(name, data);
    } catch (error) {
      reportError(error);
    }
  }

  async function readOn() {
    while (!asking.signal.aborted) {
      let pause = retry;
      try {
        const over = await read();
        if (over) return over;
      } catch (error) {
        if (asking.signal.aborted) return "";
        if (error instanceof Refused) {
          if (isComplete) return "ended";
          if (error.status < 500 && error.status !== 429) return error.message;
          refusals += 1;
          pause = Math.min(LONGEST_PAUSE, 250 * 2 ** refusals) * (0.5 + Math.random() / 2);
        }
      }
      if (asking.signal.aborted) return "";
      on.state("reconnecting");
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
    return "";
  }

  readOn().then((state) => {
    if (state && !asking.signal.aborted) on.state(state);
  });
  return () => asking.abort();
}

// An empty text asks for nothing; within a list it is one of its values.
function address(path, parameters) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    if (Array.isArray(value)) for (const one of value) query.append(name, one);
    else if (value !== "" && value !== undefined) query.append(name, value);
  }
  return query.size ? `${path}?${query}` : path;
}
