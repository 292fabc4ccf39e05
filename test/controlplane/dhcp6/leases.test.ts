/** Pools, the lease file and its recovery, and what hostile clients can do to a server. */

import { existsSync, mkdtempSync, readFileSync, rmSync, truncateSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import BN from 'bn.js';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { clientName, Delegation, MAX_ADDRESSES } from '../../../controlplane/dhcp6/delegation.ts';
import { describeDhcp6 } from '../../../controlplane/dhcp6/describe.ts';
import { Dhcp6 } from '../../../controlplane/dhcp6/index.ts';
import { type Lease, Leases } from '../../../controlplane/dhcp6/leases.ts';
import { emitMessage, newMessage, parseMessage } from '../../../controlplane/dhcp6/message.ts';
import { Pool } from '../../../controlplane/dhcp6/pool.ts';
import { formatRecord, Journal, parseRecords } from '../../../controlplane/journal.ts';
import { seededRandom, uniform } from '../../../controlplane/random.ts';
import { createRouter } from '../../../controlplane/router.ts';
import { addressBytes, parseIpv6 } from '../../../dataplane/wire/address.ts';
import * as build from '../../lib/build.ts';
import { customer, Net, provider } from './net.ts';

let folder = '';
let file = '';
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'sluice-leases-'));
  file = join(folder, 'leases6');
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

function lease(n: number, valid = 1e12): Lease {
  const words = Pool.ofPrefix('p', parseIpv6('2001:db8:100::')!, 40, 60).at(new BN(n)).words;
  return {
    client: `duid:${n}`,
    kind: 'pd',
    iaid: 1,
    words,
    prefixLength: 60,
    preferred: valid,
    valid,
    port: 'lan',
    via: parseIpv6('fe80::1')!,
  };
}

describe('pools', () => {
  test('a /40 cut into /56 and /60: numbers and prefixes are the same thing', () => {
    for (const [length, size] of [
      [56, 65536],
      [60, 1048576],
    ]) {
      const pool = Pool.ofPrefix('p', parseIpv6('2001:db8:100::')!, 40, length);
      expect(pool.size.toNumber()).toBe(size);
      // Against 64-bit integers: the network half of an address is one.
      const high = (n: number) => (0x20010db801000000n + (BigInt(n) << BigInt(64 - length))).toString(16);
      for (const n of [0, 1, 2, 255, 256, 4095, size - 1]) {
        const item = pool.at(new BN(n));
        expect(build.toHex(addressBytes(6, item.words)).slice(0, 16)).toBe(high(n));
        expect(pool.indexOf(item.words, length)?.toNumber()).toBe(n);
      }
      expect(pool.indexOf(parseIpv6('2001:db8:200::')!, length)).toBeNull();
      expect(pool.indexOf(parseIpv6('2001:db8:100::1')!, length)).toBeNull();
      expect(pool.indexOf(parseIpv6('2001:db8:100::')!, length + 1)).toBeNull();
    }
  });

  test('every item is found before the pool is said to be empty, and then none', () => {
    const pool = Pool.ofPrefix('p', parseIpv6('2001:db8::')!, 52, 60);
    const taken = new Set<string>();
    for (let n = 0; n < 256; n++) {
      const item = pool.choose(`client ${n}`, (one) => !taken.has(String(one.words)));
      expect(item).not.toBeNull();
      taken.add(String(item!.words));
    }
    expect(taken.size).toBe(256);
    expect(pool.choose('one more', (one) => !taken.has(String(one.words)))).toBeNull();
  });
});

