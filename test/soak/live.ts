/**
 * Soak, live: `sluice` as a process of its own, with workers between two TAP devices and real programs at their ends.
 * Connections that stay open and talk every second, downloads, iperf3 and fragmented pings that come and go in both
 * families. Meanwhile workers are killed, cables pulled, the engine flushed, configurations applied, and the fault wrapper
 * of one port harms frames. No connection may break, no download may be wrong, memory and descriptors may not grow; when
 * the programs are gone every frame must be in one counter and every table empty.
 *
 *     client ── sl-lan [router] sl-wan, faulty ── server
 */
import { readdirSync, readFileSync } from 'node:fs';
import { download, startHttpServer } from '../../controlplane/lab/http.ts';
import { type LabProcess, waitFor } from '../../controlplane/lab/namespace.ts';
import { type LiveLab, startLive } from '../lab/live-lab.ts';
import { Random } from '../lib/build.ts';

export interface LiveResult {
  seconds: number;
  workers: number;
  /** What was done to it. */
  deaths: number;
  flaps: number;
  flushes: number;
  applied: number;
  downloads: number;
  /** iperf3's, TCP and UDP, and the bytes that arrived. */
  transfers: number;
  bytes: number;
  /** Downloads and runs of iperf3 that failed while a cable was out. */
  interrupted: number;
  /** Lines that went there and back on connections that stayed open. */
  lines: number;
  /** Frames received; those that a dying worker had. */
  received: number;
  died: number;
  /** Resident memory more than after the first quarter, bytes; descriptors. */
  growth: number;
  descriptors: number;
}

/** What live-child.ts counts. */
interface Counted {
  received: number;
  /** Frames in no counter, by worker. */
  missing: number[];
  died: number;
  connections: number;
  expectations: number;
}

export const PROGRAMS = ['ping', 'curl', 'iperf3'];
export const TALKERS = 20;
const TOO_MUCH = 64 * 1024 * 1024;
const SERVERS = ['203.0.113.10', '2001:db8:77:2::10'];
/** Seconds between two disturbances of a kind. */
const KILL = 30;
const FLAP = 19;
const APPLY = 11;
const FLUSH = 5;
/** Longer than the supervisor needs to see a link go. */
const DOWN_MS = 500;
/** Seconds that the router's tables get to be empty: a little more than its longest timeout. */
const EMPTY = 100;

/** The n-th configuration: it differs from the one before by a rule that nobody needs. */
const CONFIG = (workers: number, seed: number, n: number): string => `
ports:
  lan: { kind: tap, ifname: sl-lan, zone: lan, mac: "02:00:00:00:01:01", addresses: [10.77.1.1/24, "2001:db8:77:1::1/64"] }
  wan:
    { kind: tap, ifname: sl-wan, zone: wan, mac: "02:00:00:00:01:02", addresses: [203.0.113.1/24, "2001:db8:77:2::1/64"],
      fault: { loss: 0.0005, duplicate: 0.001, reorder: 0.001, corrupt: 0.0005, delay: 0.0005, seed: ${seed} } }
zones:
  lan: { forward: accept, input: accept }
  wan: { forward: drop, input: drop }
rules: [ { from: wan, to: lan, proto: tcp, port: ${1 + (n % 1023)}, verdict: accept } ]
nat:
  masquerade: [ { out: wan, from: 10.77.1.0/24 } ]
conntrack:
  timeouts: { tcp-established: 60, tcp-unacknowledged: 60, tcp-max-retrans: 60, tcp-time-wait: 10, tcp-fin-wait: 30, udp-stream: 30 }
workers: ${workers}
`;

const ECHO = `require('node:net').createServer((s) => s.pipe(s).on('error', () => {})).listen(7, '::', () => console.log('ready'))`;
/** Prints the number of lines that came back, once a second; a connection that closes is an error. */
const TALK = `
let back = 0;
for (let n = 0; n < ${TALKERS}; n++) {
  const s = require('node:net').connect(7, ${JSON.stringify(SERVERS)}[n % 2]);
  s.on('data', (data) => { back += data.toString().split('\\n').length - 1; });
  s.on('close', () => { console.log('closed ' + n); });
  s.on('error', (error) => { console.log('error ' + error.message); });
  setInterval(() => s.write('line\\n'), 1000);
}
setInterval(() => console.log('back ' + back), 1000);
`;

