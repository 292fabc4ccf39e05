/** RFC 1812 §5.2.2 and RFC 791: what an IPv4 header must be before anything else is looked at; one drop, one reason. */
import { describe, expect, it } from 'vitest';
import * as B from '../lib/build.ts';
import * as H from '../lib/home.ts';

const up = { src: H.HOST, dst: H.SERVER };
const data = B.udp({ sport: 4000, dport: 53 }, 'some data');

/** The one reason for which a LAN packet is dropped, or where it went. */
function fate(packet: Uint8Array, extra: Record<string, unknown> = {}): string {
  const home = new H.Home(extra);
  home.lan(packet);
  const reasons = Object.entries(home.dropped);
  if (reasons.length === 0) return home.left('wan').length === 1 ? 'forwarded' : 'kept';
  expect(reasons.length).toBe(1);
  expect(reasons[0][1]).toBe(1);
  expect(home.left('wan')).toEqual([]);
  return reasons[0][0];
}

describe('§5.2.2 IP header validation', () => {
  it('a right one is forwarded', () => {
    expect(fate(B.ipv4(up, data))).toBe('forwarded');
  });

  it('(1) the link gave fewer than 20 bytes', () => {
    const whole = B.ipv4(up, data);
    for (let length = 0; length < 20; length++) expect(fate(whole.subarray(0, length))).toBe('PKT_TOO_SMALL');
  });

  it('(2) the checksum is wrong, by any one bit of the header', () => {
    for (let bit = 0; bit < 160; bit++) {
      const packet = B.ipv4(up, data);
      packet[bit >> 3] ^= 1 << (bit & 7);
      expect(['IP_CSUM', 'IP_INHDR', 'PKT_TOO_SMALL']).toContain(fate(packet));
    }
    expect(fate(B.ipv4({ ...up, checksum: 0 }, data))).toBe('IP_CSUM');
    expect(fate(B.ipv4({ ...up, checksum: 0xffff }, data))).toBe('IP_CSUM');
  });

  it.each([0, 1, 3, 5, 6, 15])('(3) version %i', (version) => {
    const home = new H.Home();
    const packet = B.ipv4({ ...up, version }, data);
    home.router.inject('lan', B.ethernet({ src: H.HOST_MAC, dst: H.LAN_MAC, type: 0x0800 }, packet));
    expect(home.dropped).toEqual({ IP_INHDR: 1 });
  });

  it.each([0, 1, 4])('(4) a header of %i words', (ihl) => {
    expect(fate(B.ipv4({ ...up, ihl }, data))).toBe('IP_INHDR');
  });

  it('(5) a total length shorter than the header, or longer than the frame', () => {
    for (const totalLength of [0, 1, 19]) expect(fate(B.ipv4({ ...up, totalLength }, data))).toBe('IP_INHDR');
    const right = B.ipv4(up, data).length;
    for (const totalLength of [right + 1, 1500, 65535])
      expect(fate(B.ipv4({ ...up, totalLength }, data))).toBe('PKT_TOO_SMALL');
  });

  it('padding behind the datagram is not part of it, and does not travel on (§3.3)', () => {
    const home = new H.Home();
    const packet = B.ipv4(up, B.udp({ sport: 1, dport: 2 }, 'x'));
    home.lan(B.concat(packet, new Uint8Array(17).fill(0xee)));
    expect(home.one('wan').packet.length).toBe(packet.length);
  });
});

describe('§5.3.7 Martian addresses', () => {
  it.each([
    '127.0.0.1',
    '127.255.255.255',
    '224.0.0.1',
    '239.1.1.1',
    '240.0.0.1',
    '255.255.255.255',
    '0.1.2.3',
    '0.0.0.0',
  ])('source %s', (src) => {
    expect(fate(B.ipv4({ ...up, src }, data))).toBe('IP_INVALID_SOURCE');
  });

  it.each(['127.0.0.1', '0.0.0.0', '0.1.2.3', '240.0.0.1', '255.255.255.254'])('destination %s', (dst) => {
    expect(fate(B.ipv4({ ...up, dst }, data))).toBe('IP_INVALID_DEST');
  });

  it.each(['169.254.7.7'])(
    'link-local %s stays on its link, as source and as destination (RFC 3927 §2.7)',
    (address) => {
      expect(fate(B.ipv4({ ...up, src: address }, data))).toBe('IP_SCOPE');
      expect(fate(B.ipv4({ ...up, dst: address }, data))).toBe('IP_SCOPE');
    },
  );

  it('the limited broadcast is never forwarded', () => {
    const home = new H.Home();
    home.router.inject(
      'lan',
      B.ethernet({ src: H.HOST_MAC, dst: 'ff:ff:ff:ff:ff:ff' }, B.ipv4({ ...up, dst: '255.255.255.255' }, data)),
    );
    expect([home.left('wan').length, home.left('lan').length]).toEqual([0, 0]);
  });

  it('nor is one to the subnet of another port (RFC 2644)', () => {
    const home = new H.Home();
    home.lan(B.ipv4({ ...up, dst: '203.0.113.255' }, data));
    home.lan(B.ipv4({ ...up, dst: '203.0.113.0' }, data));
    expect(home.left('wan')).toEqual([]);
  });
});

