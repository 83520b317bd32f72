// The server's HTTP API: pages of JSON, and streams that go on where they were cut.

const LONGEST_PAUSE = 10_000;

export class Refused extends Error {
  constructor(status, body) {
    super(body?.error?.message ?? `the server answered ${status}`);
    this.status = status;
  }
}

export async function get(path, parameters = {}, signal = undefined) {
  const response = await fetch(address(path, parameters), { signal, headers: { Accept: "application/json" } });
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
    if (page.next_page_token === token) return;
    token = page.next_page_token ?? "";
  } while (token);
}

// Follows a stream of server-sent events until `end` says that it is over; returns a function that stops it.
//
// The browser resumes by itself after a cut. It gives up when the server refuses, as one that shuts down
// does: then a new stream begins behind the last event that came. `on.event(name, data)` gets each event once;
// `on.state(text)` hears "live", "reconnecting", "ended" or why there is nothing more. Nothing follows the event `last`.
export function follow(path, parameters, names, on, last = "run_finished") {
  let source;
  let lastId = "";
  let timer = 0;
  let refusals = 0;
  let isComplete = false;
  let over = false;

  function finish(state) {
    over = true;
    clearTimeout(timer);
    source?.close();
    if (state) on.state(state);
  }

  async function refused() {
    source.close();
    if (isComplete) return finish("ended");
    try {
      await get(path.replace(/\/stream$/, ""), parameters);
    } catch (error) {
      if (error instanceof Refused && error.status < 500 && error.status !== 429) return finish(error.message);
    }
    if (over) return undefined;
    on.state("reconnecting");
    refusals += 1;
    timer = setTimeout(open, Math.min(LONGEST_PAUSE, 250 * 2 ** refusals) * (0.5 + Math.random() / 2));
    return undefined;
  }

  function open() {
    source = new EventSource(address(path, { ...parameters, last_event_id: lastId }));
    source.onopen = () => {
      refusals = 0;
      on.state("live");
    };
    source.onerror = () => {
      if (over) return;
      if (source.readyState === EventSource.CLOSED) refused();
      else on.state("reconnecting");
    };
    for (const name of names) {
      source.addEventListener(name, (message) => {
        lastId = message.lastEventId || lastId;
        isComplete ||= name === last;
        on.event(name, JSON.parse(message.data));
      });
    }
    source.addEventListener("end", (message) => {
      lastId = message.lastEventId || lastId;
      if (JSON.parse(message.data).reconnect === false) finish("ended");
    });
  }

  open();
  return () => finish();
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