describe('the lease file', () => {
  test('what was put is there again, what was ended or has run out is not', () => {
    const one = new Leases();
    expect(one.open(file, 0)).toEqual([]);
    for (let n = 0; n < 100; n++) one.put(lease(n, n < 50 ? 1000 : 1e12));
    one.end(lease(60));
    one.put({ ...lease(61), client: 'duid:other' });
    one.sync();
    const two = new Leases();
    expect(two.open(file, 5000)).toEqual([]);
    expect(two.size).toBe(49);
    expect(two.of('duid:60')).toEqual([]);
    expect(two.of('duid:other')).toEqual([{ ...lease(61), client: 'duid:other' }]);
    expect(two.of('duid:70')).toEqual([lease(70)]);
  });

  test('cut at every byte of the last record: up to the last whole one, the rest kept aside', () => {
    const records = [0, 1, 2].map((n) => formatRecord({ n }));
    const whole = records.join('');
    const before = records[0].length + records[1].length;
    for (let length = before; length <= whole.length; length++) {
      rmSync(folder, { recursive: true, force: true });
      folder = mkdtempSync(join(tmpdir(), 'sluice-leases-'));
      file = join(folder, 'leases6');
      writeFileSync(file, whole.slice(0, length));
      const { journal, recovered } = Journal.open(file);
      journal.close();
      const complete = length === whole.length ? 3 : 2;
      expect(recovered.records.length).toBe(complete);
      const rest = whole.slice(complete === 3 ? whole.length : before, length);
      expect(recovered.damaged).toBe(rest.length);
      expect(recovered.aside === '' ? '' : readFileSync(recovered.aside, 'utf8')).toBe(rest);
      expect(readFileSync(file, 'utf8')).toBe(records.slice(0, complete).join(''));
    }
  });

  test('a bit that has changed anywhere ends the file there, and nothing wrong is read', () => {
    const random = seededRandom(7);
    const whole = Buffer.from([0, 1, 2, 3, 4].map((n) => formatRecord({ n, text: 'a lease' })).join(''));
    for (let turn = 0; turn < 500; turn++) {
      const bytes = Buffer.from(whole);
      const at = uniform(random, 0, bytes.length - 1);
      bytes[at] ^= 1 << uniform(random, 0, 7);
      const { records, length } = parseRecords(bytes);
      expect(records).toEqual([0, 1, 2, 3, 4].slice(0, records.length).map((n) => ({ n, text: 'a lease' })));
      expect(length).toBeLessThanOrEqual(at);
    }
  });

  test('two damages are kept beside each other; a living owner is not robbed', () => {
    for (const n of [1, 2]) {
      const leases = new Leases();
      leases.open(file, 0);
      leases.put(lease(n));
      leases.close();
      truncateSync(file, readFileSync(file).length - 1);
    }
    const leases = new Leases();
    expect(leases.open(file, 0).join()).toContain('damaged-2');
    expect(existsSync(`${file}.damaged-1`)).toBe(true);
    leases.close();
    writeFileSync(`${file}.lock`, '1');
    expect(() => new Leases().open(file, 0)).toThrow('process 1');
  });

  test('renewals do not make the file grow without end', () => {
    const leases = new Leases();
    leases.open(file, 0);
    for (let turn = 0; turn < 30; turn++) for (let n = 0; n < 100; n++) leases.put(lease(n, 1e12 + turn));
    expect(readFileSync(file, 'utf8').split('\n').length).toBeLessThan(1500);
    expect(leases.size).toBe(100);
    leases.close();
  });

  test('the router: a restart keeps the leases and brings the routes back', () => {
    const config = provider({ delegate: 'customers' }, { file });
    const n = new Net();
    n.add('isp', config);
    n.add('cpe', customer({ 'ia-pd': [{}], 'ia-na': false }));
    n.wire('cpe.wan', 'isp.lan');
    n.advance(6000);
    const [route] = n.routes('isp');
    expect(route).toContain('via fe80::ff:fe00:c01');
    // No farewell: another router reads what the first has written.
    const next = createRouter(config, { unasked: true });
    next.advance(1000);
    n.routers.isp = next;
    expect(n.routes('isp')).toEqual([route]);
  });
});

