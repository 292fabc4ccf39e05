/**
 * Watching a live router from the command line: captures that tshark reads, traces, events, timed stages, explanations; and
 * that a capture changes nothing and ends when its reader has gone.
 *
 *   client 10.78.1.10 ── sl-lan [router, two workers] sl-wan ── server 203.0.113.10
 */
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { download, startHttpServer } from '../../controlplane/lab/http.ts';
import { Lab, type LabProcess, waitFor } from '../../controlplane/lab/namespace.ts';
import { labReady } from './need.ts';

const MAIN = fileURLToPath(new URL('../../dist/controlplane/cli/main.js', import.meta.url));

const CONFIG = (socket: string): string => `
ports:
  lan: { kind: tap, ifname: sl-lan, zone: lan, mac: "02:00:00:00:01:01", addresses: [10.78.1.1/24] }
  wan: { kind: tap, ifname: sl-wan, zone: wan, mac: "02:00:00:00:01:02", addresses: [203.0.113.1/24] }
zones:
  lan: { forward: accept, input: accept }
  wan: { forward: drop, input: drop }
nat:
  masquerade: [ { out: wan, from: 10.78.1.0/24 } ]
workers: 2
control: { socket: "${socket}" }
`;

describe.skipIf(!labReady(['ping', 'curl', 'tshark'], { tun: true }))('watching a live router', () => {
  let lab: Lab;
  let folder = '';
  let client = '';
  let server = '';
  let router: LabProcess;
  const socket = (): string => join(folder, 'control.sock');

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'sluice-watch-'));
    const file = join(folder, 'router.yaml');
    writeFileSync(file, CONFIG(socket()));
    lab = new Lab();
    client = lab.namespace('client');
    server = lab.namespace('server');
    const host = lab.namespace('router');
    lab.apply();
    router = lab.spawn(host, process.execPath, [MAIN, 'run', file]);
    await waitFor('the router to run', () => /running/.test(router.stdout() + router.stderr()) || !router.running(), {
      timeout: 60_000,
    });
    expect(router.running(), router.stderr()).toBe(true);
    for (const [device, ns, net] of [
      ['sl-lan', client, '10.78.1'],
      ['sl-wan', server, '203.0.113'],
    ]) {
      lab.runSync(host, 'ip', ['link', 'set', device, 'netns', ns]);
      lab.device({ ns, name: device, addresses: [`${net}.10/24`] });
      lab.route(ns, 'default', `${net}.1`);
    }
    lab.apply();
    await waitFor('the server to answer', async () => (await ping('203.0.113.10', 1)) === 0);
    await startHttpServer(lab, server, 80);
  }, 60_000);

  afterAll(() => {
    lab?.close();
    rmSync(folder, { recursive: true, force: true });
  });

  async function ping(target: string, seconds = 10): Promise<number | null> {
    return (await lab.run(client, 'ping', ['-n', '-c1', `-W${seconds}`, target], { check: false })).status;
  }

  function sluice(...args: string[]): string {
    const done = spawnSync(process.execPath, [MAIN, ...args, '--socket', socket()], { encoding: 'utf8' });
    expect(done.status, done.stderr).toBe(0);
    return done.stdout;
  }

  /** A command that runs beside the test: its output so far, and its end. */
  function beside(...args: string[]): { out: () => string; end: () => Promise<string> } {
    const child = spawn(process.execPath, [MAIN, ...args, '--socket', socket()], { stdio: ['ignore', 'pipe', 'pipe'] });
    let out = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      out += text;
    });
    const ended = new Promise<string>((resolve) => child.on('close', () => resolve(out)));
    return {
      out: () => out,
      end: () => {
        child.kill('SIGINT');
        return ended;
      },
    };
  }

  function fields(file: string, ...names: string[]): string[][] {
    const done = spawnSync('tshark', ['-r', file, '-T', 'fields', ...names.flatMap((name) => ['-e', name])], {
      encoding: 'utf8',
    });
    expect(done.status, done.stderr).toBe(0);
    return done.stdout
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => line.split('\t'));
  }

  it('captures with verdicts and pairs, which tshark reads; drops only; a transfer is intact meanwhile', async () => {
    const all = join(folder, 'all.pcapng');
    const drops = join(folder, 'drops.pcapng');
    const captures = [
      beside('capture', '-w', all, '--flow', 'any 10.78.1.10 > 203.0.113.10', '--snap', '128'),
      beside('capture', '-w', drops, '--drops', '--port', 'wan'),
    ];
    // Both have begun once their files hold the section header.
    await waitFor('both captures to begin', () => [all, drops].every((file) => sizeOf(file) > 0), { timeout: 60_000 });
    expect(await download(lab, client, '203.0.113.10', 80, 2_000_003)).toMatchObject({ intact: true });
    await lab.run(server, 'curl', ['-s', '-m', '1', 'http://203.0.113.1:81/'], { check: false });
    await waitFor('the drop to be written', () => sizeOf(drops) > 300, { timeout: 30_000 });
    for (const capture of captures) await capture.end();
    const frames = fields(
      all,
      'frame.interface_name',
      'frame.packet_flags_direction',
      'frame.packet_id',
      'frame.comment',
    );
    const ofId = new Map<string, string[]>();
    for (const [name, , id, comment] of frames) ofId.set(id, [...(ofId.get(id) ?? []), `${name} ${comment}`]);
    const pairs = [...ofId.values()].map((pair) => pair.join(' | '));
    expect(pairs).toContainEqual(
      expect.stringMatching(/^lan forwarded.* \| wan snat 10\.78\.1\.10:\d+ -> 203\.0\.113\.1:\d+$/),
    );
    expect(pairs).toContainEqual(expect.stringMatching(/^lan forwarded by the engine \| wan snat /));
    const dropped = fields(drops, 'frame.interface_name', 'tcp.dstport', 'frame.comment');
    expect(dropped[0]).toEqual(['wan', '81', expect.stringMatching(/^drop INPUT_DROP at input: /)]);
    const counted = JSON.parse(sluice('show', 'drops', '-j')) as { reason: string; count: number }[];
    expect(counted.find(({ reason }) => reason === 'INPUT_DROP')?.count).toBe(dropped.length);
  });

  it('traces, times stages, follows events with the conntrack tool’s filters, and shows zones', async () => {
    sluice('trace', 'add', 'rx', '6');
    for (let n = 0; n < 3; n++) expect(await ping('203.0.113.10')).toBe(0);
    const trace = await waitFor('six packets', () => {
      const text = sluice('show', 'trace');
      return text.startsWith('6 packets') ? text : undefined;
    });
    expect(trace).toMatch(/-> nat-postrouting .*-> neighbour .*-> tx : forwarded/);
    expect(trace).toContain('icmp 10.78.1.10 > 203.0.113.10');

    const events = beside('show', 'conntrack', '-E', '-p', 'icmp', '-s', '10.78.1.0/24');
    const line = await waitFor('a NEW line', async () => {
      await ping('203.0.113.10');
      return /^ +\[NEW\].*$/m.exec(events.out())?.[0];
    });
    expect(line).toMatch(
      /^ {4}\[NEW\] ipv4 {5}2 icmp {5}1 \d+ src=10\.78\.1\.10 dst=203\.0\.113\.10 type=8 code=0 id=\d+ \[UNREPLIED\] src=/,
    );
    await events.end();
    expect(sluice('show', 'conntrack', '-p', 'icmp', '-s', '10.78.1.0/24', '--state', 'SEEN_REPLY')).toContain('icmp');
    expect(sluice('show', 'conntrack', '-p', 'icmp', '--state', 'UNREPLIED')).toBe('');

    const pinging = lab.run(client, 'ping', ['-n', '-q', '-c', '400', '-i', '0.01', '203.0.113.10'], { check: false });
    const stages = sluice('show', 'stages', '--sample', '1');
    await pinging;
    expect(stages).toMatch(/^conntrack-in +[1-9]\d* +[1-9]\d* +\d+/m);
    await lab.run(server, 'ping', ['-n', '-c1', '-W0.2', '203.0.113.1'], { check: false });
    expect(sluice('show', 'zones')).toMatch(
      /^zone wan: ports wan {2}forward drop \(\d+\) {2}input drop \([1-9]\d*\)$/m,
    );
  });

  it('explains a flow by the running state, and by a configuration alone', () => {
    const flow = sluice('explain', '--flow', 'tcp 203.0.113.10:1 > 203.0.113.1:22', '-j');
    expect(JSON.parse(flow)).toMatchObject({
      packets: [
        { verdict: 'dropped', reason: 'INPUT_DROP', where: expect.stringMatching(/router\.yaml:7:\d+ zones\.wan$/) },
      ],
    });
    const offline = spawnSync(
      process.execPath,
      [MAIN, 'explain', '--config', join(folder, 'router.yaml'), '--flow', 'udp 10.78.1.10:5 > 198.51.100.1:53'],
      { encoding: 'utf8' },
    );
    expect(offline.stdout).toContain('verdict: drop IP_OUTNOROUTES at route: No route to the destination.');
  });

  it('a capture whose reader has gone ends, and the workers go back to their own path', async () => {
    const piped = spawnSync(
      'sh',
      [
        '-c',
        `"${process.execPath}" "${MAIN}" capture -w - --seconds 20 --socket "${socket()}" | head -c 28 | od -A n -t x4 -N 4`,
      ],
      { encoding: 'utf8', timeout: 30_000 },
    );
    expect(piped.stdout.trim()).toBe('0a0d0d0a');
    // All four places for captures are free again; who finds none ends without a file, and the next round tries anew.
    const four = Array.from({ length: 4 }, (_, n) => join(folder, `${n}.pcapng`));
    const begun = () => four.every((file) => sizeOf(file) > 0);
    await waitFor(
      'four captures at once',
      async () => {
        const running = four.map((file) => beside('capture', '-w', file));
        await waitFor('them to begin', begun, { timeout: 15_000 }).catch(() => {});
        for (const one of running) await one.end();
        return begun();
      },
      { timeout: 180_000 },
    );
  });

  function sizeOf(file: string): number {
    try {
      return readFileSync(file).length;
    } catch {
      return 0;
    }
  }
});
