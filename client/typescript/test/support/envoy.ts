/** A real Envoy before a server, with the configuration that is shipped, on addresses that survive its death. */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Server } from "./server.js";

const ROOT = resolve(import.meta.dirname, "../../../../..");
const PYTHON = join(ROOT, ".venv/bin/python");

export class Envoy {
  readonly url: string;
  readonly #folder = mkdtempSync(join(tmpdir(), "lavant-envoy-"));
  readonly #file: string;
  readonly #admin: string;
  #process: ChildProcess | undefined;

  private constructor(server: Server, origins: readonly string[]) {
    const written = ["-m", "support.envoy_file", this.#folder, server.grpc, server.http, server.admin, ...origins];
    const env = { ...process.env, PYTHONPATH: join(ROOT, "tests") };
    const [file = "", http = "", admin = ""] = execFileSync(PYTHON, written, { env, encoding: "utf8" }).split(/\s+/);
    this.url = `http://${http}`;
    this.#file = file;
    this.#admin = admin;
  }

  /** Start one whose gRPC-Web may be called by pages of some origins. */
  static async before(server: Server, ...origins: string[]): Promise<Envoy> {
    const envoy = new Envoy(server, origins);
    await envoy.start();
    return envoy;
  }

  /** Start it, on the addresses that it had before, and wait until it listens. */
  async start(): Promise<void> {
    const flags = ["--config-path", this.#file, "--log-level", "error", "--use-dynamic-base-id", "--concurrency", "1"];
    this.#process = spawn(join(ROOT, ".venv/bin/envoy"), flags, { stdio: "inherit" });
    while ((await this.#state()) !== "LIVE") await sleep(20); // it has no event for it
  }

  async kill(): Promise<void> {
    const running = this.#process;
    if (running === undefined || running.exitCode !== null || running.signalCode !== null) return;
    running.kill("SIGKILL");
    await once(running, "exit");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
    rmSync(this.#folder, { recursive: true, force: true });
  }

  async #state(): Promise<string> {
    const answer = await fetch(`http://${this.#admin}/ready`).catch(() => undefined);
    return (await answer?.text())?.trim() ?? "";
  }
}
