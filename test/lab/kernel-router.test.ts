/** The kernel as reference router: it forwards, translates and answers, and what it sends is captured completely. */
import { spawnSync } from 'node:child_process';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { concat, ethernet, fragment4, fragment6, icmp, udp, verify } from '../lib/build.ts';
import { summary } from './differential/dissect.ts';
import { fromLan, fromWan, goodbye, handshake, ipOf, packet, tcpFrame, udpExchange } from './differential/frames.ts';
import { KernelPlayer } from './differential/kernel.ts';
import { configOf, far, HOSTS, LAN_MAC, type Played, type ScenarioFrame, WAN4 } from './differential/scenario.ts';
import { parseConntrack } from './kernel/conntrack.ts';
import { RawSocket } from './kernel/raw-socket.ts';
import { ruleset } from './kernel/ruleset.ts';
import { labReady } from './need.ts';

const text = (out: readonly Played[]) => out.map((p) => `${p.after} ${p.port}: ${summary(p.frame)}`);

describe.skipIf(!labReady(['nft', 'conntrack', 'ethtool']))('kernel router', () => {
  let player: KernelPlayer;
  beforeAll(() => {
    player = new KernelPlayer(configOf({}));
  });
  afterAll(() => {
    player.close();
    const left = spawnSync('ip', ['netns', 'list'], { encoding: 'utf8' }).stdout;
    expect(left).not.toContain(`sluice-${process.pid}-`);
  });
  const play = (frames: readonly ScenarioFrame[], options: Parameters<typeof configOf>[0] = {}) => {
    player.configure(configOf(options));
    const out = player.play(frames);
    for (const p of out) expect(verify(p.frame), summary(p.frame)).toEqual([]);
    return out;
  };

  it('says nothing unasked', () => {
    expect(play([])).toEqual([]);
  });

  it('masquerades a UDP exchange and keeps the port', () => {
    expect(text(play(udpExchange({ sport: 5353, dport: 53 })))).toEqual([
      '0 wan: 203.0.113.1:5353 > 198.51.100.1:53 udp',
      '1 lan: 198.51.100.1:53 > 192.168.1.10:5353 udp',
    ]);
    const [entry] = player.router.conntrack();
    expect(entry).toMatchObject({
      family: 'ipv4',
      proto: 'udp',
      protoNumber: 17,
      original: { src: '192.168.1.10', dst: '198.51.100.1', sport: 5353, dport: 53 },
      reply: { src: '198.51.100.1', dst: '203.0.113.1', sport: 53, dport: 5353 },
    });
    player.router.flush();
    expect(player.router.conntrack()).toEqual([]);
  });

  it('routes IPv6 untranslated and lets the answer in, but nothing else', () => {
    const frames = [
      ...udpExchange({ family: 6 }),
      fromWan(packet(far(2).v6, HOSTS[0].v6, udp({ sport: 1, dport: 2 }))),
    ];
    expect(text(play(frames))).toEqual([
      '0 wan: 2001:db8:1::10:40000 > 2001:db8:f::1:80 udp',
      '1 lan: 2001:db8:f::1:80 > 2001:db8:1::10:40000 udp',
    ]);
  });

  for (const family of [4, 6] as const)
    it(`carries a TCP connection from handshake to FIN over IPv${family}`, () => {
      const flow = { family, sport: 41000 };
      const frames = [
        ...handshake(flow),
        tcpFrame(flow, { way: 'out', flags: 'PA', seq: 1001, ack: 5001, win: 502, data: 'GET /' }),
        tcpFrame(flow, { way: 'back', flags: 'PA', seq: 5001, ack: 1006, win: 509, data: 'ok' }),
        ...goodbye(flow, 1006, 5003),
      ];
      const out = play(frames);
      expect(out.map((p) => p.port)).toEqual(['wan', 'lan', 'wan', 'wan', 'lan', 'wan', 'lan', 'wan']);
      expect(out.map((p) => p.after)).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
      expect(player.router.conntrack()).toMatchObject([{ proto: 'tcp', state: 'TIME_WAIT', flags: ['ASSURED'] }]);
    });

  it('drops a segment far outside of the window, and a SYN/ACK to nobody', () => {
    const flow = { sport: 41001 };
    const out = play([
      ...handshake(flow),
      tcpFrame(flow, { way: 'back', flags: 'A', seq: 0x70000000, ack: 1001, win: 509, data: 'late' }),
      tcpFrame({ sport: 41002 }, { way: 'back', flags: 'SA', seq: 1, ack: 2 }),
    ]);
    expect(out.map((p) => p.after)).toEqual([0, 1, 2]);
  });

  it('translates an ICMP error and the packet that it quotes', () => {
    const [question] = udpExchange({ sport: 7000 });
    const out = play([
      question,
      {
        port: 'wan',
        frame: (past) =>
          fromWan(packet(far(9).v4, WAN4, icmp({ type: 3, code: 1 }, ipOf(past[0].frame)))).frame as Uint8Array,
      },
    ]);
    expect(text(out)).toEqual([
      '0 wan: 203.0.113.1:7000 > 198.51.100.1:80 udp',
      '1 lan: 198.51.100.9 > 192.168.1.10 icmp 3/1',
    ]);
    expect(ipOf(out[1].frame).subarray(28 + 12, 28 + 16)).toEqual(Uint8Array.of(192, 168, 1, 10));
  });

  it('answers expired hop limits itself, in both families', () => {
    const dead = (src: string, dst: string) => packet(src, dst, udp({ sport: 1, dport: 33434 }, 'x'), { ttl: 1 });
    const out = play([
      fromLan(HOSTS[0], dead(HOSTS[0].v4, far(1).v4)),
      fromLan(HOSTS[0], dead(HOSTS[0].v6, far(1).v6)),
    ]);
    expect(text(out)).toEqual([
      '0 lan: 192.168.1.1 > 192.168.1.10 icmp 11/0',
      '1 lan: 2001:db8:1::1 > 2001:db8:1::10 icmp6 3/0',
    ]);
  });

  it('port forwards, DMZ and rules open exactly what they name', () => {
    const probe = (dport: number) => fromWan(packet(far(3).v4, WAN4, udp({ sport: 999, dport }, 'in')));
    const six = (dport: number) => fromWan(packet(far(3).v6, HOSTS[0].v6, udp({ sport: 999, dport }, 'in')));
    const frames = [probe(8080), probe(8081), six(443), six(444)];
    const forwards = [{ proto: 'udp', port: 8080, to: '192.168.1.10:80' }];
    const rules = [
      {
        from: 'wan',
        to: 'lan',
        family: 'ipv6' as const,
        proto: 'udp',
        dst: HOSTS[0].v6,
        port: 443,
        state: 'new',
        verdict: 'accept' as const,
      },
    ];
    expect(text(play(frames))).toEqual([]);
    expect(text(play(frames, { forwards, rules }))).toEqual([
      '0 lan: 198.51.100.3:999 > 192.168.1.10:80 udp',
      '2 lan: 2001:db8:f::3:999 > 2001:db8:1::10:443 udp',
    ]);
    expect(text(play(frames, { forwards, dmz: '192.168.1.20' }))).toEqual([
      '0 lan: 198.51.100.3:999 > 192.168.1.10:80 udp',
      '1 lan: 198.51.100.3:999 > 192.168.1.20:8081 udp',
    ]);
  });

  it('the FTP helper rewrites PORT and expects the data connection', () => {
    const flow = { sport: 42000, dport: 21 };
    const command = (seq: number, data: string) =>
      tcpFrame(flow, { way: 'out', flags: 'PA', seq, ack: 5001, win: 502, data });
    // The kernel reads a command only after a line that it has seen end: PORT is never the first one.
    const frames = [...handshake(flow), command(1001, 'USER a\r\n'), command(1009, 'PORT 192,168,1,10,4,1\r\n')];
    const out = play(frames, { alg: { ftp: {} } });
    expect(new TextDecoder().decode(out[4].frame.subarray(54))).toBe('PORT 203,0,113,1,4,1\r\n');
    expect(player.router.expectations()).toContain('dport=1025');
    player.router.flush();
    expect(player.router.expectations().trim()).toBe('');
  });

  it('puts fragments together, tracks them, and sends fragments again', () => {
    const whole = packet(HOSTS[0].v4, far(1).v4, udp({ sport: 1, dport: 2 }, new Uint8Array(3000).fill(7)), {
      id: 4711,
    });
    const six = packet(HOSTS[0].v6, far(1).v6, udp({ sport: 1, dport: 2 }, new Uint8Array(3000).fill(7)));
    const frames = [...fragment4(whole, 1500).reverse(), ...fragment6(six, 1400, 42)].map((p) => fromLan(HOSTS[0], p));
    const out = play(frames);
    expect(out.map((p) => p.after)).toEqual([2, 2, 2, 5, 5, 5]);
    expect(out.map((p) => p.frame.length)).toEqual([1514, 1514, 82, 1414, 1414, 366]);
  });

  it('a VLAN tag that the kernel keeps beside the frame is put back', () => {
    const inside = new RawSocket(player.router.lab, player.router.ns, 'lan');
    try {
      const packet4 = packet('192.168.5.1', '192.168.5.2', icmp({ type: 8, id: 1, seq: 1 }, 'abc'));
      for (const vlan of [[5], [7, 0x6005]]) {
        const frame = ethernet({ src: LAN_MAC, dst: HOSTS[0].mac, vlan }, packet4);
        const fromRouter = () => {
          inside.send(frame);
          return ethernet({ src: HOSTS[0].mac, dst: HOSTS[1].mac, type: 0x88b5 }, 'any');
        };
        expect(player.play([{ port: 'lan', frame: fromRouter }])).toEqual([{ port: 'lan', frame, after: 0 }]);
      }
    } finally {
      inside.close();
    }
  });

  it('a thousand scenarios share the namespaces, each with an empty connection table', () => {
    for (let n = 0; n < 1000; n++) {
      const out = play(udpExchange({ sport: 50000, dport: 53, far: 1 + (n % 200) }));
      expect(out.map((p) => [p.after, p.port])).toEqual([
        [0, 'wan'],
        [1, 'lan'],
      ]);
    }
  });

  it('names what it cannot send', () => {
    const long = ethernet({ src: HOSTS[0].mac, dst: LAN_MAC, type: 0x0800 }, new Uint8Array(1600));
    expect(() => player.play([{ port: 'lan', frame: long }])).toThrow(/scenario frame 0 into lan.*EMSGSIZE/);
    expect(() => player.play([{ port: 'dsl', frame: long }])).toThrow('expected a port of lan,wan, got "dsl"');
    const padded = concat(udpExchange({})[0].frame as Uint8Array, new Uint8Array(6));
    expect(play([{ port: 'lan', frame: padded }])).toHaveLength(1); // bytes after the datagram are padding
  });
});

