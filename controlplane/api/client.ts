/**
 * Client: asks a running router over its control socket.
 */
import { type IncomingMessage, request } from 'node:http';

/** What a view answers: text for people, and the same as JSON. */
export interface ShowAnswer {
  text: string;
  json: unknown;
}

/** An answer that did not come, or was a refusal; the message is for people. */
export class ApiError extends Error {
  override readonly name = 'ApiError';
  /** HTTP status; 0 when nobody answered. */
  readonly status: number;

  constructor(message: string, status: number) {
    super(message);
    this.status = status;
  }
}

const TIMEOUT_MS = 10_000;

export interface AskOptions {
  method?: 'GET' | 'POST';
  /** Absent values are left out. */
  query?: Readonly<Record<string, string | undefined>>;
  body?: string | Uint8Array;
  /** Content type of the body. */
  type?: string;
  /** Milliseconds without a byte until the router counts as gone. */
  timeout?: number;
}

function target(path: string, query: AskOptions['query'] = {}): string {
  const entries = Object.entries(query).filter((entry): entry is [string, string] => entry[1] !== undefined);
  const text = new URLSearchParams(entries).toString();
  return text === '' ? path : `${path}?${text}`;
}

/** Asks the router behind `socket` for JSON. Errors: ApiError. */
export function ask<T>(socket: string, path: string, options: AskOptions = {}): Promise<T> {
  const { method = 'GET', body, type = 'application/json', timeout = TIMEOUT_MS } = options;
  return new Promise((resolve, reject) => {
    const headers = body === undefined ? {} : { 'content-type': type, 'content-length': Buffer.byteLength(body) };
    const settings = { socketPath: socket, path: target(path, options.query), method, headers, timeout, agent: false };
    const asked = request(settings, (response) => {
      collect(response).then(
        (text) => {
          try {
            const answer = JSON.parse(text) as T & { error?: string };
            if (response.statusCode === 200) resolve(answer);
            else reject(new ApiError(answer.error ?? `status ${response.statusCode}`, response.statusCode ?? 0));
          } catch {
            reject(
              new ApiError(`${socket}: expected an answer in JSON, got something else; is it a Sluice socket?`, 0),
            );
          }
        },
        (error) => reject(refusal(socket, error)),
      );
    });
    asked.on('timeout', () => asked.destroy(new Error('no answer')));
    asked.on('error', (error) => reject(refusal(socket, error)));
    asked.end(body);
  });
}

async function collect(response: IncomingMessage): Promise<string> {
  response.setEncoding('utf8');
  let text = '';
  for await (const part of response) text += part;
  return text;
}

/** GET /v1/show/`what` on the router behind socket `path`. Errors: ApiError. */
export function askShow(
  path: string,
  what: string,
  filters: Readonly<Record<string, string>> = {},
): Promise<ShowAnswer> {
  return ask<ShowAnswer>(path, `/v1/show/${encodeURIComponent(what)}`, { query: filters });
}

/**
 * Listens to GET /v1/events until `use` returns false or `signal` aborts; resolves then. Errors: ApiError, also when the
 * router ends.
 */
export function askEvents(
  socket: string,
  kinds: readonly string[],
  use: (kind: string, data: unknown) => boolean | undefined,
  signal?: AbortSignal,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const settings = { socketPath: socket, path: target('/v1/events', { kinds: kinds.join(',') }), agent: false };
    const asked = request(settings, (response) => {
      if (response.statusCode !== 200) {
        collect(response).then(
          (text) => reject(new ApiError(errorOf(text), response.statusCode ?? 0)),
          (error) => reject(refusal(socket, error)),
        );
        return;
      }
      let rest = '';
      response.setEncoding('utf8');
      response.on('data', (part: string) => {
        rest += part;
        for (let end = rest.indexOf('\n\n'); end >= 0; end = rest.indexOf('\n\n')) {
          const event = rest.slice(0, end);
          rest = rest.slice(end + 2);
          const found = /^event: (\w+)\ndata: (.*)$/.exec(event);
          if (found === null || use(found[1], JSON.parse(found[2])) !== false) continue;
          asked.destroy();
          resolve();
          return;
        }
      });
      response.on('error', () => {});
      response.on('close', () =>
        reject(new ApiError(`${socket}: expected more events, got the end: the router stopped`, 0)),
      );
    });
    asked.on('error', (error) => reject(refusal(socket, error)));
    signal?.addEventListener('abort', () => {
      resolve();
      asked.destroy();
    });
    asked.end();
  });
}

function errorOf(text: string): string {
  try {
    return (JSON.parse(text) as { error: string }).error;
  } catch {
    return 'the request was refused';
  }
}

/** What is said when the socket `path` gave no answer. */
export function refusal(path: string, error: NodeJS.ErrnoException): ApiError {
  const advice = 'start one with "sluice run FILE", or name its socket with --socket PATH';
  if (error.code === 'ENOENT' || error.code === 'ECONNREFUSED')
    return new ApiError(`${path}: expected a running router, got nobody; ${advice}`, 0);
  if (error.code === 'EACCES' || error.code === 'EPERM')
    return new ApiError(
      `${path}: expected to be allowed in, got ${error.code}; ask as the user who runs the router`,
      0,
    );
  return new ApiError(`${path}: expected an answer, got ${error.code ?? error.message}; ${advice}`, 0);
}
