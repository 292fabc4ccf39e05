/**
 * `sluice run` as its users meet it: real programs through TAP devices, the host's own programs on the router's addresses,
 * a worker that dies, a device that disappears, and nothing left behind at the end.
 */
import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { askWho, download, startHttpServer } from '../../controlplane/lab/http.ts';
import { waitFor } from '../../controlplane/lab/namespace.ts';
import { echoes } from '../../controlplane/lab/ping.ts';
import { type LiveLab, startLive } from './live-lab.ts';
import { labReady } from './need.ts';

const CONFIG = (workers: number): string => `
ports:
  lan: { kind: tap, ifname: sl-lan, zone: lan, mac: "02:00:00:00:01:01", addresses: [10.77.1.1/24, "2001:db8:77:1::1/64"] }
  wan: { kind: tap, ifname: sl-wan, zone: wan, mac: "02:00:00:00:01:02", addresses: [203.0.113.1/24, "2001:db8:77:2::1/64"] }
zones:
  lan: { forward: accept, input: accept }
  wan: { forward: drop, input: drop }
nat:
  masquerade: [ { out: wan, from: 10.77.1.0/24 } ]
  forward: [ { in: wan, proto: tcp, port: 8080, to: 10.77.1.10:80 } ]
workers: ${workers}
`;

const ECHO_SERVER = `require('node:net').createServer((socket) => socket.pipe(socket)).listen(7, '::', () => console.log('ready'))`;
/** Says one more line on its one connection whenever it gets SIGUSR2. */
const ECHO_CLIENT = `
const socket = require('node:net').connect(7, '203.0.113.10', () => console.log('connected'));
socket.on('data', (data) => process.stdout.write(data));
socket.on('close', () => console.log('closed'));
let lines = 0;
process.on('SIGUSR2', () => socket.write('line ' + ++lines + '\\n'));
`;

