/** What a rule or a zone rejects is answered: TCP by a RST in the receiver's name (RFC 9293 §3.5.2), the rest by ICMP. */
import { describe, expect, it } from 'vitest';
import { get32, ipv4, ipv6, tcp, udp } from '../lib/build.ts';
import { HOST6, Home, ROUTER_WAN, SERVER, SERVER6 } from '../lib/home.ts';

const REFUSING = {
  zones: { lan: { forward: 'accept', input: 'accept' }, wan: { forward: 'reject', input: 'reject' } },
};

describe('reject', () => {
  it('a SYN that was refused drew an ICMP error and no RST', () => {
    const home = new Home(REFUSING);
    const segment = tcp({ sport: 5000, dport: 80, seq: 1000, flags: 'S' }, 'abc');
    home.wan(ipv6({ src: SERVER6, dst: HOST6 }, segment));
    const seen = home.one('wan');
    expect([seen.src, seen.dst, seen.proto, seen.sport, seen.dport]).toEqual([HOST6, SERVER6, 6, 80, 5000]);
    expect([get32(seen.l4, 4), get32(seen.l4, 8), seen.l4[13]]).toEqual([0, 1004, 0x14]);
    expect(home.dropped.FILTER_REJECT).toBe(1);
  });

  it('a segment with an ACK is answered with the number that it acknowledged', () => {
    const home = new Home(REFUSING);
    home.wan(
      ipv4({ src: SERVER, dst: ROUTER_WAN }, tcp({ sport: 5000, dport: 22, seq: 9, ack: 0xfffffff0, flags: 'A' })),
    );
    const seen = home.one('wan');
    expect([seen.src, seen.sport, seen.ttl]).toEqual([ROUTER_WAN, 22, 64]);
    expect([get32(seen.l4, 4), get32(seen.l4, 8), seen.l4[13]]).toEqual([0xfffffff0, 0, 4]);
  });

  it('a RST is never answered', () => {
    const home = new Home(REFUSING);
    for (const flags of ['R', 'RA'])
      home.wan(ipv6({ src: SERVER6, dst: HOST6 }, tcp({ sport: 5000, dport: 80, seq: 1000, flags })));
    expect(home.left('wan')).toEqual([]);
  });

  it('a datagram is answered with port unreachable', () => {
    const home = new Home(REFUSING);
    home.wan(ipv6({ src: SERVER6, dst: HOST6 }, udp({ sport: 5000, dport: 80 }, 'x')));
    const seen = home.one('wan');
    expect([seen.proto, seen.l4[0], seen.l4[1]]).toEqual([58, 1, 4]);
  });
});
