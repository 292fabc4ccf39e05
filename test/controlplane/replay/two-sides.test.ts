/**
 * One capture with both sides through NAT: real conversations arrive whole in both directions, checksums right, no packet
 * invalid; and what is skipped, repaired, cut or refused.
 */
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { arp, concat, ethernet, icmp, ipv4, ipv6, type Segment, tcp, udp, verify } from '../../lib/build.ts';
import {
  captureFile,
  directory,
  example,
  type Frame,
  haveCaptures,
  isFrom,
  readPcap,
  see,
  sluice,
  writePcap,
} from './files.ts';

const CONFIG = example('capture.yaml');
const WAN = '203.0.113.1';

async function replay(capture: string, inside: string[], ...rest: string[]) {
  const out = directory();
  const cidrs = inside.flatMap((cidr) => ['--inside', cidr]);
  const outcome = await sluice('replay', CONFIG, '--capture', capture, ...cidrs, '--out', out, '--json', ...rest);
  const frames = (port: string) => readPcap(join(out, `${port}.pcap`)).map(({ frame }) => frame);
  return { ...outcome, out, frames, json: outcome.stdout === '' ? null : JSON.parse(outcome.stdout) };
}

/** TCP payload by stream position, and UDP payload in order, of one direction. */
function content(frames: readonly Uint8Array[]): string {
  const parts = frames.map(see).filter((one) => one.payload.length > 0);
  const seen = new Map<number, Uint8Array>();
  const streams = parts.every((one) => one.proto === 6);
  for (const [n, one] of parts.entries()) seen.set(streams ? one.seq : n, one.payload);
  return Buffer.concat([...seen.entries()].sort((a, b) => a[0] - b[0]).map(([, bytes]) => bytes)).toString('latin1');
}

function tsharkFaults(file: string): string[] | null {
  const run = spawnSync(
    'tshark',
    [
      ...['-n', '-r', file],
      ...['ip', 'tcp', 'udp'].flatMap((name) => ['-o', `${name}.check_checksum:TRUE`]),
      ...[
        '-Y',
        '_ws.malformed || ip.checksum.status == "Bad" || tcp.checksum.status == "Bad" || udp.checksum.status == "Bad"',
      ],
    ],
    { encoding: 'utf8' },
  );
  if (run.error !== undefined) return null;
  expect(run.status, run.stderr).toBe(0);
  return run.stdout.split('\n').filter((line) => line !== '');
}

