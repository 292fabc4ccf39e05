/**
 * The catalogue of scenarios is sound: the kernel gives the same answer twice (else it could judge nobody), every
 * frame that it sends is well formed, tshark agrees, and the scenarios do reach what they are about.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { verify } from '../lib/build.ts';
import { compare } from './differential/compare.ts';
import { KernelPlayer } from './differential/kernel.ts';
import { configOf, type Played, type Scenario } from './differential/scenario.ts';
import { randomScenario, SCENARIOS } from './differential/scenarios.ts';
import { labReady } from './need.ts';

const ports = Object.keys(configOf({}).ports);

/** Frames as a pcap file (little endian, microseconds, Ethernet). */
function pcap(frames: readonly Uint8Array[]): Uint8Array {
  const head = new DataView(new ArrayBuffer(24));
  head.setUint32(0, 0xa1b2c3d4, true);
  head.setUint16(4, 2, true);
  head.setUint16(6, 4, true);
  head.setUint32(16, 65535, true);
  head.setUint32(20, 1, true);
  const parts: Uint8Array[] = [new Uint8Array(head.buffer)];
  frames.forEach((frame, n) => {
    const record = new DataView(new ArrayBuffer(16));
    record.setUint32(4, n, true);
    record.setUint32(8, frame.length, true);
    record.setUint32(12, frame.length, true);
    parts.push(new Uint8Array(record.buffer), frame);
  });
  return Buffer.concat(parts);
}

describe.skipIf(!labReady(['nft', 'conntrack', 'ethtool']))('scenarios on the kernel', () => {
  const players: KernelPlayer[] = [];
  const all: Played[] = [];
  beforeAll(() => {
    players.push(new KernelPlayer(configOf({})), new KernelPlayer(configOf({ wanMtu: 1400 })));
  });
  afterAll(() => {
    for (const p of players) p.close();
  });

  const play = (scenario: Scenario) => {
    const config = configOf(scenario.topology);
    const player = players.find((p) => p.router.accepts(config));
    if (!player) throw new Error(`no kernel router for "${scenario.name}"`);
    player.configure(config);
    return player.play(scenario.frames);
  };
  const twice = (scenario: Scenario) => {
    const first = play(scenario);
    const second = play(scenario);
    const names = ['first', 'second'] as const;
    expect(compare(first, second, { ports, normalise: scenario.normalise, names }), scenario.name).toBeNull();
    // An error about a damaged packet quotes the damage.
    const skipQuotes = scenario.name.startsWith('a damaged packet');
    for (const p of first) expect(verify(p.frame, { zeroUdp6: true, skipQuotes }), scenario.name).toEqual([]);
    if (!skipQuotes) all.push(...first);
    return first;
  };

  /** What leaves, as `input index + port`, where a scenario is about more than forwarding. */
  const expected: Record<string, string> = {
    'UDP without a checksum stays without': '0w',
    'TCP: a segment outside of the window, a wrong ACK, then a right one': '0w 1l 2w 5l',
    'TCP: a reset out of the window is dropped, the connection lives': '0w 1l 2w 4l',
    'TCP: SYN/ACK to nobody': '',
    'two hosts, one source port, one destination': '0w 1w 2w',
    'hop limits end here for marked packets': '0l 1l 2l 3l 4l 5l 6l 7l',
    'a damaged packet at its last hop': '0l 1l',
    'ICMP errors about a translated packet, from the far host and from a third router': '0w 1l 2l 3l 4l 5l',
    'ICMPv6 errors about a connection, and about none': '0w 1l 2l 3l',
    'port forward: in, answer, and a port beside it': '0l 1w',
    'DMZ: what nobody else gets, the forward first': '0l 1l',
    'unasked from outside: dropped in both families': '',
    'a rule opens one IPv6 port': '0l 2w',
    'too big for the WAN: fragmented, or an error when it must not be': '0w 0w 1l 2l',
    'FTP active: PORT rewritten, the data connection let in': '0w 1l 2w 3w 4l 5w 6l 7l',
    'TFTP: the answer from another port': '0w 1l',
  };

  for (const scenario of SCENARIOS)
    it(scenario.name, () => {
      const out = twice(scenario);
      const want = expected[scenario.name];
      if (want !== undefined) expect(out.map((p) => `${p.after}${p.port[0]}`).join(' ')).toBe(want);
    });

  it('two hundred random conversations', () => {
    for (let seed = 1; seed <= 200; seed++) twice(randomScenario(seed));
  });

  it.skipIf(!labReady(['tshark']))('tshark finds every checksum right that verify finds right', () => {
    expect(all.length).toBeGreaterThan(500);
    const dir = mkdtempSync(join(tmpdir(), 'sluice-tshark-'));
    try {
      // One broken frame shows that tshark looks.
      const broken = all[0].frame.slice();
      broken[broken.length - 1] ^= 1;
      writeFileSync(join(dir, 'out.pcap'), pcap([...all.map((p) => p.frame), broken]));
      const options = ['ip.check_checksum', 'tcp.check_checksum', 'udp.check_checksum'].flatMap((o) => [
        '-o',
        `${o}:TRUE`,
      ]);
      // Quotes are judged by `verify`: tshark sums up the transport checksum of a quote that is cut short.
      const own = 'ip.checksum.status == 0 || icmp.checksum.status == 0 || icmpv6.checksum.status == 0';
      const transport = '(tcp.checksum.status == 0 || udp.checksum.status == 0) && !icmp && !icmpv6';
      const filter = `${own} || (${transport})`;
      const args = ['-r', join(dir, 'out.pcap'), ...options, '-Y', filter, '-T', 'fields', '-e', 'frame.number'];
      const done = spawnSync('tshark', args, { encoding: 'utf8', timeout: 60_000 });
      expect(done.stdout.trim().split('\n')).toEqual([String(all.length + 1)]);
    } finally {
      rmSync(dir, { recursive: true });
    }
  });
});
