/**
 * A router inside a vitest test: no root, no devices, and hours pass in no time.
 *
 *   npm install --save-dev vitest sluice && npx vitest run gateway.test.mjs
 *
 * The subject here is a program that keeps a mapping open through a NAT: how often must it say something?
 */
import { createRouter } from 'sluice';
import { beforeEach, describe, expect, it } from 'vitest';

const MAC = {
  router: '02:00:00:00:01:01',
  host: '02:00:00:00:00:10',
  far: '02:00:00:00:00:fe',
  wan: '02:00:00:00:01:02',
};

const CONFIG = {
  ports: {
    lan: { kind: 'memory', zone: 'lan', mac: MAC.router, addresses: '192.168.1.1/24' },
    wan: { kind: 'memory', zone: 'wan', mac: MAC.wan, addresses: '203.0.113.1/24' },
  },
  routes: [{ to: '0.0.0.0/0', via: '203.0.113.254' }],
  neighbors: [
    { port: 'lan', ip: '192.168.1.10', mac: MAC.host },
    { port: 'wan', ip: '203.0.113.254', mac: MAC.far },
  ],
  zones: { lan: { forward: 'accept' }, wan: { forward: 'drop', input: 'drop' } },
  nat: { masquerade: [{ out: 'wan' }] },
};

const octets = (text, separator, radix) => text.split(separator).map((part) => Number.parseInt(part, radix));

/** An Ethernet frame with an empty UDP datagram; its checksum is left out, which IPv4 allows (RFC 768). */
function datagram({ from, to, source, destination }) {
  const ip = [0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0, 0, ...octets(from[0], '.', 10), ...octets(to[0], '.', 10)];
  let sum = 0;
  for (let n = 0; n < 20; n += 2) sum += (ip[n] << 8) | ip[n + 1];
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  ip[10] = (~sum >> 8) & 0xff;
  ip[11] = ~sum & 0xff;
  const udp = [from[1] >> 8, from[1] & 0xff, to[1] >> 8, to[1] & 0xff, 0, 8, 0, 0];
  return Uint8Array.from([...octets(destination, ':', 16), ...octets(source, ':', 16), 8, 0, ...ip, ...udp]);
}

describe('a UDP mapping through a home gateway', () => {
  let router;
  let outside;

  const say = () => {
    const frame = datagram({
      from: ['192.168.1.10', 5060],
      to: ['198.51.100.7', 5060],
      source: MAC.host,
      destination: MAC.router,
    });
    router.inject('lan', frame);
    return router.take('wan');
  };
  /** What the far end sends to the mapping's outside port reaches the host, or not. */
  const hears = () => {
    router.inject(
      'wan',
      datagram({ from: ['198.51.100.7', 5060], to: ['203.0.113.1', outside], source: MAC.far, destination: MAC.wan }),
    );
    return router.take('lan').length === 1;
  };

  beforeEach(() => {
    router = createRouter(CONFIG);
    const [frame] = say();
    outside = (frame[34] << 8) | frame[35];
  });

  it('is open at once, and closed after half a minute in which nobody answered', () => {
    router.advance(29_000);
    expect(hears()).toBe(true);
    router = createRouter(CONFIG);
    say();
    router.advance(31_000);
    expect(hears()).toBe(false);
    // Why? The router says it.
    expect(router.counters.dropped).toEqual({ INPUT_DROP: 1 });
  });

  it('stays open as long as both sides talk every two minutes', () => {
    for (let n = 0; n < 60; n++) {
      expect(hears()).toBe(true);
      // A conversation of more than two seconds is a stream, which may be silent for two minutes.
      router.advance(3_000);
      say();
      router.advance(110_000);
    }
    expect(router.conntrack.lines()).toEqual([expect.stringContaining('[ASSURED]')]);
  });
});
