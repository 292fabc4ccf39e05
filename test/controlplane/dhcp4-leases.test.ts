/**
 * What a DHCP server promises: on the disk before the answer leaves, there after the process died in the middle of a record
 * (RFC 2131 §2.1), and probed before it is offered (§3.1 (2)).
 */
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  truncateSync,
  utimesSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { LeaseFile } from '../../controlplane/dhcp4/lease-file.ts';
import * as M from '../../controlplane/dhcp4/message.ts';
import { Dhcp4Server } from '../../controlplane/dhcp4/server.ts';
import type { Action, Event } from '../../controlplane/protocol.ts';
import { createRouter, type Router } from '../../controlplane/router.ts';
import * as B from '../lib/build.ts';

const LAN_MAC = '02:00:00:00:01:01';
const mac = (n: number) => `02:00:00:00:00:${n.toString(16).padStart(2, '0')}`;
let folder = '';
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'sluice-dhcp4-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const config = (server: Record<string, unknown> = {}) => ({
  ports: {
    lan: {
      kind: 'memory',
      mac: LAN_MAC,
      addresses: '192.0.2.1/24',
      dhcp4: { server: { range: '192.0.2.100-192.0.2.119', lease: 600, ...server } },
    },
  },
  offload: { mode: 'off' },
  conntrack: { max: 256 },
});

function make(server: Record<string, unknown> = {}, log: (level: string, message: string) => void = () => {}): Router {
  return createRouter(config(server), { unasked: true, slots: { small: 256, large: 4 }, log });
}
const serverOf = (r: Router) => r.control.protocols.find((p) => p.name === 'dhcp4-server') as unknown as Dhcp4Server;

function frameOf(
  n: number,
  type: number,
  options: [number, Uint8Array][] = [],
  more: Partial<M.Dhcp4Message> = {},
): Uint8Array {
  const payload = M.writeMessage({
    op: 1,
    htype: 1,
    hops: 0,
    xid: n,
    secs: 0,
    flags: 0x8000,
    ciaddr: 0,
    yiaddr: 0,
    siaddr: 0,
    giaddr: 0,
    chaddr: B.mac(mac(n)),
    type,
    options: new Map(options),
    ...more,
  });
  const udp = B.udp({ sport: 68, dport: 67 }, payload);
  return B.ethernet({ src: mac(n), dst: 'ff:ff:ff:ff:ff:ff' }, B.ipv4({ src: '0.0.0.0', dst: '255.255.255.255' }, udp));
}
const say = (r: Router, ...message: Parameters<typeof frameOf>) => r.inject('lan', frameOf(...message));
/** Answers and ARP requests that left, as text. */
function heard(r: Router): string[] {
  return r.take('lan').flatMap((f) => {
    if (B.get16(f, 12) === 0x0806) return f[21] === 1 ? [`who has ${B.ipText(f.subarray(38, 42))}`] : [];
    if (B.get16(f, 12) !== 0x0800 || f[23] !== 17) return [];
    const m = M.readMessage(f.subarray(42))!;
    return [`${m.type === M.OFFER ? 'offer' : m.type === M.ACK ? 'ack' : 'nak'} ${B.ipText(f.subarray(58, 62))}`];
  });
}
const request = (r: Router, n: number, address: string) => say(r, n, M.REQUEST, [[M.OPT_REQUESTED, B.ip(address)]]);
const given = (r: Router) =>
  serverOf(r)
    .leases(r.now, 0)
    .map(({ address, state }) => `${address} ${state}`);

