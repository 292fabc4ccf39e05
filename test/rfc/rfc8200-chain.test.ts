/** RFC 8200 §4: extension headers in their order, options that say what to do, bounded chains; RFC 5095, RFC 7112. */
import { describe, expect, it } from 'vitest';
import * as B from '../lib/build.ts';
import * as H from '../lib/home.ts';

const up = { src: H.HOST6, dst: H.SERVER6 };
const data = B.udp({ sport: 4000, dport: 53 }, 'behind the chain');

interface Fate {
  reason: string;
  /** type, code, pointer of the answer. */
  error: number[] | null;
}

function fate(packet: Uint8Array): Fate {
  const home = new H.Home();
  home.lan(packet);
  const error = home.left('lan')[0];
  return {
    reason: Object.keys(home.dropped).join() || (home.left('wan').length === 1 ? 'forwarded' : 'kept'),
    error: error === undefined ? null : [error.l4[0], error.l4[1], H.restOf(error)],
  };
}
const chain = (...ext: B.Extension[]) => fate(B.ipv6({ ...up, ext }, data));
const passes = { reason: 'forwarded', error: null };

describe('§3 the fixed header', () => {
  it('is there, says 6, and its length fits', () => {
    const packet = B.ipv6(up, data);
    for (const length of [0, 1, 20, 39]) expect(fate(packet.subarray(0, length)).reason).toBe('PKT_TOO_SMALL');
    for (const version of [0, 4, 5, 7, 15]) expect(fate(B.ipv6({ ...up, version }, data)).reason).toBe('IP_INHDR');
    for (const payloadLength of [25, 1000, 65535])
      expect(fate(B.ipv6({ ...up, payloadLength }, data)).reason).toBe('PKT_TOO_SMALL');
  });

  it('the hop limit goes down by one; at 1 and 0 the packet ends here (§3, RFC 4443 §3.3)', () => {
    const home = new H.Home();
    home.lan(B.ipv6({ ...up, hop: 2 }, data));
    expect(home.one('wan').ttl).toBe(1);
    for (const hop of [0, 1])
      expect(fate(B.ipv6({ ...up, hop }, data))).toEqual({ reason: 'IP_TTL', error: [3, 0, 0] });
  });

  it.each(['ff02::1', '::1'])('no source is %s (RFC 4291 §2.5.3, §2.7)', (src) => {
    expect(fate(B.ipv6({ ...up, src }, data)).reason).toBe('IP_INVALID_SOURCE');
  });

  it.each(['::', '::1', 'ff00::1', 'ff01::1'])('no destination on a link is %s', (dst) => {
    expect(fate(B.ipv6({ ...up, dst }, data)).reason).toBe('IP_INVALID_DEST');
  });

  it('link-local addresses stay on their link; the source is told (RFC 4291 §2.5.6, RFC 4443 §3.1 code 2)', () => {
    expect(fate(B.ipv6({ ...up, dst: 'fe80::9' }, data)).reason).toBe('IP_SCOPE');
    const home = new H.Home({ neighbors: [{ port: 'lan', ip: 'fe80::10', mac: H.HOST_MAC }] });
    home.lan(B.ipv6({ ...up, src: 'fe80::10' }, data));
    expect(home.dropped).toMatchObject({ IP_SCOPE: 1 });
    const error = home.one('lan');
    expect([error.l4[0], error.l4[1], error.src]).toEqual([1, 2, 'fe80::ff:fe00:101']);
  });
});

describe('§4.1 order and number', () => {
  it('every header once, in the recommended order, passes and is left as it is', () => {
    const ext = [
      B.hopByHop(B.hex('05020000')),
      B.destinationOptions(),
      B.routing({ type: 3, left: 0 }),
      B.authentication({ spi: 1, seq: 2 }),
      B.destinationOptions(),
    ];
    const packet = B.ipv6({ ...up, ext }, data);
    const home = new H.Home();
    home.lan(packet);
    const out = home.one('wan').packet;
    packet[7]--;
    expect(out).toEqual(packet);
  });

  it('Hop-by-Hop anywhere but first: Parameter Problem 1 at the field that names it', () => {
    expect(chain(B.destinationOptions(), B.hopByHop())).toEqual({ reason: 'IPV6_CHAIN', error: [4, 1, 40] });
    expect(chain(B.hopByHop(), B.hopByHop())).toEqual({ reason: 'IPV6_CHAIN', error: [4, 1, 40] });
  });

  it('eight extension headers pass, nine do not (RFC 8504 §5.3)', () => {
    const many = (n: number) => Array.from({ length: n }, () => B.destinationOptions());
    expect(chain(...many(8))).toEqual(passes);
    expect(chain(...many(9)).reason).toBe('IPV6_CHAIN');
  });

  it('a chain that does not fit the packet', () => {
    for (const cut of [1, 7]) {
      const packet = B.ipv6({ ...up, ext: [B.destinationOptions(), B.destinationOptions()] }, '').subarray(0, 56 - cut);
      B.put16(packet, 4, packet.length - 40);
      expect(fate(packet).reason).toBe('IPV6_CHAIN');
    }
    const long = B.destinationOptions();
    long.bytes[1] = 200;
    expect(chain(long).reason).toBe('IPV6_CHAIN');
  });

  it('No Next Header ends the packet, whatever lies behind it (§4.7)', () => {
    expect(fate(B.ipv6({ ...up, next: 59 }, 'ignored'))).toEqual(passes);
  });

  it('the last header is what conntrack sees', () => {
    const home = new H.Home();
    home.lan(B.ipv6({ ...up, ext: [B.destinationOptions(), B.authentication({ spi: 1, seq: 1 })] }, data));
    expect(home.router.conntrack.lines()[0]).toMatch(/^(ipv6 .*)?udp .*sport=4000 dport=53/);
  });
});

