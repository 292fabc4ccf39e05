/**
 * verify: a naive checker of one frame, independent of the router's code. It returns a list of what is wrong: lengths
 * that do not fit, checksums that do not add up, also inside ICMP errors, 6in4, IPIP and GRE. An empty list means a
 * receiver would accept the frame. It does not judge sense (addresses, TTLs above zero, protocol state).
 */
import { checksum, get16, get32, PROTO_ICMP, PROTO_ICMPV6, PROTO_TCP, PROTO_UDP, pseudoHeader } from './build.ts';
import { crc32c, PROTO_GRE, PROTO_SCTP, PROTO_UDPLITE } from './build-more.ts';

export interface VerifyOptions {
  /** Accept a UDP checksum of zero over IPv6 (RFC 6935 tunnels; forwarded as it is). */
  zeroUdp6?: boolean;
  /** Do not look into the packets that ICMP errors quote. */
  skipQuotes?: boolean;
}

/** Problems of an Ethernet frame (without FCS); empty when there are none. */
export function verify(frame: Uint8Array, options: VerifyOptions = {}): string[] {
  const problems: string[] = [];
  if (frame.length < 14) return [`ethernet: ${frame.length} bytes, expected at least 14`];
  let at = 12;
  while ((get16(frame, at) === 0x8100 || get16(frame, at) === 0x88a8) && at + 6 <= frame.length) at += 4;
  const type = get16(frame, at);
  const body = frame.subarray(at + 2);
  if (type === 0x0800) verifyIpv4(body, options, problems, 'ipv4');
  else if (type === 0x86dd) verifyIpv6(body, options, problems, 'ipv6');
  else if (type === 0x0806) verifyArp(body, problems);
  else if (type === 0x8864) verifyPppoe(body, options, problems);
  return problems;
}

function verifyArp(p: Uint8Array, problems: string[]): void {
  if (p.length < 28) problems.push(`arp: ${p.length} bytes, expected at least 28`);
  else if (get32(p, 0) !== 0x00010800 || get16(p, 4) !== 0x0604)
    problems.push('arp: not Ethernet and IPv4 (hardware 1, protocol 0x0800, lengths 6 and 4)');
}

function verifyPppoe(p: Uint8Array, options: VerifyOptions, problems: string[]): void {
  if (p.length < 8) {
    problems.push(`pppoe: ${p.length} bytes, expected at least 8`);
    return;
  }
  const length = get16(p, 4);
  if (6 + length > p.length) problems.push(`pppoe: length ${length} but ${p.length - 6} bytes`);
  const body = p.subarray(8, 6 + length);
  if (get16(p, 6) === 0x0021) verifyIpv4(body, options, problems, 'pppoe ipv4');
  if (get16(p, 6) === 0x0057) verifyIpv6(body, options, problems, 'pppoe ipv6');
}

function verifyIpv4(p: Uint8Array, options: VerifyOptions, problems: string[], where: string): void {
  if (p.length < 20) {
    problems.push(`${where}: ${p.length} bytes, expected at least 20`);
    return;
  }
  const headerLength = (p[0] & 15) * 4;
  const total = get16(p, 2);
  if (p[0] >> 4 !== 4) problems.push(`${where}: version ${p[0] >> 4}, expected 4`);
  if (headerLength < 20 || headerLength > p.length) {
    problems.push(`${where}: header length ${headerLength}`);
    return;
  }
  if (checksum(p.subarray(0, headerLength)) !== 0)
    problems.push(`${where}: header checksum 0x${get16(p, 10).toString(16)} is wrong`);
  if (total < headerLength || total > p.length) {
    problems.push(`${where}: total length ${total}, header ${headerLength}, bytes there ${p.length}`);
    return;
  }
  const fragment = get16(p, 6);
  if ((fragment & 0x1fff) !== 0 || fragment & 0x2000) {
    if (fragment & 0x2000 && (total - headerLength) & 7)
      problems.push(`${where}: fragment with more to come carries ${total - headerLength} bytes, not a multiple of 8`);
    return;
  }
  const l4 = p.subarray(headerLength, total);
  verifyTransport(p.subarray(12, 16), p.subarray(16, 20), p[9], l4, options, problems, where);
}

function verifyIpv6(p: Uint8Array, options: VerifyOptions, problems: string[], where: string): void {
  if (p.length < 40) {
    problems.push(`${where}: ${p.length} bytes, expected at least 40`);
    return;
  }
  if (p[0] >> 4 !== 6) problems.push(`${where}: version ${p[0] >> 4}, expected 6`);
  const length = get16(p, 4);
  if (40 + length > p.length) {
    problems.push(`${where}: payload length ${length} but ${p.length - 40} bytes`);
    return;
  }
  let end = 40 + length;
  let next = p[6];
  let at = 40;
  let finalDst = p.subarray(24, 40);
  for (;;) {
    if (next === 0 || next === 60 || next === 43 || next === 51 || next === 135 || next === 139 || next === 140) {
      if (at + 8 > end) {
        problems.push(`${where}: extension header ${next} is cut off`);
        return;
      }
      const size = next === 51 ? (p[at + 1] + 2) * 4 : (p[at + 1] + 1) * 8;
      if (at + size > end) {
        problems.push(`${where}: extension header ${next} of ${size} bytes does not fit`);
        return;
      }
      // The last address of a routing header with segments left stands in the pseudo-header (RFC 8200 §8.1).
      if (next === 43 && p[at + 3] > 0 && size >= 24) {
        const srh = p[at + 2] === 4; // RFC 8754 lists its segments backwards
        finalDst = srh ? p.subarray(at + 8, at + 24) : p.subarray(at + size - 16, at + size);
      }
      const mobility = next === 135 ? at : -1;
      next = p[at];
      at += size;
      if (mobility >= 0 && next === 59) return;
    } else if (next === 44) {
      if (at + 8 > end) {
        problems.push(`${where}: fragment header is cut off`);
        return;
      }
      const field = get16(p, at + 2);
      if (field & 1 && (end - at - 8) & 7)
        problems.push(`${where}: fragment with more to come carries ${end - at - 8} bytes, not a multiple of 8`);
      next = p[at];
      at += 8;
      if (field & 0xfff9) return;
    } else break;
  }
  if (next === 59) end = at;
  verifyTransport(p.subarray(8, 24), finalDst, next, p.subarray(at, end), options, problems, where);
}

