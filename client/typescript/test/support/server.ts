/** Real servers, each a process of its own on a store of its own, so that tests can kill and restart them. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import type { Readable } from "node:stream";

const LAVANT = process.env.LAVANT ?? resolve(import.meta.dirname, "../../../../../.venv/bin/lavant");

export class Server {
  grpc = "127.0.0.1:0";
  http = "127.0.0.1:0";
  /** Address of health checks, for a proxy. */
  admin = "127.0.0.1:0";
  /** API key that a server with `--init-key` printed. */
  firstKey = "";
  readonly #folder = mkdtempSync(join(tmpdir(), "lavant-ts-"));
  readonly #flags: readonly string[];
  #process: ChildProcess | undefined;

  constructor(...flags: string[]) {
    this.#flags = flags;
  }

  static async start(...flags: string[]): Promise<Server> {
    const server = new Server(...flags);
    await server.start();
    return server;
  }

  /** Start it, on the addresses that it had before. */
  async start(): Promise<void> {
    const store = `sqlite:///${join(this.#folder, "lavant.db")}`;
    const addresses = ["--listen", this.grpc, "--http", this.http, "--admin", this.admin, "--store", store];
    this.#process = spawn(LAVANT, ["serve", ...addresses, ...this.#flags], { stdio: ["ignore", "pipe", "inherit"] });
    const lines = createInterface({ input: this.#process.stdout as Readable });
    await new Promise<void>((resolve, reject) => {
      const isKeyAwaited = this.#flags.includes("--init-key") && this.firstKey === "";
      lines.on("line", (line) => {
        const addresses = /grpc=(\S+) http=(\S+) admin=(\S+)/.exec(line);
        if (addresses !== null) [, this.grpc = "", this.http = "", this.admin = ""] = addresses;
        this.firstKey = /lvk_\S+/.exec(line)?.[0] ?? this.firstKey;
        if (isKeyAwaited ? this.firstKey !== "" : addresses !== null) resolve();
      });
      lines.on("close", () => reject(new Error("the server ended before it served")));
    });
  }

  async kill(signal: NodeJS.Signals = "SIGKILL"): Promise<void> {
    const running = this.#process;
    if (running === undefined || running.exitCode !== null || running.signalCode !== null) return;
    running.kill(signal);
    await once(running, "exit");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
