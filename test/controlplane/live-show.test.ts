/**
 * The views of `sluice show` over an inline router, the control socket that serves them, and `sluice run` where it must
 * refuse: none of it needs a device.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { askShow } from '../../controlplane/api/client.ts';
import { ApiServer } from '../../controlplane/api/server.ts';
import { main } from '../../controlplane/cli/main.ts';
import { TRACE_USAGE } from '../../controlplane/cli/trace.ts';
import type { Supervisor } from '../../controlplane/live/supervisor.ts';
import { createRouter, type Router } from '../../controlplane/router.ts';
import { stageOf } from '../../controlplane/show/drops.ts';
import { liveSource, VIEWS } from '../../controlplane/show/index.ts';
import * as D from '../../dataplane/drop.ts';
import { REASONS, STAGES } from '../../dataplane/drop.ts';
import {
  createLive,
  LP_MIRROR_LOST,
  LP_MIRROR_TROUBLE,
  LP_SYSCALLS,
  LP_TX_ERRORS,
  portAt,
} from '../../dataplane/live.ts';
import { newPortCounters } from '../../dataplane/ports/port.ts';

const CONFIG = {
  ports: {
    lan: { kind: 'memory', zone: 'lan', mac: '02:00:00:00:01:01', addresses: ['192.168.1.1/24', '2001:db8:1::1/64'] },
    wan: { kind: 'memory', zone: 'wan', mac: '02:00:00:00:01:02', addresses: ['203.0.113.1/24'], mtu: 1400 },
  },
  routes: [
    { to: '0.0.0.0/0', via: '203.0.113.254', metric: 10 },
    { to: '10.0.0.0/8', type: 'blackhole' },
    { to: '2001:db8:2::/48', via: '2001:db8:1::2', mtu: 1300 },
  ],
  neighbors: [
    { port: 'lan', ip: '192.168.1.10', mac: '02:00:00:00:aa:10' },
    { port: 'wan', ip: '203.0.113.254', mac: '02:00:00:00:00:fe' },
  ],
  zones: { lan: { forward: 'accept', input: 'accept' }, wan: { forward: 'drop', input: 'drop' } },
  nat: {
    masquerade: [{ out: 'wan', from: '192.168.1.0/24' }],
    forward: [{ in: 'wan', proto: 'tcp', port: 8080, to: '192.168.1.10:80' }],
    dmz: { in: 'wan', to: '192.168.1.20' },
  },
};

/** ICMP echo request from 192.168.1.10, identifier 7, TTL as given; checksums right. */
function echo(dst: number[], ttl: number): Uint8Array {
  const frame = new Uint8Array(60);
  frame.set([2, 0, 0, 0, 1, 1, 2, 0, 0, 0, 0xaa, 0x10, 8, 0, 0x45, 0, 0, 36, 0, 1, 0, 0, ttl, 1]);
  frame.set([192, 168, 1, 10, ...dst, 8, 0, 0, 0, 0, 7, 0, 1], 26);
  const put = (at: number, from: number, to: number): void => {
    let sum = 0;
    for (let n = from; n < to; n += 2) sum += (frame[n] << 8) | frame[n + 1];
    while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
    frame[at] = (0xffff - sum) >> 8;
    frame[at + 1] = 0xffff - sum;
  };
  put(24, 14, 34);
  put(36, 34, 50);
  return frame;
}

