/**
 * Soak, live: `sluice` as a process of its own, with workers between two TAP devices and real programs at their ends.
 * Connections that stay open and talk every second, downloads that come and go in both families, a worker that is killed
 * every so often. No connection may break, no download may be wrong, memory and descriptors may not grow.
 *
 *     client ── sl-lan [router] sl-wan ── server
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { download, startHttpServer } from '../../controlplane/lab/http.ts';
import { Lab, waitFor } from '../../controlplane/lab/namespace.ts';

export interface LiveResult {
  seconds: number;
  workers: number;
  deaths: number;
  downloads: number;
  /** Lines that went there and back on connections that stayed open. */
  lines: number;
  /** Connections that outlived the last death of a worker. */
  connections: number;
  /** Resident memory more than after the first quarter, bytes; descriptors. */
  growth: number;
  descriptors: number;
}

const CHILD = fileURLToPath(new URL('../lab/live-child.js', import.meta.url));
const TALKERS = 20;
const TOO_MUCH = 64 * 1024 * 1024;

const CONFIG = (workers: number, socket: string): string => `
ports:
  lan: { kind: tap, ifname: sl-lan, zone: lan, mac: "02:00:00:00:01:01", addresses: [10.77.1.1/24, "2001:db8:77:1::1/64"] }
  wan: { kind: tap, ifname: sl-wan, zone: wan, mac: "02:00:00:00:01:02", addresses: [203.0.113.1/24, "2001:db8:77:2::1/64"] }
zones:
  lan: { forward: accept, input: accept }
  wan: { forward: drop, input: drop }
nat:
  masquerade: [ { out: wan, from: 10.77.1.0/24 } ]
workers: ${workers}
control: { socket: "${socket}" }
`;

const ECHO = `require('node:net').createServer((s) => s.pipe(s).on('error', () => {})).listen(7, '::', () => console.log('ready'))`;
/** Prints the number of lines that came back, once a second; a connection that closes is an error. */
const TALK = `
let back = 0;
for (let n = 0; n < ${TALKERS}; n++) {
  const s = require('node:net').connect(7, n % 2 ? '203.0.113.10' : '2001:db8:77:2::10');
  s.on('data', (data) => { back += data.toString().split('\\n').length - 1; });
  s.on('close', () => { console.log('closed ' + n); });
  s.on('error', (error) => { console.log('error ' + error.message); });
  setInterval(() => s.write('line\\n'), 1000);
}
setInterval(() => console.log('back ' + back), 1000);
`;

export async function soakLive(
  seconds: number,
  options: { workers?: number; killEvery?: number; say?: (line: string) => void } = {},
): Promise<LiveResult> {
  const workers = options.workers ?? 2;
  const killEvery = options.killEvery ?? 30;
  const say = options.say ?? (() => {});
  const folder = mkdtempSync(join(tmpdir(), 'sluice-soak-'));
  const file = join(folder, 'router.yaml');
  const socket = join(folder, 'control.sock');
  writeFileSync(file, CONFIG(workers, socket));
  const lab = new Lab();
  try {
    const [client, server, host] = ['client', 'server', 'router'].map((name) => lab.namespace(name));
    lab.apply();
    const router = lab.spawn(host, process.execPath, [CHILD, file]);
    await waitFor('the router to run', () => router.stdout().includes('running') || !router.running(), {
      timeout: 20_000,
    });
    if (!router.running()) throw new Error(`the router does not start: ${router.stderr()}`);
    for (const [device, ns, v4, v6] of [
      ['sl-lan', client, '10.77.1', '2001:db8:77:1'],
      ['sl-wan', server, '203.0.113', '2001:db8:77:2'],
    ]) {
      lab.runSync(host, 'ip', ['link', 'set', device, 'netns', ns]);
      lab.device({ ns, name: device, addresses: [`${v4}.10/24`, `${v6}::10/64`] });
      lab.route(ns, 'default', `${v4}.1`);
      lab.route(ns, 'default', `${v6}::1`);
    }
    lab.apply();
    await waitFor('the far end to answer', async () => {
      const ping = await lab.run(client, 'ping', ['-n', '-c1', '-W1', '2001:db8:77:2::10'], { check: false });
      return ping.status === 0;
    });
    await startHttpServer(lab, server, 80);
    const echo = lab.spawn(server, process.execPath, ['-e', ECHO]);
    await waitFor('the echo server', () => echo.stdout().includes('ready'));
    const talker = lab.spawn(client, process.execPath, ['-e', TALK]);

    const resident = () =>
      Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${router.pid}/status`, 'utf8'))?.[1]) * 1024;
    const descriptors = () => readdirSync(`/proc/${router.pid}/fd`).length;
    const talk = () => {
      if (/closed|error/.test(talker.stdout())) throw new Error(`a connection broke: ${talker.stdout().slice(-300)}`);
      return Number(/back (\d+)\s*$/.exec(talker.stdout())?.[1] ?? 0);
    };
    const start = performance.now();
    const passed = () => (performance.now() - start) / 1000;
    let deaths = 0;
    let downloads = 0;
    let before: { resident: number; descriptors: number } | null = null;
    while (passed() < seconds) {
      const target = downloads % 2 === 0 ? '203.0.113.10' : '2001:db8:77:2::10';
      const running = download(lab, client, target, 80, 20_000_000, { timeout: 60_000 });
      if (passed() > (deaths + 1) * killEvery) {
        deaths++;
        process.kill(router.pid, 'SIGUSR2');
      }
      const { intact } = await running;
      if (!intact) throw new Error(`a download from ${target} was not what was sent`);
      downloads++;
      const lines = talk();
      if (before === null && passed() > seconds / 4) before = { resident: resident(), descriptors: descriptors() };
      if (downloads % 100 === 0)
        say(`${passed().toFixed(0)} s: ${downloads} downloads, ${lines} lines, ${deaths} deaths`);
    }
    const first = talk();
    await waitFor('every connection to speak once more', () => talk() >= first + TALKERS, { timeout: 15_000 });
    // What the supervisor counted when it last started a worker anew.
    const kept = [...router.stderr().matchAll(/it starts again, (\d+) connections kept/g)];
    const growth = before === null ? 0 : resident() - before.resident;
    const more = before === null ? 0 : descriptors() - before.descriptors;
    if (growth > TOO_MUCH) throw new Error(`expected at most ${TOO_MUCH >> 20} MiB more in use, got ${growth >> 20}`);
    if (more > 2) throw new Error(`expected no more descriptors than before, got ${more}`);
    const result = {
      seconds: passed(),
      workers,
      deaths,
      downloads,
      lines: talk(),
      connections: Number(kept.at(-1)?.[1] ?? 0),
    };
    process.kill(router.pid, 'SIGTERM');
    const end = await router.exited;
    if (end.code !== 0) throw new Error(`expected the router to end with 0, got ${end.code}: ${router.stderr()}`);
    return { ...result, growth, descriptors: more };
  } finally {
    lab.close();
    rmSync(folder, { recursive: true, force: true });
  }
}