export async function soakLive(
  seconds: number,
  options: { workers?: number; seed?: number; say?: (line: string) => void } = {},
): Promise<LiveResult> {
  const { workers = 2, seed = 1, say = () => {} } = options;
  const random = new Random(seed);
  const live = await startLive(
    CONFIG(workers, seed, 0),
    [
      {
        label: 'client',
        device: 'sl-lan',
        addresses: ['10.77.1.10/24', '2001:db8:77:1::10/64'],
        via: ['10.77.1.1', '2001:db8:77:1::1'],
        awaits: SERVERS,
      },
      {
        label: 'server',
        device: 'sl-wan',
        addresses: SERVERS.map((address) => `${address}/${address.includes(':') ? 64 : 24}`),
        via: ['203.0.113.1', '2001:db8:77:2::1'],
        awaits: [],
      },
    ],
    { child: true },
  );
  try {
    const { lab, router } = live;
    const [client, server] = [live.ns('client'), live.ns('server')];
    await startHttpServer(lab, server, 80);
    const echo = lab.spawn(server, process.execPath, ['-e', ECHO]);
    await waitFor('the echo server', () => echo.stdout().includes('ready'));
    for (const port of [5201, 5202]) lab.spawn(server, 'iperf3', ['-s', '-p', String(port), '--forceflush']);
    for (const port of [5201, 5202]) await lab.listening(server, port);
    const talker = lab.spawn(client, process.execPath, ['-e', TALK]);
    const pings = SERVERS.map((target) =>
      lab.spawn(client, 'ping', ['-n', '-q', '-i0.2', '-s', String(random.int(3000, 20_000)), target]),
    );
    const talk = (): number => {
      if (/closed|error/.test(talker.stdout())) throw new Error(`a connection broke: ${talker.stdout().slice(-300)}`);
      return Number(/back (\d+)\s*$/.exec(talker.stdout())?.[1] ?? 0);
    };
    const start = performance.now();
    const passed = () => (performance.now() - start) / 1000;
    const result = {
      deaths: 0,
      flaps: 0,
      flushes: 0,
      applied: 0,
      downloads: 0,
      transfers: 0,
      bytes: 0,
      interrupted: 0,
    };
    let before: Used | null = null;
    let unplugged = false;
    /** True when it was done; false when it failed while a cable was out: what begins then is told that nobody is there. */
    const done = async (what: () => Promise<void>): Promise<boolean> => {
      const mayFail = unplugged;
      const { flaps } = result;
      try {
        await what();
        return true;
      } catch (error) {
        if (!mayFail && flaps === result.flaps) throw error;
        result.interrupted++;
        return false;
      }
    };

    const downloads = async (): Promise<void> => {
      while (passed() < seconds) {
        const target = random.pick(SERVERS);
        let intact = true;
        const came = await done(async () => {
          intact = (await download(lab, client, target, 80, 5_000_000, { timeout: 60_000 })).intact;
        });
        if (!intact) throw new Error(`a download from ${target} was not what was sent`);
        if (came) result.downloads++;
        talk();
      }
    };
    const transfers = async (port: number): Promise<void> => {
      while (passed() < seconds) {
        const args = ['-c', random.pick(SERVERS), '-p', String(port), '-t', '3', '-J'];
        if (random.chance(0.3)) args.push('-u', '-b', '50M');
        if (random.chance(0.5)) args.push('-R');
        const ran = await done(async () => {
          const { stdout } = await lab.run(client, 'iperf3', args, { timeout: 60_000 });
          const { end } = JSON.parse(stdout) as Report;
          result.bytes += end.sum_received?.bytes ?? end.sum?.bytes ?? 0;
        });
        if (ran) result.transfers++;
      }
    };
    const disturb = async (): Promise<void> => {
      while (passed() < seconds) {
        const now = passed();
        if (before === null && now > seconds / 4) before = used(router);
        if (now > (result.deaths + 1) * KILL) {
          result.deaths++;
          process.kill(router.pid, 'SIGUSR2');
        } else if (now > (result.flaps + 1) * FLAP) {
          result.flaps++;
          unplugged = true;
          await flap(live, random.pick(['client', 'server']));
          unplugged = false;
        } else if (now > (result.applied + 1) * APPLY) {
          const { lines, refused } = await live.apply(CONFIG(workers, seed, ++result.applied));
          if (refused.length > 0 || lines.length !== 2)
            throw new Error(`expected one rule to be replaced, got ${JSON.stringify({ lines, refused })}`);
        } else if (now > (result.flushes + 1) * FLUSH) {
          result.flushes++;
          await flush(live);
        } else await new Promise((resolve) => setTimeout(resolve, 100));
      }
    };
    const report = setInterval(
      () => say(`${passed().toFixed(0)} s: ${talk()} lines, ${JSON.stringify(result)}`),
      30_000,
    );
    try {
      await Promise.all([downloads(), transfers(5201), transfers(5202), disturb()]);
    } finally {
      clearInterval(report);
    }
    const first = talk();
    await waitFor('every connection to speak once more', () => talk() >= first + TALKERS, { timeout: 30_000 });
    const lines = talk();
    const deaths = router.stderr().split('fault injected by a test').length - 1;
    if (deaths !== result.deaths) throw new Error(`expected ${result.deaths} deaths of workers, got ${deaths}`);
    const now = used(router);
    const growth = before === null ? 0 : now.resident - (before as Used).resident;
    const more = before === null ? 0 : now.descriptors - (before as Used).descriptors;
    if (growth > TOO_MUCH) throw new Error(`expected at most ${TOO_MUCH >> 20} MiB more in use, got ${growth >> 20}`);
    if (more > 2) throw new Error(`expected no more descriptors than before, got ${more}`);
    for (const program of [talker, ...pings]) await program.stop();
    const { received, died } = await emptied(live);
    process.kill(router.pid, 'SIGTERM');
    const end = await router.exited;
    if (end.code !== 0) throw new Error(`expected the router to end with 0, got ${end.code}: ${router.stderr()}`);
    return { seconds: passed(), workers, ...result, lines, received, died, growth, descriptors: more };
  } finally {
    live.close();
  }
}

