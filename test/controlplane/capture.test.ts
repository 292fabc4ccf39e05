/**
 * Captures and traces over an inline router: what they hold, that they change nothing, and that they end.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { Watchers } from '../../controlplane/capture/watchers.ts';
import { WatchedPath } from '../../dataplane/observe.ts';
import { CaptureReader } from '../../dataplane/ports/capture-reader.ts';
import { createWatchBlock } from '../../dataplane/watch-block.ts';
import { ACK, ethernet, ipv4, Random, RST, SYN, tcp, toHex, udp } from '../lib/build.ts';
import { GATE_MAC, HOST, HOST_MAC, Home, LAN_MAC, ROUTER_WAN, SERVER, WAN_MAC } from '../lib/home.ts';

interface Frame {
  port: string;
  direction: 'in' | 'out' | '';
  id: number;
  comment: string;
  bytes: string;
}

/** The frames of a pcapng capture. */
function frames(pcapng: Uint8Array): Frame[] {
  const reader = CaptureReader.fromBytes('capture', pcapng);
  const found: Frame[] = [];
  while (reader.next()) {
    const bytes = reader.data.subarray(reader.offset, reader.offset + reader.capturedLength);
    found.push({
      port: reader.interfaces[reader.interfaceId].name,
      direction: (['', 'in', 'out'] as const)[reader.flags & 3] ?? '',
      id: reader.packetIdLow,
      comment: reader.comment,
      bytes: toHex(bytes),
    });
  }
  expect(reader.error).toBeNull();
  return found;
}

const lan = (packet: Uint8Array): Uint8Array => ethernet({ src: HOST_MAC, dst: LAN_MAC }, packet);
const wan = (packet: Uint8Array): Uint8Array => ethernet({ src: GATE_MAC, dst: WAN_MAC }, packet);
const out = (flags: number, seq: number, ack = 0, payload = '', sport = 4000): Uint8Array =>
  lan(ipv4({ src: HOST, dst: SERVER }, tcp({ sport, dport: 443, flags, seq, ack }, payload)));
const back = (flags: number, seq: number, ack: number, payload = '', dport = 4000): Uint8Array =>
  wan(ipv4({ src: SERVER, dst: ROUTER_WAN }, tcp({ sport: 443, dport, flags, seq, ack }, payload)));