test('a lease file that somebody else has costs the servers, not the router its IPv6', () => {
  writeFileSync(`${file}.lock`, '1');
  const n = new Net();
  n.add('isp', provider({ delegate: 'customers' }, { file }));
  expect(n.logs.join()).toMatch(/isp: delegation\.file: .*process 1 has.*; no port is served/);
  n.add('cpe', customer({ 'ia-pd': [{}], 'ia-na': false }));
  n.wire('cpe.wan', 'isp.lan');
  n.advance(6000);
  expect(n.routers.isp.control.domains.health.find(({ domain }) => domain === 'ipv6')).toMatchObject({ failures: 0 });
  expect(n.take().filter((line) => line.startsWith('isp'))).toEqual([]);
  rmSync(`${file}.lock`);
  n.routers.isp.restart('ipv6');
  n.advance(200_000);
  expect(n.routes('isp').length).toBe(1);
});

describe('without a lease file', () => {
  /** A provider whose one customer has a prefix, and the configuration of it. */
  function given() {
    const config = (delegation = {}) => ({
      offload: { mode: 'off' },
      conntrack: { max: 1024 },
      ...provider({ delegate: 'customers', preferred: 300, valid: 600 }, delegation),
    });
    const n = new Net();
    const isp = n.add('isp', config());
    n.add('cpe', customer({ 'ia-pd': [{}], 'ia-na': false }));
    n.wire('cpe.wan', 'isp.lan');
    n.advance(6000);
    expect(n.routes('isp').length).toBe(1);
    return { n, isp, config };
  }

  test('a restart of the domain forgets no lease, and lengthens none', () => {
    const { n, isp } = given();
    const [route] = n.routes('isp');
    isp.restart('ipv6');
    expect(n.dhcp6('isp').delegation.leases.size).toBe(1);
    // Nobody renews: the provider alone goes on.
    isp.advance(300_000);
    isp.restart('ipv6');
    isp.advance(200_000);
    expect(n.routes('isp')).toEqual([route]);
    isp.advance(101_000);
    expect(n.routes('isp')).toEqual([]);
    isp.restart('ipv6');
    expect(n.dhcp6('isp').delegation.leases.size).toBe(0);
  });

  test('what was given back does not come again; what was in memory is in the file that apply names', () => {
    const { n, isp, config } = given();
    n.routers.cpe.control.handle({ kind: 'event', name: 'dhcp6.stop', data: { port: 'wan' } });
    n.advance(1000);
    isp.restart('ipv6');
    expect(n.dhcp6('isp').delegation.leases.size).toBe(0);
    n.routers.cpe.control.handle({ kind: 'event', name: 'dhcp6.start', data: { port: 'wan' } });
    n.advance(6000);
    expect(n.routes('isp').length).toBe(1);
    expect(isp.apply(config({ file })).refused).toEqual([]);
    isp.advance(1);
    const leases = new Leases();
    expect(leases.open(file, isp.now)).toEqual([]);
    expect(leases.size).toBe(1);
    leases.close();
  });
});

test('a router that finds its file cut in the midst of a record counts it, says so, and goes on with the rest', () => {
  const leases = new Leases();
  leases.open(file, 0);
  for (const n of [1, 2, 3]) leases.put(lease(n));
  leases.close();
  truncateSync(file, readFileSync(file).length - 5);
  const n = new Net();
  n.add('isp', provider({ delegate: 'customers' }, { file }));
  expect(n.dhcp6('isp').counters.faults).toEqual({ 'file-damaged': 1 });
  expect(n.logs.join()).toContain('damaged-1');
  expect([...n.dhcp6('isp').delegation.leases].map(({ client }) => client)).toEqual(['duid:1', 'duid:2']);
});

