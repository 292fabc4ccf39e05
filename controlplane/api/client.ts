/**
 * Client: asks a running router over its control socket.
 */
import { request } from 'node:http';

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

/** GET /v1/show/`what` on the router behind socket `path`. Errors: ApiError. */
export function askShow(
  path: string,
  what: string,
  filters: Readonly<Record<string, string>> = {},
): Promise<ShowAnswer> {
  const query = new URLSearchParams(filters).toString();
  const target = `/v1/show/${encodeURIComponent(what)}${query === '' ? '' : `?${query}`}`;
  return new Promise((resolve, reject) => {
    const asked = request({ socketPath: path, path: target, timeout: TIMEOUT_MS, agent: false }, (response) => {
      let body = '';
      response.setEncoding('utf8');
      response.on('data', (text: string) => {
        body += text;
      });
      response.on('error', (error) => reject(refusal(path, error)));
      response.on('end', () => {
        try {
          const answer = JSON.parse(body) as ShowAnswer & { error?: string };
          if (response.statusCode === 200) resolve(answer);
          else reject(new ApiError(answer.error ?? `status ${response.statusCode}`, response.statusCode ?? 0));
        } catch {
          reject(new ApiError(`${path}: expected an answer in JSON, got something else; is it a Sluice socket?`, 0));
        }
      });
    });
    asked.on('timeout', () => asked.destroy(new Error('no answer')));
    asked.on('error', (error) => reject(refusal(path, error)));
    asked.end();
  });
}

function refusal(path: string, error: NodeJS.ErrnoException): ApiError {
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
