/**
 * Stream: the feed as server-sent events (WHATWG HTML, "Server-sent events"): `event:` names the kind, `data:` is JSON.
 *
 * A comment every ten seconds shows both sides that the other is there. A client that does not read is dropped once a
 * megabyte waits for it: the router does not remember on behalf of others.
 */
import type { ServerResponse } from 'node:http';
import type { Feed, FeedKind } from './feed.ts';
import { COMMON_HEADERS, Refusal } from './http.ts';
import type { Answer } from './route.ts';

const MAX_STREAMS = 32;
const MAX_WAITING = 1024 * 1024;
const HEARTBEAT_MS = 10_000;

/** @throws Refusal 503 when as many listen as may */
export function streamEvents(feed: Feed, kinds: readonly FeedKind[]): Answer {
  if (feed.size >= MAX_STREAMS)
    throw new Refusal(503, `events: expected at most ${MAX_STREAMS} listeners, got one more; end another`);
  return {
    stream: (response: ServerResponse) => {
      response.writeHead(200, { ...COMMON_HEADERS, 'content-type': 'text/event-stream' });
      const write = (text: string): void => {
        response.write(text);
        if (response.writableLength > MAX_WAITING) response.destroy();
      };
      const leave = feed.listen(kinds, (kind, data) => write(`event: ${kind}\ndata: ${JSON.stringify(data)}\n\n`));
      const heartbeat = setInterval(() => write(': still here\n\n'), HEARTBEAT_MS);
      heartbeat.unref();
      response.on('close', () => {
        leave();
        clearInterval(heartbeat);
      });
    },
  };
}