describe.runIf(haveCaptures)('real captures', () => {
  const conversations: [string, string, string, number][] = [
    ['http-get.pcap', '141.142.228.5', '192.150.187.43', 14],
    ['tls12.pcap', '10.0.0.80', '68.233.76.12', 22],
    ['dns.pcap', '10.87.3.74', '10.87.1.10', 2],
  ];
  const modes = ['off', 'on', 'verify'];
  test.each(conversations.flatMap((one) => modes.map((mode) => [...one, mode] as const)))(
    '%s: %s and %s talk through NAT, %d frames, offload %s',
    async (file, client, server, count, mode) => {
      const capture = captureFile(file);
      const { code, stderr, json, frames, out } = await replay(capture, [`${client}/32`], '--offload', mode);
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
      expect(json.dropped).toEqual({});
      expect(json).toMatchObject({ received: count, forwarded: count, skipped: 0, connections: 1 });
      expect(json.offload.mismatches).toBe(0);
      const captured = readPcap(capture).map(({ frame }) => frame);
      const sent = captured.filter((frame) => isFrom(frame, client));
      const answered = captured.filter((frame) => isFrom(frame, server));
      const wan = frames('wan');
      const lan = frames('lan');
      expect(wan).toHaveLength(sent.length);
      expect(lan).toHaveLength(answered.length);
      expect(content(wan)).toBe(content(sent));
      expect(content(lan)).toBe(content(answered));
      for (const frame of wan) expect(see(frame)).toMatchObject({ src: WAN, dst: server });
      for (const frame of lan) expect(see(frame)).toMatchObject({ src: server, dst: client });
      for (const frame of [...wan, ...lan]) expect(verify(frame)).toEqual([]);
      for (const port of ['lan', 'wan']) {
        const faults = tsharkFaults(join(out, `${port}.pcap`));
        if (faults === null) console.warn('tshark is not there: outputs are judged by verify alone');
        else expect(faults).toEqual([]);
      }
      const again = await replay(capture, [`${client}/32`], '--offload', mode);
      for (const port of ['lan.pcap', 'wan.pcap'])
        expect(readFileSync(join(again.out, port))).toEqual(readFileSync(join(out, port)));
    },
  );

  test('IPv6 goes through untranslated, the far end is left as it is', async () => {
    const client = '2001:470:1f11:81f:c999:d94:aa7c:2e3e';
    const { frames, json } = await replay(captureFile('ftp-ipv6.pcap'), [client], '--offload', 'off');
    const captured = readPcap(captureFile('ftp-ipv6.pcap')).map(({ frame }) => frame);
    expect(json.received).toBe(captured.length);
    const wan = frames('wan');
    expect(wan.length).toBeGreaterThan(60);
    // Hop limit and link header apart, what leaves is what was captured.
    const bare = (frame: Uint8Array) => Buffer.from(frame.slice(22)).toString('hex');
    const from = new Set(captured.map(bare));
    for (const frame of wan) expect(from.has(bare(frame))).toBe(true);
  });

  test('an SCTP association keeps its checksum through NAT', async () => {
    const { json, frames } = await replay(captureFile('sctp.pcap'), ['192.168.170.8']);
    expect(json).toMatchObject({ received: 74, forwarded: 74, connections: 1 });
    for (const frame of [...frames('wan'), ...frames('lan')]) expect(verify(frame)).toEqual([]);
  });

  test("a host's super-frames are played as segments: nothing is too big, and every byte is there", async () => {
    const capture = captureFile('ftp-bigtransfer.pcap');
    const captured = readPcap(capture).map(({ frame }) => frame);
    expect(Math.max(...captured.map((frame) => frame.length))).toBeGreaterThan(1514);
    const { json, stderr, frames } = await replay(capture, ['192.168.56.101']);
    expect(stderr).toContain('2 frames longer than the link carries');
    expect(json.dropped.PKT_TOO_BIG).toBeUndefined();
    for (const frame of [...frames('wan'), ...frames('lan')]) {
      expect(verify(frame)).toEqual([]);
      expect(frame.length).toBeLessThanOrEqual(1514);
    }
  });

  test('captures of all kinds: every frame is accounted for, every one that leaves is sound', async () => {
    for (const [file, cidr] of [
      ['mixed-vlan-mpls.pcap', '0.0.0.0/1'],
      ['teredo.pcap', '192.168.0.0/16'],
      ['gre-sample.pcap', '172.16.0.0/12'],
      ['sip.pcap', '192.168.1.2'],
      ['pptp.pcap', '10.1.1.10'],
      ['tftp.pcap', '192.168.1.1'],
      ['tcp-truncated-header.pcap', '128.0.0.0/1'],
      ['vlan-qinqinq.pcap', '10.0.0.0/8'],
      ['icmp6.pcap', '2000::/3'],
    ]) {
      const { code, json, frames } = await replay(captureFile(file), [cidr]);
      expect([file, code]).toEqual([file, 0]);
      const sum = Object.values(json.dropped as Record<string, number>).reduce((a, b) => a + b, 0);
      expect(json.forwarded + json.delivered + json.held + sum).toBe(json.received);
      for (const frame of [...frames('wan'), ...frames('lan')]) expect(verify(frame, { zeroUdp6: true })).toEqual([]);
    }
  });
});

