import type { Connection } from "./calls.js";
import { type Channel, Channels } from "./channels.js";
import { Closer } from "./closer.js";
import { Credentials, type TokenSource } from "./credentials.js";
import { Sessions } from "./reading/sessions.js";
import { Runs } from "./runs.js";

export interface BaseOptions {
  /**
   * Credential of all calls: an API key, or a function that returns a token such as a JWT. The function is called before
   * the first call, before a JWT expires, and once after the server has refused a token.
   */
  token?: TokenSource | undefined;
  /** Time of a short call with its retries, in milliseconds. Default 10,000. */
  timeoutMs?: number | undefined;
}

/** Client of a lavant server, over any transport. One per process is enough. Close it when you are done. */
export class BaseClient {
  readonly runs: Runs;
  readonly #connection: Connection;

  constructor(targets: readonly string[], open: (target: string) => Channel, options: BaseOptions) {
    this.#connection = {
      channels: new Channels(targets, open),
      credentials: new Credentials(options.token),
      sessions: new Sessions(),
      closer: new Closer(),
      timeoutMs: options.timeoutMs ?? 10_000,
    };
    this.runs = new Runs(this.#connection);
  }

  /** Cut all calls and close all connections. Await `finish()` of publishers before. */
  close(): void {
    this.#connection.closer.close();
    this.#connection.channels.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
  }
}
