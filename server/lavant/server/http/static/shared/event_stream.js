// Server-sent events out of a response of fetch, which can send a header, as an EventSource cannot.
// https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream

// Yields { name, data, id, retry } for each event, and for each block without data: it has an ID, too.
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let event = {};
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return; // What is not followed by an empty line is incomplete.
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        if (line === "" || line === "\r") {
          yield event;
          event = {};
        } else {
          take(event, line.endsWith("\r") ? line.slice(0, -1) : line);
        }
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function take(event, line) {
  const colon = line.indexOf(":");
  const name = colon < 0 ? line : line.slice(0, colon);
  const value = colon < 0 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
  if (name === "event") event.name = value;
  else if (name === "data") event.data = event.data === undefined ? value : `${event.data}\n${value}`;
  else if (name === "id") event.id = value;
  else if (name === "retry" && /^[0-9]+$/.test(value)) event.retry = Number(value);
}
