/**
 * Routes: every path of the API. What a path does is in the file that it is about; here it gets its name and its words.
 */
import { metricsText } from '../metrics/prometheus.ts';
import { packageVersion } from '../package-root.ts';
import { DOMAIN_VIEWS, VIEW_NAMES, VIEWS } from '../show/index.ts';
import { searchConnections } from './connections.ts';
import { RESTART_ROUTE } from './domains.ts';
import { EXPLAIN_ROUTE } from './explain.ts';
import { EVENT_KINDS, type FeedKind } from './feed.ts';
import { Refusal } from './http.ts';
import { describe } from './openapi.ts';
import { PAGE_ROUTES } from './pages.ts';
import { REPLAY_ROUTE } from './replay.ts';
import { type ApiContext, numberOf, type Route } from './route.ts';
import { streamEvents } from './stream.ts';
import { summarize } from './summary.ts';
import { WATCH_ROUTES } from './watch.ts';

/** A configuration of the largest size that the reader takes. */
const MAX_CONFIGURATION = 4 * 1024 * 1024;
const CONFIGURATION_TYPES = ['application/yaml', 'application/json', 'text/plain'];

function configured(context: ApiContext): NonNullable<ApiContext['configuration']> {
  if (context.configuration === null)
    throw new Refusal(501, 'configuration: expected a router that runs from a file, got one that a program embeds');
  return context.configuration;
}

const APPLY_SCHEMA = {
  type: 'object',
  properties: {
    lines: { type: 'array', items: { type: 'string' }, description: '`- …` and `+ …`: what differs' },
    warnings: { type: 'array', items: { type: 'string' } },
    applied: { type: 'boolean' },
    ended: { type: 'number', description: 'connections that ended because of it' },
    confirm: { type: ['number', 'null'], description: 'seconds until the configuration before comes back' },
  },
};

