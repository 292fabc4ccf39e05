/**
 * Trap 13. VLAN tags and GSO change where headers are: the partial checksum of a super-frame covers the pseudo-header only,
 * so NAT adds the delta of the addresses and leaves the rest; its start moves when a tag is added; the MTU is that of one
 * segment.
 */
import { describe, expect, it } from 'vitest';
import * as B from '../lib/build.ts';
import * as H from '../lib/home.ts';

const TCPV4 = 1;
const TCPV6 = 4;
const UDP_L4 = 5;
const NEEDS_CSUM = 1;

/** The packet with the folded pseudo-header sum in its checksum field, as a sender with offload leaves it. */
function partial(packet: Uint8Array): Uint8Array {
  const out = packet.slice();
  const four = out[0] >> 4 === 4;
  const l4 = four ? 20 : 40;
  const proto = four ? out[9] : out[6];
  const [src, dst] = four ? [out.slice(12, 16), out.slice(16, 20)] : [out.slice(8, 24), out.slice(24, 40)];
  const pseudo = B.pseudoHeader(src, dst, proto, out.length - l4);
  B.put16(out, l4 + (proto === 6 ? 16 : 6), ~B.checksum(pseudo) & 0xffff);
  return out;
}

/** What the device would do: complete the checksum from where the metadata says. */
function completed(frame: Uint8Array, csum: number): Uint8Array {
  const out = frame.slice();
  const start = csum & 0xffff;
  const at = start + (csum >>> 16);
  const sum = B.checksum(out.subarray(start));
  B.put16(out, at, sum === 0 ? 0xffff : sum);
  return out;
}

const meta = (gso: number, size: number, l4: number, at: number, hdrlen: number) => ({
  flags: NEEDS_CSUM,
  gso: gso | (size << 16),
  csum: (14 + l4) | (at << 16),
  hdrlen,
});

const big = new Uint8Array(30_000).map((_, n) => n);
const syn = B.tcp({ sport: 5000, dport: 80, seq: 99, flags: 'S' });

describe('a super-frame through masquerade', () => {
  it('TCP over IPv4: the partial checksum is that of the new addresses; all else stays', () => {
    const home = new H.Home({ nat: { masquerade: [{ out: 'wan', from: '192.168.1.0/24', ports: '6000-6009' }] } });
    home.lan(B.ipv4({ src: H.HOST, dst: H.SERVER }, syn));
    const { sport } = home.one('wan');
    expect(sport).toBeGreaterThanOrEqual(6000);
    home.wan(
      B.ipv4({ src: H.SERVER, dst: H.ROUTER_WAN }, B.tcp({ sport: 80, dport: sport, seq: 7, ack: 100, flags: 'SA' })),
    );
    home.left('lan');
    const data = { dport: 80, seq: 100, ack: 8, flags: 'PA' };
    const packet = partial(B.ipv4({ src: H.HOST, dst: H.SERVER }, B.tcp({ sport: 5000, ...data }, big)));
    home.offloaded('lan', packet, meta(TCPV4, 1448, 20, 16, 54));
    const [out] = home.router.port('wan').takeWithMeta();
    expect(out).toMatchObject({ flags: NEEDS_CSUM, gso: TCPV4 | (1448 << 16), csum: 34 | (16 << 16) });
    const expected = B.ipv4({ src: H.ROUTER_WAN, dst: H.SERVER, ttl: 63 }, B.tcp({ sport, ...data }, big));
    // Uncompleted, it is exactly what a sender with the outside's address would have made.
    expect(B.get16(out.frame, 14 + 20 + 16)).toBe(B.get16(partial(expected), 20 + 16));
    expect(B.toHex(completed(out.frame, out.csum).subarray(14))).toBe(B.toHex(expected));
  });

  it('UDP over IPv4, segments of one size (USO)', () => {
    const home = new H.Home();
    const packet = partial(B.ipv4({ src: H.HOST, dst: H.SERVER }, B.udp({ sport: 5000, dport: 443 }, big)));
    home.offloaded('lan', packet, meta(UDP_L4, 1200, 20, 6, 42));
    const [out] = home.router.port('wan').takeWithMeta();
    const expected = B.ipv4({ src: H.ROUTER_WAN, dst: H.SERVER, ttl: 63 }, B.udp({ sport: 5000, dport: 443 }, big));
    expect(B.toHex(completed(out.frame, out.csum).subarray(14))).toBe(B.toHex(expected));
  });

  it('a packet of ordinary size with a partial checksum, in both directions', () => {
    const home = new H.Home();
    const query = partial(B.ipv4({ src: H.HOST, dst: H.SERVER }, B.udp({ sport: 5000, dport: 53 }, 'query')));
    home.offloaded('lan', query, { flags: NEEDS_CSUM, csum: 34 | (6 << 16) });
    const [out] = home.router.port('wan').takeWithMeta();
    expect(B.verify(completed(out.frame, out.csum))).toEqual([]);
    const answer = partial(B.ipv4({ src: H.SERVER, dst: H.ROUTER_WAN }, B.udp({ sport: 53, dport: 5000 }, 'answer')));
    home.offloaded('wan', answer, { flags: NEEDS_CSUM, csum: 34 | (6 << 16) });
    const [back] = home.router.port('lan').takeWithMeta();
    expect(H.see(back.frame).dst).toBe(H.HOST);
    expect(B.verify(completed(back.frame, back.csum))).toEqual([]);
  });

  it('TCP over IPv6 passes with the hop limit as its only change', () => {
    const home = new H.Home();
    home.lan(B.ipv6({ src: H.HOST6, dst: H.SERVER6 }, syn));
    home.wan(
      B.ipv6({ src: H.SERVER6, dst: H.HOST6 }, B.tcp({ sport: 80, dport: 5000, seq: 7, ack: 100, flags: 'SA' })),
    );
    home.left('wan');
    home.left('lan');
    const packet = partial(
      B.ipv6({ src: H.HOST6, dst: H.SERVER6 }, B.tcp({ sport: 5000, dport: 80, seq: 100, ack: 8, flags: 'A' }, big)),
    );
    home.offloaded('lan', packet, meta(TCPV6, 1428, 40, 16, 74));
    const [out] = home.router.port('wan').takeWithMeta();
    packet[7]--;
    expect(B.toHex(out.frame.subarray(14))).toBe(B.toHex(packet));
  });
});

