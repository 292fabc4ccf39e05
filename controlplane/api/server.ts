/**
 * Server: the control API of a running router, HTTP over a unix socket that only its owner may open (mode 0600).
 *
 *   GET /v1/show/WHAT?FILTER=VALUE…   → 200 { text, json }     the views of controlplane/show
 *   anything else                     → 4xx { error }
 *
 * The socket is taken before the router starts, so that two routers on one path are noticed before any device is
 * touched; until `serve` it answers 503. One that a killed router left behind is replaced.
 */
import { chmodSync, unlinkSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { connect } from 'node:net';
import { IoError } from '../../dataplane/ports/ffi.ts';
import { type ShowSource, VIEWS } from '../show/index.ts';

export class ApiServer {
  readonly path: string;
  private readonly server: Server;
  private source: ShowSource | null = null;
  private open = true;

  private constructor(path: string, server: Server) {
    this.path = path;
    this.server = server;
    server.on('request', (request, response) => this.answer(request, response));
  }

  /** Takes the socket. Errors: IoError when another router answers there, or the path cannot be used. */
  static async listen(path: string): Promise<ApiServer> {
    for (let attempt = 0; ; attempt++) {
      const server = createServer({ keepAlive: false });
      const code = await tryListen(server, path);
      if (code === '') {
        chmodSync(path, 0o600);
        return new ApiServer(path, server);
      }
      const where = `control.socket ${path}`;
      if (code !== 'EADDRINUSE' || attempt > 0)
        throw new IoError(where, 'to listen there', code, 'choose another path in control.socket', code);
      if (await answers(path))
        throw new IoError(
          where,
          'no other router',
          'one that runs already',
          'stop it, or give this one a control.socket of its own',
          code,
        );
      unlinkSync(path); // left by a router that was killed
    }
  }

  /** Starts to answer. */
  serve(source: ShowSource): void {
    this.source = source;
  }

  /** Stops and removes the socket. */
  async close(): Promise<void> {
    if (!this.open) return;
    this.open = false;
    await new Promise((resolve) => {
      this.server.close(resolve); // Node unlinks the path
      this.server.closeAllConnections();
    });
  }

  /** For an 'exit' handler. */
  abandon(): void {
    if (!this.open) return;
    this.open = false;
    try {
      unlinkSync(this.path);
    } catch {}
  }

  private answer(request: IncomingMessage, response: ServerResponse): void {
    const send = (status: number, body: unknown): void => {
      response.writeHead(status, { 'content-type': 'application/json' });
      response.end(JSON.stringify(body));
    };
    // A request line may hold anything; `new URL` throws for what is none, and nobody above would catch it.
    const target = request.url ?? '/';
    if (!URL.canParse(target, 'http://sluice')) {
      send(400, { error: 'path: expected /v1/show/WHAT, got what is no URL' });
      return;
    }
    const url = new URL(target, 'http://sluice');
    const what = /^\/v1\/show\/([\w-]+)$/.exec(url.pathname)?.[1];
    if (what === undefined) {
      send(404, { error: `path: expected /v1/show/WHAT, got ${url.pathname}` });
      return;
    }
    if (request.method !== 'GET') {
      send(405, { error: `method: expected GET, got ${request.method}` });
      return;
    }
    const view = Object.hasOwn(VIEWS, what) ? VIEWS[what] : undefined;
    if (view === undefined) {
      send(404, { error: `show: expected one of ${Object.keys(VIEWS).join(', ')}, got "${what}"` });
      return;
    }
    if (this.source === null) {
      send(503, { error: 'the router is starting; ask again in a moment' });
      return;
    }
    try {
      send(200, view(this.source, Object.fromEntries(url.searchParams)));
    } catch (error) {
      send(error instanceof RangeError ? 400 : 500, { error: (error as Error).message });
    }
  }
}

/** Error code, '' when it listens. */
function tryListen(server: Server, path: string): Promise<string> {
  return new Promise((resolve) => {
    const failed = (error: NodeJS.ErrnoException): void => resolve(error.code ?? error.message);
    server.once('error', failed);
    // Nobody else may connect in the moment before chmod.
    const mask = process.umask(0o177);
    server.listen(path, () => {
      server.off('error', failed);
      resolve('');
    });
    process.umask(mask);
  });
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}
