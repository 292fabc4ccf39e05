/** Fragments of real traffic (SLUICE_CAPTURES): every verdict, with its reason. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { openCapture } from '../../dataplane/ports/capture-reader.ts';
import { ethernet, get16, ipText, verify } from '../lib/build.ts';
import { CAPTURES } from '../lib/captures.ts';
import { drops, FAR, HOST, hopped, isIdle, joined, LAN, routed, send, taken } from './fragment-cut.ts';

const present = existsSync(join(CAPTURES, 'ipv4-fragmented-1.pcap'));
if (!present) console.log(`fragments of captures: none in ${CAPTURES} (SLUICE_CAPTURES names another folder)`);

/** The IP packets of a capture, and their times in seconds. */
function packets(name: string): { packet: Uint8Array; time: number }[] {
  const reader = openCapture(join(CAPTURES, name));
  const out: { packet: Uint8Array; time: number }[] = [];
  while (reader.next())
    out.push({
      packet: reader.data.slice(reader.offset + 14, reader.offset + reader.capturedLength),
      time: reader.seconds + reader.nanoseconds / 1e9,
    });
  return out;
}

const plain = (name: string) => packets(name).map(({ packet }) => packet);

/** The packets through a router, from the LAN side, wherever they were going. */
function played(all: readonly Uint8Array[]) {
  const router = routed();
  const came: Uint8Array[][] = [];
  for (const p of all) {
    router.inject('lan', ethernet({ src: HOST.mac, dst: LAN.mac }, p));
    came.push(taken(router));
  }
  return { router, came, lengths: came.map((list) => list.map((p) => p.length)) };
}

describe.skipIf(!present)('captures', () => {
  it('ipv4-fragmented-1: teardrop with a third fragment around the first two', () => {
    const { router, lengths } = played(plain('ipv4-fragmented-1.pcap'));
    expect(lengths).toEqual([[], [], []]);
    expect(drops(router)).toEqual({ FRAG_OVERLAP: 3 });
    router.advance(31_000);
    expect(isIdle(router)).toBe(true);
  });

  it('ipv4-fragmented-2: teardrop; the first fragment comes twice, the hole is never filled', () => {
    const { router, lengths } = played(plain('ipv4-fragmented-2.pcap'));
    expect(lengths).toEqual([[], [], []]);
    expect(drops(router)).toEqual({ FRAG_DUP: 1 });
    router.advance(31_000);
    expect(drops(router)).toEqual({ FRAG_DUP: 1, FRAG_REASM_TIMEOUT: 2 });
    expect(isIdle(router)).toBe(true);
  });

  it('ipv4-fragmented-syn: a SYN whose options are in the second fragment', () => {
    const all = plain('ipv4-fragmented-syn.pcap');
    const { router, came, lengths } = played(all);
    expect(drops(router)).toEqual({});
    expect(lengths).toEqual([[], all.map((p) => get16(p, 2))]);
    const [whole] = joined(all.map((p) => p.subarray(0, get16(p, 2))));
    expect(joined(came[1])).toEqual([hopped(whole)]);
    expect(router.conntrack.lines()[0]).toContain('SYN_SENT src=192.168.1.100 dst=10.0.0.5 sport=12345 dport=80');
    expect(isIdle(router)).toBe(true);
  });

  it('ipv6-fragmented-dns: an answer that lost its first fragments, and the same one whole', () => {
    const all = plain('ipv6-fragmented-dns.pcap');
    const { router, came, lengths } = played(all);
    expect(lengths.map((l) => l.length)).toEqual([1, 1, 1, 0, 1, 0, 0, 3]);
    expect(lengths[7]).toEqual(all.slice(5).map((p) => p.length));
    expect(joined(came[7])).toEqual([hopped(joined(all.slice(5))[0])]);
    expect(router.path.fragments.held).toBe(1);
    router.advance(61_000);
    expect(drops(router)).toEqual({ FRAG_REASM_TIMEOUT: 1 });
    expect(isIdle(router)).toBe(true);
  });

  it('ipv6-http-atomic-frag: a connection one side of which has a fragment header in every packet', () => {
    const client = '2001:db8:1::2';
    const router = routed({
      lan: { addresses: ['2001:db8:1::99/64'] },
      wan: { addresses: ['2001:db8:ffff::1/64'] },
      extra: {
        routes: [{ to: '2001:db8:1::1', via: '2001:db8:ffff::fe' }],
        neighbors: [
          { port: 'lan', ip: client, mac: HOST.mac },
          { port: 'wan', ip: '2001:db8:ffff::fe', mac: FAR.mac },
        ],
      },
    });
    // The capture is of two interfaces and not in order: by its time stamps. Its other connections have other headers.
    const ofThisOne = (p: Uint8Array) => {
      const l4 = p[6] === 44 ? 48 : 40;
      return (p[6] === 44 || p[6] === 6) && [get16(p, l4), get16(p, l4 + 2)].includes(59694);
    };
    const all = packets('ipv6-http-atomic-frag.pcap')
      .filter(({ packet }) => ofThisOne(packet))
      .sort((a, b) => a.time - b.time)
      .map(({ packet }) => packet);
    expect(all.map((p) => p[6])).toEqual([44, 6, 44, 44, 6, 6, 6, 44, 44, 6]);
    for (const p of all) {
      const isUp = ipText(p.subarray(8, 24)) === client;
      send(router, [p], isUp ? 'lan' : 'wan');
      // The server's NIC filled in the checksum of its data behind the capture.
      const isRight = verify(ethernet({ src: HOST.mac, dst: LAN.mac }, p)).length === 0;
      expect(taken(router, isUp ? 'wan' : 'lan')).toEqual(isRight ? joined([p]).map(hopped) : []);
    }
    expect(drops(router)).toEqual({ TCP_CSUM: 1 });
    expect(router.conntrack.lines()[0]).toContain('TIME_WAIT');
    expect(isIdle(router)).toBe(true);
  });
});