describe('one capture of our own', () => {
  const IN = '10.9.0.5';
  const OUT = '198.51.100.7';
  const wire = { src: '02:aa:00:00:00:05', dst: '02:bb:00:00:00:01' };
  const back = { src: wire.dst, dst: wire.src };
  const there = (segment: Segment, o: { src?: string; dst?: string } = {}) =>
    ethernet(wire, ipv4({ src: o.src ?? IN, dst: o.dst ?? OUT }, segment));
  const here = (segment: Segment, o: { src?: string; dst?: string } = {}) =>
    ethernet(back, ipv4({ src: o.src ?? OUT, dst: o.dst ?? IN }, segment));
  const file = (frames: readonly Uint8Array[]): string => {
    const timed: Frame[] = frames.map((frame, n) => ({ time: 1_600_000_000_000_000 + n * 1000, frame }));
    return writePcap(join(directory(), 'both.pcap'), timed);
  };

  test('neither side inside, both, and ARP are skipped and counted', async () => {
    const { json } = await replay(
      file([
        there(udp({ sport: 1, dport: 2 }), { src: '192.0.2.1' }),
        there(udp({ sport: 1, dport: 2 }), { dst: '10.9.0.6' }),
        ethernet({ ...wire, type: 0x0806 }, arp({ op: 'request', sha: wire.src, spa: IN, tpa: '10.9.0.1' })),
        there(udp({ sport: 1, dport: 2 })),
      ]),
      ['10.9.0.0/24'],
    );
    expect(json).toMatchObject({ skipped: 3, received: 1, forwarded: 1 });
  });

  test('wrong transport checksums are recomputed and counted; --keep-checksums leaves them', async () => {
    const capture = file([
      there(udp({ sport: 1, dport: 2, checksum: 0x1234 }, 'one')),
      there(tcp({ sport: 3, dport: 4, flags: 'S', checksum: 0x1234 })),
      there(udp({ sport: 5, dport: 6, checksum: 0 }, 'none')),
      there(udp({ sport: 7, dport: 8 }, 'right')),
    ]);
    const repaired = await replay(capture, [IN]);
    expect(repaired.json).toMatchObject({ checksums_recomputed: 2, received: 4, forwarded: 4, dropped: {} });
    for (const frame of repaired.frames('wan')) expect(verify(frame)).toEqual([]);
    const kept = await replay(capture, [IN], '--keep-checksums');
    // The router refuses what is wrong: that is what the option is for.
    expect(kept.json).toMatchObject({ checksums_recomputed: 0, received: 4, forwarded: 2 });
  });

  test('port clash: the answers find the port that really left', async () => {
    const a = { src: '10.9.0.5' };
    const b = { src: '10.9.0.6' };
    const { json, frames } = await replay(
      file([
        there(udp({ sport: 4000, dport: 53 }, 'a'), a),
        there(udp({ sport: 4000, dport: 53 }, 'b'), b),
        here(udp({ sport: 53, dport: 4000 }, 'to b'), { dst: b.src }),
        here(udp({ sport: 53, dport: 4000 }, 'to a'), { dst: a.src }),
      ]),
      ['10.9.0.0/24'],
    );
    expect(json).toMatchObject({ forwarded: 4, dropped: {}, connections: 2 });
    const ports = frames('wan').map((frame) => see(frame).sport);
    expect(ports[0]).toBe(4000);
    expect(ports[1]).not.toBe(4000);
    const text = frames('lan').map((frame) => `${see(frame).dst} ${new TextDecoder().decode(see(frame).payload)}`);
    expect(text).toEqual(['10.9.0.6 to b', '10.9.0.5 to a']);
  });

  test('ping: two hosts with one identifier, and an error that quotes what really left', async () => {
    const echo = (src: string) => there(icmp({ type: 8, id: 7, seq: 1 }, 'ping'), { src });
    const quoted = ipv4({ src: '10.9.0.6', dst: OUT, ttl: 1 }, icmp({ type: 8, id: 7, seq: 1 }, 'ping'));
    const udpOut = udp({ sport: 4000, dport: 33434 }, 'trace');
    const quotedUdp = ipv4({ src: '10.9.0.6', dst: OUT, ttl: 1 }, udpOut);
    const { json, frames } = await replay(
      file([
        echo('10.9.0.5'),
        echo('10.9.0.6'),
        here(icmp({ type: 0, id: 7, seq: 1 }, 'ping'), { dst: '10.9.0.6' }),
        here(icmp({ type: 11, code: 0 }, quoted), { src: '192.0.2.9', dst: '10.9.0.6' }),
        there(udpOut, { src: '10.9.0.5' }),
        there(udpOut, { src: '10.9.0.6' }),
        here(icmp({ type: 3, code: 3 }, quotedUdp), { dst: '10.9.0.6' }),
      ]),
      ['10.9.0.0/24'],
    );
    expect(json).toMatchObject({ received: 7, forwarded: 7, dropped: {} });
    const lan = frames('lan');
    for (const frame of [...lan, ...frames('wan')]) expect(verify(frame)).toEqual([]);
    // All three reach the second host, with the identifier, port and quote that it knows.
    expect(lan.map((frame) => [...frame.slice(30, 34)].join('.'))).toEqual(['10.9.0.6', '10.9.0.6', '10.9.0.6']);
    expect([lan[0][38], lan[0][39]]).toEqual([0, 7]);
    expect([...lan[2].slice(42 + 12, 42 + 16)].join('.')).toBe('10.9.0.6');
    expect([lan[2][42 + 20], lan[2][42 + 21]]).toEqual([4000 >> 8, 4000 & 255]);
  });

  test('IPv6 in the same capture, several prefixes, VLAN tags of the captured link', async () => {
    const six = ethernet(
      { ...wire, vlan: 12 },
      ipv6({ src: '2001:db8:5::5', dst: '2001:db8:9::1' }, udp({ sport: 1, dport: 2 }, 'six')),
    );
    const answer = ethernet(
      { ...back, vlan: [12, 13] },
      ipv6({ src: '2001:db8:9::1', dst: '2001:db8:5::5' }, udp({ sport: 2, dport: 1 }, 'back')),
    );
    const { json, frames } = await replay(file([six, answer, there(udp({ sport: 1, dport: 2 }))]), [
      '10.9.0.0/24',
      '2001:db8:5::/48',
    ]);
    expect(json).toMatchObject({ forwarded: 3, skipped: 0, dropped: {} });
    expect(see(frames('lan')[0])).toMatchObject({ src: '2001:db8:9::1', dst: '2001:db8:5::5', dport: 1 });
    // The inside host has the MAC that it has in the capture.
    expect([...frames('lan')[0].slice(0, 6)]).toEqual([2, 0xaa, 0, 0, 0, 5]);
  });

  test('an unsolicited packet goes to the address that is known outside, and is refused there', async () => {
    const { json } = await replay(
      file([there(udp({ sport: 9, dport: 9 })), here(tcp({ sport: 1234, dport: 22, flags: 'S' }))]),
      [IN],
    );
    expect(json).toMatchObject({ received: 2, forwarded: 1, dropped: { INPUT_DROP: 1 } });
  });

  test('a port forward: the outside comes to its public side', async () => {
    const config = join(directory(), 'forward.yaml');
    const text = readFileSync(CONFIG, 'utf8').replace(
      '  profile: linux\n',
      `  profile: linux\n  forward: [ { in: wan, proto: tcp, port: 8080, to: "${IN}:80" } ]\n`,
    );
    writeFileSync(config, text);
    const out = directory();
    const capture = file([
      here(tcp({ sport: 1234, dport: 80, seq: 10, flags: 'S' })),
      there(tcp({ sport: 80, dport: 1234, seq: 20, ack: 11, flags: 'SA' })),
      here(tcp({ sport: 1234, dport: 80, seq: 11, ack: 21, flags: 'A' })),
    ]);
    const outcome = await sluice('replay', config, '--capture', capture, '--inside', IN, '--out', out, '--json');
    expect(JSON.parse(outcome.stdout)).toMatchObject({ received: 3, forwarded: 3, dropped: {}, connections: 1 });
    expect(see(readPcap(join(out, 'wan.pcap'))[0].frame)).toMatchObject({ src: WAN, sport: 8080, dport: 1234 });
  });

  test('a cut capture is played up to the fault, exit 1', async () => {
    const capture = file([there(udp({ sport: 1, dport: 2 }, 'x')), there(udp({ sport: 1, dport: 2 }, 'y'))]);
    const bytes = readFileSync(capture);
    writeFileSync(capture, concat(bytes.subarray(0, bytes.length - 1)));
    const { code, json, stderr } = await replay(capture, [IN]);
    expect(code).toBe(1);
    expect(stderr).toContain(`${capture}: at byte `);
    expect(json).toMatchObject({ received: 1, forwarded: 1 });
  });

  test('no default route, and a choice of inside ports: said, exit 2', async () => {
    const folder = directory();
    const capture = file([]);
    const ports = 'ports:\n  a: { kind: pcap, mac: "02:00:00:00:00:0a", addresses: [10.1.0.1/24] }\n';
    const more =
      '  b: { kind: pcap, mac: "02:00:00:00:00:0b", addresses: [10.2.0.1/24] }\n  c: { kind: pcap, mac: "02:00:00:00:00:0c" }\n';
    const run = async (text: string) => {
      const config = join(folder, 'c.yaml');
      writeFileSync(config, text);
      return sluice('replay', config, '--capture', capture, '--inside', IN, '--out', join(folder, 'out'));
    };
    const none = await run(ports);
    expect(none.code).toBe(2);
    expect(none.stderr).toContain('expected a default route');
    const two = await run(`${ports}${more}routes: [ { to: 0.0.0.0/0, via: 10.1.0.254 } ]\n`);
    expect(two.code).toBe(2);
    expect(two.stderr).toContain('expected one port besides a or one named lan; add a route to the inside prefix');
    const route = `routes: [ { to: 0.0.0.0/0, via: 10.1.0.254 }, { to: 10.9.0.0/16, via: 10.2.0.254 } ]\n`;
    expect((await run(`${ports}${more}${route}`)).code).toBe(0);
  });
});