function verifyTransport(
  src: Uint8Array,
  dst: Uint8Array,
  proto: number,
  p: Uint8Array,
  options: VerifyOptions,
  problems: string[],
  where: string,
): void {
  const least = {
    [PROTO_TCP]: 20,
    [PROTO_UDP]: 8,
    [PROTO_UDPLITE]: 8,
    [PROTO_ICMP]: 8,
    [PROTO_ICMPV6]: 4,
    [PROTO_SCTP]: 12,
    [PROTO_GRE]: 4,
  }[proto];
  if (least !== undefined && p.length < least) {
    problems.push(`${where}: protocol ${proto} with ${p.length} bytes, expected at least ${least}`);
    return;
  }
  const six = src.length === 16;
  const sumOver = (bytes: Uint8Array) => checksum(pseudoHeader(src, dst, proto, p.length), bytes);
  const wrong = (name: string, at: number) =>
    problems.push(`${where} ${name}: checksum 0x${get16(p, at).toString(16).padStart(4, '0')} is wrong`);
  if (proto === PROTO_TCP) {
    const offset = (p[12] >> 4) * 4;
    if (offset < 20 || offset > p.length) problems.push(`${where} tcp: data offset ${offset}, segment ${p.length}`);
    if (sumOver(p) !== 0) wrong('tcp', 16);
  } else if (proto === PROTO_UDP) {
    const length = get16(p, 4);
    if (length < 8 || length > p.length) {
      problems.push(`${where} udp: length ${length}, datagram ${p.length}`);
      return;
    }
    if (get16(p, 6) === 0) {
      if (six && !options.zeroUdp6) problems.push(`${where} udp: checksum zero over IPv6`);
    } else if (checksum(pseudoHeader(src, dst, proto, length), p.subarray(0, length)) !== 0) wrong('udp', 6);
  } else if (proto === PROTO_UDPLITE) {
    const coverage = get16(p, 4) || p.length;
    if (coverage < 8 || coverage > p.length)
      problems.push(`${where} udp-lite: coverage ${coverage}, ${p.length} bytes`);
    else if (sumOver(p.subarray(0, coverage)) !== 0) wrong('udp-lite', 6);
  } else if (proto === PROTO_SCTP) {
    const copy = p.slice();
    copy.fill(0, 8, 12);
    const crc = (p[8] | (p[9] << 8) | (p[10] << 16) | (p[11] << 24)) >>> 0;
    if (crc32c(copy) !== crc) problems.push(`${where} sctp: CRC32c 0x${crc.toString(16)} is wrong`);
  } else if (proto === PROTO_ICMP && !six) {
    if (checksum(p) !== 0) wrong('icmp', 2);
    if ([3, 4, 5, 11, 12].includes(p[0]) && !options.skipQuotes)
      verifyQuote(p.subarray(8), options, problems, `${where} icmp quote`);
  } else if (proto === PROTO_ICMPV6 && six) {
    if (sumOver(p) !== 0) wrong('icmpv6', 2);
    if (p[0] < 128 && p[0] > 0 && !options.skipQuotes)
      verifyQuote(p.subarray(8), options, problems, `${where} icmpv6 quote`);
  } else if (proto === PROTO_GRE) {
    if (p[0] & 0x80 && checksum(p) !== 0) wrong('gre', 4);
  } else if (proto === 4) verifyIpv4(p, options, problems, `${where} ipip`);
  else if (proto === 41) verifyIpv6(p, options, problems, `${where} ${six ? 'ip6in6' : '6in4'}`);
}

/** The start of a packet inside an ICMP error: the IPv4 header must be right; the rest only when it is all there. */
function verifyQuote(quote: Uint8Array, options: VerifyOptions, problems: string[], where: string): void {
  if (quote.length >= 20 && quote[0] >> 4 === 4) {
    const headerLength = (quote[0] & 15) * 4;
    if (get16(quote, 2) <= quote.length) verifyIpv4(quote, options, problems, where);
    else if (headerLength < 20 || headerLength > quote.length) problems.push(`${where}: header length ${headerLength}`);
    else if (checksum(quote.subarray(0, headerLength)) !== 0) problems.push(`${where}: header checksum is wrong`);
  } else if (quote.length >= 40 && quote[0] >> 4 === 6) {
    if (40 + get16(quote, 4) <= quote.length) verifyIpv6(quote, options, problems, where);
  } else if (quote.length > 0) problems.push(`${where}: ${quote.length} bytes that are no IP header`);
}