describe('kernel ruleset', () => {
  it('refuses what the kernel cannot mirror', () => {
    expect(() => ruleset({ ...configOf({}), nat: { profile: 'full-cone' } })).toThrow('profile linux');
    expect(() => ruleset(configOf({ alg: { rtsp: {} } }))).toThrow('a helper of the kernel');
    expect(() => ruleset(configOf({ rules: [{ from: 'moon', verdict: 'drop' }] }))).toThrow('"moon"');
  });
});

describe('parseConntrack', () => {
  it('reads the tool’s extended text, counters, flags and helpers included', () => {
    const [tcp, icmp6, gre] = parseConntrack(
      [
        'ipv4     2 tcp      6 431999 ESTABLISHED src=192.168.1.10 dst=198.51.100.1 sport=40000 dport=21 packets=3 bytes=180 src=198.51.100.1 dst=203.0.113.1 sport=21 dport=40000 packets=2 bytes=112 [ASSURED] mark=0 helper=ftp use=1',
        'ipv6     10 icmpv6   58 29 src=2001:db8::1 dst=2001:db8::2 type=128 code=0 id=7 [UNREPLIED] src=2001:db8::2 dst=2001:db8::1 type=129 code=0 id=7 mark=0 use=1',
        'ipv4     2 gre      47 src=1.2.3.4 dst=5.6.7.8 srckey=0x0 dstkey=0x51 src=5.6.7.8 dst=1.2.3.4 srckey=0x51 dstkey=0x0 [OFFLOAD] mark=0 use=3',
        'conntrack v1.4.7 (conntrack-tools): 3 flow entries have been shown.',
      ].join('\n'),
    );
    expect(tcp).toMatchObject({ state: 'ESTABLISHED', timeout: 431999, helper: 'ftp', flags: ['ASSURED'], use: 1 });
    expect(tcp.reply).toEqual({
      src: '198.51.100.1',
      dst: '203.0.113.1',
      sport: 21,
      dport: 40000,
      packets: 2,
      bytes: 112,
    });
    expect(icmp6).toMatchObject({
      family: 'ipv6',
      flags: ['UNREPLIED'],
      original: { type: 128, id: 7 },
      reply: { type: 129 },
    });
    expect(gre).toMatchObject({ timeout: Number.NaN, original: { dstkey: 0x51 }, flags: ['OFFLOAD'] });
  });
});
