/**
 * IPv6 attack tools as Debian has them (thc-ipv6, SI6 Networks' ipv6toolkit) against a live router, one after the other and
 * each bounded in count or ended by a condition.
 *
 *   client    at-lan ══╗
 *   attacker at-guest ═╩ [router] ══ at-wan server
 *
 * What must be dropped does not reach the server (tcpdump there, behind a fence of the attacker's own ping) and is in the
 * counter of its reason; a TCP connection of the client goes on all the while; tables stay within their bounds; the
 * control plane answers; in the end every frame is in one counter.
 */
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { type LabProcess, waitFor } from '../../controlplane/lab/namespace.ts';
import { echoes } from '../../controlplane/lab/ping.ts';
import type { NeighJson } from '../../controlplane/show/neigh.ts';
import { type LiveLab, startLive } from './live-lab.ts';
import { labReady } from './need.ts';

const CONNECTIONS = 2048;
/** Three quarters of the neighbour table's places (dataplane/neighbours.ts). */
const NEIGHBOURS = 6144;
const [ROUTER, ATTACKER, SERVER] = ['2001:db8:3::1', '2001:db8:3::66', '2001:db8:2::10'];

const CONFIG = `
ports:
  lan: { kind: tap, ifname: at-lan, zone: lan, addresses: ["2001:db8:1::1/64"] }
  guest: { kind: tap, ifname: at-guest, zone: guest, addresses: ["${ROUTER}/64"] }
  wan: { kind: tap, ifname: at-wan, zone: wan, addresses: ["2001:db8:2::1/64"] }
zones:
  lan: { forward: accept, input: accept }
  guest: { forward: accept, input: accept }
  wan: { forward: drop, input: accept }
conntrack: { max: ${CONNECTIONS} }
workers: 1
`;

const ECHO = `require('node:net').createServer((socket) => socket.pipe(socket)).listen(7, '::', () => console.log('ready'))`;
/** Says the next number every 20 ms and prints those that come back, which must be all, in order. */
const TALKER = `
const socket = require('node:net').connect(7, '${SERVER}', () => setInterval(() => socket.write(sent++ + '\\n'), 20));
let sent = 0, heard = 0, rest = '';
socket.on('data', (data) => {
  const lines = (rest + data).split('\\n');
  rest = lines.pop();
  for (const line of lines) if (line !== String(heard++)) { console.log('lost ' + line); process.exit(1); }
  console.log(heard);
});
socket.on('error', (error) => { console.log('lost ' + error.message); process.exit(1); });
socket.on('close', () => { console.log('lost'); process.exit(1); });`;

/** Cases of implementation6 by number; the tool prints the name. */
const CHAINS: Readonly<Record<number, string>> = {
  3: '2 hop-by-hop headers',
  4: '128 hop-by-hop headers',
  8: '128 destination headers',
};
const ROUTING: Readonly<Record<number, string>> = { 18: 'source-routing (done)', 19: 'source-routing (todo)' };

const tools = ['frag6', 'ns6', 'scan6', 'atk6-exploit6', 'atk6-fake_router26', 'atk6-fragmentation6'];
const ready = labReady([...tools, 'atk6-implementation6', 'atk6-thcsyn6', 'ping', 'tcpdump'], { tun: true });

