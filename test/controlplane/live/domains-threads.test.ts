/**
 * Domains in threads of their own, without a device and without packet workers: the test plays both ends of the rings. It
 * runs the built file, as the router does.
 */
import { Worker } from 'node:worker_threads';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { normalizeConfig } from '../../../controlplane/config/index.ts';
import { Control } from '../../../controlplane/control.ts';
import * as M from '../../../controlplane/dhcp4/message.ts';
import { DomainHost } from '../../../controlplane/live/domain-host.ts';
import type { Told } from '../../../controlplane/protocol.ts';
import { DOMAIN_VIEWS } from '../../../controlplane/show/index.ts';
import { Frames, META_LEN, META_OFF, META_WORDS } from '../../../dataplane/frames.ts';
import { createLive, domainBeat, domainBell } from '../../../dataplane/live.ts';
import { monotonic } from '../../../dataplane/ports/monotonic.ts';
import { closeWaker, openWaker } from '../../../dataplane/ports/poller.ts';
import { createRing, PUNT_FRAME, PUNT_RESOLVE, RingReader, RingWriter } from '../../../dataplane/rings.ts';
import { createTables, DEFAULT_SIZES, STOP, Tables } from '../../../dataplane/tables.ts';
import { parseIpv4, parseIpv6 } from '../../../dataplane/wire/address.ts';
import * as B from '../../lib/build.ts';
import { until } from '../../lib/until.ts';

const HOST_MAC = '02:00:00:00:aa:10';
const CONFIG = normalizeConfig({
  ports: {
    lan: {
      kind: 'memory',
      mac: '02:00:00:00:01:01',
      addresses: ['192.168.1.1/24', '2001:db8:1::1/64'],
      dhcp4: { server: { range: '192.168.1.100-192.168.1.110' } },
      ra: { default: 'always' },
    },
    wan: { kind: 'memory', mac: '02:00:00:00:01:02', addresses: ['203.0.113.1/24'], dhcp6: { client: {} } },
  },
  neighbors: [{ port: 'lan', ip: '192.168.1.77', mac: '02:00:00:00:aa:77' }],
  offload: { mode: 'off' },
});