describe('views', () => {
  let router: Router;
  const text = (what: string, filters = {}): string => VIEWS[what](router, filters).text;
  const json = (what: string, filters = {}): unknown => VIEWS[what](router, filters).json;

  beforeEach(() => {
    router = createRouter(CONFIG);
    router.inject('lan', echo([198, 51, 100, 1], 64));
    router.inject('lan', echo([198, 51, 100, 2], 1));
    router.inject('lan', echo([10, 1, 1, 1], 64));
  });

  it('route: as ip route prints it, the own addresses last', () => {
    expect(text('route').split('\n')).toEqual([
      'default via 203.0.113.254 dev wan proto static metric 10',
      'blackhole 10.0.0.0/8 proto static',
      '192.168.1.0/24 dev lan proto kernel scope link src 192.168.1.1',
      '203.0.113.0/24 dev wan proto kernel scope link src 203.0.113.1',
      '2001:db8:1::/64 dev lan proto kernel scope link',
      '2001:db8:2::/48 via 2001:db8:1::2 dev lan proto static mtu 1300',
      'broadcast 192.168.1.0 dev lan table local proto kernel scope link',
      'local 192.168.1.1 dev lan table local proto kernel scope host',
      'broadcast 192.168.1.255 dev lan table local proto kernel scope link',
      'broadcast 203.0.113.0 dev wan table local proto kernel scope link',
      'local 203.0.113.1 dev wan table local proto kernel scope host',
      'broadcast 203.0.113.255 dev wan table local proto kernel scope link',
      'local 2001:db8:1::1 dev lan table local proto kernel scope host',
    ]);
    expect(json('route', { family: 'ipv6', dev: 'lan' })).toContainEqual({
      dst: '2001:db8:2::/48',
      gateway: '2001:db8:1::2',
      dev: 'lan',
      protocol: 'static',
      metrics: [{ mtu: 1300 }],
      flags: [],
    });
    router.setLink('wan', false);
    expect(text('route', { dev: 'wan' }).split('\n')[0]).toMatch(/^default via .* linkdown$/);
  });

  it('a filter whose value could match nothing is an error, not an empty table', () => {
    for (const [what, filters, message] of [
      ['conntrack', { proto: 'tpc' }, /^proto: expected one of icmp, tcp.*, or a number from 0 to 255, got "tpc"$/],
      ['conntrack', { proto: '256' }, /^proto: .*got "256"$/],
      ['conntrack', { sport: 'http' }, /^sport: expected a number from 0 to 65535, got "http"$/],
      ['conntrack', { dport: '65536' }, /^dport: .*got "65536"$/],
      ['conntrack', { zone: 'lan' }, /^zone: expected a number from 0 to 65535, got "lan"$/],
      ['conntrack', { state: 'ESTABLISHD' }, /^state: expected a state, got "ESTABLISHD"; did you mean "ESTABLISHED"/],
      ['conntrack', { state: 'x' }, /^state: expected one of NONE, SYN_SENT, .*UNREPLIED, got "x"$/],
      ['nat', { src: '10.0.0.0/99' }, /^src: expected an address or a prefix, got "10.0.0.0\/99"$/],
      ['expect', { dst: 'server' }, /^dst: expected an address or a prefix, got "server"$/],
      ['route', { dev: 'eth0' }, /^dev: expected one of lan, wan, got "eth0"$/],
      ['neigh', { dev: 'eth0' }, /^dev: expected one of lan, wan/],
      ['link', { dev: 'eth0' }, /^dev: expected one of lan, wan/],
      ['offload', { dev: 'eth0' }, /^dev: expected one of lan, wan/],
    ] as const)
      expect(() => VIEWS[what](router, filters), JSON.stringify(filters)).toThrow(message);
    expect(text('conntrack', { proto: 'ICMP', state: 'unreplied', dst: '198.51.100.0/24', zone: '0' })).toContain(
      'icmp',
    );
    expect(text('conntrack', { proto: '17' })).toBe('');
  });

  it('neigh and link: as ip prints them', () => {
    expect(text('neigh')).toBe(
      '192.168.1.10 dev lan lladdr 02:00:00:00:aa:10 PERMANENT\n203.0.113.254 dev wan lladdr 02:00:00:00:00:fe PERMANENT',
    );
    expect(json('neigh', { dev: 'wan' })).toEqual([
      { dst: '203.0.113.254', dev: 'wan', lladdr: '02:00:00:00:00:fe', state: ['PERMANENT'] },
    ]);
    router.setLink('wan', false);
    const [lan, wan] = json('link') as Record<string, unknown>[];
    expect(lan).toMatchObject({
      ifname: 'lan',
      mtu: 1500,
      operstate: 'UP',
      address: '02:00:00:00:01:01',
      stats64: { rx: { packets: 3, bytes: 180 } },
    });
    expect(wan).toMatchObject({ mtu: 1400, operstate: 'DOWN', stats64: { tx: { packets: 1 } } });
    expect(text('link', { dev: 'lan' }).split('\n').slice(0, 3)).toEqual([
      '0: lan: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 state UP zone lan kind memory',
      '    link/ether 02:00:00:00:01:01',
      '    inet 192.168.1.1/24 scope global',
    ]);
  });

  it('conntrack, nat: what is there, and filters', () => {
    const one =
      'ipv4     2 icmp     1 30 src=192.168.1.10 dst=198.51.100.1 type=8 code=0 id=7 packets=1 bytes=36 [UNREPLIED] ' +
      'src=198.51.100.1 dst=203.0.113.1 type=0 code=0 id=7 packets=0 bytes=0 mark=0 use=1';
    expect(text('conntrack')).toBe(one);
    expect(text('conntrack', { dst: '198.51.100.1', proto: 'icmp', family: 'ipv4' })).toBe(one);
    expect(text('conntrack', { dst: '198.51.100.2' })).toBe('');
    expect(text('nat').split('\n')).toEqual([
      'dnat in zone wan tcp dport 8080 to 192.168.1.10:80',
      'dmz in zone wan to 192.168.1.20',
      'masquerade out zone wan from 192.168.1.0/24 mapping address-and-port-dependent filtering address-and-port-dependent',
      '',
      one,
    ]);
  });

  it('drops and stages: every reason with its count, its stage and its sentence', () => {
    const drops = json('drops') as { reason: string; count: number; stage: string; description: string }[];
    expect(drops.map(({ reason, count, stage }) => [reason, count, stage]).sort()).toEqual([
      ['IP_BLACKHOLE', 1, 'route'],
      ['IP_TTL', 1, 'ttl'],
    ]);
    expect(text('drops')).toContain(drops[0].description);
    expect(json('stages')).toMatchObject({ received: 3, made: 1, forwarded: 1, generated: 1, dropped: 2 });
    for (const [reason] of REASONS) expect(STAGES).toContain(stageOf(reason));
  });

  it('drops and stages did not add up: frames of the router and of its host were received by no port', () => {
    const [head] = text('stages').split('\n');
    const [left, right] = head.split(' = ').map((side) => {
      const counts = side.split(' + ').map((one) => Number(/^[a-z]+ (\d+)$/.exec(one)?.[1]));
      return counts.reduce((sum, count) => sum + count, 0);
    });
    expect([left, right]).toEqual([4, 4]);
  });

  it('stages are named in the order of the packet’s path everywhere', () => {
    const numbers = Object.entries(D).filter(([name]) => name.startsWith('STAGE_'));
    expect(Object.fromEntries(numbers)).toEqual(
      Object.fromEntries(STAGES.map((name, number) => [`STAGE_${name.toUpperCase().replaceAll('-', '_')}`, number])),
    );
    const source = (file: string): string => readFileSync(new URL(`../../${file}`, import.meta.url), 'utf8');
    // The head of path.ts draws it, with remarks in brackets.
    const drawn = /\*( {3}rx →[^.]*? tx)\n/.exec(source('dataplane/path.ts').replace(/\([^)]*\)/g, ''))?.[1] ?? '';
    const path = drawn.match(/[a-z]+(-[a-z]+)*/g) ?? [];
    expect(STAGES).toEqual([...path, 'input', 'output']);
    expect((json('stages') as { stages: { stage: string }[] }).stages.map(({ stage }) => stage)).toEqual(STAGES);
    expect(TRACE_USAGE).toContain(`STAGE is one of: ${STAGES.join(' ')}\n`);
    const page = /const STAGES = \[([^\]]*)\]/.exec(source('controlplane/web/explain.mjs'))?.[1];
    expect(page?.match(/[a-z]+(-[a-z]+)*/g)).toEqual(path);
  });

  it('a filter that is none is refused by name', () => {
    expect(() => text('route', { src: '1.2.3.4' })).toThrow('filter: expected one of family, dev, got "src"');
    expect(() => text('conntrack', { family: 'ipx' })).toThrow('family: expected ipv4 or ipv6, got "ipx"');
  });
});