describe('options (§5.2.4, §5.3.13)', () => {
  const options = (text: string) => fate(B.ipv4({ ...up, options: B.hex(text) }, data));

  it('well formed ones pass as they are', () => {
    for (const text of ['94040000', '01010101', '00ffffff', '0707 04 00000000 01', '8205 010203 00 0000']) {
      expect(options(text)).toBe('forwarded');
      const home = new H.Home();
      home.lan(B.ipv4({ ...up, options: B.hex(text) }, data));
      expect(B.toHex(home.one('wan').packet.subarray(20))).toMatch(new RegExp(`^${text.replace(/\s/g, '')}`));
    }
  });

  it('source routes are refused (RFC 7126 §4.3, §4.4)', () => {
    expect(options('8307 04 c6336409 00')).toBe('IP_INHDR');
    expect(options('8907 04 c6336409 00')).toBe('IP_INHDR');
  });

  it('a length of 0 or 1, or beyond the header: Parameter Problem points at the option', () => {
    for (const [text, pointer] of [
      ['94000000', 20],
      ['94010000', 20],
      ['94050000', 20],
      ['01019404', 22],
      ['01010194', 23],
      ['94040000 07ff0000', 24],
    ] as const) {
      const home = new H.Home();
      home.lan(B.ipv4({ ...up, options: B.hex(text) }, data));
      expect(home.dropped).toEqual({ IP_INHDR: 1 });
      const error = home.one('lan');
      expect([error.l4[0], error.l4[1], error.l4[4]]).toEqual([12, 0, pointer]);
    }
  });
});

describe('§5.3.1 time to live', () => {
  it('is taken down by one, and by no more', () => {
    for (const ttl of [2, 64, 128, 255]) {
      const home = new H.Home();
      home.lan(B.ipv4({ ...up, ttl }, data));
      expect(home.one('wan').ttl).toBe(ttl - 1);
    }
  });

  it.each([0, 1])('%i: Time Exceeded in transit, the packet is gone', (ttl) => {
    const home = new H.Home();
    home.lan(B.ipv4({ ...up, ttl }, data));
    expect(home.left('wan')).toEqual([]);
    const error = home.one('lan');
    expect([error.l4[0], error.l4[1], error.src]).toEqual([11, 0, H.ROUTER_LAN]);
  });

  it('to the router itself it does not matter', () => {
    const home = new H.Home();
    home.lan(B.ipv4({ src: H.HOST, dst: H.ROUTER_LAN, ttl: 1 }, B.icmp({ type: 8, id: 1, seq: 1 }, 'ping')));
    expect(home.one('lan').l4[0]).toBe(0);
  });
});

describe('the link layer (§3.3, RFC 1122 §3.3.6)', () => {
  it('a frame for another host, from a group address, or a unicast packet in a broadcast frame goes nowhere', () => {
    const packet = B.ipv4(up, data);
    for (const [frame, reason] of [
      [B.ethernet({ src: H.HOST_MAC, dst: H.HOST2_MAC }, packet), 'OTHERHOST'],
      [B.ethernet({ src: '01:00:00:00:00:01', dst: H.LAN_MAC }, packet), 'L2_SOURCE'],
      [B.ethernet({ src: H.HOST_MAC, dst: 'ff:ff:ff:ff:ff:ff' }, packet), 'OTHERHOST'],
      [B.ethernet({ src: H.HOST_MAC, dst: '01:00:5e:00:00:01' }, packet), 'OTHERHOST'],
      [B.ethernet({ src: H.HOST_MAC, dst: H.LAN_MAC, type: 0x88cc }, packet), 'UNHANDLED_PROTO'],
      [B.ethernet({ src: H.HOST_MAC, dst: H.LAN_MAC, vlan: 9 }, packet), 'VLAN_FILTER'],
      [B.mac(H.LAN_MAC), 'PKT_TOO_SMALL'],
      [B.concat(B.mac(H.LAN_MAC), B.mac(H.HOST_MAC), B.hex('8100 00')), 'PKT_TOO_SMALL'],
    ] as const) {
      const home = new H.Home();
      home.router.inject('lan', frame);
      expect(home.dropped).toEqual({ [reason]: 1 });
    }
  });

  it('a priority tag (VLAN 0) is no VLAN (802.1Q §6.9.3)', () => {
    const home = new H.Home();
    home.router.inject('lan', B.ethernet({ src: H.HOST_MAC, dst: H.LAN_MAC, vlan: 0xa000 }, B.ipv4(up, data)));
    expect(home.one('wan').dst).toBe(H.SERVER);
  });
});

describe('transport headers', () => {
  it.each([
    ['TCP', 6, 20],
    ['UDP', 17, 8],
    ['ICMP', 1, 8],
    ['SCTP', 132, 12],
    ['ESP', 50, 8],
    ['GRE', 47, 4],
  ])('%s too short for its own header', (_, proto, least) => {
    for (let length = 0; length < least; length++)
      expect(fate(B.ipv4({ ...up, proto }, new Uint8Array(length)))).toBe('L4_TRUNCATED');
  });

  it('a TCP data offset or a UDP length that does not fit', () => {
    for (const dataOffset of [0, 4, 6, 15])
      expect(fate(B.ipv4(up, B.tcp({ sport: 1, dport: 2, flags: 'S', dataOffset })))).toBe('L4_TRUNCATED');
    for (const length of [0, 7, 18, 65535])
      expect(fate(B.ipv4(up, B.udp({ sport: 1, dport: 2, length }, 'some data')))).toBe('L4_TRUNCATED');
  });

  it('wrong checksums', () => {
    const wrong = (segment: B.Segment, at: number) => {
      const packet = B.ipv4(up, segment);
      packet[20 + at] ^= 0x10;
      return fate(packet);
    };
    expect(wrong(B.tcp({ sport: 1, dport: 2, flags: 'S' }), 16)).toBe('TCP_CSUM');
    expect(wrong(B.udp({ sport: 1, dport: 2 }, 'data'), 6)).toBe('UDP_CSUM');
    expect(wrong(B.icmp({ type: 8, id: 1, seq: 2 }, 'data'), 2)).toBe('ICMP_CSUM');
  });
});
