import { Backoff, sleep } from "../time.js";
import { type Block, blocksOf } from "./blocks.js";

/**
 * Return a `fetch` that resumes, for front ends that read a run in a format of theirs: AG-UI's HttpAgent, the transports
 * of the AI SDK. A response that is cut before the last event of its format is requested again with `Last-Event-ID`, and
 * continues in the same body.
 *
 * What is requested again is a GET: of the same URL, of the one to which the request was redirected, or of the
 * `Content-Location` of the response. A POST that has neither is not resumed, as it could start another run.
 */
export function createResumingFetch(send: typeof fetch = fetch): typeof fetch {
  return async (input, init = {}) => {
    const stop = new AbortController();
    const signal = init.signal == null ? stop.signal : AbortSignal.any([init.signal, stop.signal]);
    const first = await send(input, { ...init, signal });
    const isStream = first.headers.get("content-type")?.startsWith("text/event-stream");
    if (!first.ok || first.body === null || !isStream) return first;
    const resume = resuming(send, input, { ...init, signal }, first);
    const chunks = groupsOf(first, resume, signal);
    const body = new ReadableStream<Uint8Array>({
      pull: async (to) => {
        const { value, done } = await chunks.next();
        if (done) to.close();
        else to.enqueue(value);
      },
      cancel: () => stop.abort(),
    });
    return new Response(body, { status: first.status, headers: first.headers });
  };
}

type Resume = (lastId: string) => Promise<Response>;

/** Return how a response is requested again; undefined if it cannot be. */
function resuming(
  send: typeof fetch,
  input: RequestInfo | URL,
  { body: _body, method, ...init }: RequestInit,
  { redirected, url, headers: answered }: Response,
): Resume | undefined {
  const asked = input instanceof Request ? input : undefined;
  const named = answered.get("content-location");
  const isGet = (method ?? asked?.method ?? "GET") === "GET";
  if (named === null && !redirected && !isGet) return undefined;
  const askedAt = new URL(asked?.url ?? String(input), globalThis.location?.href);
  const target = new URL(named ?? (redirected ? url : askedAt), url || askedAt);
  const headers = new Headers(init.headers ?? asked?.headers);
  headers.delete("content-type");
  // As of a redirect: another site does not get what this one does.
  if (target.origin !== askedAt.origin) headers.delete("authorization");
  return (lastId) => {
    if (lastId !== "") headers.set("last-event-id", lastId);
    return send(target, { ...init, headers });
  };
}

/**
 * Yield what completes an event of the run: of the blocks that it becomes only the last has an ID, and after a cut all of
 * them come again. Of a server without IDs, yield each block.
 */
async function* groupsOf(
  response: Response,
  resume: Resume | undefined,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const backoff = new Backoff();
  let lastId = "";
  for (;;) {
    let group: Block[] = [];
    let delayMs: number | undefined;
    try {
      for await (const block of blocksOf(response.body as ReadableStream<Uint8Array>, broken)) {
        backoff.progressed();
        if (resume !== undefined && asksToReconnect(block)) {
          delayMs = block.retryMs ?? delayMs;
          continue;
        }
        group.push(block);
        if (block.id === "" && lastId !== "" && !isLast(block)) continue;
        lastId = block.id || lastId;
        const text = group.map(textOf).join("");
        if (text !== "") yield new TextEncoder().encode(text);
        if (isLast(block)) return;
        group = [];
      }
    } catch (thrown) {
      if (signal.aborted || resume === undefined) throw thrown;
    }
    if (resume === undefined) return;
    do {
      await sleep(delayMs ?? backoff.afterCut(), signal);
      delayMs = undefined;
      response = await resume(lastId).catch(() => new Response(null, { status: 503 }));
      if (response.status === 204) return;
      if (response.status >= 400 && response.status < 500) throw new Error(`HTTP ${response.status}`);
    } while (!response.ok || response.body === null);
  }
}

/** Return whether a stream ends before the run does, and continues at a reconnect. */
function asksToReconnect({ event, data }: Block): boolean {
  return event === "reconnect" || (event === "end" && /"reconnect": ?true/.test(data));
}

/** Return whether a block is the last one of its format: lavant's own, AG-UI, the AI SDK's UI message stream. */
function isLast({ event, data }: Block): boolean {
  return event === "end" || data === "[DONE]" || /^\{\s*"type":\s*"RUN_(FINISHED|ERROR)"/.test(data);
}

function textOf({ event, data }: Block): string {
  const lines = data.split("\n").map((line) => `data: ${line}\n`);
  return data === "" ? "" : `${event && `event: ${event}\n`}${lines.join("")}\n`;
}

function broken(thrown: unknown): never {
  throw thrown;
}
