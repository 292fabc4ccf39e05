/** MSS clamping: SYN and SYN/ACK that cross a port with `mss-clamp`, checksums right, everything else untouched. */
import { describe, expect, it } from 'vitest';
import { parseConfig } from '../../controlplane/index.ts';
import { arp, ethernet, hex, ipv4, ipv6, type Segment, tcp, tcpOptions, udp } from '../lib/build.ts';
import { FAR, HOST, hopped, LAN, routed, send, taken, WAN } from './fragment-cut.ts';

const out4 = (segment: Segment) => ipv4({ src: HOST.v4, dst: FAR.v4, df: true }, segment);
const out6 = (segment: Segment) => ipv6({ src: HOST.v6, dst: FAR.v6 }, segment);
const syn = (options: Uint8Array, flags = 'S') => tcp({ sport: 1000, dport: 80, seq: 7, flags, options });
const mss = (value: number) => tcpOptions({ mss: value, sackPermitted: true, timestamps: [1, 0], wscale: 7 });

/** What the router makes of one packet from the LAN; `taken` checks checksums. DF is left out of the comparison. */
function through(wan: object, packet: Uint8Array, lan: object = {}): string {
  const router = routed({ wan, lan });
  send(router, [packet]);
  return `${taken(router).map((p) => [...p])}`;
}
const forwarded = (packet: Uint8Array) => {
  const p = hopped(packet);
  if (p[0] >> 4 === 4) {
    const withDf = packet.slice();
    withDf.set(p.subarray(8, 9), 8);
    // TTL one less: the checksum's high byte one more.
    const sum = ((packet[10] << 8) | packet[11]) + 0x100;
    const folded = (sum & 0xffff) + (sum >> 16);
    withDf.set([folded >> 8, folded & 255], 10);
    return `${[...withDf]}`;
  }
  return `${[...p]}`;
};

describe('mss-clamp', () => {
  it.each([
    ['a number', { 'mss-clamp': 1300 }, 1300, 1300],
    ['pmtu, of a narrow port', { mtu: 1400, 'mss-clamp': 'pmtu' }, 1360, 1340],
  ])('%s', (_, wan, four, six) => {
    expect(through(wan, out4(syn(mss(1460))))).toBe(forwarded(out4(syn(mss(four)))));
    expect(through(wan, out6(syn(mss(1440))))).toBe(forwarded(out6(syn(mss(six)))));
  });

  it('pmtu looks at both links', () => {
    expect(through({ 'mss-clamp': 'pmtu' }, out4(syn(mss(1460))), { mtu: 1300 })).toBe(forwarded(out4(syn(mss(1260)))));
  });

  it('never raises what is announced', () => {
    const low = out4(syn(mss(536)));
    expect(through({ 'mss-clamp': 1300 }, low)).toBe(forwarded(low));
  });

  it('works for SYN/ACK and in the other direction, and leaves data alone', () => {
    const router = routed({ wan: { 'mss-clamp': 1200 } });
    send(router, [out4(syn(mss(1460)))]);
    expect(taken(router).length).toBe(1);
    const back = (o: Uint8Array, flags: string, ack: number, seq: number) =>
      ipv4({ src: FAR.v4, dst: HOST.v4, df: true }, tcp({ sport: 80, dport: 1000, seq, ack, flags, options: o }));
    send(router, [back(mss(1460), 'SA', 8, 100)], 'wan');
    expect(`${taken(router, 'lan').map((p) => [...p])}`).toBe(forwarded(back(mss(1200), 'SA', 8, 100)));
    const data = back(mss(1460), 'A', 8, 101); // no SYN: whatever it carries is no announcement
    send(router, [data], 'wan');
    expect(`${taken(router, 'lan').map((p) => [...p])}`).toBe(forwarded(data));
  });

  it('a SYN that had waited for its next hop left as it came; and what waited behind it is no SYN', () => {
    const gate = '203.0.113.254';
    const router = routed({
      wan: { 'mss-clamp': 1300 },
      extra: { neighbors: [{ port: 'lan', ip: HOST.v4, mac: HOST.mac }] },
    });
    const data = ipv4({ src: HOST.v4, dst: FAR.v4, df: true }, udp({ sport: 7, dport: 9 }, new Uint8Array(40).fill(2)));
    send(router, [out4(syn(mss(1460))), data]);
    router.take('wan'); // the question
    const answer = arp({ op: 2, sha: FAR.mac, spa: gate, tha: WAN.mac, tpa: WAN.v4 });
    router.inject('wan', ethernet({ src: FAR.mac, dst: WAN.mac, type: 0x0806 }, answer));
    router.advance(1);
    expect(taken(router).map((p) => `${[...p]}`)).toEqual([forwarded(out4(syn(mss(1300)))), forwarded(data)]);
  });

  it('an option at an odd byte', () => {
    const at = (value: string) => hex(`01 0204${value} 01 01 01 0000`);
    expect(through({ 'mss-clamp': 1300 }, out4(syn(at('05b4'))))).toBe(forwarded(out4(syn(at('0514')))));
  });

  it.each([
    ['none', new Uint8Array(0)],
    ['end of list first', hex('00 0204 05b4 000000')],
    ['a length of zero', hex('0300 0204 05b4 0000')],
    ['a length beyond the header', hex('03ff 0204 05b4 0000')],
    ['an MSS of another length', hex('0203 05 01 0204 05')],
  ])('options that hold no MSS stay as they are: %s', (_, options) => {
    const packet = out4(syn(options));
    expect(through({ 'mss-clamp': 1300 }, packet)).toBe(forwarded(packet));
  });

  it('a partial checksum covers no option', () => {
    const router = routed({ wan: { 'mss-clamp': 1300 } });
    const packet = out4(syn(mss(1460)));
    packet.set([0x12, 0x34], 36);
    router
      .port('lan')
      .push(ethernet({ src: HOST.mac, dst: LAN.mac }, packet), 0, 0, { flags: 1, csum: 34 | (16 << 16) });
    router.advance(1);
    const [frame] = router.port('wan').takeWithMeta();
    expect([...frame.frame.slice(50, 52)]).toEqual([0x12, 0x34]);
    expect([frame.frame[56], frame.frame[57]]).toEqual([1300 >> 8, 1300 & 255]);
  });

  it('is refused when it is neither', () => {
    const config = (value: string) => parseConfig(`ports: { lan: { mss-clamp: ${value} } }`, 'home.yaml');
    expect(config('pmtu').ports[0].mssClamp).toBe(-1);
    expect(config('1452').ports[0].mssClamp).toBe(1452);
    expect(parseConfig('ports: { lan: }', 'home.yaml').ports[0].mssClamp).toBe(0);
    for (const value of ['63', '65496', 'mtu', '"1452"'])
      expect(() => config(value)).toThrow('ports.lan.mss-clamp: expected pmtu or a number from 64 to 65495');
  });
});