describe('hostile clients', () => {
  /** A router with a server; `send` gives what it answers, message by message. */
  function server(config: Record<string, unknown>, delegation: Record<string, unknown> = {}) {
    const router = createRouter(provider(config, delegation), { unasked: true });
    router.advance(4000);
    router.take('lan');
    const send = (n: number, payload: Uint8Array, dst = 'ff02::1:2') => {
      const mac = `02:00:00:01:${(n >> 8).toString(16).padStart(2, '0')}:${(n & 255).toString(16).padStart(2, '0')}`;
      const to = dst === 'ff02::1:2' ? '33:33:00:01:00:02' : '02:00:00:00:0a:01';
      router.inject(
        'lan',
        build.ethernet(
          { src: mac, dst: to },
          build.ipv6({ src: `fe80::${(n + 1).toString(16)}`, dst }, build.udp({ sport: 546, dport: 547 }, payload)),
        ),
      );
      return router
        .take('lan')
        .flatMap((frame) => (build.get16(frame, 56) === 546 ? [parseMessage(frame.slice(62))!] : []));
    };
    const { dhcp6 } = router.control.domains;
    return { router, send, faults: () => dhcp6!.counters.faults, leases: dhcp6!.delegation.leases };
  }

  const asking = (type: number, n: number, more: object = {}) =>
    emitMessage(
      Object.assign(newMessage(type, n), {
        clientId: Uint8Array.of(0, 3, 0, 1, 2, 0, 0, 1, n >> 8, n),
        ias: [{ kind: 'pd', iaid: 1, t1: 0, t2: 0, addresses: [], prefixes: [], status: null }],
        ...more,
      }),
    );

  test('a flood of Solicits takes nothing, and beyond the rate costs nothing', () => {
    const { send, faults, leases, router } = server({ delegate: 'customers', rate: 100 });
    for (let n = 0; n < 500; n++) send(n, asking(1, n));
    expect(leases.size).toBe(0);
    expect(faults()).toEqual({ flood: 400 });
    router.advance(1000);
    expect(send(1, asking(1, 1)).map((m) => m.type)).toEqual([2]);
  });

  test('an exhausted pool says so, and has a place again when one is given back', () => {
    const { send, faults, leases } = server(
      { delegate: 'small' },
      { pools: { small: { prefix: '2001:db8:f00::/58', length: 60 } } },
    );
    const serverId = send(9, asking(1, 9))[0].serverId;
    const replies = [0, 1, 2, 3, 4].map((n) => send(n, asking(3, n, { serverId }))[0]);
    expect(leases.size).toBe(4);
    expect(new Set(replies.slice(0, 4).map((m) => String(m.ias[0].prefixes[0].words))).size).toBe(4);
    expect(replies[4].ias[0].status?.code).toBe(6);
    expect(faults()).toEqual({ 'no-prefixes': 1 });
    send(2, asking(8, 2, { serverId, ias: replies[2].ias }));
    expect(send(4, asking(3, 4, { serverId }))[0].ias[0].prefixes).toEqual(replies[2].ias[0].prefixes);
  });

  test('one client cannot have more than its share', () => {
    const { send, faults, leases } = server({ delegate: 'customers', 'max-leases': 3 });
    const ias = Array.from({ length: 20 }, (_, iaid) => ({
      kind: 'pd',
      iaid,
      t1: 0,
      t2: 0,
      addresses: [],
      prefixes: [],
      status: null,
    }));
    const serverId = send(9, asking(1, 9))[0].serverId;
    const [reply] = send(1, asking(3, 1, { serverId, ias }));
    expect(reply.ias.filter((ia) => ia.prefixes.length > 0).length).toBe(3);
    expect(leases.size).toBe(3);
    expect(faults()).toEqual({ 'lease-limit': 17 });
  });

  test("nobody can give back, or renew, another's lease", () => {
    const { send, leases } = server({ delegate: 'customers' });
    const serverId = send(9, asking(1, 9))[0].serverId;
    const [mine] = send(1, asking(3, 1, { serverId }));
    const [answer] = send(2, asking(8, 2, { serverId, ias: mine.ias }));
    expect(answer.ias[0].status?.code).toBe(3);
    expect(leases.size).toBe(1);
    expect(send(2, asking(5, 2, { serverId, ias: mine.ias }))[0].ias[0].status?.code).toBe(3);
    // A Rebind for what another has: it must not be used.
    expect(send(2, asking(6, 2, { ias: mine.ias }))[0].ias[0].prefixes[0].valid).toBe(0);
  });

  test('§16: messages that must be discarded are, each counted', () => {
    const { send, faults } = server({ delegate: 'customers' });
    const serverId = send(9, asking(1, 9))[0].serverId;
    expect(send(1, asking(1, 1, { serverId }))).toEqual([]);
    expect(send(1, asking(1, 1, { clientId: null }))).toEqual([]);
    expect(send(1, asking(3, 1))).toEqual([]);
    expect(send(1, asking(6, 1, { serverId }))).toEqual([]);
    expect(send(1, asking(11, 1))).toEqual([]);
    expect(send(1, asking(2, 1))).toEqual([]);
    expect(faults()).toEqual({ unexpected: 5, 'unknown-client': 1 });
    expect(send(1, asking(3, 1, { serverId: Uint8Array.of(0, 3, 0, 1, 9, 9, 9, 9, 9, 9) }))).toEqual([]);
    expect(send(1, asking(1, 1), '2001:db8:0:1::1')).toEqual([]);
    expect(send(1, Uint8Array.of(1, 0, 0, 1, 0, 1, 0, 9))).toEqual([]);
    expect(faults()).toEqual({ unexpected: 5, 'unknown-client': 1, 'wrong-server': 1, unicast: 1, malformed: 1 });
  });
});

