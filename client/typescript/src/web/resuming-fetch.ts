import { Backoff, sleep } from "../time.js";
import { blocksOf } from "./blocks.js";

type Body = ReadableStream<Uint8Array>;

/**
 * Return a `fetch` for AG-UI's HttpAgent that resumes: a response that is cut before its last event is requested again
 * with `Last-Event-ID`, and continues in the same body.
 */
export function createResumingFetch(send: typeof fetch = fetch): typeof fetch {
  return async (input, init = {}) => {
    const first = await send(input, init);
    if (!first.ok || first.body === null) return first;
    async function* text(response: Response): AsyncGenerator<Uint8Array> {
      const backoff = new Backoff();
      let lastId = "";
      for (;;) {
        try {
          for await (const { event, data, id } of blocksOf(response.body as Body, broken)) {
            lastId = id || lastId;
            backoff.progressed();
            const lines = data.split("\n").map((line) => `data: ${line}\n`);
            if (data !== "") yield new TextEncoder().encode(`${event && `event: ${event}\n`}${lines.join("")}\n`);
            if (event === "end" || /"type":\s*"RUN_(FINISHED|ERROR)"/.test(data)) return;
          }
        } catch (thrown) {
          if (init.signal?.aborted) throw thrown;
        }
        do {
          await sleep(backoff.afterCut(), init.signal ?? undefined);
          const headers = new Headers(init.headers);
          if (lastId !== "") headers.set("last-event-id", lastId);
          response = await send(input, { ...init, headers }).catch(() => new Response(null, { status: 503 }));
          if (response.status === 204) return;
          if (response.status >= 400 && response.status < 500) throw new Error(`HTTP ${response.status}`);
        } while (!response.ok || response.body === null);
      }
    }
    const chunks = text(first);
    const body = new ReadableStream<Uint8Array>({
      pull: async (to) => {
        const { value, done } = await chunks.next();
        if (done) to.close();
        else to.enqueue(value);
      },
      cancel: async () => void (await chunks.return(undefined)),
    });
    return new Response(body, { status: first.status, headers: first.headers });
  };
}

function broken(thrown: unknown): never {
  throw thrown;
}
