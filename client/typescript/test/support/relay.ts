/** A TCP relay whose connections tests cut or freeze. */
import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";

export class Relay {
  target = "";
  connections = 0;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(upstream: string) {
    const [host = "", port = ""] = upstream.split(":");
    this.#server = createServer((near) => {
      this.connections += 1;
      const far = connect(Number(port), host);
      for (const socket of [near, far]) {
        this.#sockets.add(socket);
        socket.on("error", () => undefined);
        socket.on("close", () => this.#sockets.delete(socket));
      }
      near.pipe(far).pipe(near);
    });
  }

  static async to(upstream: string): Promise<Relay> {
    const relay = new Relay(upstream);
    relay.#server.listen(0, "127.0.0.1");
    await once(relay.#server, "listening");
    relay.target = `127.0.0.1:${(relay.#server.address() as AddressInfo).port}`;
    return relay;
  }

  /** Cut all connections; later ones pass. */
  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  /** Let nothing more pass on the present connections, without closing them. */
  freeze(): void {
    for (const socket of this.#sockets) socket.unpipe().pause();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.close();
    this.cut();
  }
}