const API_ROUTES: readonly Route[] = [
  {
    method: 'GET',
    path: '/v1/show/{what}',
    summary: 'A view of the running router, as `sluice show` prints it',
    tag: 'show',
    params: { what: { description: 'which view', values: VIEW_NAMES } },
    // Each view knows its own filters and refuses others by name.
    anyQuery: true,
    answer: {
      type: 'application/json',
      description: 'The text for people, and the same as JSON with the key names of iproute2',
      schema: { type: 'object', required: ['text', 'json'], properties: { text: { type: 'string' }, json: {} } },
    },
    handle: async ({ source }, { params: { what }, query }) => {
      const views = Object.hasOwn(VIEWS, what) ? VIEWS : DOMAIN_VIEWS;
      const view = Object.hasOwn(views, what) ? views[what] : undefined;
      if (view === undefined) throw new Refusal(404, `show: expected one of ${VIEW_NAMES.join(', ')}, got "${what}"`);
      return { json: await view(source, Object.fromEntries(query)) };
    },
  },
  {
    method: 'GET',
    path: '/v1/summary',
    summary: 'The whole router in one object: ports, zones, counters, drops, occupancies',
    tag: 'show',
    answer: { type: 'application/json', description: 'Totals since start', schema: { type: 'object' } },
    handle: ({ source }) => ({ json: summarize(source) }),
  },
  {
    method: 'GET',
    path: '/v1/connections',
    summary: 'Connections whose line holds every word of a search',
    tag: 'show',
    query: {
      search: { description: 'words: addresses, ports, states, as `sluice show conntrack` prints them' },
      limit: { description: 'connections at most, 1 to 1000; 200 without' },
    },
    answer: {
      type: 'application/json',
      description: 'How many there are, how many fit, and the first of these',
      schema: {
        type: 'object',
        properties: { total: { type: 'number' }, matched: { type: 'number' }, connections: { type: 'array' } },
      },
    },
    handle: ({ source }, { query }) => ({
      json: searchConnections(source, query.get('search') ?? '', numberOf(query, 'limit', 1, 1000, 200)),
    }),
  },
  {
    method: 'GET',
    path: '/v1/events',
    summary: 'Changes as they happen, as server-sent events',
    tag: 'events',
    query: { kinds: { description: `kinds with commas between them, of ${EVENT_KINDS.join(', ')}; all without` } },
    answer: {
      type: 'text/event-stream',
      description:
        'summary each second (as /v1/summary), link {ifname, operstate}, conntrack {type, line, connection}, lost {events}',
      schema: { type: 'string' },
    },
    handle: ({ feed }, { query }) => {
      const kinds = (query.get('kinds') ?? EVENT_KINDS.join(',')).split(',');
      const wrong = kinds.find((kind) => !(EVENT_KINDS as readonly string[]).includes(kind));
      if (wrong !== undefined)
        throw new Refusal(
          400,
          `kinds: expected one of ${EVENT_KINDS.join(', ')}, got ${JSON.stringify(wrong.slice(0, 40))}`,
        );
      return streamEvents(feed, kinds as FeedKind[]);
    },
  },
  {
    method: 'GET',
    path: '/v1/configuration',
    summary: 'The text of the running configuration; secrets are in it as they were written',
    tag: 'configuration',
    answer: {
      type: 'application/json',
      description: 'File, text, and the seconds until an unconfirmed one is taken back',
      schema: {
        type: 'object',
        properties: { file: { type: 'string' }, text: { type: 'string' }, confirm: { type: ['number', 'null'] } },
      },
    },
    handle: (context) => ({ json: configured(context).state() }),
  },
  {
    method: 'POST',
    path: '/v1/apply',
    summary: 'Makes another configuration the running one; sessions stay',
    tag: 'configuration',
    query: {
      name: { description: 'what messages call the text; "configuration" without' },
      diff: { description: '1: only say what differs', values: ['0', '1'] },
      confirm: { description: 'seconds, 1 to 86400, until the configuration before comes back unless confirmed' },
    },
    body: {
      types: CONFIGURATION_TYPES,
      limit: MAX_CONFIGURATION,
      description: 'The whole configuration, YAML or JSON',
    },
    answer: { type: 'application/json', description: 'What differs and what was changed', schema: APPLY_SCHEMA },
    handle: async (context, { query, body }) => {
      let text: string;
      try {
        text = new TextDecoder('utf-8', { fatal: true }).decode(body);
      } catch {
        throw new Refusal(400, 'body: expected a text in UTF-8, got other bytes');
      }
      const confirm = numberOf(query, 'confirm', 1, 86_400, 0);
      const name = (query.get('name') ?? 'configuration').slice(0, 200);
      const only = query.get('diff') === '1';
      return { json: await configured(context).apply(text, name, { only, confirm }) };
    },
  },
  {
    method: 'POST',
    path: '/v1/confirm',
    summary: 'Keeps the configuration that was applied with a time to confirm it',
    tag: 'configuration',
    body: { types: ['application/json'], limit: 1024, description: 'An empty object' },
    answer: { type: 'application/json', description: 'The state afterwards', schema: { type: 'object' } },
    handle: (context) => {
      configured(context).confirm();
      return { json: { confirm: null } };
    },
  },
  RESTART_ROUTE,
  EXPLAIN_ROUTE,
  ...WATCH_ROUTES,
  REPLAY_ROUTE,
  {
    method: 'GET',
    path: '/metrics',
    summary: 'Counters for Prometheus, in its text format',
    tag: 'metrics',
    answer: { type: 'text/plain', description: 'Exposition format 0.0.4', schema: { type: 'string' } },
    handle: async ({ source }) => ({
      type: 'text/plain; version=0.0.4; charset=utf-8',
      body: await metricsText(source),
    }),
  },
  {
    method: 'GET',
    path: '/openapi.json',
    summary: 'This description',
    tag: 'description',
    open: true,
    answer: { type: 'application/json', description: 'OpenAPI 3.1', schema: { type: 'object' } },
    handle: () => ({ json: describe(ROUTES, packageVersion()) }),
  },
];

export const ROUTES: readonly Route[] = [...API_ROUTES, ...PAGE_ROUTES];