describe('the time of day is set while the router runs', () => {
  const YEARS = 56 * 365 * 86_400_000;
  /** A server of its own on a router that has none running, whose time of day is `day.offset` from the router's clock. */
  function served() {
    const router = createRouter({ ...provider({ delegate: 'customers' }, { file }), offload: { mode: 'off' } });
    const day = { offset: 0 };
    const dhcp6 = new Dhcp6(router.tables.interfaces, router.control.addresses, router.config, {
      quiet: false,
      now: 0,
      wall: (clock) => clock + day.offset,
      random: seededRandom(1),
      log: () => {},
    });
    dhcp6.step(0, { kind: 'tick' });
    dhcp6.delegation.give(lease(1, 600_000), 0);
    const left = (now: number) => describeDhcp6(dhcp6, now, ['lan']).leases.map(({ valid }) => valid);
    const inFile = (now: number) => {
      const leases = new Leases();
      dhcp6.close();
      leases.open(file, now + day.offset);
      const { size } = leases;
      leases.close();
      return size;
    };
    return { dhcp6, day, left, inFile };
  }

  test('forward, as NTP does in a box that began in 1970: no lease ends, in memory or in the file', () => {
    const { dhcp6, day, left, inFile } = served();
    day.offset = YEARS;
    expect(dhcp6.step(100_000, { kind: 'tick' })).toEqual([]);
    expect(left(100_000)).toEqual([500]);
    expect(inFile(100_000)).toBe(1);
  });

  test('backward: no lease lives on', () => {
    const { dhcp6, day, left, inFile } = served();
    day.offset = -YEARS;
    dhcp6.step(100_000, { kind: 'tick' });
    expect(left(100_000)).toEqual([500]);
    expect(dhcp6.next(100_000)).toBe(500_000);
    expect(dhcp6.step(600_001, { kind: 'tick' })).toMatchObject([{ kind: 'route', op: 'remove' }, { kind: 'event' }]);
    expect(left(600_001)).toEqual([]);
    expect(inFile(600_001)).toBe(0);
  });
});

test('a box without a clock of its own starts in the past: what the file has lives no longer than when it was written', () => {
  const now = Date.now();
  const before = now + 365 * 86_400_000;
  const first = new Leases();
  first.open(file, before);
  first.put(lease(1, before + 600_000));
  first.put(lease(2, before - 3_600_000));
  first.put(lease(3, Number.POSITIVE_INFINITY));
  first.close();
  utimesSync(file, before / 1000, before / 1000);
  const again = new Leases();
  again.open(file, now);
  again.close();
  const left = [...again].map(({ valid }) => (valid - now) / 1000);
  expect(left.length).toBe(2);
  expect(left[0]).toBeGreaterThan(599);
  expect(left[0]).toBeLessThan(3600);
  expect(left[1]).toBe(Number.POSITIVE_INFINITY);
  // What was written then is by the clock of now, as the file is.
  const third = new Leases();
  third.open(file, now);
  third.close();
  expect([...third].map(({ valid }) => (valid - now) / 1000)).toEqual(left);
});

