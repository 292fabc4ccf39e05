/**
 * Trap 4. UDP without a checksum stays so through NAT; a sum that comes out as zero is sent as 0xffff; over IPv6 a zero is
 * forwarded as it is and never counted up to something else.
 */
import { expect, it } from 'vitest';
import * as B from '../lib/build.ts';
import * as H from '../lib/home.ts';

const up = { src: H.HOST, dst: H.SERVER };
const sum = (seen: H.Seen) => B.get16(seen.l4, 6);

it('zero stays zero in both directions of a translated connection', () => {
  const home = new H.Home();
  home.lan(B.ipv4(up, B.udp({ sport: 5000, dport: 53, checksum: 0 }, 'query')));
  const out = home.one('wan');
  expect([out.src, sum(out)]).toEqual([H.ROUTER_WAN, 0]);
  home.wan(B.ipv4({ src: H.SERVER, dst: H.ROUTER_WAN }, B.udp({ sport: 53, dport: 5000, checksum: 0 }, 'answer')));
  const back = home.one('lan');
  expect([back.dst, sum(back)]).toEqual([H.HOST, 0]);
});

it('zero stays zero when the port moves too, and in the packet that an error quotes', () => {
  const home = new H.Home({ nat: { masquerade: [{ out: 'wan', from: '192.168.1.0/24', ports: '6000-6009' }] } });
  home.lan(B.ipv4(up, B.udp({ sport: 5000, dport: 53, checksum: 0 }, 'query')));
  const out = home.one('wan');
  expect(sum(out)).toBe(0);
  expect(out.sport).toBeGreaterThanOrEqual(6000);
  home.wan(B.ipv4({ src: H.SERVER, dst: H.ROUTER_WAN }, B.icmp({ type: 3, code: 3 }, out.packet)));
  const quote = H.quoteOf(home.one('lan'));
  expect([B.get16(quote, 20), B.get16(quote, 26)]).toEqual([5000, 0]);
});

it('a sum that comes out as zero leaves as 0xffff', () => {
  // The source port for which the translated datagram sums to zero, found by trying.
  const after = (sport: number) => B.ipv4({ src: H.ROUTER_WAN, dst: H.SERVER }, B.udp({ sport, dport: 53 }, 'query'));
  let sport = 1024;
  while (B.get16(after(sport), 26) !== 0xffff) sport++;
  const home = new H.Home();
  home.lan(B.ipv4(up, B.udp({ sport, dport: 53 }, 'query')));
  const out = home.one('wan');
  expect([out.sport, sum(out)]).toEqual([sport, 0xffff]);
});

it('IPv6: a zero is carried as it is (RFC 6936), and so is every right sum', () => {
  const home = new H.Home();
  for (const checksum of [0, undefined]) {
    const packet = B.ipv6({ src: H.HOST6, dst: H.SERVER6 }, B.udp({ sport: 5000, dport: 53, checksum }, 'query'));
    home.lan(packet);
    expect(home.one('wan').packet.slice(40)).toEqual(packet.slice(40));
  }
});

it('a wrong sum is not mended by NAT: it is dropped', () => {
  const home = new H.Home();
  home.lan(B.ipv4(up, B.udp({ sport: 5000, dport: 53, checksum: 0x1234 }, 'query')));
  expect(home.left('wan')).toEqual([]);
  expect(home.dropped).toEqual({ UDP_CSUM: 1 });
});