describe.skipIf(!labReady(['ping', 'curl'], { tun: true }))('sluice run', () => {
  let live: LiveLab;
  let client = '';
  let server = '';

  afterEach(() => live?.close());

  /** client ── sl-lan [router] sl-wan ── server. `child`: a router whose workers can be killed. */
  async function start(workers: number, options: { child?: boolean } = {}): Promise<void> {
    const hosts = [
      {
        label: 'client',
        device: 'sl-lan',
        addresses: ['10.77.1.10/24', '2001:db8:77:1::10/64'],
        via: ['10.77.1.1', '2001:db8:77:1::1'],
        awaits: ['2001:db8:77:1::1', '2001:db8:77:2::10'],
      },
      {
        label: 'server',
        device: 'sl-wan',
        addresses: ['203.0.113.10/24', '2001:db8:77:2::10/64'],
        via: ['203.0.113.1', '2001:db8:77:2::1'],
        awaits: [],
      },
    ];
    live = await startLive(CONFIG(workers), hosts, options);
    [client, server] = [live.ns('client'), live.ns('server')];
  }

  function show(...args: string[]): string {
    const done = live.command('show', ...args, '--socket', live.socket);
    expect(done.stderr).toBe('');
    return done.stdout;
  }

  it('carries real programs with NAT and IPv6, shows what it knows, and leaves nothing at SIGTERM', async () => {
    await start(1);
    const { lab, router, where, folder } = live;
    await startHttpServer(lab, server, 80);
    await startHttpServer(lab, client, 80);
    for (const target of ['203.0.113.10', '2001:db8:77:2::10'])
      expect(await download(lab, client, target, 80, 3_000_001)).toMatchObject({ intact: true });
    expect((await askWho(lab, client, '203.0.113.10', 80)).address).toBe('203.0.113.1');
    // In from outside: only what is forwarded.
    expect(await download(lab, server, '203.0.113.1', 8080, 100_000)).toMatchObject({ intact: true });
    await expect(download(lab, server, '2001:db8:77:1::10', 80, 10, { timeout: 1000 })).rejects.toThrow();
    // Programs of the router's own host, on the router's addresses.
    await startHttpServer(lab, where, 8081);
    for (const target of ['10.77.1.1', '2001:db8:77:1::1'])
      expect(await download(lab, client, target, 8081, 500_000)).toMatchObject({ intact: true });
    expect((await askWho(lab, client, '10.77.1.1', 8081)).address).toBe('10.77.1.10');

    const line =
      /^ipv4 {5}2 tcp {6}6 \d+ TIME_WAIT src=10\.77\.1\.10 dst=203\.0\.113\.10 sport=(\d+) dport=80 packets=\d+ bytes=\d+ src=203\.0\.113\.10 dst=203\.0\.113\.1 sport=80 dport=\1 packets=\d+ bytes=\d+ \[ASSURED\] mark=0 use=1$/m;
    expect(show('conntrack')).toMatch(line);
    expect(show('conntrack', 'family=ipv6', 'proto=tcp')).toMatch(
      /^ipv6 .*src=2001:db8:77:1::10 dst=2001:db8:77:2::10/,
    );
    const nat = JSON.parse(show('nat', '-j'));
    expect(nat.rules.map((rule: { kind: string }) => rule.kind)).toEqual(['dnat', 'masquerade']);
    expect(nat.translations.some((c: { status: string[] }) => c.status.includes('DST_NAT'))).toBe(true);
    expect(show('route')).toContain('10.77.1.0/24 dev lan proto kernel scope link src 10.77.1.1\n');
    const engine = JSON.parse(show('offload', '-j'));
    expect(engine.tables[0]).toMatchObject({ table: 'engine', entries: 16384 });
    expect(engine.counters.hits).toBeGreaterThan(100);
    expect(JSON.parse(show('route', '-j', 'family=ipv6'))).toContainEqual(
      expect.objectContaining({ dst: '2001:db8:77:2::/64', dev: 'wan', protocol: 'kernel', flags: [] }),
    );
    expect(show('neigh', 'dev=wan')).toMatch(
      /^203\.0\.113\.10 dev wan lladdr [0-9a-f:]{17} (REACHABLE|STALE|DELAY|PROBE)$/m,
    );
    const links = JSON.parse(show('link', '-j'));
    expect(links.map((l: { ifname: string; operstate: string }) => [l.ifname, l.operstate])).toEqual([
      ['lan', 'UP'],
      ['wan', 'UP'],
    ]);
    expect(links[0].stats64.tx.bytes).toBeGreaterThan(6_000_000);
    const drops = JSON.parse(show('drops', '-j')) as { reason: string; count: number }[];
    expect(drops.find(({ reason }) => reason === 'FILTER_DROP')?.count).toBeGreaterThan(0);

    expect(statSync(join(folder, 'control.sock')).mode & 0o777).toBe(0o600);
    const second = live.command('run', join(folder, 'router.yaml'));
    expect(second).toMatchObject({ status: 1 });
    expect(second.stderr).toMatch(/control\.socket .*: expected no other router, got one that runs already/);

    process.kill(router.pid, 'SIGTERM');
    expect(await router.exited).toEqual({ code: 0, signal: null });
    await nothingLeft();
    const nobody = live.command('show', 'drops', '--socket', live.socket);
    expect([nobody.status, nobody.stdout]).toEqual([1, '']);
    expect(nobody.stderr).toMatch(
      /control\.sock: expected a running router, got nobody; start one with "sluice run FILE"/,
    );
  });

  /** Devices vanish a moment after the last descriptor on them: an io_uring lets go of its files by itself. */
  async function nothingLeft(): Promise<void> {
    const { lab, where, folder } = live;
    const devices = (ns: string): string => lab.runSync(ns, 'ip', ['-br', 'link']).stdout;
    await waitFor(
      'the devices to be gone',
      () => !/sl-|sluice0/.test(devices(client) + devices(server) + devices(where)),
    );
    expect(lab.runSync(where, 'ip', ['rule']).stdout).not.toContain('7700');
    expect(lab.runSync(where, 'ip', ['-6', 'rule']).stdout).not.toContain('7700');
    expect(existsSync(join(folder, 'control.sock'))).toBe(false);
  }

  for (const workers of [1, 2])
    it(`${workers} worker(s): a download outlives the death of every worker`, async () => {
      await start(workers, { child: true });
      const { lab, router } = live;
      await startHttpServer(lab, server, 80);
      const deaths = (): number => router.stderr().split(/worker \d died: Error: worker \d: fault injected/).length - 1;
      // One connection through NAT from before the first death to after the last, and a download across all of them.
      const echo = lab.spawn(server, process.execPath, ['-e', ECHO_SERVER]);
      await waitFor('the echo server', () => echo.stdout().includes('ready'));
      const talker = lab.spawn(client, process.execPath, ['-e', ECHO_CLIENT]);
      await waitFor('the connection', () => talker.stdout().includes('connected'));
      const download4 = download(lab, client, '203.0.113.10', 80, 300_000_000);
      for (let n = 1; n <= 2 * workers; n++) {
        process.kill(router.pid, 'SIGUSR2');
        await waitFor(`death ${n}`, () => deaths() === n, { detail: () => router.stderr() });
        process.kill(talker.pid, 'SIGUSR2');
        await waitFor(`the echo after death ${n}`, () => talker.stdout().includes(`line ${n}\n`), { timeout: 30_000 });
      }
      expect(talker.stdout()).not.toContain('closed');
      expect(await download4).toMatchObject({ intact: true });
      expect(await download(lab, client, '2001:db8:77:2::10', 80, 1_000_000)).toMatchObject({ intact: true });
      // 21 fragments an echo: with two workers, half of the identifications are the other one's.
      for (const target of ['203.0.113.10', '2001:db8:77:2::10']) {
        const { answers, said } = await echoes(lab, client, target, 8, { size: 30_000 });
        expect(answers, said).toBe(8);
      }
      expect(router.stderr()).toMatch(/it starts again, [1-9]\d* connections kept/);
      process.kill(router.pid, 'SIGINT');
      expect(await router.exited).toEqual({ code: 0, signal: null });
      await nothingLeft();
    });

  it('a device that is deleted and cannot be made again is reported, and the other port goes on; then it can', async () => {
    await start(1);
    const { lab, router, where } = live;
    const told = (text: string): Promise<unknown> =>
      waitFor(`to be told: ${text}`, () => router.stderr().includes(text), { detail: () => router.stderr() });
    // Somebody else has taken its name.
    lab.runSync(where, 'ip', ['link', 'add', 'sl-wan', 'type', 'veth', 'peer', 'name', 'taken']);
    lab.runSync(server, 'ip', ['link', 'delete', 'sl-wan']);
    await told(
      'warning: ports.wan: the device sl-wan is gone; its port is down until there is one of that name again, the others go on',
    );
    await told('warning: port sl-wan (tap): expected the device to be created, got EINVAL');
    for (const target of ['10.77.1.1', '2001:db8:77:1::1'])
      await lab.run(client, 'ping', ['-n', '-c2', '-i0.2', target]);
    const refused = await lab.run(client, 'ping', ['-n', '-c1', '-W10', '203.0.113.10'], { check: false });
    expect(refused.stdout).toMatch(/From 10\.77\.1\.1 .*Unreachable/);
    const links = JSON.parse(show('link', '-j')) as { ifname: string; operstate: string }[];
    expect(links.map((l) => l.operstate)).toEqual(['UP', 'NOTPRESENT']);
    expect(show('route')).toMatch(/^203\.0\.113\.0\/24 dev wan .* linkdown$/m);
    lab.runSync(where, 'ip', ['link', 'delete', 'sl-wan']);
    await told('ports.wan: the device sl-wan is back');
    expect(router.stderr().split('it is tried again')).toHaveLength(2);
    lab.runSync(where, 'ip', ['link', 'set', 'sl-wan', 'netns', server]);
    lab.runSync(server, 'ip', ['address', 'add', '203.0.113.10/24', 'dev', 'sl-wan']);
    lab.runSync(server, 'ip', ['link', 'set', 'sl-wan', 'up']);
    await waitFor(
      'the server to answer',
      async () => (await lab.run(client, 'ping', ['-n', '-c1', '-W1', '203.0.113.10'], { check: false })).status === 0,
      { timeout: 30_000, detail: () => router.stderr() },
    );
    process.kill(router.pid, 'SIGTERM');
    expect(await router.exited).toEqual({ code: 0, signal: null });
    await nothingLeft();
  });

  it('an exit that nobody announced does not hang on sleeping workers, and clears up', async () => {
    await start(2, { child: true });
    process.kill(live.router.pid, 'SIGWINCH');
    expect(await live.router.exited).toEqual({ code: 7, signal: null });
    await nothingLeft();
  });

  it('what a killed router leaves, the next start clears', async () => {
    await start(2, { child: true });
    const { lab, router, where } = live;
    process.kill(router.pid, 'SIGKILL');
    expect(await router.exited).toEqual({ code: null, signal: 'SIGKILL' });
    expect(lab.runSync(where, 'ip', ['rule']).stdout).toContain('lookup 7700');
    await live.start();
    expect(lab.runSync(where, 'ip', ['rule']).stdout.match(/lookup 7700/g)).toHaveLength(2);
    process.kill(live.router.pid, 'SIGTERM');
    expect(await live.router.exited).toEqual({ code: 0, signal: null });
    await nothingLeft();
  });
});