describe('domains in threads', () => {
  const live = createLive();
  const words = new Int32Array(live);
  const buffers = createTables({ ...DEFAULT_SIZES, connections: 64, workers: 1 }, 1);
  const tables = new Tables(buffers, 1);
  const waker = openWaker();
  const startedAt = monotonic()();
  const warnings: string[] = [];
  const told: Told[] = [];
  const hosts = new Map<number, DomainHost>();
  const rooms = new Map(
    ([4, 6] as const).map((family) => {
      const [punt, inject] = [createRing(), createRing()];
      return [family, { punt, inject, writer: new RingWriter(punt), reader: new RingReader(inject) }];
    }),
  );
  const frames = new Frames(8, 0);
  let control: Control;
  let timer: NodeJS.Timeout;

  beforeAll(async () => {
    control = new Control(
      tables,
      CONFIG,
      { send: () => {}, output: () => {} },
      {
        quiet: false,
        log: (level, message) => level === 'warn' && warnings.push(message),
        tell: (one) => told.push(one),
        remote: (family, events) => {
          const { punt, inject } = rooms.get(family)!;
          const place = {
            family,
            buffers,
            row: 1,
            live,
            punts: [punt],
            inject,
            wakers: [waker],
            startedAt,
            follow: false,
          };
          const host = new DomainHost(place, events, 3000);
          hosts.set(family, host);
          return host;
        },
      },
    );
    timer = setInterval(() => {
      control.tick();
      for (const host of hosts.values()) host.watch();
    }, 20);
    await until('the IPv4 domain to run', () => Atomics.load(words, domainBeat(4)) > 0);
    await until('duplicate address detection', () => own('2001:db8:1::1') === 'preferred');
  });

  afterAll(async () => {
    clearInterval(timer);
    Atomics.store(tables.control, STOP, 1);
    await control?.domains.close();
    closeWaker(waker);
  });

  const answer = async (family: 4 | 6): Promise<unknown> =>
    await control.domains.ask(family === 4 ? 'ipv4' : 'ipv6', 'dhcp6');
  const own = (text: string) => control.addresses.find(0, 6, parseIpv6(text)!)?.state;
  const health = (name: string) => control.domains.health.find(({ domain }) => domain === name)!;

  function ring(family: 4 | 6): void {
    Atomics.add(words, domainBell(family), 1);
    Atomics.notify(words, domainBell(family));
  }

  /** The next frame that a domain sends and that `fits`; others are left out. */
  function next(family: 4 | 6, fits: (frame: Uint8Array) => boolean): Promise<Uint8Array> {
    const { reader } = rooms.get(family)!;
    let found: Uint8Array | null = null;
    return until('a frame of the domain', () => {
      while (found === null && reader.next()) {
        const frame = new Uint8Array(reader.length);
        reader.copy(frame, 0);
        reader.release();
        if (fits(frame)) found = frame;
      }
      return found !== null;
    }).then(() => found!);
  }

  /** The host asks who has 192.168.1.1. */
  function question(from = '192.168.1.10'): Uint8Array {
    const [mac, to] = [B.mac(HOST_MAC), B.ip('192.168.1.1')];
    const request = [0, 1, 8, 0, 6, 4, 0, 1, ...mac, ...B.ip(from), 0, 0, 0, 0, 0, 0, ...to];
    return Uint8Array.from([255, 255, 255, 255, 255, 255, ...mac, 8, 6, ...request]);
  }

  /** Puts a frame into the IPv4 domain's ring; nobody rings. */
  function punt(frame: Uint8Array): void {
    const slot = frames.alloc(frame.length);
    frames.u8.set(frame, frames.meta[slot * META_WORDS + META_OFF]);
    frames.meta[slot * META_WORDS + META_LEN] = frame.length;
    expect(rooms.get(4)!.writer.frame(PUNT_FRAME, 0, frames, slot, B.get16(frame, 12), 14)).toBe(true);
    frames.free(slot);
  }

  /** Asks, and gives the answer's frame. */
  async function arp(): Promise<Uint8Array> {
    punt(question());
    ring(4);
    return next(4, (reply) => B.get16(reply, 12) === 0x0806 && reply[21] === 2);
  }

  it('answer from their own threads, and write their own neighbours', async () => {
    expect(health('ipv4')).toMatchObject({ state: 'running', thread: 'own', restarts: 0 });
    const reply = await arp();
    expect(B.ipText(reply.subarray(28, 32))).toBe('192.168.1.1');
    const { neighbours } = tables;
    expect(neighbours.familyOf(neighbours.find(0, 4, parseIpv4('192.168.1.10')!, 0, 0, 0))).toBe(4);
    expect(neighbours.familyOf(neighbours.find(0, 4, parseIpv4('192.168.1.77')!, 0, 0, 0))).toBe(4);
    // What Control changes in the book, the domain answers for; what the domain is asked is plain data.
    expect(await answer(6)).toMatchObject({ clients: [{ port: 'wan' }] });
  });

  it('are asked for what views show: leases, router advertisements', async () => {
    const view = async (what: string) => await DOMAIN_VIEWS[what]({ tables, control, config: CONFIG }, {});
    const request = M.writeMessage({
      op: M.REQUEST_OP,
      hops: 0,
      xid: 7,
      secs: 0,
      flags: M.BROADCAST_FLAG,
      ciaddr: 0,
      yiaddr: 0,
      siaddr: 0,
      giaddr: 0,
      htype: 1,
      chaddr: B.mac(HOST_MAC),
      type: M.REQUEST,
      options: new Map([[M.OPT_REQUESTED, B.ip('192.168.1.105')]]),
    });
    const packet = B.ipv4({ src: '0.0.0.0', dst: '255.255.255.255' }, B.udp({ sport: 68, dport: 67 }, request));
    punt(B.ethernet({ src: HOST_MAC, dst: 'ff:ff:ff:ff:ff:ff' }, packet));
    ring(4);
    await next(4, (frame) => B.get16(frame, 12) === 0x0800 && B.get16(frame, 36) === 68);
    const lease = { address: '192.168.1.105', dev: 'lan', mac: HOST_MAC, host: '', state: 'bound' };
    expect((await view('leases')).json).toEqual([
      { line: HOST_MAC, ipv4: [{ ...lease, valid: expect.any(Number) }], ipv6: [] },
    ]);
    await next(6, (frame) => B.get16(frame, 12) === 0x86dd && frame[20] === 58 && frame[54] === 134);
    expect((await view('ra')).json).toMatchObject({
      senders: [{ dev: 'lan', prefixes: ['2001:db8:1::/64'], withdrawn: [] }],
      routers: [],
      received: {},
    });
    expect((await view('gateway')).text).toBe('the router is no gateway');
  });

  it('a new address is tested by the IPv6 domain and is usable then', async () => {
    control.addAddress(0, 6, parseIpv6('2001:db8:2::1')!, 64);
    expect(own('2001:db8:2::1')).toBe('tentative');
    await next(6, (frame) => frame[54] === 135 && B.ipText(frame.subarray(62, 78)) === '2001:db8:2::1');
    await until('its detection', () => own('2001:db8:2::1') === 'preferred');
    await until('everybody to hear of it', () =>
      told.some(({ name, data }) => name === 'nd.ready' && data.address === '2001:db8:2::1'),
    );
  });

  it('one that throws is started again, and the other one does not notice', async () => {
    hosts.get(6)!.say({ kind: 'fault', how: 'throw' });
    await until('its failure', () => health('ipv6').failures === 1);
    await arp();
    await until('its return', () => health('ipv6').state === 'running');
    expect(await answer(6)).toMatchObject({ clients: [{ port: 'wan' }] });
    expect(warnings.some((line) => /ipv6 domain has failed.*fault injected by a test/.test(line))).toBe(true);
    expect(health('ipv4')).toMatchObject({ restarts: 0, failures: 0 });
    expect(told.filter(({ name }) => name === 'domain.restarted').map(({ data }) => data.domain)).toEqual(['ipv6']);
  });

  it('one that hangs is noticed, ended and started again; meanwhile the other one answers', async () => {
    hosts.get(6)!.say({ kind: 'fault', how: 'hang' });
    for (let n = 0; n < 5; n++) await arp();
    await until('somebody to notice', () => health('ipv6').failures === 2, 60_000);
    expect(health('ipv6').reason).toContain('no turn for 3 s');
    await until('its return', () => health('ipv6').state === 'running');
    expect(await answer(6)).not.toBeNull();
    await arp();
  });

  it('a process that had been suspended took its domains for hung', () => {
    const failures = () => [health('ipv4').failures, health('ipv6').failures];
    const before = failures();
    const now = performance.now();
    const clock = vi.spyOn(performance, 'now');
    // Each look is a minute behind the last one, in which nobody has had a turn.
    for (let n = 1; n <= 20; n++) {
      clock.mockReturnValue(now + n * 60_000);
      for (const host of hosts.values()) host.watch();
    }
    clock.mockRestore();
    expect(failures()).toEqual(before);
  });

  it('restart: neighbours of its own are forgotten, those of the other family and the configured ones stay', async () => {
    const { neighbours } = tables;
    const host = () => neighbours.find(0, 4, parseIpv4('192.168.1.10')!, 0, 0, 0);
    rooms.get(6)!.writer.event(PUNT_RESOLVE, 0, 6, ...parseIpv6('2001:db8:1::99')!);
    ring(6);
    await until('an unknown neighbour', () => neighbours.find(0, 6, ...parseIpv6('2001:db8:1::99')!) >= 0);
    const known = host();
    expect(known).toBeGreaterThanOrEqual(0);
    await control.domains.restart('ipv6');
    expect(neighbours.find(0, 6, ...parseIpv6('2001:db8:1::99')!)).toBe(-1);
    expect(host()).toBe(known);
    await control.domains.restart('ipv4');
    expect(host()).toBe(-1);
    expect(neighbours.find(0, 4, parseIpv4('192.168.1.77')!, 0, 0, 0)).toBeGreaterThanOrEqual(0);
    await arp();
    expect(health('ipv4')).toMatchObject({ state: 'running', restarts: 1, failures: 0 });
  });

  /** Warnings of the IPv4 domain that somebody uses its address: what it says when the host asks from that. */
  const conflicts = () => warnings.filter((line) => line.includes('192.168.1.1 is our address')).length;

  it('what one says while it is being ended is heard', async () => {
    // It sees the frame in the very turn in which it hears that it is to end.
    punt(question('192.168.1.1'));
    await control.domains.restart('ipv4');
    expect(conflicts()).toBe(1);
  });

  it('what one has decided before it throws is done', async () => {
    const event = { kind: 'frame', port: 0, frame: question('192.168.1.1'), etherType: 0x0806, l3: 14 } as const;
    hosts.get(4)!.say({ kind: 'event', event });
    hosts.get(4)!.say({ kind: 'fault', how: 'throw' });
    await until('its failure', () => health('ipv4').failures === 1);
    expect(conflicts()).toBe(2);
    await until('its return', () => health('ipv4').state === 'running');
    await arp();
  });

  it('a question to one that ends before it answers, or is down, is refused at once', async () => {
    const host = hosts.get(6)!;
    host.say({ kind: 'fault', how: 'throw' });
    await expect(host.ask('dhcp6')).rejects.toThrow(
      'ipv6 domain: expected an answer within 5 s, got the end of its thread',
    );
    await expect(host.ask('dhcp6')).rejects.toThrow('got a domain that is down; see "sluice show domains"');
    await until('its return', () => health('ipv6').state === 'running');
    expect(await answer(6)).not.toBeNull();
  });

  it('a restart waits until a hung one is gone: never are two threads on the same rings', async () => {
    const host = hosts.get(6)!;
    const order: string[] = [];
    const begin = host.begin.bind(host);
    const begun = vi.spyOn(host, 'begin').mockImplementation((start) => {
      order.push('begun');
      return begin(start);
    });
    const { terminate } = Worker.prototype;
    let restarted: unknown = null;
    const ended = vi.spyOn(Worker.prototype, 'terminate').mockImplementationOnce(function (this: Worker) {
      this.once('exit', () => order.push('gone'));
      restarted = control.domains.restart('ipv6');
      return terminate.call(this);
    });
    host.say({ kind: 'fault', how: 'hang' });
    await until('somebody to notice', () => order.includes('gone'), 60_000);
    await restarted;
    expect(order).toEqual(['gone', 'begun']);
    expect(await answer(6)).not.toBeNull();
    for (const spy of [begun, ended]) spy.mockRestore();
  });

  it('a restart that fails does not fail those after it', async () => {
    const end = vi.spyOn(hosts.get(6)!, 'end').mockRejectedValueOnce(new Error('a defect'));
    await expect(control.domains.restart('ipv6')).rejects.toThrow('a defect');
    const { restarts } = health('ipv6');
    void control.domains.restart('ipv6');
    await control.domains.restarted;
    expect(health('ipv6')).toMatchObject({ state: 'running', restarts: restarts + 1 });
    end.mockRestore();
  });

  it('one that still loads its modules is not terminated: that would end the process inside of an addon', async () => {
    const mine = createLive();
    const [punts, inject] = [[createRing()], createRing()];
    const place = { family: 6 as const, buffers, row: 1, live: mine, punts, inject, wakers: [waker], startedAt };
    const failures: string[] = [];
    const host = new DomainHost(
      { ...place, follow: false },
      { heard: () => {}, failed: (reason) => failures.push(reason) },
    );
    const now = performance.now();
    const clock = vi.spyOn(performance, 'now').mockReturnValue(now);
    const terminated = vi.spyOn(Worker.prototype, 'terminate');
    void host.begin({ config: CONFIG, book: [], kept: new Map() });
    // Nothing of the thread is heard before this function lets go.
    for (let seconds = 0; seconds < 100; seconds++) {
      clock.mockReturnValue(now + seconds * 1000);
      host.watch();
    }
    clock.mockRestore();
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    const ended = host.end(false);
    vi.advanceTimersByTime(100_000);
    vi.useRealTimers();
    const early = terminated.mock.calls.length;
    terminated.mockRestore();
    await ended;
    expect([early, failures]).toEqual([0, []]);
  });
});
