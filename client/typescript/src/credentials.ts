import { Unauthenticated, Unavailable } from "./errors.js";

/** A fixed credential, such as an API key, or a function that returns a current one, such as a JWT. */
export type TokenSource = string | (() => string | Promise<string>);

const MARGIN_MS = 30_000;

/**
 * Credential of a client's calls.
 *
 * A function is called before the first call, shortly before a JWT expires, and once after the server refused a token: a
 * token that was obtained for that reason and is refused too is an error.
 */
export class Credentials {
  readonly #source: TokenSource | undefined;
  #token: Promise<string> | undefined;
  #latest: string | undefined;
  #renewAt = Number.POSITIVE_INFINITY;
  #replacesRefused = false;

  constructor(source: TokenSource | undefined) {
    this.#source = source;
  }

  /** Return the headers of a call. Throws Unavailable if no token can be obtained at the moment. */
  async headers(): Promise<Record<string, string>> {
    if (this.#source === undefined) return {};
    if (this.#token === undefined || Date.now() >= this.#renewAt) this.#token = this.#obtain();
    this.#latest = `Bearer ${await this.#token}`;
    return { authorization: this.#latest };
  }

  /** Note that the server accepted a call. */
  accepted(): void {
    this.#replacesRefused = false;
  }

  /** Obtain another token for the next call: this one is about to expire. */
  renew(): void {
    if (typeof this.#source === "function") this.#token = undefined;
  }

  /** Return whether another token may help after this error of a call that was sent with these headers. */
  mayRetry(error: unknown, sent: Record<string, string>): boolean {
    if (!(error instanceof Unauthenticated) || typeof this.#source !== "function") return false;
    if (sent.authorization !== this.#latest || this.#token === undefined) return true; // replaced meanwhile
    if (this.#replacesRefused) return false;
    this.#replacesRefused = true;
    this.renew();
    return true;
  }

  async #obtain(): Promise<string> {
    const source = this.#source;
    try {
      const token = typeof source === "function" ? await source() : (source ?? "");
      const left = (expiryOf(token) ?? 0) - Date.now();
      // A token that has expired by this machine's clock may be good: the server decides.
      this.#renewAt = left > 0 ? Date.now() + left - Math.min(MARGIN_MS, left / 5) : Number.POSITIVE_INFINITY;
      return token.trim();
    } catch (error) {
      this.#token = undefined;
      // Not its text, which may hold secrets.
      throw new Unavailable("token() failed: no token, so no call", { reason: "UNAVAILABLE", cause: error });
    }
  }
}

/** Return when a JWT expires, in milliseconds since 1970; undefined for other tokens. The signature is not checked. */
function expiryOf(token: string): number | undefined {
  const parts = token.split(".");
  if (parts.length !== 3 || !parts[1]) return undefined;
  try {
    const claims: unknown = JSON.parse(atob(parts[1].replace(/-/g, "+").replace(/_/g, "/")));
    const expiry = (claims as { exp?: unknown } | null)?.exp;
    return typeof expiry === "number" ? expiry * 1000 : undefined;
  } catch {
    return undefined;
  }
}