describe('a live router', () => {
  it('counts the errors of a port of kind host at both of its ends', () => {
    const live = new Int32Array(createLive());
    [live[portAt(0, 1) + LP_TX_ERRORS], live[portAt(0, 1) + LP_SYSCALLS]] = [2, 0];
    const host = { ...newPortCounters(), rxErrors: 3, txErrors: 5, syscalls: 7 };
    const state = { exists: true, up: true, mac: '', mtu: 1500, flaps: 0, elsewhere: false };
    const router = {
      live,
      workers: 1,
      tables: { buffers: { counters: new SharedArrayBuffer(8) } },
      deviceState: () => state,
      hostCounters: (port: number) => (port === 1 ? host : null),
    } as unknown as Supervisor;
    expect(liveSource(router).live?.device(1)).toMatchObject({ rx_errors: 3, tx_errors: 7, syscalls: 7 });
    expect(liveSource(router).live?.device(0)).toMatchObject({ rx_errors: 0, tx_errors: 0, syscalls: 0 });
  });

  it('adds up what the workers’ mirrors have lost, and says how many stand still', () => {
    const live = new Int32Array(createLive());
    live[portAt(0, 1) + LP_MIRROR_LOST] = 3;
    live[portAt(1, 1) + LP_MIRROR_LOST] = 4;
    live[portAt(1, 1) + LP_MIRROR_TROUBLE] = 28;
    const state = { exists: true, up: true, mac: '', mtu: 1500, flaps: 0, elsewhere: false };
    const tables = { buffers: { counters: new SharedArrayBuffer(8) } };
    const router = { live, workers: 2, tables, deviceState: () => state, hostCounters: () => null };
    const source = liveSource(router as unknown as Supervisor);
    expect(source.live?.device(1)).toMatchObject({ mirror_lost: 7, mirrors_stopped: 1 });
    expect(source.live?.device(0)).toMatchObject({ mirror_lost: 0, mirrors_stopped: 0 });
  });
});

