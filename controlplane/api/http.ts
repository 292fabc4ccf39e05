/**
 * HTTP: what every request must pass before it reaches a route, and the header fields that every answer has.
 *
 * Two doors. The unix socket is guarded by its mode: only its owner gets in. The TCP door asks for a token, and since a
 * browser may be behind it, it also refuses requests that name this host by a foreign name (DNS rebinding) or come from a
 * page of another origin. There are no cookies, so nothing rides along with a forged request.
 *
 * Not here: TLS (a proxy's business).
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import type { IncomingMessage, ServerOptions, ServerResponse } from 'node:http';
import { isIP } from 'node:net';
import type { ApiConfig } from '../config/index.ts';

/** Time that a client has for the head of a request, for all of it, and to take an answer, milliseconds. */
export const HEAD_MS = 5_000;
export const REQUEST_MS = 30_000;
export const IDLE_MS = 30_000;
/** Between two looks at who is over time. Node looks whether or not there is anybody: a second would wake an idle router for it. */
const CHECK_MS = 2_500;
export const MAX_CONNECTIONS = 128;

export const SERVER_OPTIONS: ServerOptions = {
  maxHeaderSize: 16_384,
  headersTimeout: HEAD_MS,
  requestTimeout: REQUEST_MS,
  connectionsCheckingInterval: CHECK_MS,
  keepAliveTimeout: 5_000,
};

/** An answer that is a refusal; the message is for people. */
export class Refusal extends Error {
  override readonly name = 'Refusal';
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;

  constructor(status: number, message: string, headers: Readonly<Record<string, string>> = {}) {
    super(message);
    this.status = status;
    this.headers = headers;
  }
}

/** Where a request came in. */
export type Door = { kind: 'socket' } | { kind: 'tcp'; token: Buffer; hosts: readonly string[] };

export function tcpDoor(config: Pick<ApiConfig, 'token' | 'hosts'>): Door {
  return { kind: 'tcp', token: digest(config.token), hosts: config.hosts };
}

/**
 * Refuses a request that may not come in.
 *
 * @param open routes that need no token: the page itself, which holds nothing of the router's
 * @throws Refusal 401, 403 or 421
 */
export function admit(door: Door, request: IncomingMessage, open: boolean): void {
  if (door.kind === 'socket') return;
  const host = request.headers.host ?? '';
  if (!isOwnHost(host, door.hosts))
    throw new Refusal(
      421,
      `host: expected an address of this router, localhost, or a name of api.hosts, got ${JSON.stringify(host.slice(0, 80))}`,
    );
  const { origin } = request.headers;
  if (origin !== undefined && origin !== `http://${host}` && origin !== `https://${host}`)
    throw new Refusal(403, `origin: expected a page of this router, got ${JSON.stringify(origin.slice(0, 80))}`);
  if (open) return;
  const [scheme, token] = (request.headers.authorization ?? '').split(' ', 2);
  // Digests have one length, so the comparison takes the same time whatever was sent.
  const right = timingSafeEqual(digest(token ?? ''), door.token);
  if (!right || scheme.toLowerCase() !== 'bearer')
    throw new Refusal(
      401,
      `authorization: expected the token of api.token, got ${token === undefined ? 'nothing' : 'another one'}; send "Authorization: Bearer TOKEN"`,
      { 'www-authenticate': 'Bearer realm="sluice"' },
    );
}

function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}

/** A rebinding attack needs a name that resolves to us: an address, localhost and our own names are none. */
function isOwnHost(host: string, names: readonly string[]): boolean {
  const match = /^(\[[0-9A-Fa-f:.]+\]|[^:[\]]+)(?::\d{1,5})?$/.exec(host);
  if (match === null) return false;
  const name = match[1].toLowerCase();
  if (name.startsWith('[')) return isIP(name.slice(1, -1)) === 6;
  return isIP(name) === 4 || name === 'localhost' || names.includes(name);
}

/** Nothing but our own files, no frames, no forms, no inline script. */
const PAGE_POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self' data:",
  "connect-src 'self'",
  "manifest-src 'none'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ');

/** Field by field what every answer carries. */
export const COMMON_HEADERS: Readonly<Record<string, string>> = {
  'content-security-policy': PAGE_POLICY,
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
  'referrer-policy': 'no-referrer',
  'cross-origin-resource-policy': 'same-origin',
  'cross-origin-opener-policy': 'same-origin',
  'cache-control': 'no-store',
};

/**
 * The body of a request, of `limit` bytes at most.
 *
 * @throws Refusal 413 as soon as it is known to be too long, 415 for another type, 400 when the client broke off
 */
export function readBody(request: IncomingMessage, types: readonly string[], limit: number): Promise<Buffer> {
  const type = (request.headers['content-type'] ?? '').split(';', 1)[0].trim().toLowerCase();
  // Pages of another origin may send three types unasked; none of them is ours (Fetch, CORS-safelisted headers).
  if (!types.includes(type))
    throw new Refusal(415, `content-type: expected ${types.join(' or ')}, got ${JSON.stringify(type.slice(0, 80))}`);
  const tooLong = (): Refusal => new Refusal(413, `body: expected at most ${limit} bytes, got more`);
  if (Number(request.headers['content-length'] ?? 0) > limit) throw tooLong();
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let length = 0;
    request.on('data', (chunk: Buffer) => {
      length += chunk.length;
      if (length <= limit) chunks.push(chunk);
      else {
        request.removeAllListeners('data');
        request.pause();
        reject(tooLong());
      }
    });
    request.on('end', () => resolve(Buffer.concat(chunks)));
    request.on('error', () => reject(new Refusal(400, 'body: expected all of it, got a part')));
    request.on('close', () => reject(new Refusal(400, 'body: expected all of it, got a part')));
  });
}

/** Writes a whole answer. */
export function send(
  response: ServerResponse,
  status: number,
  type: string,
  body: string | Uint8Array,
  headers: Readonly<Record<string, string>> = {},
): void {
  if (response.headersSent || response.destroyed) return;
  const bytes = typeof body === 'string' ? Buffer.from(body) : body;
  response.writeHead(status, { ...COMMON_HEADERS, 'content-type': type, 'content-length': bytes.length, ...headers });
  response.end(response.req.method === 'HEAD' ? undefined : bytes);
}

export function sendJson(
  response: ServerResponse,
  status: number,
  json: unknown,
  headers: Readonly<Record<string, string>> = {},
): void {
  send(response, status, 'application/json', JSON.stringify(json), headers);
}
