/** What has to be stopped when a client is closed. */
export class Closer {
  readonly #stops = new Set<() => void>();
  #isClosed = false;

  /** Register what to stop, and return how to forget it. After `close`, it is stopped at once. */
  add(stop: () => void): () => void {
    if (this.#isClosed) stop();
    else this.#stops.add(stop);
    return () => this.#stops.delete(stop);
  }

  close(): void {
    this.#isClosed = true;
    for (const stop of this.#stops) stop();
    this.#stops.clear();
  }
}

/** Signal of one stream: it aborts with the application's signal, and when the client is closed. */
export interface StreamSignal {
  readonly signal: AbortSignal;
  /** Abort it, and detach it from the others. */
  stop(): void;
}

export function streamSignal(closer: Closer, outer: AbortSignal | undefined): StreamSignal {
  const own = new AbortController();
  const byOuter = () => own.abort(outer?.reason);
  const forget = closer.add(() => own.abort(new Error("the client is closed")));
  if (outer?.aborted) byOuter();
  outer?.addEventListener("abort", byOuter);
  const stop = () => {
    forget();
    outer?.removeEventListener("abort", byOuter);
    own.abort();
  };
  return { signal: own.signal, stop };
}