/** What is used of iperf3's report. */
interface Report {
  end: { sum_received?: { bytes: number }; sum?: { bytes: number } };
}

interface Used {
  resident: number;
  descriptors: number;
}

/** What a process has of the machine: bytes of memory, open descriptors. */
function used({ pid }: LabProcess): Used {
  const resident = Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) * 1024;
  return { resident, descriptors: readdirSync(`/proc/${pid}/fd`).length };
}

/** Pulls a host's cable and plugs it in again; the router must have seen it go. */
async function flap(live: LiveLab, label: 'client' | 'server'): Promise<void> {
  const device = label === 'client' ? 'sl-lan' : 'sl-wan';
  const seen = () => live.router.stderr().split(`${device} is down`).length;
  const before = seen();
  live.lab.runSync(live.ns(label), 'ip', ['link', 'set', 'dev', device, 'carrier', 'off']);
  try {
    await Promise.all([
      waitFor(`the router to see ${device} down`, () => seen() > before),
      new Promise((resolve) => setTimeout(resolve, DOWN_MS)),
    ]);
  } finally {
    live.lab.runSync(live.ns(label), 'ip', ['link', 'set', 'dev', device, 'carrier', 'on']);
  }
}

/** Flushes the engine; what the router has counted. */
async function flush(live: LiveLab): Promise<Counted> {
  const answers = () => [...live.router.stdout().matchAll(/^flushed (.*)$/gm)];
  const before = answers().length;
  process.kill(live.router.pid, 'SIGPWR');
  await waitFor('the engine to be flushed', () => answers().length > before);
  return JSON.parse(answers()[before][1]) as Counted;
}

/** Waits until nothing is left of what the programs did: every frame in one counter, no record in a table. */
async function emptied(live: LiveLab): Promise<Counted> {
  let counted = await flush(live);
  await waitFor(
    'the counters to add up and the tables to be empty',
    async () => {
      counted = await flush(live);
      return counted.missing.every((n) => n === 0) && counted.connections === 0 && counted.expectations === 0;
    },
    { timeout: EMPTY * 1000, every: 500, detail: () => JSON.stringify(counted) },
  );
  return counted;
}
