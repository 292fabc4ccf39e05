/**
 * Real packets with good and bad checksums, odd TCP and malformed headers (SLUICE_CAPTURES): the verdict on every one of
 * them, with its reason. Fragments are in reassembly-captures.test.ts.
 *
 * All frames enter one port of a router that forwards everything. A loopback address, which no router forwards, becomes
 * 100.64.26.193: its two halves have the same sum, so that every checksum stays as good or as bad as it was captured.
 */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { ETHERNET_HEADER, ethernetFrame, openCapture } from '../../dataplane/ports/capture-reader.ts';
import { mac } from '../lib/build.ts';
import { CAPTURES } from '../lib/captures.ts';
import { HOST, LAN, routed } from './fragment-cut.ts';

const present = existsSync(join(CAPTURES, 'checksums'));
if (!present) console.log(`verdicts on captures: none in ${CAPTURES} (SLUICE_CAPTURES names another folder)`);

const FORWARDED = 'forwarded';

/** What became of each packet: forwarded, or the reason for its drop as counted, and why where `explain` knows more. */
function verdicts(name: string): string[] {
  const reader = openCapture(join(CAPTURES, name));
  const router = routed({ extra: { firewall: { ipv6: 'zones', icmpv6: false }, conntrack: { max: 256 } } });
  const buffer = new Uint8Array(ETHERNET_HEADER + 65536);
  const seen: string[] = [];
  let before = { ...router.counters.dropped };
  while (reader.next()) {
    const frame = buffer.slice(0, ethernetFrame(reader, buffer, 0));
    frame.set(mac(LAN.mac), 0);
    frame.set(mac(HOST.mac), 6);
    if (frame[12] === 8 && frame[13] === 0)
      for (const at of [26, 30]) if (frame[at] === 127) frame.set([100, 64, 26, 193], at);
    // Asked first: an explanation changes nothing, and must say what then happens.
    const explained = router.explain('lan', frame);
    router.inject('lan', frame);
    const now = router.counters.dropped;
    const reason = Object.keys(now).find((each) => now[each] !== (before[each] ?? 0));
    before = { ...now };
    expect(explained.reason).toBe(reason);
    if (reason === undefined) seen.push(FORWARDED);
    else seen.push(reason === 'CT_INVALID' ? `${reason}: ${explained.why}` : reason);
  }
  return seen;
}

const times = (count: number, verdict: string): string[] => new Array<string>(count).fill(verdict);
const invalid = (why: string): string => `CT_INVALID: CT_INVALID at conntrack-in: ${why}`;
const OPENS_NOTHING = invalid('this segment cannot open a connection, and there is none for it');
const WRONG_STATE = invalid('this kind of segment is invalid in the state that the connection is in');
const UNRELATED = invalid('the ICMP error quotes a packet of no connection that is known here');

/** By file name: `good` passes, `bad` fails by the checksum that its name says. */
function bySum(name: string): string {
  if (name.includes('route0')) return 'IPV6_RH0'; // refused before its checksum is looked at
  if (name.includes('good') || name.startsWith('mip6')) return FORWARDED;
  return name.includes('tcp')
    ? 'TCP_CSUM'
    : name.includes('udp')
      ? 'UDP_CSUM'
      : name.includes('icmp')
        ? 'ICMP_CSUM'
        : 'IP_CSUM';
}

describe.skipIf(!present)('checksums', () => {
  const files = present ? readdirSync(join(CAPTURES, 'checksums')).filter((name) => /(good|bad)/.test(name)) : [];

  it.each(files.filter((name) => !name.startsWith('localhost')))('%s', (name) => {
    // That of a Mobility Header is its receiver's to check; a Home Address option changes what TCP's and UDP's cover.
    expect(verdicts(`checksums/${name}`)).toEqual([bySum(name)]);
  });

  it('localhost: a host that leaves checksums to its device', () => {
    const bad = 'TCP_CSUM';
    expect(verdicts('checksums/localhost-bad-chksum.pcap')).toEqual([
      ...[bad, OPENS_NOTHING, bad, bad, FORWARDED, FORWARDED, bad, bad, FORWARDED, bad],
    ]);
  });
});

describe.skipIf(!present)('TCP oddities', () => {
  it.each([
    ['tcp-fast-open', times(16, FORWARDED)],
    ['tcp-option-sack', times(4, FORWARDED)],
    ['tcp-window-scale', times(5, FORWARDED)],
    ['tcp-syn-then-rst', times(2, FORWARDED)],
    // A forged RST in the first packets; its second comes when nothing is left to reset.
    ['tcp-rst-inject', [FORWARDED, FORWARDED, OPENS_NOTHING, ...times(6, FORWARDED)]],
    // The SYN/ACK before its SYN: without it there is no handshake, and what needs one is refused.
    [
      'tcp-handshake-reorder',
      [OPENS_NOTHING, FORWARDED, WRONG_STATE, WRONG_STATE, ...times(5, FORWARDED), ...times(5, WRONG_STATE)],
    ],
  ])('%s', (name, expected) => {
    expect(verdicts(`${name}.pcap`)).toEqual(expected);
  });

  it('tcp-truncated-header: what was cut by the capture is dropped, the rest goes on', () => {
    const seen = verdicts('tcp-truncated-header.pcap');
    // The SYN was cut: so the SYN/ACK opens nothing.
    expect(seen.slice(0, 3)).toEqual(['PKT_TOO_SMALL', OPENS_NOTHING, FORWARDED]);
    const cut = [1, 4, 6, 8, 9, 11, 12, 14, 15, 17, 19, 21];
    expect(seen.flatMap((each, n) => (each === 'PKT_TOO_SMALL' ? [n + 1] : []))).toEqual(cut);
    expect(seen.filter((each) => each === FORWARDED)).toHaveLength(seen.length - cut.length - 1);
  });
});

describe.skipIf(!present)('headers', () => {
  it.each([
    ['ipv6-bad-version', [FORWARDED, 'IP_INHDR', FORWARDED, 'IP_INHDR']],
    ['ipv6-hbh-routing0', ['IPV6_RH0']],
    ['ipv6-routing-header', times(4, 'IPV6_RH0')],
    ['ipv6-srh-ext-header', [FORWARDED]],
    ['ipv6-mobile-hoa', [FORWARDED]],
    // Options of lengths that lie: no Home Address, so the checksum is wrong; and a chain that leaves its packet.
    ['ipv6-mobility-dst-opts', ['UDP_CSUM', 'IPV6_CHAIN', 'UDP_CSUM']],
    ['ipv6-next-header-oobr', ['PKT_TOO_SMALL']],
    ['ipv6-rthdr-oobr', ['PKT_TOO_SMALL']],
    // The last two are from a link-local address.
    ['ipv6-zero-len-ah', [...times(8, FORWARDED), 'IP_SCOPE', 'IP_SCOPE']],
    ['icmp-destunreach-udp', [UNRELATED]],
    ['icmp-timeexceeded', [UNRELATED]],
    ['icmp6-toobig', [UNRELATED]],
    ['icmpv6-rfc7112', [UNRELATED]],
    ['icmp6-destunreach-ip6ext', [invalid('the ICMP error quotes too little of a packet to find its connection')]],
  ])('%s', (name, expected) => {
    expect(verdicts(`${name}.pcap`)).toEqual(expected);
  });
});
