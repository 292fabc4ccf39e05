/**
 * Judge: many scenarios through the kernel and through Sluice, quickly. One kernel router and one Sluice per topology,
 * both used for all scenarios of that topology and emptied in between: making a router costs more than a scenario. What
 * differs there is tried once more in a fresh Sluice; a difference that only a used one shows is one too, and said so.
 *
 * For a sample of scenarios the connection tables are compared at the end as well: tuples, states, flags, and the
 * seconds that are left (two seconds apart at most: the kernel's clock runs, Sluice's stands still).
 */
import { readFileSync } from 'node:fs';
import { conntrackLine } from '../../../conntrack/format.ts';
import { createRouter, type Router } from '../../../controlplane/router.ts';
import { inNetns } from '../../../dataplane/ports/netns.ts';
import { type ConntrackEntry, parseConntrack } from '../kernel/conntrack.ts';
import { ACCEPTED, type Accepted, endedByClient } from './accepted.ts';
import { type CompareOptions, compare } from './compare.ts';
import { KEPT } from './generator.ts';
import { KernelPlayer } from './kernel.ts';
import {
  configOf,
  LAN4,
  LAN6,
  type Played,
  playInline,
  type Scenario,
  type ScenarioFrame,
  type TopologyOptions,
  WAN4,
  WAN6,
} from './scenario.ts';

const OWN = [LAN4, LAN6, WAN4, WAN6];

export interface Verdict {
  scenario: Scenario;
  /** The first difference as text; null when both routers agree. */
  difference: string | null;
  /** Name of the accepted difference that explains it (docs/differences-from-linux.md). */
  accepted: string | null;
  frames: number;
  kernel: readonly Played[];
  sluice: readonly Played[];
}

interface Pair {
  player: KernelPlayer;
  router: Router;
}

const LINGER = 120_000;

export class Judge {
  private readonly pairs = new Map<string, Pair>();
  /** Frames played into either router. */
  frames = 0;

  /** Plays the scenario into both. `tables`: compare the connection tables, too. `fresh`: a Sluice of its own. `again`: no third try. */
  judge(scenario: Scenario, options: { tables?: boolean; fresh?: boolean; again?: boolean } = {}): Verdict {
    const pair = this.pair(scenario.topology);
    const ports = pair.player.router.ports;
    pair.player.router.flush();
    // What a frame that depends on others was for the kernel.
    const played: ScenarioFrame[] = [];
    const kernel = pair.player.play(scenario.frames.map((f, n) => recorded(f, n, played)));
    const router = options.fresh ? makeRouter(scenario.topology) : pair.router;
    if (!options.fresh) forget(router);
    const sluice = playInline(router, ports, scenario.frames);
    this.frames += scenario.frames.length;
    const settings = { ports, own: OWN, kept: KEPT };
    // Which port was chosen is also in the tables: only without choice are they compared.
    const plain = scenario.normalise?.filter((n) => n !== 'chosen-port');
    let difference = compare(kernel, sluice, { ...settings, normalise: plain });
    if (difference === null && options.tables) {
      // The frames agree: no accepted difference between frames explains one between the tables.
      // a-call-that-the-client-ends
      const left = (e: ConntrackEntry) => e.protoNumber !== GRE || !endedByClient(sluice);
      difference = compareTables(kernelTable(pair.player.router.ns).filter(left), sluiceTable(router).filter(left));
      return { scenario, difference, accepted: null, frames: scenario.frames.length, kernel, sluice };
    }
    if (difference !== null && plain?.length !== scenario.normalise?.length)
      difference = compare(kernel, sluice, { ...settings, normalise: scenario.normalise });
    const verdict = { scenario, difference, accepted: null, frames: scenario.frames.length, kernel, sluice };
    if (difference === null) return verdict;
    const all = { ...settings, normalise: scenario.normalise };
    let accepted = explanation(kernel, sluice, played, all);
    if (accepted === null && scenario.frames.some((f) => typeof f.frame === 'function')) {
      // A frame about what had left was another one for Sluice, since a known difference came before it.
      const again = playInline(makeRouter(scenario.topology), ports, played);
      accepted = compare(kernel, again, all) === null ? null : explanation(kernel, again, played, all);
    }
    // A port that the kernel has to choose it draws, now and then one that a host of the scenario uses. Another draw, the
    // same used Sluice: a difference of ours stays.
    if (accepted === null && !options.again && scenario.normalise?.includes('chosen-port')) {
      const second = this.judge(scenario, { ...options, again: true });
      if (second.difference === null || second.accepted !== null) accepted = 'a-draw-that-hit-a-port-in-use';
    }
    return { ...verdict, accepted };
  }

  private pair(topology: TopologyOptions): Pair {
    const key = JSON.stringify(topology);
    let pair = this.pairs.get(key);
    if (pair === undefined) {
      const player = new KernelPlayer(configOf(topology));
      // A path MTU that an error has taught the kernel would outlive the scenario: it learns none, and of IPv6 forgets it at once.
      player.router.lab.sysctl(player.router.ns, { 'net.ipv4.ip_no_pmtu_disc': 2, 'net.ipv6.route.mtu_expires': 0 });
      player.router.lab.apply();
      pair = { player, router: makeRouter(topology) };
      this.pairs.set(key, pair);
    }
    return pair;
  }

