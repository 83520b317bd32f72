/** Pages in a real Chromium, which report to the test what they do. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer, type IncomingMessage, request, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join, normalize, resolve } from "node:path";

const PACKAGE = resolve(import.meta.dirname, "../../..");
const IMPORTS = {
  "@lavant/client/web": "/build/src/web.js",
  "@bufbuild/protobuf": "/node_modules/@bufbuild/protobuf/dist/esm/index.js",
  "@bufbuild/protobuf/": "/node_modules/@bufbuild/protobuf/dist/esm/",
  "@bufbuild/protobuf/wkt": "/node_modules/@bufbuild/protobuf/dist/esm/wkt/index.js",
  "@bufbuild/protobuf/wire": "/node_modules/@bufbuild/protobuf/dist/esm/wire/index.js",
  "@bufbuild/protobuf/reflect": "/node_modules/@bufbuild/protobuf/dist/esm/reflect/index.js",
  "@bufbuild/protobuf/codegenv2": "/node_modules/@bufbuild/protobuf/dist/esm/codegenv2/index.js",
  "@connectrpc/connect": "/node_modules/@connectrpc/connect/dist/esm/index.js",
  "@connectrpc/connect/protocol": "/node_modules/@connectrpc/connect/dist/esm/protocol/index.js",
  "@connectrpc/connect/protocol-connect": "/node_modules/@connectrpc/connect/dist/esm/protocol-connect/index.js",
  "@connectrpc/connect/protocol-grpc-web": "/node_modules/@connectrpc/connect/dist/esm/protocol-grpc-web/index.js",
  "@connectrpc/connect-web": "/node_modules/@connectrpc/connect-web/dist/esm/index.js",
};
// What each page begins with: a way to report, also what nobody caught.
const HEAD = `<!doctype html><script type="importmap">${JSON.stringify({ imports: IMPORTS })}</script>
<script>
  const report = (text) => fetch("/report", { method: "POST", body: text });
  addEventListener("error", ({ message }) => report("error " + message));
  addEventListener("unhandledrejection", ({ reason }) => report("error " + reason));
</script>`;

export interface SiteOptions {
  /** The page's module, without imports of its own. It reports with `report(text)`: "end ..." and "error ..." are the last. */
  script: string;
  /** Called with each report, before the page continues. */
  received: (text: string) => unknown;
  /** Address of a server to which requests to /api/ are forwarded, as by a proxy in front of both. */
  api?: string;
}

/** A web server with one page, and with the built package that it imports. */
export class Site {
  readonly reports: string[] = [];
  origin = "";
  readonly #options: SiteOptions;
  readonly #over: Promise<void>;
  #end = () => {};
  readonly #server = createServer((from, to) => void this.#answer(from, to));

  private constructor(options: SiteOptions) {
    this.#options = options;
    this.#over = new Promise((resolve) => {
      this.#end = resolve;
    });
  }

  static async serve(options: SiteOptions): Promise<Site> {
    const site = new Site(options);
    site.#server.listen(0, "127.0.0.1");
    await once(site.#server, "listening");
    site.origin = `http://127.0.0.1:${(site.#server.address() as AddressInfo).port}`;
    return site;
  }

  /** Show the page in Chromium until its last report. */
  async show(query = ""): Promise<void> {
    const profile = mkdtempSync(join(tmpdir(), "lavant-chromium-"));
    const flags = [
      "--headless",
      "--no-sandbox",
      "--disable-gpu",
      "--remote-debugging-port=0",
      `--user-data-dir=${profile}`,
    ];
    const chromium = spawn("chromium", [...flags, `${this.origin}/${query}`], { stdio: "ignore" });
    try {
      await Promise.race([this.#over, once(chromium, "exit")]);
    } finally {
      chromium.kill();
      if (chromium.exitCode === null) await once(chromium, "exit"); // its other processes write until then
      rmSync(profile, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
  }

  async #answer(from: IncomingMessage, to: ServerResponse): Promise<void> {
    const path = normalize(from.url ?? "/");
    if (path.startsWith("/api/")) return forward(this.#options.api ?? "", from, to);
    if (path === "/report") return this.#receive(from, to);
    if (path.endsWith(".js")) {
      to.writeHead(200, { "content-type": "text/javascript" }).end(readFileSync(join(PACKAGE, path)));
    } else {
      const module = `<script type="module">${this.#options.script}</script>`;
      to.writeHead(200, { "content-type": "text/html" }).end(HEAD + module);
    }
  }

  async #receive(from: IncomingMessage, to: ServerResponse): Promise<void> {
    let text = "";
    for await (const piece of from) text += piece;
    this.reports.push(text);
    await this.#options.received(text);
    if (text.startsWith("e")) this.#end();
    to.end();
  }
}

/** Forward a request to the server, as a proxy in front of it does. */
function forward(target: string, from: IncomingMessage, to: ServerResponse): void {
  const upstream = request(`http://${target}${from.url}`, { headers: { ...from.headers, host: target } }, (answer) => {
    to.writeHead(answer.statusCode ?? 502, answer.headers);
    answer.on("error", () => to.destroy()).pipe(to);
  });
  upstream.on("error", () => to.destroy());
  to.on("close", () => upstream.destroy());
  upstream.end();
}
