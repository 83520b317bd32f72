import { readFileSync } from "node:fs";
import type { SecureClientSessionOptions } from "node:http2";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import type { Channel } from "./channels.js";
import { type DecodeText, withFastEvents } from "./reading/decoding.js";

/** TLS of a client, by the paths of PEM files, which are read again for each new connection. */
export interface TlsOptions {
  /** Certificates of the CAs that the server's certificate must come from. Default: those that Node.js trusts. */
  ca?: string | undefined;
  /** Certificate chain of the client, for servers that require one. Needs `key`. */
  cert?: string | undefined;
  /** Key of `cert`, without a passphrase. */
  key?: string | undefined;
}

// The server closes connections that are pinged more often than every 10 s.
const PING_INTERVAL_MS = 20_000;
const PING_TIMEOUT_MS = 10_000;
// Less is a round trip per 64 KiB; more is what a slow reader holds in memory per stream.
const STREAM_WINDOW = 512 * 1024;
const MAX_RESPONSE_BYTES = 4 * 1024 * 1024;

/** Return a channel of gRPC over HTTP/2 to `HOST:PORT`. */
export function openChannel(target: string, tls: TlsOptions | undefined): Channel {
  const baseUrl = `${tls === undefined ? "http" : "https"}://${target}`;
  const files: SecureClientSessionOptions = {};
  for (const name of ["ca", "cert", "key"] as const) {
    const path = tls?.[name];
    if (path !== undefined) files[name] = readFileSync(path);
  }
  const sessionManager = new Http2SessionManager(
    baseUrl,
    { pingIntervalMs: PING_INTERVAL_MS, pingTimeoutMs: PING_TIMEOUT_MS },
    { ...files, settings: { initialWindowSize: STREAM_WINDOW } },
  );
  const transport = createGrpcTransport({
    baseUrl,
    sessionManager,
    acceptCompression: [],
    readMaxBytes: MAX_RESPONSE_BYTES,
  });
  return { transport: withFastEvents(transport, textOf), close: () => sessionManager.abort() };
}

function textOf(bytes: Uint8Array): DecodeText {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  return (from, to) => buffer.toString("utf8", from, to);
}

/** Return whether all addresses of `HOST:PORT` are on this machine. */
export function isLoopback(target: string): boolean {
  const host = new URL(`http://${target}`).hostname;
  return host === "localhost" || host === "[::1]" || /^127(\.\d+){3}$/.test(host);
}
