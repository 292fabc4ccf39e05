/**
 * Server: the API of a running router: HTTP on a unix socket that only its owner may open (mode 0600), and on a TCP
 * address when the configuration has the section `api`.
 *
 * The socket is taken before the router starts, so that two routers on one path are noticed before any device is
 * touched; until `serve` it answers 503. One that a killed router left behind is replaced; a file of another kind stays.
 *
 * A request goes: known path and method → door (http.ts) → query → body → handler. What a client does wrong gets a 4xx
 * with one sentence; what fails here is a 500, and the router goes on.
 */
import { chmodSync, lstatSync, unlinkSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { IoError } from '../../dataplane/ports/ffi.ts';
import type { ApiConfig } from '../config/index.ts';
import type { ShowSource } from '../show/index.ts';
import type { Configuration } from './configuration.ts';
import { Feed } from './feed.ts';
import {
  admit,
  type Door,
  IDLE_MS,
  MAX_CONNECTIONS,
  Refusal,
  readBody,
  SERVER_OPTIONS,
  send,
  sendJson,
  tcpDoor,
} from './http.ts';
import { type ApiContext, checkQuery, findRoute } from './route.ts';
import { ROUTES } from './routes.ts';

const EMPTY = Buffer.alloc(0);

export class ApiServer {
  readonly path: string;
  private readonly servers: Server[];
  private context: ApiContext | null = null;
  private open = true;

  private constructor(path: string, server: Server) {
    this.path = path;
    this.servers = [server];
    this.attend(server, { kind: 'socket' });
  }

  /** Takes the socket. Errors: IoError when another router answers there, or the path cannot be used. */
  static async listen(path: string): Promise<ApiServer> {
    for (let attempt = 0; ; attempt++) {
      const server = createServer(SERVER_OPTIONS);
      const code = await tryListen(server, path);
      if (code === '') {
        chmodSync(path, 0o600);
        return new ApiServer(path, server);
      }
      const where = `control.socket ${path}`;
      if (code !== 'EADDRINUSE' || attempt > 0)
        throw new IoError(where, 'to listen there', code, 'choose another path in control.socket', code);
      const left = await clear(path);
      if (left === 'busy')
        throw new IoError(
          where,
          'no other router',
          'one that runs already',
          'stop it, or give this one a control.socket of its own',
          code,
        );
      if (left === 'foreign')
        throw new IoError(
          where,
          'a new path, or a socket of an earlier router',
          'a file that is no such socket, or is not ours to replace',
          'choose another path in control.socket',
          code,
        );
    }
  }

  /** Listens on TCP too. Returns the address of the page. Errors: IoError. */
  async listenTcp(config: ApiConfig): Promise<string> {
    const server = createServer(SERVER_OPTIONS);
    const { address, port } = config.listen;
    const code = await new Promise<string>((resolve) => {
      const failed = (error: NodeJS.ErrnoException): void => resolve(error.code ?? error.message);
      server.once('error', failed);
      server.listen({ host: address, port, ipv6Only: true }, () => {
        server.off('error', failed);
        resolve('');
      });
    });
    if (code !== '')
      throw new IoError(
        `api.listen ${address} port ${port}`,
        'to listen there',
        code,
        'choose another address or port',
        code,
      );
    this.attend(server, tcpDoor(config));
    this.servers.push(server);
    // Port 0 leaves the choice to the host.
    const { port: chosen } = server.address() as AddressInfo;
    return `http://${config.listen.family === 6 ? `[${address}]` : address}:${chosen}/`;
  }

  private attend(server: Server, door: Door): void {
    server.maxConnections = MAX_CONNECTIONS;
    // A client that neither sends nor reads for so long is gone; streams have a heartbeat.
    server.setTimeout(IDLE_MS, (socket) => socket.destroy());
    server.on('request', (request, response) => void this.attendRequest(door, request, response));
    server.on('clientError', (error: NodeJS.ErrnoException, socket) => {
      if (error.code === 'ECONNRESET' || !socket.writable) return void socket.destroy();
      const status = error.code === 'ERR_HTTP_REQUEST_TIMEOUT' ? '408 Request Timeout' : '400 Bad Request';
      socket.end(`HTTP/1.1 ${status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n`);
    });
  }

  /** Starts to answer. `configuration`: for a router that can be reconfigured. */
  serve(source: ShowSource, configuration: Configuration | null = null): void {
    this.context = { source, configuration, feed: new Feed(source) };
  }

  /** Stops and removes the socket. */
  async close(): Promise<void> {
    if (!this.open) return;
    this.open = false;
    this.context?.feed.close();
    this.context?.configuration?.close();
    await Promise.all(
      this.servers.map(
        (server) =>
          new Promise((resolve) => {
            server.close(resolve); // Node unlinks the path
            server.closeAllConnections();
          }),
      ),
    );
  }

  /** For an 'exit' handler. */
  abandon(): void {
    if (!this.open) return;
    this.open = false;
    try {
      unlinkSync(this.path);
    } catch {}
  }

  private async attendRequest(door: Door, request: IncomingMessage, response: ServerResponse): Promise<void> {
    // A client that breaks off is no event.
    response.on('error', () => {});
    try {
      await this.answer(door, request, response);
    } catch (error) {
      const status = error instanceof Refusal ? error.status : error instanceof RangeError ? 400 : 500;
      const headers: Record<string, string> = error instanceof Refusal ? { ...error.headers } : {};
      // What is left of a refused body is not read.
      if (!request.complete) headers.connection = 'close';
      sendJson(response, status, { error: (error as Error).message }, headers);
    }
  }

  private async answer(door: Door, request: IncomingMessage, response: ServerResponse): Promise<void> {
    // A request line may hold anything; `new URL` throws for what is none.
    const target = request.url ?? '/';
    if (!target.startsWith('/') || !URL.canParse(target, 'http://sluice'))
      throw new Refusal(400, 'path: expected /v1/…, got what is no path');
    const url = new URL(target, 'http://sluice');
    // An unknown path tells strangers nothing: they are asked for the token first.
    const found = findRoute(ROUTES, request.method ?? '', url.pathname);
    admit(door, request, found?.route.open ?? false);
    if (found === null)
      throw new Refusal(
        404,
        `path: expected one that /openapi.json names, got ${JSON.stringify(url.pathname.slice(0, 80))}`,
      );
    const { route, params } = found;
    checkQuery(route, url.searchParams);
    const body = route.body === undefined ? EMPTY : await readBody(request, route.body.types, route.body.limit);
    const { context } = this;
    if (context === null)
      throw new Refusal(503, 'the router is starting; ask again in a moment', { 'retry-after': '1' });
    const type = (request.headers['content-type'] ?? '').split(';', 1)[0].trim().toLowerCase();
    const answer = await route.handle(context, { params, query: url.searchParams, body, type, raw: request });
    if ('stream' in answer) answer.stream(response);
    else if ('json' in answer) sendJson(response, answer.status ?? 200, answer.json);
    else send(response, 200, answer.type, answer.body, answer.headers);
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

/**
 * Removes the socket of a router that was killed. `gone`: there is none any more; `busy`: somebody answers; `foreign`: it is
 * something else, or somebody else's, and stays.
 */
async function clear(path: string): Promise<'gone' | 'busy' | 'foreign'> {
  try {
    if (!lstatSync(path).isSocket()) return 'foreign';
    const code = await new Promise<string>((resolve) => {
      const socket = connect(path);
      socket.once('connect', () => {
        socket.destroy();
        resolve('');
      });
      socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
    });
    // A queue that is full (EAGAIN) has somebody behind it.
    if (code === '' || code === 'EAGAIN') return 'busy';
    if (code !== 'ECONNREFUSED' && code !== 'ENOENT') return 'foreign';
    unlinkSync(path);
    return 'gone';
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ENOENT' ? 'gone' : 'foreign';
  }
}