describe('the MTU of a super-frame is that of a segment', () => {
  const send = (size: number) => {
    const home = new H.Home();
    const packet = partial(B.ipv4({ src: H.HOST, dst: H.SERVER, df: true }, B.udp({ sport: 5000, dport: 443 }, big)));
    home.offloaded('lan', packet, meta(UDP_L4, size, 20, 6, 42));
    return home;
  };

  it('1472 bytes of UDP fit 1500', () => {
    expect(send(1472).router.port('wan').takeWithMeta().length).toBe(1);
  });

  it('1473 do not: Fragmentation Needed, and the quote is the super-frame as it was received', () => {
    const home = send(1473);
    expect(home.router.take('wan')).toEqual([]);
    expect(home.dropped).toEqual({ PKT_TOO_BIG: 1 });
    const [error] = home.router.take('lan').map((frame) => H.see(frame));
    expect([error.l4[0], error.l4[1], H.restOf(error) & 0xffff]).toEqual([3, 4, 1500]);
  });
});

describe('VLAN', () => {
  const tagged = {
    ports: {
      lan: { kind: 'memory', zone: 'lan', mac: H.LAN_MAC, addresses: ['192.168.1.1/24', '2001:db8:1::1/64'] },
      wan: { kind: 'memory', zone: 'wan', mac: H.WAN_MAC, addresses: ['203.0.113.1/24', '2001:db8:ffff::1/64'] },
      guest: { parent: 'lan', vlan: 7, zone: 'lan', addresses: ['192.168.7.1/24'] },
    },
    neighbors: [
      { port: 'wan', ip: H.GATE, mac: H.GATE_MAC },
      { port: 'guest', ip: '192.168.7.10', mac: H.HOST2_MAC },
      { port: 'lan', ip: H.HOST, mac: H.HOST_MAC },
    ],
    nat: { masquerade: [{ out: 'wan' }] },
  };
  const fromGuest = (packet: Uint8Array, vlan: number) =>
    B.ethernet({ src: H.HOST2_MAC, dst: H.LAN_MAC, vlan }, packet);
  const query = B.ipv4({ src: '192.168.7.10', dst: H.SERVER }, B.udp({ sport: 5000, dport: 53 }, 'query'));

  it('a tagged packet leaves untagged and translated, and its answer comes back tagged', () => {
    const home = new H.Home(tagged);
    home.router.inject('lan', fromGuest(query, 7));
    const out = home.one('wan');
    expect([out.src, B.get16(out.frame, 12)]).toEqual([H.ROUTER_WAN, 0x0800]);
    home.wan(B.ipv4({ src: H.SERVER, dst: H.ROUTER_WAN }, B.udp({ sport: 53, dport: 5000 }, 'answer')));
    const [frame] = home.router.take('lan');
    expect(B.verify(frame)).toEqual([]);
    expect([B.get16(frame, 12), B.get16(frame, 14)]).toEqual([0x8100, 7]);
    expect(H.see(frame, 16)).toMatchObject({ dst: '192.168.7.10', dstMac: H.HOST2_MAC });
  });

  it('priority bits are no part of the VLAN; a VLAN that nobody has goes nowhere', () => {
    const home = new H.Home(tagged);
    home.router.inject('lan', fromGuest(query, 0xe007));
    expect(home.left('wan').length).toBe(1);
    home.router.inject('lan', fromGuest(query, 8));
    home.router.inject('lan', B.ethernet({ src: H.HOST2_MAC, dst: H.LAN_MAC, vlan: [7, 9] }, query));
    expect(home.left('wan')).toEqual([]);
    expect(home.dropped).toEqual({ VLAN_FILTER: 1, UNHANDLED_PROTO: 1 });
  });

  it('a partial checksum that leaves through a VLAN starts four bytes later', () => {
    const home = new H.Home(tagged);
    home.router.inject('lan', fromGuest(query, 7));
    home.left('wan');
    const answer = partial(B.ipv4({ src: H.SERVER, dst: H.ROUTER_WAN }, B.udp({ sport: 53, dport: 5000 }, 'answer')));
    home.offloaded('wan', answer, { flags: NEEDS_CSUM, csum: 34 | (6 << 16) });
    const [out] = home.router.port('lan').takeWithMeta();
    expect(out.csum).toBe(38 | (6 << 16));
    expect(B.verify(completed(out.frame, out.csum))).toEqual([]);
  });
});
