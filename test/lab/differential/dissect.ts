/**
 * dissect: a frame as a list of named fields, so that a difference between two frames can be told in words. Ethernet,
 * 802.1Q, ARP, IPv4, IPv6 with extension headers, TCP, UDP, ICMP, ICMPv6, GRE, and the packets that errors quote.
 * Bytes that it does not know become one field `data`. It never fails: a header that is cut off is data.
 */
import { get16, ipText, macText, toHex } from '../../lib/build.ts';

export interface Field {
  name: string;
  at: number;
  length: number;
  text: string;
}

class Reader {
  readonly fields: Field[] = [];
  readonly frame: Uint8Array;
  at = 0;
  prefix = '';

  constructor(frame: Uint8Array) {
    this.frame = frame;
  }

  left(): number {
    return this.frame.length - this.at;
  }

  take(name: string, length: number, show: (bytes: Uint8Array) => string = (b) => `0x${toHex(b)}`): Uint8Array {
    const bytes = this.frame.subarray(this.at, this.at + length);
    if (length > 0) this.fields.push({ name: `${this.prefix}${name}`, at: this.at, length, text: show(bytes) });
    this.at += length;
    return bytes;
  }
}

const decimal = (bytes: Uint8Array) => String(bytes.reduce((sum, b) => sum * 256 + b, 0));
const FLAGS = 'FSRPAUEC';
const flagText = (b: Uint8Array) => [...FLAGS].filter((_, n) => b[0] & (1 << n)).join('') || 'none';
const data = (b: Uint8Array) => (b.length <= 24 ? toHex(b) : `${toHex(b.subarray(0, 24))}… (${b.length} bytes)`);

export function dissect(frame: Uint8Array): Field[] {
  const r = new Reader(frame);
  if (r.left() >= 14) {
    r.take('eth.dst', 6, macText);
    r.take('eth.src', 6, macText);
    let type = get16(r.take('eth.type', 2), 0);
    while ((type === 0x8100 || type === 0x88a8) && r.left() >= 4) {
      r.take('vlan.tci', 2);
      type = get16(r.take('vlan.type', 2), 0);
    }
    if (type === 0x0800 || type === 0x86dd) packet(r);
    else if (type === 0x0806 && r.left() >= 28) arp(r);
  }
  r.take('data', r.left(), data);
  return r.fields;
}

function arp(r: Reader): void {
  r.take('arp.formats', 6);
  r.take('arp.op', 2, decimal);
  r.take('arp.sha', 6, macText);
  r.take('arp.spa', 4, ipText);
  r.take('arp.tha', 6, macText);
  r.take('arp.tpa', 4, ipText);
}

function packet(r: Reader): void {
  const version = r.frame[r.at] >> 4;
  if (version === 4 && r.left() >= 20) ipv4(r);
  else if (version === 6 && r.left() >= 40) ipv6(r);
}

function ipv4(r: Reader): void {
  const headerLength = (r.frame[r.at] & 15) * 4;
  r.take('ip.version+ihl', 1);
  r.take('ip.tos', 1);
  r.take('ip.length', 2, decimal);
  r.take('ip.id', 2);
  const fragment = get16(r.take('ip.fragment', 2), 0);
  r.take('ip.ttl', 1, decimal);
  const proto = r.take('ip.proto', 1, decimal)[0];
  r.take('ip.checksum', 2);
  r.take('ip.src', 4, ipText);
  r.take('ip.dst', 4, ipText);
  r.take('ip.options', Math.min(Math.max(0, headerLength - 20), r.left()));
  if ((fragment & 0x1fff) === 0) transport(r, proto);
}

function ipv6(r: Reader): void {
  r.take('ip6.version+class+flow', 4);
  r.take('ip6.length', 2, decimal);
  let next = r.take('ip6.next', 1, decimal)[0];
  r.take('ip6.hop', 1, decimal);
  r.take('ip6.src', 16, ipText);
  r.take('ip6.dst', 16, ipText);
  while ((next === 0 || next === 43 || next === 60 || next === 44 || next === 51) && r.left() >= 8) {
    const size = next === 44 ? 8 : next === 51 ? (r.frame[r.at + 1] + 2) * 4 : (r.frame[r.at + 1] + 1) * 8;
    const offset = next === 44 ? get16(r.frame, r.at + 2) >> 3 : 0;
    const bytes = r.take(`ip6.ext${next}`, Math.min(size, r.left()));
    next = bytes[0];
    if (offset > 0) return;
  }
  transport(r, next);
}

function transport(r: Reader, proto: number): void {
  if (proto === 6 && r.left() >= 20) {
    r.take('tcp.sport', 2, decimal);
    r.take('tcp.dport', 2, decimal);
    r.take('tcp.seq', 4, decimal);
    r.take('tcp.ack', 4, decimal);
    const offset = r.take('tcp.offset', 1)[0] >> 4;
    r.take('tcp.flags', 1, flagText);
    r.take('tcp.window', 2, decimal);
    r.take('tcp.checksum', 2);
    r.take('tcp.urgent', 2, decimal);
    r.take('tcp.options', Math.min(Math.max(0, offset * 4 - 20), r.left()));
  } else if ((proto === 17 || proto === 136) && r.left() >= 8) {
    r.take('udp.sport', 2, decimal);
    r.take('udp.dport', 2, decimal);
    r.take('udp.length', 2, decimal);
    r.take('udp.checksum', 2);
  } else if ((proto === 1 || proto === 58) && r.left() >= 8) {
    const name = proto === 1 ? 'icmp' : 'icmp6';
    const type = r.take(`${name}.type`, 1, decimal)[0];
    r.take(`${name}.code`, 1, decimal);
    r.take(`${name}.checksum`, 2);
    r.take(`${name}.rest`, 4);
    const error = proto === 1 ? [3, 4, 5, 11, 12].includes(type) : type < 128;
    if (error && !r.prefix.includes('quote')) {
      r.prefix = 'quote ';
      packet(r);
    }
  } else if (proto === 47 && r.left() >= 4) {
    r.take('gre.flags', 2);
    r.take('gre.protocol', 2);
    if (r.left() >= 4) r.take('gre.key', 4);
  } else if (proto === 41 || proto === 4) {
    r.prefix = 'inner ';
    packet(r);
  }
}

/** One line for a frame: enough to recognise it in a list. */
export function summary(frame: Uint8Array): string {
  const fields = new Map(dissect(frame).map((f) => [f.name, f.text]));
  const get = (...names: string[]) => names.map((n) => fields.get(n)).find((t) => t !== undefined);
  const port = (text: string | undefined) => (text === undefined ? '' : `:${text}`);
  const src = get('ip.src', 'ip6.src');
  if (src === undefined) return `${get('eth.src') ?? '?'} > ${get('eth.dst') ?? '?'} type ${get('eth.type') ?? '?'}`;
  const kind = ['tcp', 'udp', 'icmp', 'icmp6', 'gre'].find((k) =>
    [...fields.keys()].some((n) => n.startsWith(`${k}.`)),
  );
  const detail =
    get('tcp.flags') ??
    (fields.has('icmp.type') || fields.has('icmp6.type')
      ? `${get('icmp.type', 'icmp6.type')}/${get('icmp.code', 'icmp6.code')}`
      : '');
  return `${src}${port(get('tcp.sport', 'udp.sport'))} > ${get('ip.dst', 'ip6.dst')}${port(get('tcp.dport', 'udp.dport'))} ${kind ?? `protocol ${get('ip.proto', 'ip6.next')}`} ${detail}`.trimEnd();
}
