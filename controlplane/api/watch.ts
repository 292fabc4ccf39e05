/**
 * Watching over the API: captures as pcapng streams, traces, times of stages.
 *
 * A capture runs as long as its client reads. A statistics block every few seconds shows both sides that the other is
 * there, and says what was lost.
 */
import type { ServerResponse } from 'node:http';
import type { CaptureFilter, Watchers } from '../capture/watchers.ts';
import { COMMON_HEADERS, Refusal } from './http.ts';
import { type ApiContext, numberOf, type Route } from './route.ts';

const HEARTBEAT_MS = 5_000;
/** Longest time that the stages are timed for one question. */
const MAX_SAMPLE_MS = 10_000;
const NAMES = 200;

function watchersOf({ source }: ApiContext): Watchers {
  if (source.watch === undefined) throw new Refusal(501, 'watch: expected a router that can be watched, got another');
  return source.watch;
}

function filterOf(query: URLSearchParams): CaptureFilter {
  const text = (name: string): string | undefined => query.get(name)?.slice(0, NAMES) ?? undefined;
  return {
    ports: query.getAll('port').map((name) => name.slice(0, NAMES)),
    drops: query.get('drops') === '1',
    flow: text('flow'),
    stage: text('stage'),
    snap: numberOf(query, 'snap', 14, 65535, 65535),
  };
}

const CAPTURE_ROUTE: Route = {
  method: 'GET',
  path: '/v1/capture',
  summary: 'Frames as they come and go, with what became of them, as long as the client reads',
  tag: 'capture',
  query: {
    port: { description: 'only this port; may be repeated' },
    drops: { description: '1: only what is dropped', values: ['0', '1'] },
    flow: {
      description: 'only this flow, both directions: `tcp 192.168.1.10:4000 > 198.51.100.7:443`, any at either place',
    },
    stage: { description: 'only packets that this stage had to do with' },
    snap: { description: 'bytes of each frame, 14 to 65535; all without' },
  },
  answer: {
    type: 'application/x-pcapng',
    description: 'pcapng, endless',
    schema: { type: 'string', format: 'binary' },
  },
  handle: (context, { query }) => {
    const session = watchersOf(context).capture(filterOf(query));
    return {
      stream: (response: ServerResponse) => {
        response.writeHead(200, { ...COMMON_HEADERS, 'content-type': 'application/x-pcapng' });
        // Only what the client has room for is taken: the rest waits, and what waits too long is lost and counted.
        const pass = (): void => {
          if (!response.writableNeedDrain) response.write(session.read());
        };
        session.onData = pass;
        response.on('drain', pass);
        const heartbeat = setInterval(() => {
          session.statistics();
          pass();
        }, HEARTBEAT_MS);
        heartbeat.unref();
        response.on('close', () => {
          clearInterval(heartbeat);
          session.close();
        });
        pass();
      },
    };
  },
};

function objectOf(body: Buffer): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(body.toString('utf8'));
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  } catch {}
  throw new Refusal(400, 'body: expected a JSON object, got something else');
}

const TRACE_ROUTE: Route = {
  method: 'POST',
  path: '/v1/trace',
  summary: 'Traces the next packets that a stage has to do with; GET /v1/show/trace has them',
  tag: 'trace',
  body: {
    types: ['application/json'],
    limit: 1024,
    description: 'Stage and number of packets, or clear: true',
    schema: {
      type: 'object',
      properties: { stage: { type: 'string' }, packets: { type: 'integer' }, clear: { type: 'boolean' } },
    },
  },
  answer: { type: 'application/json', description: 'Packets still to be traced', schema: { type: 'object' } },
  handle: (context, { body }) => {
    const watchers = watchersOf(context);
    const { stage, packets, clear } = objectOf(body);
    if (clear === true) watchers.clearTrace();
    else if (typeof stage !== 'string' || typeof packets !== 'number')
      throw new Refusal(400, 'body: expected a stage and a number of packets, or clear: true');
    else watchers.trace(stage.slice(0, NAMES), packets);
    return { json: { tracing: watchers.tracing } };
  },
};

const SAMPLE_ROUTE: Route = {
  method: 'POST',
  path: '/v1/stages/sample',
  summary: 'Times the stages for a while; GET /v1/show/stages then has packets and nanoseconds',
  tag: 'trace',
  query: { milliseconds: { description: `how long, 10 to ${MAX_SAMPLE_MS}; 1000 without` } },
  body: { types: ['application/json'], limit: 1024, description: 'An empty object' },
  answer: { type: 'application/json', description: 'When it is over', schema: { type: 'object' } },
  handle: async (context, { query }) => {
    const watchers = watchersOf(context);
    const milliseconds = numberOf(query, 'milliseconds', 10, MAX_SAMPLE_MS, 1000);
    watchers.timeStages(true);
    await new Promise((resolve) => setTimeout(resolve, milliseconds));
    watchers.timeStages(false);
    return { json: { milliseconds } };
  },
};

export const WATCH_ROUTES: readonly Route[] = [CAPTURE_ROUTE, TRACE_ROUTE, SAMPLE_ROUTE];