describe('capture', () => {
  it('pairs what came with what left, in order, byte for byte, with the translation and the verdict', () => {
    const home = new Home({ offload: { mode: 'on', 'program-after': 2 } });
    const capture = home.router.capture();
    const sent: string[] = [];
    const play = (port: string, frame: Uint8Array): void => {
      home.router.inject(port, frame);
      for (const name of ['lan', 'wan']) for (const left of home.router.take(name)) sent.push(`${name} ${toHex(left)}`);
    };
    play('lan', out(SYN, 100));
    play('wan', back(SYN | ACK, 900, 101));
    for (let n = 0; n < 4; n++) play('lan', out(ACK, 101, 901));
    play('wan', back(SYN | RST, 5, 0));
    play('lan', lan(ipv4({ src: HOST, dst: SERVER, ttl: 1 }, udp({ sport: 1, dport: 2 }, 'old'))));
    const got = frames(capture.read());
    expect(got.filter(({ direction }) => direction === 'out').map(({ port, bytes }) => `${port} ${bytes}`)).toEqual(
      sent,
    );
    expect(got.map(({ port, direction, id, comment }) => [port, direction, id, comment])).toEqual([
      ['lan', 'in', 1, 'forwarded'],
      ['wan', 'out', 1, 'snat 192.168.1.10:4000 -> 203.0.113.1:4000'],
      ['wan', 'in', 2, 'forwarded'],
      ['lan', 'out', 2, 'dnat 203.0.113.1:4000 -> 192.168.1.10:4000'],
      ['lan', 'in', 3, 'forwarded'],
      ['wan', 'out', 3, 'snat 192.168.1.10:4000 -> 203.0.113.1:4000'],
      ...[4, 5, 6].flatMap((id) => [
        ['lan', 'in', id, 'forwarded by the engine'],
        ['wan', 'out', id, 'snat 192.168.1.10:4000 -> 203.0.113.1:4000'],
      ]),
      ['wan', 'in', 7, 'drop CT_INVALID at conntrack-in: invalid TCP flag combination'],
      ['lan', 'in', 8, 'drop IP_TTL at ttl: TTL or hop limit ran out.'],
      ['lan', 'out', 9, 'generated in answer to packet 8'],
    ]);
    expect(got[0].bytes).toBe(toHex(out(SYN, 100)));
    expect(capture.lost).toBe(0);
  });

  it('changes nothing that is forwarded (row O14), and the path is the router’s own again afterwards', () => {
    const random = new Random(7);
    const plain = new Home({ offload: { mode: 'on', 'program-after': 2 } });
    const watched = new Home({ offload: { mode: 'on', 'program-after': 2 } });
    const capture = watched.router.capture();
    watched.router.capture({ stage: 'conntrack-in' });
    expect(watched.router.path).toBeInstanceOf(WatchedPath);
    for (let n = 0; n < 3000; n++) {
      const sport = 4000 + random.int(0, 7);
      const frame =
        random.int(0, 1) === 0
          ? out(
              [SYN, ACK, ACK, RST][random.int(0, 3)],
              random.int(0, 199),
              random.int(0, 999),
              'x'.repeat(random.int(0, 39)),
              sport,
            )
          : back([SYN | ACK, ACK, ACK, RST][random.int(0, 3)], random.int(0, 999), random.int(0, 299), '', sport);
      if (random.int(0, 9) === 0) frame[random.int(0, frame.length - 1)] ^= 1 << random.int(0, 7);
      if (random.int(0, 49) === 0) for (const { router } of [plain, watched]) router.advance(1000);
      const port = frame[5] === 1 ? 'lan' : 'wan';
      for (const { router } of [plain, watched]) router.inject(port, frame);
      for (const name of ['lan', 'wan'])
        expect(watched.router.take(name).map(toHex)).toEqual(plain.router.take(name).map(toHex));
    }
    expect(watched.router.counters).toEqual(plain.router.counters);
    expect(watched.router.conntrack.lines()).toEqual(plain.router.conntrack.lines());
    expect(capture.frames).toBeGreaterThan(3000);
    capture.close();
    const other = new Home();
    const brief = other.router.capture();
    const before = other.router.path;
    brief.close();
    expect(before).toBeInstanceOf(WatchedPath);
    expect(other.router.path).not.toBeInstanceOf(WatchedPath);
    other.lan(ipv4({ src: HOST, dst: SERVER }, udp({ sport: 1, dport: 2 }, 'x')));
    expect(other.left('wan')).toHaveLength(1);
  });

  it('filters by port, drops, flow in either direction and on either side, and stage', () => {
    const count = (filter: Parameters<Home['router']['capture']>[0]): string[] => {
      const home = new Home();
      const capture = home.router.capture(filter);
      home.router.inject('lan', out(SYN, 100));
      home.router.inject('wan', back(SYN | ACK, 900, 101));
      home.router.inject('wan', back(SYN | RST, 5, 0));
      home.router.inject('lan', out(SYN, 100, 0, '', 4001));
      return frames(capture.read()).map(({ port, direction }) => `${port} ${direction}`);
    };
    expect(count({ ports: ['lan'] })).toEqual(['lan in', 'lan out', 'lan in']);
    expect(count({ drops: true })).toEqual(['wan in']);
    const flow = ['lan in', 'wan out', 'wan in', 'lan out', 'wan in'];
    expect(count({ flow: 'tcp 192.168.1.10:4000 > 198.51.100.7:443' })).toEqual(flow);
    expect(count({ flow: 'tcp 198.51.100.7:443 > 203.0.113.1:4000' })).toEqual(flow);
    expect(count({ flow: 'udp any > any' })).toEqual([]);
    expect(count({ stage: 'conntrack-confirm' })).toEqual(['lan in', 'wan out', 'lan in', 'wan out']);
    expect(() => new Home().router.capture({ ports: ['dmz'] })).toThrow('port: expected one of lan, wan, got "dmz"');
    expect(() => new Home().router.capture({ stage: 'tll' })).toThrow(/^stage: expected one of rx,/);
  });

  it('cuts frames, and says how many a full ring has lost', () => {
    const home = new Home();
    const capture = home.router.capture({ snap: 60 });
    // A burst of 256 large frames at a time fits; ten thousand in one turn do not.
    const frame = lan(ipv4({ src: HOST, dst: SERVER }, udp({ sport: 1, dport: 2 }, 'x'.repeat(1400))));
    const big = home.router.capture();
    for (let n = 0; n < 4000; n++) home.router.port('lan').push(frame);
    home.router.inject('lan', frame);
    const small = frames(capture.read());
    expect(small[0].bytes).toHaveLength(120);
    home.router.inject('lan', frame);
    const lost = big.lost;
    expect(lost).toBeGreaterThan(0);
    const comments = frames(big.read()).map(({ comment }) => comment);
    expect(comments.join()).toContain(`(${lost} frames were lost about here: the capture could not keep up)`);
    expect(home.router.counters.forwarded).toBe(4002);
  });
});