describe('the lease file', () => {
  it('an answer leaves once its lease is on the disk; a new process has all leases, addresses stay with their clients', () => {
    const file = join(folder, 'leases4');
    const first = make({ file });
    for (let n = 1; n <= 10; n++) request(first, n, `192.0.2.${100 + n}`);
    expect(heard(first).filter((line) => line.startsWith('ack'))).toEqual([]);
    first.advance(1);
    expect(heard(first).filter((line) => line.startsWith('ack')).length).toBe(10);
    say(first, 3, M.RELEASE, [], { ciaddr: new Int32Array(B.ip('192.0.2.103').slice().buffer)[0] });
    // The process is gone without a word: its lock names a process, which is this one.
    const again = make({ file });
    expect(given(again).sort()).toEqual(given(first).sort());
    expect(given(again).length).toBe(9);
    // Given back, and still its own: not somebody else's as long as there are others.
    say(again, 50, M.DISCOVER);
    say(again, 3, M.DISCOVER);
    again.advance(1000);
    expect(
      heard(again)
        .filter((line) => line.startsWith('offer'))
        .sort(),
    ).toEqual(['offer 192.0.2.100', 'offer 192.0.2.103']);
  });

  it('cut at any byte of its last records, it gives back every lease before; the rest is kept aside', () => {
    const file = join(folder, 'leases4');
    const first = make({ file });
    for (let n = 1; n <= 5; n++) request(first, n, `192.0.2.${100 + n}`);
    first.advance(1);
    const whole = readFileSync(file);
    const fourth = whole.length - [...whole.toString().split('\n')].at(-2)!.length - 1;
    for (let length = fourth; length < whole.length; length += 7) {
      rmSync(file);
      appendFileSync(file, whole);
      truncateSync(file, length);
      const again = make({ file });
      expect(given(again).length).toBe(4);
      if (length > fourth) expect(existsSync(`${file}.damaged-1`)).toBe(true);
      rmSync(`${file}.damaged-1`, { force: true });
      // The fifth asks for its address, and has it.
      request(again, 5, '192.0.2.105');
      again.advance(1);
      expect(heard(again)).toContain('ack 192.0.2.105');
      serverOf(again).close();
    }
  });

  it('records of another kind, and garbage, are left out', () => {
    const file = join(folder, 'leases4');
    appendFileSync(file, 'no record at all\n');
    const r = make({ file });
    expect(given(r)).toEqual([]);
    expect(readFileSync(`${file}.damaged-1`, 'utf8')).toBe('no record at all\n');
  });

  it('one that cannot be used costs the port its server, not the router its IPv4', () => {
    const file = join(folder, 'missing', 'leases4');
    const logged: string[] = [];
    const r = make({ file, probe: false }, (level, message) => logged.push(`${level} ${message}`));
    expect(logged.join()).toMatch(/^warn ports\.lan\.dhcp4\.server\.file: .*leases4.*; the port is not served/);
    request(r, 1, '192.0.2.101');
    r.advance(1);
    expect(heard(r).filter((line) => !line.startsWith('who'))).toEqual([]);
    expect(r.control.protocols.map(({ name }) => name)).toContain('arp');
    mkdirSync(join(folder, 'missing'));
    r.restart('ipv4');
    request(r, 1, '192.0.2.101');
    r.advance(1);
    expect(heard(r)).toContain('ack 192.0.2.101');
  });
});

it('a restart while a failed domain rests does not close the lease file twice', () => {
  const r = make({ file: join(folder, 'leases4') });
  serverOf(r).close();
  expect(() => r.restart('ipv4')).not.toThrow();
});

