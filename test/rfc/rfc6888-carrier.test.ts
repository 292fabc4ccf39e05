/**
 * RFC 6888, common requirements for carrier-grade NATs, with blocks of ports for each subscriber. RFC 7422 is beside it.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { readLog } from '../../controlplane/carrier/log.ts';
import { findSubscriber } from '../../controlplane/carrier/who.ts';
import { addressOf, type Endpoint, endpoint, portOf, World } from '../conntrack/nat-world.ts';
import { Random } from '../lib/build.ts';

const S1 = '198.51.100.1:53';
const folder = mkdtempSync(join(tmpdir(), 'sluice-carrier-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function carrier(extra: Record<string, unknown> = {}, nat: Record<string, unknown> = {}): World {
  const entry = {
    out: 'wan',
    from: '100.64.0.0/16',
    to: '198.18.0.0/26',
    ports: '1024-65535',
    blocks: { size: 64, max: 2 },
    ...extra,
  };
  return new World({ profile: 'full-cone', masquerade: [entry], ...nat }, { conntrack: { max: 65536 } });
}

function subscriber(n: number): string {
  return `100.64.${n >> 8}.${n & 255}`;
}

describe('RFC 6888 §3', () => {
  it('REQ-1, REQ-7: what RFC 4787 asks for: endpoint-independent mapping and filtering, out of a block', () => {
    const world = carrier();
    const from = endpoint(subscriber(7), 4000);
    const seen = world.out(from, S1)!;
    expect(world.out(from, '192.0.2.1:1')).toBe(seen);
    expect(world.in('192.0.2.99:99', seen)).toBe(from);
  });

  it('REQ-2: paired pooling: all of a subscriber’s ports, in all its blocks, are of one address', () => {
    const world = carrier();
    for (let n = 1; n < 20; n++) {
      const addresses = new Set<string>();
      for (let k = 0; k < 100; k++) addresses.add(addressOf(world.out(endpoint(subscriber(n), 4000 + k), S1)!));
      expect(addresses.size).toBe(1);
    }
  });

  it('REQ-3: a pool that is not contiguous', () => {
    const world = carrier({ to: ['198.18.0.0/31', '198.18.9.9', '203.0.113.77'] });
    const used = new Set<string>();
    for (let n = 1; n < 60; n++) used.add(addressOf(world.out(endpoint(subscriber(n), 4000), S1)!));
    expect([...used].sort()).toEqual(['198.18.0.0', '198.18.0.1', '198.18.9.9', '203.0.113.77']);
  });

  it('REQ-4: as many ports as blocks allow, for each subscriber and protocol, and not one more', () => {
    const world = carrier();
    let got = 0;
    for (let k = 0; k < 200; k++) if (world.out(endpoint(subscriber(1), 4000 + k), S1) !== null) got++;
    expect(got).toBe(128);
    expect(world.out(endpoint(subscriber(2), 4000), S1)).not.toBeNull();
  });

  it('REQ-5: sessions are limited too', () => {
    const world = carrier({ sessions: 10 });
    let got = 0;
    for (let k = 0; k < 20; k++) if (world.out(endpoint(subscriber(1), 4000), `198.51.100.${k + 1}:53`) !== null) got++;
    expect(got).toBe(10);
    expect(world.dropped('CT_LIMIT')).toBe(10);
  });

  it('REQ-6: translation is switched off towards a destination', () => {
    const world = carrier({}, { bypass: [{ to: '198.51.100.53' }] });
    expect(world.out(endpoint(subscriber(1), 4000), '198.51.100.53:53')).toBe(endpoint(subscriber(1), 4000));
    expect(addressOf(world.out(endpoint(subscriber(1), 4000), S1)!)).toMatch(/^198\.18\.0\./);
  });

  it('REQ-11: no resources: the packet is dropped, ICMP 3/13 says so, and existing mappings stay', () => {
    const world = carrier({ blocks: { size: 4, max: 1 } });
    const seen = [1, 2, 3, 4].map((k) => world.out(endpoint(subscriber(1), 4000 + k), S1));
    expect(seen.every((each) => each !== null)).toBe(true);
    expect(world.out(endpoint(subscriber(1), 5000), S1)).toBeNull();
    expect(world.dropped('NAT_EXHAUSTED')).toBe(1);
    expect([1, 2, 3, 4].map((k) => world.out(endpoint(subscriber(1), 4000 + k), S1))).toEqual(seen);
  });

  it('REQ-13: blocks are shared out to the last: as many subscribers as there are blocks', () => {
    const world = carrier({ to: '198.18.0.0', ports: '1024-5119', blocks: { size: 64, max: 1 } });
    let served = 0;
    for (let n = 1; n <= 100; n++) if (world.out(endpoint(subscriber(n), 4000), S1) !== null) served++;
    expect(served).toBe(64);
  });

  it('REQ-15: which block comes next is not to be guessed, nor which port of it', () => {
    const world = carrier();
    const ports = Array.from({ length: 60 }, (_, n) => portOf(world.out(endpoint(subscriber(n), 4000), S1)!));
    let steps = 0;
    for (let n = 1; n < ports.length; n++) if (Math.abs(ports[n] - ports[n - 1]) <= 64) steps++;
    expect(steps).toBeLessThan(4);
  });
});

describe('RFC 6888 §4 logging', () => {
  it('REQ-12, REQ-14: one line for each block, no destination in it; every tuple leads back to its subscriber', () => {
    const file = join(folder, 'blocks.log');
    const world = carrier({}, { log: file });
    const random = new Random(3);
    const seen: { outside: Endpoint; inside: string; at: number }[] = [];
    // A thousand subscribers in ten hours, who come and go.
    for (let hour = 0; hour < 10; hour++) {
      // All of them in the first hour, then whoever comes.
      for (let n = 1; n <= (hour === 0 ? 1000 : 400); n++) {
        const inside = subscriber(hour === 0 ? n : random.int(1, 1000));
        const outside = world.out(endpoint(inside, random.int(1024, 1080)), S1);
        expect(outside).not.toBeNull();
        seen.push({ outside: outside!, inside, at: world.router.now });
      }
      world.wait(3600);
    }
    world.router.control.blockLog.drain();
    const lines = readFileSync(file, 'utf8').trim().split('\n');
    expect(lines.length).toBeLessThan(2 * seen.length);
    for (const line of lines) {
      expect(line).toMatch(/^1970-\S+Z [+-] 198\.18\.0\.\d+ \d+-\d+ 100\.64\.\d+\.\d+$/);
      expect(line).not.toContain('198.51.100');
    }
    const events = readLog(file);
    for (const { outside, inside, at } of seen)
      expect(findSubscriber(null, events, addressOf(outside), portOf(outside), at)?.inside).toBe(inside);
    // All is given back at the end: as many releases as assignments.
    expect(events.filter((event) => event.assigned).length).toBe(events.filter((event) => !event.assigned).length);
  });
});
