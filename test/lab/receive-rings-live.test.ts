/**
 * `sluice run --io bpf` with real programs: UDP comes by the receive rings of its TAP devices, all else by their queues, with NAT
 * and IPv6; workers die; privileges. How a ring behaves by itself: test/dataplane/ports/tap-ring.test.ts.
 *
 *   client 10.77.1.10 ── sl-lan [sluice run --io bpf] sl-wan ── server 203.0.113.10
 */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { commandFile } from '../../controlplane/demo/lab.ts';
import { askWho, download, startHttpServer } from '../../controlplane/lab/http.ts';
import { Lab, waitFor } from '../../controlplane/lab/namespace.ts';
import { bits, CAP_BPF, CAP_NET_ADMIN, CAP_NET_RAW, parsePrivileges } from '../../controlplane/live/privileges.ts';
import { receiveRingRefusal } from '../../dataplane/ports/tap-ring.ts';
import { type LiveLab, startLive } from './live-lab.ts';
import { labReady } from './need.ts';

const CONFIG = `
ports:
  lan: { kind: tap, ifname: sl-lan, zone: lan, addresses: [10.77.1.1/24, "2001:db8:77:1::1/64"] }
  wan: { kind: tap, ifname: sl-wan, zone: wan, addresses: [203.0.113.1/24, "2001:db8:77:2::1/64"] }
zones: { lan: { forward: accept, input: accept }, wan: { forward: drop, input: accept } }
nat: { masquerade: [ { out: wan, from: 10.77.1.0/24 } ] }
dns: { ports: [lan], servers: [203.0.113.10] }
workers: 2`;

/** Answers each datagram with its own bytes, behind the address that it came from. */
const ECHO_SERVER = `
const { createSocket } = require('node:dgram');
let bound = 0;
for (const type of ['udp4', 'udp6']) {
  const socket = createSocket({ type, ipv6Only: type === 'udp6' });
  socket.on('message', (bytes, { address, port }) => socket.send(Buffer.concat([Buffer.from(address + ' '), bytes]), port, address));
  socket.bind(7, () => ++bound === 2 && console.log('ready'));
}`;

/**
 * Sends datagrams from several sockets, one of each at a time, each again until its answer has come. Prints a line of JSON: the
 * addresses that the server saw, answers, and those that were not what was sent. SIGUSR2: how many answers until now.
 */
const ECHO_CLIENT = `
const { createSocket } = require('node:dgram');
const [target, count, sockets] = [process.argv[1], ...process.argv.slice(2).map(Number)];
const seen = new Set();
let [answers, wrong, busy] = [0, 0, sockets];
process.on('SIGUSR2', () => console.log('answers ' + answers));
for (let s = 0; s < sockets; s++) {
  const socket = createSocket(target.includes(':') ? 'udp6' : 'udp4');
  let n = 0, body, timer;
  const say = () => {
    socket.send(body, 7, target, () => {});
    timer = setTimeout(say, 500);
  };
  const next = () => {
    if (n++ >= count) { socket.close(); if (--busy === 0) console.log(JSON.stringify({ seen: [...seen], answers, wrong })); return; }
    body = Buffer.alloc(4 + (n * 37 + s * 11) % 1400, s + n);
    body.writeUInt32BE(n * sockets + s);
    say();
  };
  socket.on('message', (got) => {
    const at = got.indexOf(32) + 1;
    if (got.length < at + 4 || got.readUInt32BE(at) !== n * sockets + s) return; // the answer to one that was sent twice
    clearTimeout(timer);
    seen.add(got.toString('latin1', 0, at - 1));
    answers++;
    if (!got.subarray(at).equals(body)) wrong++;
    next();
  });
  next();
}`;

const ready = labReady(['ping', 'curl', 'dig', 'dnsmasq', 'setpriv'], { tun: true });
const refusal = ready ? receiveRingRefusal() : 'no lab';
if (ready && refusal !== '') console.warn(`LAB TESTS SKIPPED: receive rings (${refusal})`);