describe('without a lease file', () => {
  it('a restart of the domain, or apply of another option, forgets no lease and lengthens none', () => {
    const r = make({ probe: false });
    for (const n of [1, 2, 3]) request(r, n, `192.0.2.${100 + n}`);
    say(r, 2, M.RELEASE, [], { ciaddr: new Int32Array(B.ip('192.0.2.102').slice().buffer)[0] });
    say(r, 3, M.DECLINE, [[M.OPT_REQUESTED, B.ip('192.0.2.103')]]);
    r.advance(100_000);
    const before = given(r).sort();
    expect(before).toEqual(['192.0.2.101 bound', '192.0.2.103 declined']);
    r.restart('ipv4');
    expect(given(r).sort()).toEqual(before);
    expect(r.apply(config({ probe: false, domain: 'home.arpa' })).refused).toEqual([]);
    expect(given(r).sort()).toEqual(before);
    r.take('lan');
    // Somebody else does not get it; who gave his back is offered it again.
    request(r, 9, '192.0.2.101');
    say(r, 2, M.DISCOVER);
    expect(heard(r).map((line) => line.replace(/^nak .*/, 'nak'))).toEqual(['nak', 'offer 192.0.2.102']);
    r.advance(501_000);
    expect(given(r)).toEqual(['192.0.2.103 declined']);
  });

  it('what was in memory is in the file that apply names', () => {
    const file = join(folder, 'leases4');
    const r = make({ probe: false });
    request(r, 1, '192.0.2.101');
    expect(r.apply(config({ probe: false, file })).refused).toEqual([]);
    const again = make({ probe: false, file });
    expect(given(again)).toEqual(['192.0.2.101 bound']);
  });
});

describe('the time of day', () => {
  const YEARS = 56 * 365 * 86_400_000;

  /** Servers of their own, one after the other; the time of day is `day.offset` from the router's clock. */
  function served(where: { file?: string }) {
    const router = createRouter(config({ ...where, probe: false }), { slots: { small: 256, large: 4 } });
    const ports = new Map([[0, router.config.ports[0].dhcp4!.server!]]);
    const day = { offset: 0 };
    const kept = new Map<string, { value: unknown; age: number }>();
    const start = (now: number) => {
      const wall = (clock: number) => clock + day.offset;
      const options = { answersNames: false, now, wall, log: () => {}, kept };
      return new Dhcp4Server(router.tables.interfaces, router.control.addresses, ports, options);
    };
    const step = (server: Dhcp4Server, now: number, event: Event = { kind: 'tick' }): Action[] => {
      const actions = server.step(now, event);
      for (const action of actions) if (action.kind === 'keep') kept.set(action.key, { value: action.value, age: 0 });
      return actions;
    };
    return { day, start, step };
  }

  it.each([
    ['forward', 'a file', YEARS],
    ['forward', 'no file', YEARS],
    ['backward', 'a file', -YEARS],
    ['backward', 'no file', -YEARS],
  ])('is set %s, leases are in %s: who comes next has them for as long as they still are', (_how, where, offset) => {
    const { day, start, step } = served(where === 'a file' ? { file: join(folder, 'leases4') } : {});
    const first = start(0);
    const frame = frameOf(1, M.REQUEST, [[M.OPT_REQUESTED, B.ip('192.0.2.101')]]);
    step(first, 0, { kind: 'frame', port: 0, frame, etherType: 0x0800, l3: 14 });
    step(first, 0);
    day.offset = offset;
    step(first, 100_000);
    expect(first.leases(100_000, 0)).toMatchObject([{ address: '192.0.2.101', seconds: 500 }]);
    first.close();
    const second = start(100_000);
    expect(second.leases(100_000, 0)).toMatchObject([{ address: '192.0.2.101', seconds: 500 }]);
    second.close();
  });

  it('a box without a clock of its own starts in the past: a lease of the file lives no longer than when it was written', () => {
    const file = join(folder, 'leases4');
    const now = Date.now();
    const before = now + 365 * 86_400_000;
    const first = LeaseFile.open(file, 0, (clock) => before + clock).file;
    const holder = { hostName: '', mac: mac(1), remoteId: '' };
    const one = { ...holder, client: 'mac 020000000001', state: 'bound' as const };
    first.put({ ...one, address: 0xc0000265, until: 600_000 }, () => []);
    first.put({ ...one, address: 0xc0000266, until: -3_600_000 }, () => []);
    first.close();
    utimesSync(file, before / 1000, before / 1000);
    const { file: again, leases } = LeaseFile.open(file, 0, (clock) => now + clock);
    again.close();
    const [lives, over] = leases.map(({ until }) => until / 1000);
    expect(lives).toBeGreaterThan(599);
    expect(lives).toBeLessThan(3600);
    expect(over).toBeLessThan(0);
  });
});