describe('trace', () => {
  it('counts distinct ways through the stages and says what happened at the end', () => {
    const home = new Home({ offload: { mode: 'on', 'program-after': 2 } });
    home.router.trace('rx', 8);
    home.router.inject('lan', out(SYN, 100));
    home.router.inject('wan', back(SYN | ACK, 900, 101));
    for (let n = 0; n < 4; n++) home.router.inject('lan', out(ACK, 101, 901));
    home.router.inject('lan', lan(ipv4({ src: HOST, dst: SERVER, ttl: 1 }, udp({ sport: 1, dport: 2 }, 'old'))));
    home.router.inject('wan', wan(ipv4({ src: SERVER, dst: ROUTER_WAN }, tcp({ sport: 1, dport: 22, flags: SYN }))));
    home.router.inject('wan', wan(ipv4({ src: SERVER, dst: ROUTER_WAN }, tcp({ sport: 2, dport: 22, flags: SYN }))));
    const { packets, paths, traces } = home.router.watch.traces.json();
    expect(packets).toBe(8);
    expect(home.router.path).not.toBeInstanceOf(WatchedPath);
    expect(paths.map(({ packets: n, verdict, path }) => [n, verdict, path.join(' ')])).toEqual(
      [
        [3, 'forwarded', 'rx offload-lookup tx'],
        [
          1,
          'forwarded',
          'rx offload-lookup link-input ip-parse conntrack-in nat-prerouting route ttl mtu forward-filter nat-postrouting conntrack-confirm neighbour tx',
        ],
        [
          1,
          'forwarded',
          'rx offload-lookup link-input ip-parse conntrack-in nat-prerouting route ttl mtu nat-postrouting neighbour offload-program tx',
        ],
        [
          1,
          'forwarded',
          'rx offload-lookup link-input ip-parse conntrack-in nat-prerouting route ttl mtu nat-postrouting neighbour offload-program tx',
        ],
        [1, 'drop IP_TTL', 'rx offload-lookup link-input ip-parse conntrack-in nat-prerouting route ttl'],
        [1, 'drop INPUT_DROP', 'rx offload-lookup link-input ip-parse conntrack-in nat-prerouting route input'],
      ]
        .reduce<(string | number)[][]>((all, one) => {
          const same = all.find((other) => other[1] === one[1] && other[2] === one[2]);
          if (same === undefined) all.push([...one]);
          else same[0] = Number(same[0]) + 1;
          return all;
        }, [])
        .sort((a, b) => Number(b[0]) - Number(a[0])),
    );
    expect(traces[0]).toMatchObject({
      port: 'lan',
      flow: 'tcp 192.168.1.10:4000 > 198.51.100.7:443',
      notes: [
        'conntrack NEW, orig of connection 0',
        'snat 192.168.1.10:4000 -> 203.0.113.1:4000',
        'out by wan, next hop 203.0.113.254',
      ],
    });
    expect(home.router.watch.traces.text()).toContain('drop INPUT_DROP at input');
  });

  it('begins at a stage, and takes the router’s own packets where they begin', () => {
    const home = new Home();
    home.router.trace('output', 5);
    home.router.inject('lan', out(SYN, 100));
    home.router.inject('lan', lan(ipv4({ src: HOST, dst: SERVER, ttl: 1 }, udp({ sport: 1, dport: 2 }, 'old'))));
    const { packets, traces } = home.router.watch.traces.json();
    expect(packets).toBe(1);
    expect(traces[0].stages).toEqual(['output', 'route', 'neighbour', 'tx']);
    expect(traces[0].notes[0]).toBe('made by the router in answer to packet 2');
    home.router.watch.clearTrace();
    expect(home.router.watch.traces.text()).toMatch(/^no packet was traced/);
    expect(() => home.router.trace('nowhere', 1)).toThrow(/^stage: expected one of/);
  });

  it('times the stages while it is asked to', () => {
    const home = new Home();
    home.router.watch.timeStages(true);
    for (let n = 0; n < 64; n++) home.router.inject('lan', out(SYN, 100, 0, '', 5000 + n));
    home.router.watch.timeStages(false);
    home.router.inject('lan', out(SYN, 100));
    const times = home.router.watch.stageTimes();
    expect(times.filter(({ packets }) => packets > 0).map(({ packets, timed }) => [packets, timed])).toEqual(
      times.filter(({ packets }) => packets > 0).map(() => [64, 4]),
    );
  });
});