/** Nobody needs a capability for a filter where this is 0. */
const anybody = refusal === '' && readFileSync('/proc/sys/kernel/unprivileged_bpf_disabled', 'latin1').trim() === '0';
if (anybody) console.warn('LAB TEST SKIPPED: receive rings without CAP_BPF (kernel.unprivileged_bpf_disabled is 0)');

describe.skipIf(refusal !== '')('sluice run --io bpf', () => {
  let live: LiveLab;
  afterEach(() => live?.close());

  /** `child`: a router whose workers can be killed; of the families only IPv4 is awaited. */
  async function start(child: boolean): Promise<void> {
    const hosts = [
      {
        label: 'client',
        device: 'sl-lan',
        addresses: ['10.77.1.10/24', '2001:db8:77:1::10/64'],
        via: ['10.77.1.1', '2001:db8:77:1::1'],
        awaits: child ? ['10.77.1.1'] : ['2001:db8:77:1::1', '2001:db8:77:2::10'],
      },
      {
        label: 'server',
        device: 'sl-wan',
        addresses: ['203.0.113.10/24', '2001:db8:77:2::10/64'],
        via: ['203.0.113.1', '2001:db8:77:2::1'],
        awaits: [],
      },
    ];
    live = await startLive(CONFIG, hosts, { child, io: 'bpf' });
    const echo = live.lab.spawn(live.ns('server'), process.execPath, ['-e', ECHO_SERVER]);
    await waitFor('the echo server', () => echo.stdout().includes('ready'));
  }

  const echo = (target: string, count: number, sockets: number) =>
    live.lab.spawn(live.ns('client'), process.execPath, ['-e', ECHO_CLIENT, '--', target, `${count}`, `${sockets}`]);

  /** Datagrams that a device has handed to a ring: it counts them as dropped. */
  function byRing(host: string, device: string): number {
    const { stdout } = live.lab.runSync(live.ns(host), 'ip', ['-s', '-j', 'link', 'show', 'dev', device]);
    return JSON.parse(stdout)[0].stats64.tx.dropped;
  }

  it('carries UDP, TCP and DNS with NAT and IPv6, and needs one capability more', async () => {
    await start(false);
    const { lab, router, where } = live;
    const [client, server] = [live.ns('client'), live.ns('server')];
    for (const [target, from] of [
      ['203.0.113.10', '203.0.113.1'],
      ['2001:db8:77:2::10', '2001:db8:77:1::10'],
    ]) {
      const before = byRing('client', 'sl-lan');
      const talker = echo(target, 50, 8);
      expect(await talker.exited).toEqual({ code: 0, signal: null });
      expect(JSON.parse(talker.stdout())).toEqual({ seen: [from], answers: 400, wrong: 0 });
      expect(byRing('client', 'sl-lan') - before).toBeGreaterThanOrEqual(400);
    }
    expect(byRing('server', 'sl-wan')).toBeGreaterThanOrEqual(800);

    await startHttpServer(lab, server, 80);
    for (const target of ['203.0.113.10', '2001:db8:77:2::10'])
      expect(await download(lab, client, target, 80, 3_000_001)).toMatchObject({ intact: true });
    expect((await askWho(lab, client, '203.0.113.10', 80)).address).toBe('203.0.113.1');

    // The router's own: a question comes by a ring, and so does the server's answer to it.
    const options = ['--conf-file=/dev/null', '--pid-file=', '--no-hosts', '--no-resolv', '--keep-in-foreground'];
    lab.spawn(server, 'dnsmasq', [...options, '--user=root', '--host-record=name.example,198.51.100.7']);
    await lab.listening(server, 53, 'udp');
    const answer = await lab.run(client, 'dig', ['+short', '+tries=5', '+time=5', '@10.77.1.1', 'name.example'], {
      timeout: 60_000,
    });
    expect(answer.stdout.trim()).toBe('198.51.100.7');

    const links = (await live.show('link')) as { stats64: { rx: { errors: number } } }[];
    expect(links.map((link) => link.stats64.rx.errors)).toEqual([0, 0]);
    const only = bits([CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF]);
    for (const thread of readdirSync(`/proc/${router.pid}/task`)) {
      const file = `/proc/${router.pid}/task/${thread}/status`;
      if (!existsSync(file)) continue; // ended since
      const status = readFileSync(file, 'latin1');
      expect(parsePrivileges(status)).toEqual({
        permitted: only,
        effective: only,
        bounding: only,
        noNewPrivileges: true,
      });
    }
    process.kill(router.pid, 'SIGTERM');
    expect(await router.exited).toEqual({ code: 0, signal: null });
    await waitFor('the devices to be gone', () =>
      [client, server, where].every((ns) => !/sl-|sluice0/.test(lab.runSync(ns, 'ip', ['-br', 'link']).stdout)),
    );
  });

  it('workers that die leave their rings to the next, and no descriptors', async () => {
    await start(true);
    const { router } = live;
    const deaths = (): number => router.stderr().split(/worker \d died: Error: worker \d: fault injected/).length - 1;
    const descriptors = (): number => readdirSync(`/proc/${router.pid}/fd`).length;
    const talker = echo('203.0.113.10', 1_000_000, 8);
    /** A hundred answers more have come: some of each of the eight flows, whichever queue they are in. */
    const goesOn = async (): Promise<void> => {
      const answers = (): number => {
        process.kill(talker.pid, 'SIGUSR2');
        return Number(talker.stdout().match(/\d+(?=\s*$)/)?.[0] ?? 0);
      };
      const before = answers();
      await waitFor('answers', () => answers() >= before + 100, { timeout: 60_000, detail: () => router.stderr() });
    };
    await waitFor('the client to run', () => byRing('client', 'sl-lan') > 100);
    await goesOn();
    const before = descriptors();
    for (let n = 1; n <= 4; n++) {
      process.kill(router.pid, 'SIGUSR2');
      await waitFor(`death ${n}`, () => deaths() === n, { detail: () => router.stderr() });
      await goesOn();
    }
    // A few come and go; one more for each port and death would be eight.
    await waitFor('no more descriptors than before', () => descriptors() <= before + 4, {
      detail: () => `${before} before, ${descriptors()} now`,
    });
    process.kill(router.pid, 'SIGTERM');
    expect(await router.exited).toEqual({ code: 0, signal: null });
  });

  it.skipIf(anybody)('without CAP_BPF it says so, and makes nothing', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'sluice-bpf-'));
    const lab = new Lab();
    try {
      const ns = lab.namespace('router');
      lab.apply();
      const file = join(folder, 'router.yaml');
      writeFileSync(file, `${CONFIG}\ncontrol: { socket: ${JSON.stringify(join(folder, 'control.sock'))} }\n`);
      const few = ['--bounding-set', '-all,+net_admin,+net_raw', '--no-new-privs'];
      const args = [...few, process.execPath, commandFile(), 'run', '--io', 'bpf', file];
      const done = lab.runSync(ns, 'setpriv', args, { check: false, timeout: 60_000 });
      expect([done.status, done.stdout]).toEqual([1, '']);
      expect(done.stderr).toMatch(
        /^port lan \(tap, --io bpf\): expected a map of \d+ entries \(sluice_ring0\), got EPERM .*; run as root \(CAP_BPF\) on Linux 5\.12 or newer, or choose --io auto\n$/,
      );
      expect(lab.runSync(ns, 'ip', ['-br', 'link']).stdout).not.toMatch(/sl-|sluice0/);
    } finally {
      lab.close();
      rmSync(folder, { recursive: true, force: true });
    }
  });
});
