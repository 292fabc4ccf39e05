/**
 * A live router under management: a Prometheus scrape and an snmpwalk agree with `sluice show link -j`, connections outlive
 * a new configuration, one that nobody confirms goes away again, events and `sluice top` tell what happens.
 *
 *   client 10.78.1.10 ── sl-lan [router: API and SNMP on its loopback] sl-wan ── server 198.18.0.10
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { askEvents } from '../../controlplane/api/client.ts';
import { download, startHttpServer } from '../../controlplane/lab/http.ts';
import { Lab, type LabProcess, waitFor } from '../../controlplane/lab/namespace.ts';
import type { LinkJson } from '../../controlplane/show/link.ts';
import { labReady } from './need.ts';

const MAIN = fileURLToPath(new URL('../../dist/controlplane/cli/main.js', import.meta.url));
const TOKEN = 'token-of-the-management-lab';

const CONFIG = (socket: string, forward: string): string => `
ports:
  lan: { kind: tap, ifname: sl-lan, zone: lan, mac: "02:00:00:00:01:01", addresses: 10.78.1.1/24 }
  wan: { kind: tap, ifname: sl-wan, zone: wan, mac: "02:00:00:00:01:02", addresses: 198.18.0.1/24 }
zones:
  lan: { forward: ${forward}, input: accept }
  wan: { forward: drop, input: drop }
nat: { masquerade: [ { out: wan } ] }
workers: 1
control: { socket: "${socket}" }
api: { listen: "127.0.0.1:8080", token: ${TOKEN} }
snmp: { listen: "127.0.0.1:1161", community: lab }
`;

const ECHO_SERVER = `require('node:net').createServer((socket) => socket.pipe(socket)).listen(7, () => console.log('ready'))`;
/** Says one more line on its one connection whenever it gets SIGUSR2. */
const ECHO_CLIENT = `
const socket = require('node:net').connect(7, '198.18.0.10', () => console.log('connected'));
socket.on('data', (data) => process.stdout.write(data));
socket.on('close', () => console.log('closed'));
let lines = 0;
process.on('SIGUSR2', () => socket.write('line ' + ++lines + '\\n'));
`;

