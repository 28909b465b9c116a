import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';

/** Way to a server that can be cut, a TCP proxy: what a page sees when the network goes away. */
export class Connection {
  readonly url: string;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #isCut = false;

  private constructor(server: Server, sockets: Set<Socket>) {
    this.#server = server;
    this.#sockets = sockets;
    this.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  }

  static async before(target: string): Promise<Connection> {
    const { hostname, port } = new URL(target);
    const sockets = new Set<Socket>();
    let proxy: Connection | undefined;
    const server = createServer((browser) => {
      if (!proxy || proxy.#isCut) {
        browser.destroy();
        return;
      }
      const upstream = connect(Number(port), hostname);
      for (const [socket, other] of [
        [browser, upstream],
        [upstream, browser],
      ] as const) {
        sockets.add(socket);
        socket.on('error', () => {});
        socket.on('close', () => {
          sockets.delete(socket);
          other.destroy();
        });
      }
      browser.pipe(upstream).pipe(browser);
    });
    await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
    proxy = new Connection(server, sockets);
    return proxy;
  }

  /** Break all connections, and refuse new ones. */
  cut(): void {
    this.#isCut = true;
    for (const socket of this.#sockets) socket.destroy();
  }

  restore(): void {
    this.#isCut = false;
  }

  async close(): Promise<void> {
    this.cut();
    await new Promise((done) => this.#server.close(done));
  }
}