describe.skipIf(!ready)('IPv6 attack tools', () => {
  let live: LiveLab;
  let talker: LabProcess;
  let wire: LabProcess;
  /** Lines of the wire that earlier tests have looked at, and fences so far. */
  let looked = 0;
  let fences = 0;

  beforeAll(async () => {
    live = await startLive(
      CONFIG,
      [
        { label: 'client', device: 'at-lan', addresses: ['2001:db8:1::10/64'], via: ['2001:db8:1::1'] },
        { label: 'attacker', device: 'at-guest', addresses: [`${ATTACKER}/64`], via: [ROUTER] },
        { label: 'server', device: 'at-wan', addresses: [`${SERVER}/64`], via: ['2001:db8:2::1'] },
      ],
      { child: true },
    );
    const echo = live.lab.spawn(live.ns('server'), process.execPath, ['-e', ECHO]);
    await waitFor('the echo server', () => echo.stdout().includes('ready'));
    talker = live.lab.spawn(live.ns('client'), process.execPath, ['-e', TALKER]);
    const seen = ['-n', '-l', '--immediate-mode', '-i', 'at-wan', `ip6 src ${ATTACKER}`];
    wire = live.lab.spawn(live.ns('server'), 'tcpdump', seen);
    await waitFor('tcpdump', () => wire.stderr().includes('listening on'));
    await goesOn();
  });
  afterAll(() => live?.close());

  const attack = (command: string, ...args: string[]): LabProcess => live.lab.spawn(live.ns('attacker'), command, args);

  /** Waits for programs that end by themselves. */
  const ended = (...all: LabProcess[]): Promise<unknown> =>
    waitFor('the tool to end', () => all.every((one) => !one.running()), {
      timeout: 60_000,
      detail: () => all.map((one) => `${one.command}: ${one.stdout()}${one.stderr()}`).join('\n'),
    });

  /** How often packets were dropped for one of these reasons. */
  async function drops(...reasons: string[]): Promise<number> {
    const all = (await live.show('drops')) as { reason: string; count: number }[];
    return all.reduce((sum, { reason, count }) => sum + (reasons.includes(reason) ? count : 0), 0);
  }

  /** Waits until so many more were dropped since `before`. */
  const dropped = (before: number, more: number, ...reasons: string[]): Promise<unknown> =>
    waitFor(`${more} more of ${reasons.join(' and ')}`, async () => (await drops(...reasons)) >= before + more, {
      timeout: 30_000,
      every: 50,
      detail: () => `too few; ${live.router.stderr()}`,
    });

  /** The client's connection carries five numbers more. */
  async function goesOn(): Promise<void> {
    const heard = () => Number(talker.stdout().trimEnd().split('\n').at(-1));
    const before = heard() || 0;
    await waitFor('the connection to go on', () => heard() >= before + 5 || !talker.running(), { timeout: 30_000 });
    expect(talker.running(), talker.stdout().slice(-200)).toBe(true);
  }

  /** What of the attacker's has arrived at the server since the last time. */
  async function reached(): Promise<string[]> {
    const size = 100 + ++fences;
    const args = ['-n', '-c', '3', '-i', '0.1', '-W', '5', '-s', String(size), SERVER];
    await live.lab.run(live.ns('attacker'), 'ping', args, { check: false });
    const since = () => wire.stdout().split('\n').slice(looked, -1);
    const lengthOf = (line: string) => Number(/length (\d+)$/.exec(line)?.[1]);
    const arrived = () => since().some((line) => lengthOf(line) === size + 8);
    await waitFor('the fence', arrived, { detail: () => since().join('\n') });
    const lines = since();
    looked += lines.length;
    // Of an earlier fence something may come late.
    return lines.filter((line) => !(lengthOf(line) > 108 && lengthOf(line) <= size + 8));
  }

  afterEach(async () => {
    await goesOn();
    expect(((await live.show('conntrack')) as unknown[]).length).toBeLessThanOrEqual(CONNECTIONS);
    expect(((await live.show('neigh')) as NeighJson[]).length).toBeLessThanOrEqual(NEIGHBOURS);
  });

  it('a ping in fragments arrives, so that silence means something', async () => {
    await live.lab.run(live.ns('attacker'), 'ping', ['-n', '-c1', '-W10', '-s', '3000', SERVER]);
    expect((await reached()).join('\n')).toMatch(/frag/);
  });

  it('fragmentation6: fragments with other data for the same place, and such as overlap, arrive nowhere', async () => {
    const before = await drops('FRAG_OVERLAP');
    const cases = ['1', '2', '3', '4', '6', '7', '8'];
    await ended(...cases.map((one) => attack('atk6-fragmentation6', '-p', 'at-guest', SERVER, one)));
    // Three fragments each at least: the first, the second, and the one that overlaps.
    expect((await drops('FRAG_OVERLAP')) - before).toBeGreaterThanOrEqual(3 * cases.length);
    expect(await reached()).toEqual([]);
  });

  it('frag6: nobody tells it which copy of overlapping data is used', async () => {
    const before = await drops('FRAG_OVERLAP');
    const tool = attack('frag6', '-i', 'at-guest', '-d', SERVER, '--frag-reass-policy', '-v');
    await dropped(before, 5, 'FRAG_OVERLAP');
    await tool.stop();
    expect(await reached()).toEqual([]);
  });

  it('exploit6: packets longer than IPv6 can be end at the router, which is alive behind them', async () => {
    const before = await drops('FRAG_TOO_FAR');
    const tool = attack('atk6-exploit6', 'at-guest', SERVER, '1');
    await ended(tool);
    expect(tool.stdout()).toMatch(/still alive\?\)\s+PASSED/);
    expect(await drops('FRAG_TOO_FAR')).toBeGreaterThan(before);
    await reached();
  });

  it('implementation6: routing header 0 and chains longer than anybody needs', async () => {
    const chains = await drops('IPV6_CHAIN');
    const routing = await drops('IPV6_RH0');
    const named = Object.entries({ ...CHAINS, ...ROUTING });
    const all = named.map(([number]) => attack('atk6-implementation6', '-p', 'at-guest', SERVER, number));
    await dropped(chains, Object.keys(CHAINS).length, 'IPV6_CHAIN');
    await dropped(routing, Object.keys(ROUTING).length, 'IPV6_RH0');
    for (const [n, [, name]] of named.entries()) expect(all[n].stdout()).toContain(name);
    await Promise.all(all.map((one) => one.stop()));
    expect(await reached()).toEqual([]);
  });

  it('frag6: thousands of first fragments without an end; another’s datagrams in fragments still pass', async () => {
    const before = await drops('FRAG_MEMORY');
    const flood = () => attack('frag6', '-i', 'at-guest', '-d', SERVER, '-O', 'first', '-F', '6000', '-n');
    await ended(flood());
    await dropped(before, 1, 'FRAG_MEMORY');
    const again = flood();
    const { answers, said } = await echoes(live.lab, live.ns('client'), SERVER, 3, { size: 3000 });
    expect(answers, said).toBe(3);
    await ended(again);
    expect(await reached()).toEqual([]);
  });

  it('scan6: a scan of the server’s subnet is asked for at a bounded rate', async () => {
    const before = await drops('NEIGH_RATE');
    const tool = attack('scan6', '-i', 'at-guest', '-d', '2001:db8:2::/64', '--tgt-low-byte', '-r', '20000pps');
    await dropped(before, 500, 'NEIGH_RATE');
    await goesOn();
    await tool.stop();
    await reached();
  });

  it('ns6: solicitations from invented neighbours push nobody out who is in use', async () => {
    const known = async () => ((await live.show('neigh')) as NeighJson[]).filter(({ dev }) => dev === 'guest').length;
    const before = await known();
    const tool = attack('ns6', '-i', 'at-guest', '-t', ROUTER, '-s', '2001:db8:3::/64', '-F', '8000', '-e');
    await waitFor('the router to hear of them', async () => (await known()) > before + 500, { timeout: 30_000 });
    await goesOn();
    await tool.stop();
    const inUse = ((await live.show('neigh')) as NeighJson[]).map(({ dst }) => dst);
    for (const dst of ['2001:db8:1::10', SERVER]) expect(inUse).toContain(dst);
    await reached();
  });

  it('thcsyn6: a flood of SYNs fills the table, and those that are there stay', async () => {
    // A port that answers: one that refuses ends the connection in the table, too.
    const tool = attack('atk6-thcsyn6', '-i', '50', '-r', 'at-guest', SERVER, '7');
    const full = async () => ((await live.show('conntrack')) as unknown[]).length >= CONNECTIONS * 0.9;
    const detail = () => tool.stdout() + tool.stderr();
    await waitFor('the table to be full', full, { timeout: 30_000, every: 100, detail });
    await goesOn();
    await tool.stop();
    await reached();
  });

  it('fake_router26: advertisements, plain and in fragments of every kind, change no route', async () => {
    const routes = await live.show('route');
    const before = await drops('FRAG_ND', 'FRAG_TINY', 'FRAG_OVERLAP');
    const prefix = ['-A', '2001:db8:bad::/64', '-R', '2001:db8:7::/48', '-l', '1800', '-n', '1'];
    const evasions = [[], ['-E', 'H'], ['-E', 'D'], ['-E', 'O'], ['-E', 'o']];
    await ended(...evasions.map((evasion) => attack('atk6-fake_router26', ...prefix, ...evasion, 'at-guest')));
    await dropped(before, 3, 'FRAG_ND', 'FRAG_TINY', 'FRAG_OVERLAP');
    await reached();
    expect(await live.show('route')).toEqual(routes);
  });

  it('every frame is in one counter, and nothing was lost without a name', async () => {
    const answers = () => [...live.router.stdout().matchAll(/^flushed (.*)$/gm)];
    await waitFor('the counters to add up', async () => {
      const before = answers().length;
      process.kill(live.router.pid, 'SIGPWR');
      await waitFor('the router to count', () => answers().length > before);
      const { missing } = JSON.parse(answers()[before][1]) as { missing: number[] };
      return missing.every((n) => n === 0);
    });
    expect(live.router.running(), live.router.stderr()).toBe(true);
    expect(live.router.stderr()).not.toMatch(/starts again/);
  });
});