describe.skipIf(!labReady(['ping', 'curl', 'snmpwalk'], { tun: true }))('a live router under management', () => {
  let lab: Lab;
  let folder = '';
  let client = '';
  let server = '';
  let host = '';
  let router: LabProcess;

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'sluice-management-'));
    lab = new Lab();
    client = lab.namespace('client');
    server = lab.namespace('server');
    host = lab.namespace('router');
    lab.apply();
    router = lab.spawn(host, process.execPath, [MAIN, 'run', configuration('accept')]);
    await waitFor('the router to run', () => router.stderr().includes('running') || !router.running(), {
      timeout: 60_000,
    });
    expect(router.running(), router.stderr()).toBe(true);
    for (const [device, ns, address, gateway] of [
      ['sl-lan', client, '10.78.1.10/24', '10.78.1.1'],
      ['sl-wan', server, '198.18.0.10/24', '198.18.0.1'],
    ]) {
      lab.runSync(host, 'ip', ['link', 'set', device, 'netns', ns]);
      lab.device({ ns, name: device, addresses: [address] });
      lab.route(ns, 'default', gateway);
    }
    lab.apply();
    await waitFor('the server to answer', async () => {
      const ping = await lab.run(client, 'ping', ['-n', '-c1', '-W1', '198.18.0.10'], { check: false });
      return ping.status === 0;
    });
    await startHttpServer(lab, server, 80);
  });

  afterAll(async () => {
    if (router?.running()) {
      process.kill(router.pid, 'SIGTERM');
      await router.exited;
    }
    lab?.close();
    rmSync(folder, { recursive: true, force: true });
  });

  const socket = (): string => join(folder, 'control.sock');

  /** A file with the configuration; its name says what it lets forward. */
  function configuration(forward: string): string {
    const file = join(folder, `${forward}.yaml`);
    writeFileSync(file, CONFIG(socket(), forward));
    return file;
  }

  function sluice(...args: string[]): { status: number | null; stdout: string; stderr: string } {
    return spawnSync(process.execPath, [MAIN, ...args, '--socket', socket()], { encoding: 'utf8' });
  }

  const links = (): LinkJson[] => JSON.parse(sluice('show', 'link', '-j').stdout) as LinkJson[];

  it('a scrape, an snmpwalk and show link say the same', async () => {
    await download(lab, client, '198.18.0.10', 80, 2_000_000);
    // The kernel's ends may send a frame at any moment: each value lies between two looks.
    const before = links();
    const scrape = lab.runSync(host, 'curl', [
      '-s',
      '-H',
      `Authorization: Bearer ${TOKEN}`,
      'http://127.0.0.1:8080/metrics',
    ]).stdout;
    // The agent's values may be half a second old.
    await new Promise((resolve) => setTimeout(resolve, 600));
    const walk = lab.runSync(host, 'snmpwalk', [
      '-v2c',
      '-c',
      'lab',
      '-t',
      '10',
      '-M',
      '',
      '-m',
      '',
      '-On',
      '127.0.0.1:1161',
      '.1.3.6.1.2.1.31.1.1.1',
    ]).stdout;
    const after = links();
    const metric = (name: string, port: string): number =>
      Number(
        new RegExp(`^sluice_port_${name}_total\\{port="${port}",zone="${port}"\\} (\\d+)$`, 'm').exec(scrape)?.[1],
      );
    const cell = (column: number, n: number): number =>
      Number(
        new RegExp(`^\\.1\\.3\\.6\\.1\\.2\\.1\\.31\\.1\\.1\\.1\\.${column}\\.${n} = Counter64: (\\d+)$`, 'm').exec(
          walk,
        )?.[1],
      );
    before.forEach(({ ifname, stats64: low }, n) => {
      const high = after[n].stats64;
      for (const [name, column, from, to] of [
        ['receive_bytes', 6, low.rx.bytes, high.rx.bytes],
        ['receive_packets', 7, low.rx.packets, high.rx.packets],
        ['transmit_bytes', 10, low.tx.bytes, high.tx.bytes],
        ['transmit_packets', 11, low.tx.packets, high.tx.packets],
      ] as const) {
        expect(from).toBeGreaterThan(0);
        for (const value of [metric(name, ifname), cell(column, n + 1)]) {
          expect(value, `${ifname} ${name}`).toBeGreaterThanOrEqual(from);
          expect(value, `${ifname} ${name}`).toBeLessThanOrEqual(to);
        }
      }
    });
    const refused = lab.runSync(host, 'curl', [
      '-s',
      '-o',
      '/dev/null',
      '-w',
      '%{http_code}',
      'http://127.0.0.1:8080/metrics',
    ]);
    expect(refused.stdout).toBe('401');
  });

  it('a connection outlives a new configuration; one that nobody confirms goes away again', async () => {
    const echo = lab.spawn(server, process.execPath, ['-e', ECHO_SERVER]);
    await waitFor('the echo server', () => echo.stdout().includes('ready'));
    const talker = lab.spawn(client, process.execPath, ['-e', ECHO_CLIENT]);
    await waitFor('the connection', () => talker.stdout().includes('connected'));
    const says = async (n: number): Promise<void> => {
      process.kill(talker.pid, 'SIGUSR2');
      await waitFor(`line ${n}`, () => talker.stdout().includes(`line ${n}\n`));
    };
    await says(1);
    const difference = sluice('apply', configuration('reject'), '--diff');
    expect(difference.stdout).toMatch(
      /^- zones\.lan\.ipv4\.forward: accept\n[\s\S]*^\+ zones\.lan\.ipv4\.forward: reject$/m,
    );
    const applied = sluice('apply', configuration('reject'), '--confirm', '8s');
    expect([applied.status, applied.stderr]).toEqual([0, '']);
    expect(applied.stdout).toContain('applied; 0 connections ended');
    // What is established goes on, what is new does not.
    await says(2);
    await expect(download(lab, client, '198.18.0.10', 80, 10, { timeout: 1000 })).rejects.toThrow();
    await waitFor(
      'the configuration before',
      () => router.stderr().includes('not confirmed in time, the one before is back'),
      { timeout: 30_000 },
    );
    await says(3);
    expect(await download(lab, client, '198.18.0.10', 80, 100_000)).toMatchObject({ intact: true });
    expect(talker.stdout()).not.toContain('closed');
    // What cannot change while it runs is refused, and nothing has changed.
    writeFileSync(join(folder, 'more.yaml'), `${CONFIG(socket(), 'drop')}conntrack: { max: 1000 }\n`);
    const refused = sluice('apply', join(folder, 'more.yaml'));
    expect([refused.status, refused.stderr]).toEqual([1, expect.stringMatching(/^conntrack\.max: expected .*restart/)]);
    await says(4);
  });

  it('events tell of a connection as it comes, and top of the traffic', async () => {
    const seen: string[] = [];
    const listening = askEvents(socket(), ['conntrack', 'summary'], (kind, data) => {
      // The first summary says that the listener is there.
      if (kind === 'summary' && seen.length === 0) {
        seen.push('listening');
        void lab.run(client, 'ping', ['-n', '-c1', '-W10', '198.18.0.10'], { check: false });
      }
      if (kind === 'conntrack') seen.push((data as { line: string }).line);
      return !seen.some((line) => /^ {4}\[NEW\] ipv4 +2 icmp +1 \d+ src=10\.78\.1\.10 dst=198\.18\.0\.10/.test(line));
    });
    await listening;
    const top = sluice('top', '--count', '1');
    expect(top.status, top.stderr).toBe(0);
    expect(top.stdout).toMatch(/^lan +lan +UP /m);
  });
});