test('the event of a delegated prefix tells seconds', () => {
  const n = new Net();
  const told: unknown[] = [];
  n.add('isp', provider({ delegate: 'customers', preferred: 300, valid: 600 })).control.protocols.push({
    name: 'ear',
    next: () => -1,
    step: (_now, event) => {
      if (event.kind === 'event' && event.name === 'dhcp6.delegated') told.push(event.data.valid);
      return [];
    },
  });
  n.add('cpe', customer({ 'ia-pd': [{}], 'ia-na': false }));
  n.wire('cpe.wan', 'isp.lan');
  n.advance(6000);
  expect(told).toEqual([600]);
});

test('clients that invent themselves get so many addresses and no more, however long the range; a reservation is kept', () => {
  const words = parseIpv6('2001:db8:0:1::42')!;
  const known = { duid: Uint8Array.of(0, 3, 0, 1), remoteId: null, address: words, prefixes: [] };
  const delegation = new Delegation({ file: '', pools: [], clients: [known] } as never, ['lan']);
  const range = new Pool('a /64', parseIpv6('2001:db8:0:1::')!, parseIpv6('2001:db8:0:1:ffff:ffff:ffff:ffff')!, 128);
  const first = (client: string) => [...take(delegation.candidates(client, 'na', [], [range]))];
  function* take<T>(items: Iterable<T>): Iterable<T> {
    for (const item of items) {
      yield item;
      return;
    }
  }
  const give = (n: number, valid = 1e12) => {
    const [item] = first(`duid:${n}`);
    delegation.give({ ...lease(n, valid), ...item, kind: 'na' }, 0);
  };
  give(0, 1000);
  for (let n = 1; n < MAX_ADDRESSES; n++) delegation.leases.put({ ...lease(n), kind: 'na', prefixLength: 128 });
  expect(delegation.leases.addresses).toBe(MAX_ADDRESSES);
  expect(first('duid:one more')).toEqual([]);
  expect(first(clientName(known.duid, null))).toEqual([{ words, prefixLength: 128 }]);
  // Who has one renews it; one that ends makes room for another.
  delegation.leases.put({ ...lease(1), kind: 'na', prefixLength: 128 });
  expect(delegation.leases.addresses).toBe(MAX_ADDRESSES);
  delegation.expire(2000);
  expect(first('duid:one more').length).toBe(1);
});

test('RFC 8415 §18.3.5: a Rebind with many addresses gets no more of them than a client may have', () => {
  const n = new Net();
  const range = '2001:db8:0:1::1000-2001:db8:0:1::1fff';
  const isp = n.add('isp', provider({ addresses: range, 'max-leases': 3 }));
  isp.advance(3000);
  const rebind = newMessage(6, 77);
  rebind.clientId = Uint8Array.of(0, 3, 0, 1, 2, 0, 0, 0, 12, 9);
  const addresses = Array.from({ length: 40 }, (_, k) => ({
    words: parseIpv6(`2001:db8:0:1::1${(256 + k).toString(16)}`)!,
    preferred: 0,
    valid: 0,
    status: null,
  }));
  rebind.ias = [{ kind: 'na', iaid: 1, t1: 0, t2: 0, addresses, prefixes: [], status: null }];
  const packet = build.ipv6(
    { src: 'fe80::ff:fe00:c09', dst: 'ff02::1:2' },
    build.udp({ sport: 546, dport: 547 }, emitMessage(rebind)),
  );
  n.speak('cpe', 'isp.lan', build.ethernet({ src: '02:00:00:00:0c:09', dst: '33:33:00:01:00:02' }, packet));
  expect(n.dhcp6('isp').delegation.leases.size).toBe(3);
});