  close(): void {
    for (const { player } of this.pairs.values()) player.close();
    this.pairs.clear();
  }
}

/** The frame, which leaves its bytes in `played` when they are known. */
function recorded(f: ScenarioFrame, n: number, played: ScenarioFrame[]): ScenarioFrame {
  const { frame } = f;
  played[n] = f;
  if (typeof frame !== 'function') return f;
  return {
    ...f,
    frame: (past) => {
      const bytes = frame(past);
      played[n] = { ...f, frame: bytes };
      return bytes;
    },
  };
}

/** The accepted difference, or all of them together, under whose view both sent the same; null when there is none. */
function explanation(
  kernel: readonly Played[],
  sluice: readonly Played[],
  entered: readonly ScenarioFrame[],
  options: CompareOptions,
): string | null {
  const equal = (a: Accepted) => {
    const [left, right] = a.views(kernel, sluice, entered);
    return compare(left, right, options) === null;
  };
  const several: Accepted = {
    name: 'several',
    views: (k, s) => {
      let seen: [readonly Played[], readonly Played[]] = [k, s];
      for (const a of ACCEPTED) seen = a.views(seen[0], seen[1], entered);
      return seen;
    },
  };
  return [...ACCEPTED, several].find(equal)?.name ?? null;
}

function makeRouter(topology: TopologyOptions): Router {
  const config = configOf(topology);
  return createRouter(
    { ...config, conntrack: { ...config.conntrack, max: 4096 } },
    { slots: { small: 256, large: 8 } },
  );
}

/** Ends every connection, and lets the time pass that fragments and limits of errors need. */
function forget(router: Router): void {
  const table = router.tables.conntrack;
  for (let index = 0; index < table.highWater; index++)
    if (table.inUse(index, router.now)) router.path.tracker.end(index);
  router.advance(LINGER);
  for (const port of router.config.ports) router.take(port.name);
}

/** The kernel's table, read without starting a program. */
function kernelTable(ns: string): ConntrackEntry[] {
  const text = inNetns(ns, () => readFileSync('/proc/thread-self/net/nf_conntrack', 'utf8'));
  return parseConntrack(text);
}

function sluiceTable(router: Router): ConntrackEntry[] {
  const t = router.tables.conntrack;
  const lines: string[] = [];
  for (let index = 0; index < t.highWater; index++)
    if (t.inUse(index, router.now))
      lines.push(conntrackLine(t.words, t.words6, t.doubles, index, router.now, { extended: true }));
  return parseConntrack(lines.join('\n'));
}

const SLACK = 2;
const GRE = 47;
const ESP = 50;

/** Null when the tables say the same; else what differs. */
export function compareTables(kernel: readonly ConntrackEntry[], sluice: readonly ConntrackEntry[]): string | null {
  const ends = (t: ConntrackEntry['original']) =>
    ['src', 'dst', 'sport', 'dport', 'type', 'code', 'id', 'srckey', 'dstkey']
      .map((k) => `${k}=${full(t[k])}`)
      .join(' ');
  const key = (e: ConntrackEntry) => `${e.family} ${e.protoNumber} ${ends(e.original)} | ${ends(e.reply)}`;
  const flags = (e: ConntrackEntry) => e.flags.filter((f) => f === 'UNREPLIED' || f === 'ASSURED').sort();
  const say = (e: ConntrackEntry) => `${e.state ?? ''} ${flags(e)} ${e.timeout} s`;
  const right = new Map(sluice.filter((e) => e.protoNumber !== ESP).map((e) => [key(e), e]));
  for (const k of kernel) {
    if (k.protoNumber === ESP) continue; // esp-is-known
    const s = right.get(key(k));
    right.delete(key(k));
    if (s === undefined) return `connection tables: only the kernel has ${key(k)} ${say(k)}`;
    // gre-of-a-call-lives-longer
    const inTime = k.protoNumber === GRE ? k.timeout <= s.timeout + SLACK : Math.abs(k.timeout - s.timeout) <= SLACK;
    const same = k.state === s.state && String(flags(k)) === String(flags(s)) && inTime;
    if (!same) return `connection tables: ${key(k)}: kernel ${say(k)}, sluice ${say(s)}`;
  }
  for (const [name, s] of right) return `connection tables: only sluice has ${name} ${say(s)}`;
  return null;
}

/** /proc writes IPv6 addresses in full, the conntrack tool shortens them. */
function full(value: string | number | undefined): string {
  if (typeof value !== 'string' || !value.includes(':')) return String(value ?? '');
  const [head, tail] = value.split('::');
  const left = head === '' ? [] : head.split(':');
  const end = tail === undefined || tail === '' ? [] : tail.split(':');
  const zeros = tail === undefined ? 0 : 8 - left.length - end.length;
  return [...left, ...new Array<string>(zeros).fill('0'), ...end]
    .map((g) => Number.parseInt(g, 16).toString(16))
    .join(':');
}
