/** The page's way to the router, without a browser: a stream that falls silent, and tokens in the address. */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';

interface Api {
  listen(kinds: readonly string[], use: (kind: string, data: unknown) => void): Promise<void>;
  tokenFromAddress(): void;
}

// The page's scripts are JavaScript as the browser gets it, without declarations.
const { listen, tokenFromAddress } = (await import(
  new URL('../../../controlplane/web/api.mjs', import.meta.url).href
)) as Api;

const stored = new Map<string, string>();

beforeEach(() => {
  stored.clear();
  vi.stubGlobal('sessionStorage', {
    getItem: (key: string) => stored.get(key) ?? null,
    setItem: (key: string, value: string) => stored.set(key, value),
  });
});
afterEach(() => {
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

describe('listen', () => {
  it('takes a stream that has fallen silent for a router that does not answer', async () => {
    vi.useFakeTimers();
    let source: ReadableStreamDefaultController<Uint8Array> | null = null;
    let cancelled = false;
    const body = new ReadableStream<Uint8Array>({
      start: (controller) => {
        source = controller;
      },
      cancel: () => {
        cancelled = true;
      },
    });
    vi.stubGlobal('fetch', async () => new Response(body));
    const events: unknown[] = [];
    let ended = '';
    const done = listen(['summary'], (kind: string, data: unknown) => events.push([kind, data])).catch(
      (error: Error) => {
        ended = error.message;
      },
    );
    const say = (n: number) => source?.enqueue(new TextEncoder().encode(`event: summary\ndata: {"n":${n}}\n\n`));
    for (let n = 0; n < 3; n++) {
      say(n);
      await vi.advanceTimersByTimeAsync(9000);
    }
    expect(events).toEqual([0, 1, 2].map((n) => ['summary', { n }]));
    expect(ended).toBe('');
    await vi.advanceTimersByTimeAsync(1000);
    await done;
    expect([ended, cancelled]).toEqual(['The router does not answer.', true]);
  });
});

describe('tokenFromAddress', () => {
  it.each([
    ['#token=abcdefghijklmnop', 'abcdefghijklmnop'],
    ['#token=abcdefghijkl%2Fmn', 'abcdefghijkl/mn'],
    ['#token=abcdefghijkl%zzmn', 'abcdefghijkl%zzmn'],
    ['#overview', undefined],
  ])('%s', (hash, token) => {
    vi.stubGlobal('location', { hash, pathname: '/' });
    vi.stubGlobal('history', { replaceState: vi.fn() });
    tokenFromAddress();
    expect(stored.get('sluice-token')).toBe(token);
  });
});
