/**
 * Route: one path of the API, as data: how it is called, what it takes, who answers. The server dispatches by these, and
 * the OpenAPI description is made of them, so neither can know a path that the other does not.
 *
 * To add a path, write a Route and put it into the list of routes.ts.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { ShowSource } from '../show/source.ts';
import type { Configuration } from './configuration.ts';
import type { Feed } from './feed.ts';
import { Refusal } from './http.ts';

/** What a route's handler looks at. */
export interface ApiContext {
  readonly source: ShowSource;
  /** The running configuration and its changes; null for a router that has no file (embedded). */
  readonly configuration: Configuration | null;
  /** Changes as they happen. */
  readonly feed: Feed;
}

export interface ApiRequest {
  /** Parts of the path in braces. */
  readonly params: Readonly<Record<string, string>>;
  readonly query: URLSearchParams;
  /** Empty without a body. */
  readonly body: Buffer;
  /** The content type of the body, without parameters. */
  readonly type: string;
  readonly raw: IncomingMessage;
}

/** JSON, other content, or a response that the handler goes on with by itself (server-sent events). */
export type Answer =
  | { json: unknown; status?: number }
  | { type: string; body: string | Uint8Array; headers?: Readonly<Record<string, string>> }
  | { stream: (response: ServerResponse) => void };

export interface ParameterSpec {
  description: string;
  /** All values that there are. */
  values?: readonly string[];
  required?: boolean;
}

/** A JSON schema, as OpenAPI 3.1 takes it. */
export type Schema = Readonly<Record<string, unknown>>;

export interface Route {
  method: 'GET' | 'POST';
  /** Parts in braces match one path segment: `/v1/show/{what}`. */
  path: string;
  /** One line. */
  summary: string;
  /** What it belongs to in the description. */
  tag: string;
  /** Needs no token: what it answers is in the package that anybody can read. */
  open?: boolean;
  params?: Readonly<Record<string, ParameterSpec>>;
  query?: Readonly<Record<string, ParameterSpec>>;
  /** Other names than those of `query` are refused unless this is set. */
  anyQuery?: boolean;
  body?: { types: readonly string[]; limit: number; description: string; schema?: Schema };
  answer: { type: string; description: string; schema?: Schema };
  handle(context: ApiContext, request: ApiRequest): Answer | Promise<Answer>;
}

/** The route for a method and a path, and the parts of the path; null when no route has the path. */
export function findRoute(
  routes: readonly Route[],
  method: string,
  path: string,
): { route: Route; params: Record<string, string> } | null {
  const allowed: string[] = [];
  for (const route of routes) {
    const params = matchPath(route.path, path);
    if (params === null) continue;
    if (route.method === method || (method === 'HEAD' && route.method === 'GET')) return { route, params };
    allowed.push(route.method);
  }
  if (allowed.length === 0) return null;
  throw new Refusal(405, `method: expected ${allowed.join(' or ')}, got ${method}`, { allow: allowed.join(', ') });
}

function matchPath(pattern: string, path: string): Record<string, string> | null {
  const parts = pattern.split('/');
  const given = path.split('/');
  if (parts.length !== given.length) return null;
  const params: Record<string, string> = {};
  for (let n = 0; n < parts.length; n++) {
    const name = /^\{(\w+)\}$/.exec(parts[n])?.[1];
    if (name === undefined) {
      if (parts[n] !== given[n]) return null;
    } else if (/^[\w.-]+$/.test(given[n])) params[name] = given[n];
    else return null;
  }
  return params;
}

/** Refuses query parameters that the route does not know, and a missing one. @throws Refusal 400 */
export function checkQuery(route: Route, query: URLSearchParams): void {
  const specs = route.query ?? {};
  for (const name of query.keys())
    if (!Object.hasOwn(specs, name) && route.anyQuery !== true) {
      const known = Object.keys(specs);
      const expected = known.length === 0 ? 'none' : `one of ${known.join(', ')}`;
      throw new Refusal(400, `query: expected ${expected}, got ${JSON.stringify(name.slice(0, 80))}`);
    }
  for (const [name, { required, values }] of Object.entries(specs)) {
    const value = query.get(name);
    if (value === null) {
      if (required) throw new Refusal(400, `${name}: expected a value, got nothing`);
    } else if (values !== undefined && !values.includes(value))
      throw new Refusal(
        400,
        `${name}: expected one of ${values.join(', ')}, got ${JSON.stringify(value.slice(0, 80))}`,
      );
  }
}

/** A whole number out of a query; `fallback` when it is absent. @throws Refusal 400 */
export function numberOf(query: URLSearchParams, name: string, low: number, high: number, fallback: number): number {
  const text = query.get(name);
  if (text === null) return fallback;
  const value = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN;
  if (!(value >= low && value <= high))
    throw new Refusal(
      400,
      `${name}: expected a number from ${low} to ${high}, got ${JSON.stringify(text.slice(0, 40))}`,
    );
  return value;
}
