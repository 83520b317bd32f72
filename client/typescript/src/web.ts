import { createGrpcWebTransport } from "@connectrpc/connect-web";
import { BaseClient, type BaseOptions } from "./client.js";
import { type DecodeText, withFastEvents } from "./reading/decoding.js";
import { createHttpTransport } from "./web/http-transport.js";

export * from "./exports.js";
export { createResumingFetch } from "./web/resuming-fetch.js";

export interface ClientOptions extends BaseOptions {
  /** URL of the server's HTTP port, or of a proxy that translates gRPC-Web. Default: where the page comes from. */
  url?: string | undefined;
  /** "http" (default) reads over JSON and server-sent events; "grpc-web" needs a proxy, and creates and cancels as well. */
  transport?: "http" | "grpc-web" | undefined;
}

/**
 * Client of a lavant server for browsers, with the interface of the one for Node.js. Publishing needs Node.js: browsers
 * cannot stream requests.
 */
export class Client extends BaseClient {
  constructor(options: ClientOptions = {}) {
    const { url = globalThis.location?.origin, transport = "http" } = options;
    if (!url) throw new TypeError("url is required outside of a page");
    const open = () => ({
      transport:
        transport === "http"
          ? createHttpTransport(url)
          : withFastEvents(createGrpcWebTransport({ baseUrl: url }), textOf),
      close: () => undefined, // the browser owns the connections; streams end by their signals
    });
    super([url], open, options);
  }
}

function textOf(bytes: Uint8Array): DecodeText {
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  return (from, to) => decoder.decode(bytes.subarray(from, to));
}