describe('§4.2 options: the two highest bits say what to do with an unknown one', () => {
  const option = (type: number) => B.hopByHop(Uint8Array.of(type, 2, 0, 0));

  it('00: skip', () => {
    expect(chain(option(0x1e))).toEqual(passes);
  });
  it('01: discard in silence', () => {
    expect(chain(option(0x5e))).toEqual({ reason: 'IPV6_CHAIN', error: null });
  });
  it('10 and 11: discard, and Parameter Problem 2 points at the option', () => {
    expect(chain(option(0x9e))).toEqual({ reason: 'IPV6_CHAIN', error: [4, 2, 42] });
    expect(chain(option(0xde))).toEqual({ reason: 'IPV6_CHAIN', error: [4, 2, 42] });
    expect(chain(B.hopByHop(B.hex('0000 0100 9e020000')))).toEqual({ reason: 'IPV6_CHAIN', error: [4, 2, 46] });
  });
  it('padding and Router Alert are known', () => {
    expect(chain(B.hopByHop(B.hex('00 0103000000 05020000 0100')))).toEqual(passes);
  });
  it('an option that runs out of its header', () => {
    expect(chain(B.hopByHop(B.hex('00000000001e'))).reason).toBe('IPV6_CHAIN');
    expect(chain(B.hopByHop(B.hex('1e0500000000'))).reason).toBe('IPV6_CHAIN');
  });
  it("options of the destination are the destination's to judge", () => {
    expect(chain(B.destinationOptions(Uint8Array.of(0xde, 2, 0, 0)))).toEqual(passes);
  });
});

describe('§4.4 routing headers', () => {
  const final = B.ip('2001:db8:99::99');

  it('type 0 with segments left is refused, and pointed at (RFC 5095 §3)', () => {
    const header = B.routing({ type: 0, left: 1, data: B.concat(new Uint8Array(4), final) });
    const packet = B.ipv6({ ...up, ext: [header], finalDst: final }, data);
    expect(fate(packet)).toEqual({ reason: 'IPV6_RH0', error: [4, 0, 42] });
  });

  it('type 0 with no segment left is silently refused too: for a gateway RFC 6092 REC-4 goes beyond RFC 5095', () => {
    expect(chain(B.routing({ type: 0, left: 0 }))).toEqual({ reason: 'IPV6_RH0', error: null });
  });

  it.each([2, 4])(
    'type %i with segments left: checksums are for the final destination; they were called wrong',
    (type) => {
      const header = B.routing({ type, left: 1, data: B.concat(new Uint8Array(4), final) });
      expect(fate(B.ipv6({ ...up, ext: [header], finalDst: final }, data))).toEqual(passes);
      const syn = B.tcp({ sport: 1, dport: 2, flags: 'S' });
      expect(fate(B.ipv6({ ...up, ext: [header], finalDst: final }, syn))).toEqual(passes);
    },
  );
});

describe('§4.5 fragments', () => {
  it('an atomic fragment is a whole packet (RFC 6946)', () => {
    expect(chain(B.fragmentHeader({ offset: 0, more: false, id: 9 }))).toEqual(passes);
  });

  it('a first fragment without the whole chain is refused, and told so (RFC 7112 §5)', () => {
    // The destination options end the fragment, their own length says that they go on.
    const header = B.destinationOptions(new Uint8Array(22));
    const packet = B.ipv6({ ...up, ext: [B.fragmentHeader({ offset: 0, more: true, id: 9 }), header] }, '');
    const cut = packet.subarray(0, packet.length - 8);
    B.put16(cut, 4, cut.length - 40);
    expect(fate(cut)).toEqual({ reason: 'FRAG_TINY', error: [4, 3, 0] });
  });
});
