/** One block of server-sent events. Blocks without data are kept: the IDs of heartbeats are positions. */
export interface Block {
  readonly event: string;
  readonly data: string;
  readonly id: string;
  /** Milliseconds that the server asks to wait before a reconnect; absent if it asks for none. */
  readonly retryMs?: number;
}

/**
 * Yield the blocks of a response: https://html.spec.whatwg.org/multipage/server-sent-events.html. `broken` throws for a
 * connection that fails.
 */
export async function* blocksOf(
  body: ReadableStream<Uint8Array>,
  broken: (thrown: unknown) => never,
): AsyncGenerator<Block> {
  const reader = body.pipeThrough(new TextDecoderStream() as ReadableWritablePair<string, Uint8Array>).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read().catch(broken);
      if (done) return; // what is not complete was cut
      // A line ends with LF, CRLF or CR; a CR at the end of a piece waits for its LF.
      rest += value;
      const pieces = rest.split(/(?:\r\n|\n|\r(?!$))(?:\r\n|\n|\r(?!$))/);
      rest = pieces.pop() ?? "";
      for (const piece of pieces) yield parse(piece);
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}

function parse(text: string): Block {
  const fields = { event: "", id: "", data: [] as string[], retry: "" };
  for (const line of text.split(/\r\n|\n|\r/)) {
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "data") fields.data.push(value);
    else if (name === "event" || name === "id" || name === "retry") fields[name] = value;
  }
  const { event, id, data, retry } = fields;
  return { event, id, data: data.join("\n"), ...(/^\d+$/.test(retry) && { retryMs: Number(retry) }) };
}