describe('tshark', () => {
  it('reads it', async () => {
    const { spawnSync } = await import('node:child_process');
    if (spawnSync('tshark', ['-v']).status !== 0) {
      console.warn('SKIPPED: tshark is not installed');
      return;
    }
    const folder = mkdtempSync(join(tmpdir(), 'sluice-capture-'));
    try {
      const home = new Home();
      const capture = home.router.capture();
      home.router.inject('lan', out(SYN, 100));
      home.router.inject('wan', back(SYN | RST, 5, 0));
      writeFileSync(join(folder, 'a.pcapng'), capture.read());
      const fields = [
        'frame.interface_name',
        'frame.packet_flags_direction',
        'frame.packet_id',
        'frame.comment',
        'tcp.srcport',
      ];
      const done = spawnSync(
        'tshark',
        ['-r', join(folder, 'a.pcapng'), '-T', 'fields', ...fields.flatMap((field) => ['-e', field])],
        { encoding: 'utf8' },
      );
      expect(
        done.stdout
          .trim()
          .split('\n')
          .map((line) => line.split('\t')),
      ).toEqual([
        ['lan', '0x00000001', '1', 'forwarded', '4000'],
        ['wan', '0x00000002', '1', 'snat 192.168.1.10:4000 -> 203.0.113.1:4000', '4000'],
        ['wan', '0x00000001', '2', 'drop CT_INVALID at conntrack-in: invalid TCP flag combination', '443'],
      ]);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });
});

describe('what an engine outside of the workers must leave to them', () => {
  it('the frames of captured ports, and all of them for a trace at a stage that hits have to do with', () => {
    const home = new Home({ offload: { mode: 'on' } });
    const { config } = home.router;
    const watchers = new Watchers(
      () => config,
      createWatchBlock(),
      [],
      () => {},
    );
    const wanted = () => [...watchers.wanted];
    expect(wanted()).toEqual([0, 0]);
    const wan = watchers.capture({ ports: ['wan'] });
    expect(wanted()).toEqual([2, 0]);
    const all = watchers.capture({ stage: 'tx' });
    expect(wanted()).toEqual([-1, -1]);
    all.close();
    wan.close();
    expect(wanted()).toEqual([0, 0]);
    // Drops, and stages that no hit gets to: nothing that an engine forwards would be shown.
    const drops = watchers.capture({ drops: true });
    const stage = watchers.capture({ stage: 'conntrack-in' });
    watchers.trace('neighbour', 10);
    watchers.timeStages(true);
    expect(wanted()).toEqual([0, 0]);
    watchers.trace('rx', 10);
    expect(wanted()).toEqual([-1, -1]);
    watchers.clearTrace();
    expect(wanted()).toEqual([0, 0]);
    drops.close();
    stage.close();
  });
});
