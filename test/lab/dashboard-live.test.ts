/**
 * The dashboard of a live router while iperf3 runs through it: the numbers move with the traffic, a connection is explained
 * by a click, the console stays empty. How long the page took to load is printed, not judged.
 */
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findProgram, waitFor } from '../../controlplane/lab/namespace.ts';
import { type LiveLab, startLive } from './live-lab.ts';
import { labReady } from './need.ts';

const CHILD = fileURLToPath(new URL('../../dist/test/lab/dashboard-child.js', import.meta.url));
const TOKEN = 'token-of-the-dashboard-lab';
const SERVER = '198.18.0.10';

const CONFIG = `
ports:
  lan: { kind: tap, ifname: sl-lan, zone: lan, mac: "02:00:00:00:01:01", addresses: 10.79.1.1/24 }
  wan: { kind: tap, ifname: sl-wan, zone: wan, mac: "02:00:00:00:01:02", addresses: 198.18.0.1/24 }
zones: { lan: { forward: accept, input: accept }, wan: { forward: drop, input: accept } }
nat: { masquerade: [ { out: wan } ] }
workers: 1
api: { listen: "127.0.0.1:8080", token: ${TOKEN} }
`;

describe.skipIf(!labReady(['ping', 'iperf3', 'chromium'], { tun: true }))('the dashboard of a live router', () => {
  let live: LiveLab;

  beforeAll(async () => {
    live = await startLive(CONFIG, [
      { label: 'client', device: 'sl-lan', addresses: ['10.79.1.10/24'], via: ['10.79.1.1'] },
      { label: 'server', device: 'sl-wan', addresses: [`${SERVER}/24`], via: ['198.18.0.1'] },
    ]);
  });

  afterAll(() => live?.close());

  it('moves while iperf3 runs, and explains its connection', { timeout: 180_000 }, async () => {
    const { lab } = live;
    lab.spawn(live.ns('server'), 'iperf3', ['-s', '--forceflush']);
    await lab.listening(live.ns('server'), 5201);
    const chromium = findProgram('chromium') ?? '';
    const visitor = lab.spawn(live.where, process.execPath, [CHILD, chromium, 'http://127.0.0.1:8080/', TOKEN]);
    const said = (kind: string): string[] =>
      visitor
        .stdout()
        .split('\n')
        .filter((line) => line.startsWith(`${kind} `));
    const detail = (): string => visitor.stderr() + visitor.stdout().slice(-500);
    await waitFor('the page to be live', () => said('reading').length >= 2, { timeout: 30_000, detail });
    process.stdout.write(`dashboard ${said('loaded')[0]}\n`);
    // The LAN's row without traffic, and what it says while there is some: a rate in another unit.
    const fast = (line: string): boolean => /\d[\d.,]*\s*[MG]bit\/s/.test(line);
    expect(said('reading').some(fast)).toBe(false);
    const transfer = lab.run(live.ns('client'), 'iperf3', ['-c', SERVER, '-t', '6', '-J'], { timeout: 30_000 });
    await waitFor('the numbers to move', () => new Set(said('reading').filter(fast)).size >= 3, {
      timeout: 60_000,
      detail,
    });
    process.kill(visitor.pid, 'SIGUSR2');
    await waitFor('the connection to be explained', () => said('explained').length > 0, { timeout: 60_000, detail });
    await transfer;
    const { text, complaints } = JSON.parse(said('explained')[0].slice('explained '.length));
    expect(complaints).toEqual([]);
    expect(text).toContain('Leaves by wan');
    expect(text).toMatch(/engine/i);
  });
});