describe('the control socket', () => {
  let folder = '';
  let path = '';
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'sluice-api-'));
    path = join(folder, 'control.sock');
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  it('serves views to its owner only, says what it does not know, and goes away', async () => {
    const server = await ApiServer.listen(path);
    try {
      expect(statSync(path).mode & 0o777).toBe(0o600);
      await expect(askShow(path, 'route')).rejects.toThrow('the router is starting');
      server.serve(createRouter(CONFIG));
      expect((await askShow(path, 'neigh', { dev: 'lan' })).text).toContain('02:00:00:00:aa:10');
      await expect(askShow(path, 'nothing')).rejects.toThrow('show: expected one of conntrack, nat');
      await expect(askShow(path, 'constructor')).rejects.toThrow('got "constructor"');
      await expect(askShow(path, 'link', { x: 'y' })).rejects.toMatchObject({ status: 400 });
      await expect(ApiServer.listen(path)).rejects.toThrow('expected no other router, got one that runs already');
    } finally {
      await server.close();
    }
    expect(existsSync(path)).toBe(false);
    await expect(askShow(path, 'route')).rejects.toThrow('expected a running router, got nobody');
  });

  it('takes the place of a socket that a killed router left', async () => {
    const dead = createServer();
    await new Promise<void>((resolve) => dead.listen(path, resolve));
    // What a kill leaves: the path without a listener. A name of its own keeps Node from unlinking it.
    const { renameSync } = await import('node:fs');
    renameSync(path, `${path}.left`);
    await new Promise((resolve) => dead.close(resolve));
    renameSync(`${path}.left`, path);
    const server = await ApiServer.listen(path);
    server.serve(createRouter(CONFIG));
    expect((await askShow(path, 'drops')).text).toContain('REASON');
    await server.close();
  });

  it('leaves a file alone that is no socket', async () => {
    writeFileSync(path, 'precious');
    await expect(ApiServer.listen(path)).rejects.toThrow(
      /control\.socket .*: expected a new path, .*; choose another path/,
    );
    expect(readFileSync(path, 'utf8')).toBe('precious');
  });

  describe('commands', () => {
    let said = '';
    beforeEach(() => {
      said = '';
      // A router that gives up privileges executes its process anew, and this process is the test's.
      vi.stubEnv('SLUICE_PRIVILEGES', 'keep');
      vi.spyOn(process.stderr, 'write').mockImplementation((text) => {
        said += text;
        return true;
      });
    });
    afterEach(() => {
      vi.unstubAllEnvs();
      vi.restoreAllMocks();
    });

    it('show: nobody runs is 1, an unknown view is 2', async () => {
      expect(await main(['show', 'route', '--socket', path])).toBe(1);
      expect(said).toContain(`${path}: expected a running router, got nobody; start one with "sluice run FILE"`);
      expect(await main(['show', 'routes', '--socket', path])).toBe(2);
      expect(said).toContain('show: expected one of conntrack, nat');
      expect(await main(['show', 'route', 'dev', '--socket', path])).toBe(2);
      expect(said).toContain('show route: expected FILTER=VALUE, got "dev"');
      said = '';
      expect(await main(['show', 'conntrack', '-x'])).toBe(2);
      expect(said).toBe('sluice show: unknown option "-x": see sluice show --help\n');
      said = '';
      expect(await main(['show', 'conntrack', '-E', 'proto=tpc', '--socket', path])).toBe(2);
      expect(said).toMatch(/^sluice show: proto: expected one of icmp, tcp, .*, got "tpc"\n$/);
    });

    it('capture: a full disk ended it as if it had been enough', async () => {
      const server = await ApiServer.listen(path);
      server.serve(createRouter(CONFIG));
      try {
        expect(await main(['capture', '-w', '/dev/full', '--seconds', '60', '--socket', path])).toBe(1);
        expect(said).toBe('/dev/full: expected room to write, got ENOSPC\n');
      } finally {
        await server.close();
      }
    });

    it('capture: a pipe that nobody reads made it deaf to its end', async () => {
      const pipe = join(folder, 'pipe');
      execFileSync('mkfifo', [pipe]);
      const server = await ApiServer.listen(path);
      server.serve(createRouter(CONFIG));
      try {
        expect(await main(['capture', '-w', pipe, '--seconds', '1', '--socket', path])).toBe(0);
        expect(said).toBe('0 frames\n');
      } finally {
        await server.close();
      }
    });

    it('run: a configuration that is wrong, or not for a live router, starts nothing and is 2', async () => {
      const file = join(folder, 'router.yaml');
      const config = (kind: string): string =>
        `ports:\n  lan: { kind: ${kind}, addresses: [192.168.1.1/24] }\ncontrol: { socket: "${path}" }\n`;
      writeFileSync(file, config('pcap'));
      expect(await main(['run', file])).toBe(2);
      expect(said).toContain(
        `${file}:2:3 ports.lan.kind: expected tap, packet or host for a live router, got "pcap"; play captures with "sluice replay"`,
      );
      writeFileSync(file, config('tun'));
      expect(await main(['run', file])).toBe(2);
      expect(await main(['run'])).toBe(2);
      expect(await main(['run', file, '--io', 'magic'])).toBe(2);
      expect(await main(['run', file, '--oi', 'uring'])).toBe(2);
      expect(said).toContain('sluice run: unknown option "--oi": did you mean "--io"?');
      expect(said).toContain('--io: expected auto, uring, readwrite or bpf, got "magic"');
      expect(existsSync(path)).toBe(false);
    });
  });
});
