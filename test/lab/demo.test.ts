/** `sluice demo` itself: passes, leaves nothing however it ends, and its checks notice a router that does wrong. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, it } from 'vitest';
import { runCheck } from '../../controlplane/demo/check.ts';
import { TRAFFIC } from '../../controlplane/demo/checks.ts';
import { buildWorld, type World } from '../../controlplane/demo/world.ts';
import { startHttpServer } from '../../controlplane/lab/http.ts';
import { until } from '../lib/until.ts';
import { labReady } from './need.ts';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const MAIN = join(ROOT, 'dist/controlplane/cli/main.js');

describe.skipIf(!labReady(['ping', 'curl', 'traceroute'], { tun: true }))('sluice demo', () => {
  let child: ChildProcess | null = null;
  let world: World | null = null;
  /** The demo's files go here, so that what it leaves is seen. */
  let folder = '';

  afterEach(() => {
    child?.kill('SIGKILL');
    child = null;
    world?.close();
    world = null;
    rmSync(folder, { recursive: true, force: true });
  });

  function start(args: readonly string[], stdin: 'ignore' | 'pipe' = 'ignore') {
    folder = mkdtempSync(join(tmpdir(), 'sluice-demo-test-'));
    const said = { out: '', err: '' };
    const running = spawn(process.execPath, [MAIN, 'demo', ...args], {
      stdio: [stdin, 'pipe', 'pipe'],
      env: { ...process.env, TMPDIR: folder },
    });
    child = running;
    running.stdout?.setEncoding('utf8').on('data', (text: string) => {
      said.out += text;
    });
    running.stderr?.setEncoding('utf8').on('data', (text: string) => {
      said.err += text;
    });
    const closed = once(running, 'close') as Promise<[number | null, string | null]>;
    return { running, said, closed };
  }

  /** No namespace of that process, no file, no process of its namespaces. */
  function nothingLeft(pid: number): void {
    let names: string[] = [];
    try {
      names = readdirSync('/run/netns');
    } catch {
      // no namespace at all
    }
    expect(names.filter((name) => name.startsWith(`sluice-${pid}-`))).toEqual([]);
    expect(readdirSync(folder)).toEqual([]);
    const mine = readdirSync('/proc').filter((name) => {
      try {
        return /^\d+$/.test(name) && readFileSync(`/proc/${name}/environ`, 'latin1').includes(`TMPDIR=${folder}\0`);
      } catch {
        return false;
      }
    });
    expect(mine).toEqual([]);
  }

  it('passes every check, in one JSON object, and leaves nothing', async () => {
    const { running, said, closed } = start(['--json']);
    expect(await closed, said.out + said.err).toEqual([0, null]);
    const summary = JSON.parse(said.out);
    expect(summary).toMatchObject({ mode: 'lab', passed: true, reasons: [] });
    expect(summary.checks.map((check: { passed: boolean }) => check.passed)).not.toContain(false);
    expect(summary.checks).toHaveLength(TRAFFIC.length + 1);
    expect(summary.seconds).toBeLessThan(60);
    expect(Object.keys(summary.show)).toEqual(expect.arrayContaining(['conntrack', 'nat', 'drops', 'stages', 'link']));
    expect(summary.show.drops.map((drop: { reason: string }) => drop.reason)).toContain('FILTER_DROP');
    expect(said.err).toContain('│ client ');
    nothingLeft(running.pid ?? 0);
  }, 70_000);

  // The moments: while the lab is built, in a ping, in the big download.
  for (const [signal, moment] of [
    ['SIGINT', 'three network namespaces'],
    ['SIGTERM', 'both hosts reach each other'],
    ['SIGHUP', 'masquerade: the server sees'],
  ] as const)
    it(`${signal} after "${moment}" ends it at once, failed, and leaves nothing`, async () => {
      const { running, said, closed } = start([]);
      await until(moment, () => said.out.includes(moment) || running.exitCode !== null);
      running.kill(signal);
      expect(await closed).toEqual([1, null]);
      expect(said.err).toBe(`sluice demo: ${signal}: everything was taken down\n`);
      expect(said.out).not.toContain('Taking down');
      nothingLeft(running.pid ?? 0);
    });

  for (const way of ['Enter', 'SIGINT'] as const)
    it(`--keep stays until ${way}, with the router's log, and passes`, async () => {
      const { running, said, closed } = start(['--keep'], 'pipe');
      await until('the advice', () => said.out.includes('takes everything down') || running.exitCode !== null, 60_000);
      const server = /ip netns exec (sluice-\d+-\d+-server) bash/.exec(said.out)?.[1] ?? '';
      const break_ = spawn('ip', ['-n', server, 'link', 'delete', 'sl-wan']);
      expect((await once(break_, 'close'))[0]).toBe(0);
      await until('the report', () => said.out.includes('router: warning: ports.wan: the device sl-wan is gone'));
      if (way === 'Enter') running.stdin?.write('\n');
      else running.kill(way);
      expect(await closed, said.out + said.err).toEqual([0, null]);
      nothingLeft(running.pid ?? 0);
    }, 70_000);

  it('checks fail on a router that masquerades nothing and lets everything in, and say what to do', async () => {
    folder = mkdtempSync(join(tmpdir(), 'sluice-demo-test-'));
    const config = join(folder, 'open.yaml');
    const text = readFileSync(join(ROOT, 'examples/demo.yaml'), 'utf8');
    writeFileSync(
      config,
      text.replace(/^nat:\n( .*\n)+/m, '').replace(/wan: \{ forward: drop,/, 'wan: { forward: accept,'),
    );
    world = await buildWorld({ config });
    await startHttpServer(world.lab, world.server, 80);
    await startHttpServer(world.lab, world.client, 80);
    const failed: string[] = [];
    for (const check of TRAFFIC.filter(({ name }) => !/HTTP|drop reasons/.test(name))) {
      const result = await runCheck(check, world);
      if (!result.passed) failed.push(check.name);
      if (check.name === 'masquerade')
        expect(result).toMatchObject({
          expected: 'the server to see 203.0.113.1',
          got: '192.168.1.10',
          advice: expect.stringContaining('sluice show nat'),
        });
    }
    expect(failed).toEqual([
      'masquerade',
      'port forward 203.0.113.1:8080 → 192.168.1.10:80',
      'unsolicited inbound IPv4',
      'unsolicited inbound IPv6',
      'connection table',
    ]);
  });

  it('a configuration that cannot run is reported with its place, and nothing is left', async () => {
    folder = mkdtempSync(join(tmpdir(), 'sluice-demo-test-'));
    const config = join(folder, 'bad.yaml');
    const text = readFileSync(join(ROOT, 'examples/demo.yaml'), 'utf8');
    writeFileSync(config, text.replace('zone: lan\n', 'zone: lan\n    mtu: big\n'));
    await expect(buildWorld({ config })).rejects.toThrow(/mtu: expected .*, got "?big/);
    expect(readdirSync('/run/netns').filter((name) => name.startsWith(`sluice-${process.pid}-`))).toEqual([]);
  });
});
