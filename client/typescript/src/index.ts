import { BaseClient, type BaseOptions } from "./client.js";
import { isLoopback, openChannel, type TlsOptions } from "./node.js";

export * from "./exports.js";
export type { TlsOptions };

export interface ClientOptions extends BaseOptions, TlsOptions {
  /** `HOST:PORT` of the server, or of several servers of one store: calls are spread over them. */
  targets?: string | readonly string[] | undefined;
  /** Whether to use TLS. Default: true if `ca` or `cert` is set. */
  tls?: boolean | undefined;
  /** Whether the token may be sent to another machine in plain text. Default false. */
  insecure?: boolean | undefined;
}

/**
 * Client of a lavant server for Node.js, by gRPC over HTTP/2.
 *
 * The variables LAVANT_TARGET, LAVANT_API_KEY, LAVANT_TLS and LAVANT_TLS_CA are defaults of `targets`, `token`, `tls` and
 * `ca`. Throws TypeError for options that cannot work.
 */
export class Client extends BaseClient {
  constructor(options: ClientOptions = {}) {
    const { env } = process;
    const targets = [options.targets ?? env.LAVANT_TARGET ?? "localhost:7447"].flat();
    const token = options.token ?? env.LAVANT_API_KEY;
    const { ca = env.LAVANT_TLS_CA, cert, key } = options;
    const isEncrypted = options.tls ?? (ca !== undefined || cert !== undefined || env.LAVANT_TLS === "true");
    if ((cert === undefined) !== (key === undefined)) throw new TypeError("cert and key belong together: pass both");
    const remote = targets.find((target) => !isLoopback(target));
    if (token !== undefined && remote !== undefined && !isEncrypted && !options.insecure) {
      throw new TypeError(`token would be sent to ${remote} in plain text: pass tls, ca, or insecure: true`);
    }
    const tls = isEncrypted ? { ca, cert, key } : undefined;
    super(targets, (target) => openChannel(target, tls), { ...options, token });
  }
}