describe('RFC 2131 §3.1 (2): before an offer', () => {
  it('the address is asked for twice; silence makes the offer', () => {
    const r = make();
    say(r, 1, M.DISCOVER);
    expect(heard(r)).toEqual(['who has 192.0.2.100']);
    // The client's own impatience changes nothing.
    say(r, 1, M.DISCOVER);
    r.advance(350);
    expect(heard(r)).toEqual(['who has 192.0.2.100']);
    r.advance(100);
    expect(heard(r)).toEqual(['offer 192.0.2.100']);
    // What was offered a moment ago needs no probe.
    say(r, 1, M.DISCOVER);
    expect(heard(r)).toEqual(['offer 192.0.2.100']);
  });

  it('an answer puts the address away for an hour, and the client gets another one', () => {
    const r = make();
    say(r, 1, M.DISCOVER);
    const frame = B.ethernet(
      { src: mac(9), dst: LAN_MAC, type: 0x0806 },
      B.arp({ op: 'reply', sha: mac(9), spa: '192.0.2.100', tha: LAN_MAC, tpa: '192.0.2.1' }),
    );
    r.inject('lan', frame);
    r.advance(1000);
    expect(heard(r).filter((line) => line.startsWith('offer'))).toEqual([]);
    expect(serverOf(r).counters.conflicts).toBe(1);
    say(r, 1, M.DISCOVER);
    r.advance(500);
    expect(heard(r)).toContain('offer 192.0.2.101');
    expect(given(r)).toContain('192.0.2.100 declined');
    r.advance(3_600_000);
    expect(given(r)).not.toContain('192.0.2.100 declined');
  });

  it("the client's own answer is no conflict", () => {
    const r = make();
    say(r, 1, M.DISCOVER);
    r.inject(
      'lan',
      B.ethernet(
        { src: mac(1), dst: LAN_MAC, type: 0x0806 },
        B.arp({ op: 'reply', sha: mac(1), spa: '192.0.2.100', tha: LAN_MAC, tpa: '192.0.2.1' }),
      ),
    );
    r.advance(500);
    expect(heard(r)).toContain('offer 192.0.2.100');
  });

  it('DECLINE counts only for the address that the client was given; then it rests for an hour', () => {
    const r = make({ probe: false });
    request(r, 1, '192.0.2.105');
    say(r, 1, M.DECLINE, [[M.OPT_REQUESTED, B.ip('192.0.2.110')]]);
    expect(serverOf(r).counters).toMatchObject({ declined: 0 });
    say(r, 1, M.DECLINE, [[M.OPT_REQUESTED, B.ip('192.0.2.105')]]);
    expect(serverOf(r).counters).toMatchObject({ declined: 1 });
    request(r, 2, '192.0.2.105');
    expect(heard(r).at(-1)).toMatch(/^nak/);
  });

  it('a lease that is declined is over for all who had heard of it; an offer is not worth a word', () => {
    const r = make({ probe: false });
    const told: string[] = [];
    r.control.protocols.push({
      name: 'ear',
      next: () => -1,
      step: (_now, event) => {
        if (event.kind === 'event') told.push(`${event.name} ${event.data.address} ${event.data.mac}`);
        return [];
      },
    });
    request(r, 1, '192.0.2.105');
    say(r, 1, M.DECLINE, [[M.OPT_REQUESTED, B.ip('192.0.2.105')]]);
    expect(told).toEqual([`dhcp4.lease 192.0.2.105 ${mac(1)}`, `dhcp4.released 192.0.2.105 ${mac(1)}`]);
    say(r, 2, M.DISCOVER);
    say(r, 2, M.DECLINE, [[M.OPT_REQUESTED, B.ip('192.0.2.100')]]);
    expect(serverOf(r).counters.declined).toBe(2);
    expect(told.length).toBe(2);
  });
});
