/**
 * corpus: frames to mutate. Ordinary traffic of the home network of lib/home.ts in both directions, the rarer formats of
 * the builders, and frames of the real captures when they are there; and the mutations themselves.
 */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { ETHERNET_HEADER, ethernetFrame, openCapture } from '../../dataplane/ports/capture-reader.ts';
import * as B from '../lib/build.ts';
import { CAPTURES } from '../lib/captures.ts';
import * as H from '../lib/home.ts';

/** A frame and the side that it belongs to. */
export interface Sample {
  port: 'lan' | 'wan';
  frame: Uint8Array;
}

/** Frames by the builders: what a home network sends, and every header that the router knows. */
export function builtSamples(): Sample[] {
  const out: Sample[] = [];
  const lan = (packet: Uint8Array, vlan?: number) =>
    out.push({ port: 'lan', frame: B.ethernet({ src: H.HOST_MAC, dst: H.LAN_MAC, vlan }, packet) });
  const wan = (packet: Uint8Array, vlan?: number) =>
    out.push({ port: 'wan', frame: B.ethernet({ src: H.GATE_MAC, dst: H.WAN_MAC, vlan }, packet) });
  const up = { src: H.HOST, dst: H.SERVER };
  const down = { src: H.SERVER, dst: H.ROUTER_WAN };
  const up6 = { src: H.HOST6, dst: H.SERVER6 };
  const down6 = { src: H.SERVER6, dst: H.HOST6 };
  const syn = { mss: 1460, sackPermitted: true, wscale: 7, timestamps: [1, 0] as const };
  for (const [sport, dport] of [
    [40000, 80],
    [40001, 443],
    [700, 22],
  ]) {
    const c = { sport, dport };
    const s = { sport: dport, dport: sport };
    for (const [there, back, ip] of [
      [up, down, B.ipv4],
      [up6, down6, B.ipv6],
    ] as const) {
      lan(ip(there, B.tcp({ ...c, seq: 1000, flags: 'S', options: syn })));
      wan(ip(back, B.tcp({ ...s, seq: 9000, ack: 1001, flags: 'SA', options: syn })));
      lan(ip(there, B.tcp({ ...c, seq: 1001, ack: 9001, flags: 'A' })));
      lan(ip(there, B.tcp({ ...c, seq: 1001, ack: 9001, flags: 'PA' }, 'GET / HTTP/1.1\r\n\r\n')));
      wan(ip(back, B.tcp({ ...s, seq: 9001, ack: 1019, flags: 'A' }, new Uint8Array(1200).fill(65))));
      wan(ip(back, B.tcp({ ...s, seq: 9001, ack: 1019, flags: 'R' })));
      lan(ip(there, B.tcp({ ...c, seq: 1019, ack: 10201, flags: 'FA', options: { sack: [[1, 2]] } })));
      lan(ip(there, B.udp(c, 'query')));
      wan(ip(back, B.udp(s, 'an answer of some length')));
      wan(ip(back, B.udp(c, 'nobody asked for this')));
      lan(ip(there, B.udpLite({ ...c, coverage: 8 }, 'udp-lite')));
      lan(ip(there, B.sctp({ ...c, tag: 0 }, B.sctpChunk(1, 0, B.hex('00000001 0000ffff 00010001 00000001')))));
    }
  }
  lan(B.ipv4({ ...up, df: true }, B.udp({ sport: 5000, dport: 5001 }, new Uint8Array(1472))));
  lan(B.ipv4({ ...up, ttl: 1 }, B.udp({ sport: 5000, dport: 33434 }, 'traceroute')));
  lan(B.ipv6({ ...up6, hop: 1 }, B.udp({ sport: 5000, dport: 33434 }, 'traceroute')));
  lan(B.ipv6(up6, B.udp({ sport: 5000, dport: 5001 }, new Uint8Array(1452))));
  lan(B.ipv4(up, B.udp({ sport: 5000, dport: 53, checksum: 0 }, 'no checksum')));
  lan(B.ipv6(up6, B.udp({ sport: 5000, dport: 53, checksum: 0 }, 'no checksum')));
  for (const options of ['94040000', '01010100', '0708 04 00000000 00', '44080500 00000000'])
    lan(B.ipv4({ ...up, options: B.hex(options) }, B.udp({ sport: 5002, dport: 5003 }, 'options')));
  for (const dst of [H.SERVER, H.ROUTER_LAN, H.GATE, '192.168.1.77', '192.168.1.255', '255.255.255.255', '224.0.0.1'])
    lan(B.ipv4({ src: H.HOST, dst }, B.icmp({ type: 8, id: 77, seq: 1 }, 'ping')));
  for (const dst of [H.SERVER6, H.ROUTER_LAN6, 'ff02::1', 'fe80::ff:fe00:101', '2001:db8:1::77'])
    lan(B.ipv6({ src: H.HOST6, dst }, B.icmpv6({ type: 128, id: 77, seq: 1 }, 'ping')));
  wan(B.ipv4(down, B.icmp({ type: 0, id: 77, seq: 1 }, 'ping')));
  // Errors about what the host had sent, as the outside saw it.
  const sent = B.ipv4({ src: H.ROUTER_WAN, dst: H.SERVER, ttl: 60 }, B.udp({ sport: 40000, dport: 80 }, 'query'));
  const sentTcp = B.ipv4(
    { src: H.ROUTER_WAN, dst: H.SERVER },
    B.tcp({ sport: 40000, dport: 80, seq: 1000, flags: 'S' }),
  );
  const sent6 = B.ipv6(up6, B.udp({ sport: 40000, dport: 80 }, 'query'));
  for (const [type, code, mtu] of [
    [3, 4, 1400],
    [3, 3, 0],
    [11, 0, 0],
    [12, 0, 0],
    [5, 0, 0],
  ]) {
    wan(B.ipv4({ src: '198.51.100.99', dst: H.ROUTER_WAN }, B.icmp({ type, code, mtu }, sent)));
    wan(B.ipv4({ src: '198.51.100.99', dst: H.ROUTER_WAN }, B.icmp({ type, code, mtu }, sentTcp.subarray(0, 28))));
  }
  for (const type of [1, 2, 3, 4])
    wan(B.ipv6({ src: '2001:db8:9::9', dst: H.HOST6 }, B.icmpv6({ type, mtu: 1400 }, sent6)));
  // Extension headers, fragments, tunnels.
  const udp6 = B.udp({ sport: 6000, dport: 6001 }, 'behind extension headers');
  const ext = [
    [B.hopByHop(B.hex('05020000'))],
    [B.hopByHop(B.hex('c2020000'))],
    [B.hopByHop(), B.destinationOptions(), B.routing({ type: 3, left: 0 }), B.destinationOptions()],
    [B.routing({ type: 0, left: 1, data: B.concat(new Uint8Array(4), B.ip(H.SERVER6)) })],
    [B.authentication({ spi: 1, seq: 2 })],
    [B.fragmentHeader({ offset: 0, more: false, id: 5 })],
    Array.from({ length: 9 }, () => B.destinationOptions()),
  ];
  for (const chain of ext) lan(B.ipv6({ ...up6, ext: chain }, udp6));
  for (const part of B.fragment4(B.ipv4(up, B.udp({ sport: 1, dport: 2 }, new Uint8Array(900))), 400)) lan(part);
  for (const part of B.fragment6(B.ipv6(up6, B.udp({ sport: 1, dport: 2 }, new Uint8Array(900))), 400, 9)) lan(part);
  lan(B.ipv4(up, B.gre({ protocol: 0x0800, key: 5, checksum: true }, sent)));
  lan(B.ipv4(up, B.grePptp({ callId: 7, seq: 1, ack: 0 }, 'ppp')));
  lan(B.ipv4({ ...up, proto: 41 }, sent6));
  lan(B.ipv4({ ...up, proto: 50 }, B.hex('00000001 00000002 aabbccdd')));
  lan(B.ipv6({ ...up6, next: 59 }, ''));
  lan(B.ipv4(up, B.udp({ sport: 3, dport: 4 }, 'tagged')), 7);
  wan(B.ipv4(down, B.udp({ sport: 3, dport: 4 }, 'tagged')), 7);
  // ARP and neighbour discovery.
  const arp = (op: 'request' | 'reply', spa: string, tpa: string) =>
    out.push({
      port: 'lan',
      frame: B.ethernet({ src: H.HOST_MAC, dst: H.LAN_MAC, type: 0x0806 }, B.arp({ op, sha: H.HOST_MAC, spa, tpa })),
    });
  arp('request', H.HOST, H.ROUTER_LAN);
  arp('reply', '192.168.1.77', H.ROUTER_LAN);
  arp('request', H.ROUTER_LAN, H.ROUTER_LAN);
  const target = B.ip(H.ROUTER_LAN6);
  const option = B.concat(Uint8Array.of(1, 1), B.mac(H.HOST_MAC));
  lan(B.ipv6({ src: H.HOST6, dst: H.ROUTER_LAN6, hop: 255 }, B.icmpv6({ type: 135 }, B.concat(target, option))));
  option[0] = 2;
  const solved = B.concat(B.ip('2001:db8:1::77'), option);
  lan(B.ipv6({ src: H.HOST6, dst: H.ROUTER_LAN6, hop: 255 }, B.icmpv6({ type: 136, rest: 0x60000000 }, solved)));
  lan(
    B.ipv6({ src: 'fe80::10', dst: 'ff02::16', hop: 1, ext: [B.hopByHop(B.hex('05020000'))] }, B.icmpv6({ type: 143 })),
  );
  return out;
}

/** Frames of the captures, addressed to the router's ports, up to `each` of a file, on alternating sides. */
export function capturedSamples(each: number): Sample[] {
  const files = (folder: string): string[] => {
    try {
      return readdirSync(folder, { withFileTypes: true })
        .flatMap((entry) => {
          const path = join(folder, entry.name);
          return entry.isDirectory() ? files(path) : /\.(pcap|pcapng|cap)(\.gz)?$/.test(path) ? [path] : [];
        })
        .sort();
    } catch {
      return [];
    }
  };
  const out: Sample[] = [];
  for (const file of files(CAPTURES)) {
    const reader = openCapture(file);
    for (let n = 0; n < each && reader.next(); n++) {
      const frame = new Uint8Array(reader.capturedLength + ETHERNET_HEADER);
      const length = ethernetFrame(reader, frame, 0);
      if (length < 14 || length > 9014) continue;
      for (const port of ['lan', 'wan'] as const) {
        const copy = frame.slice(0, length);
        if ((copy[0] & 1) === 0) copy.set(B.mac(port === 'lan' ? H.LAN_MAC : H.WAN_MAC));
        out.push({ port, frame: copy });
      }
    }
  }
  return out;
}

const NASTY = [0, 1, 4, 5, 8, 0x0f, 0x14, 0x28, 0x3a, 0x40, 0x44, 0x45, 0x46, 0x4f, 0x60, 0x7f, 0x80, 0xfe, 0xff];

/** A changed copy of a frame: bits, bytes, lengths, pieces of another frame; often with its checksums made right again. */
export function mutate(random: B.Random, samples: readonly Sample[], frame: Uint8Array): Uint8Array {
  let out: Uint8Array = frame.slice();
  const kind = random.int(0, 9);
  if (kind === 0) return out;
  // Most changes hit the headers, where they mean something.
  const place = () =>
    random.chance(0.8) ? random.int(12, Math.min(out.length, 96) - 1) : random.int(0, out.length - 1);
  const times = random.int(1, 4);
  for (let n = 0; n < times && out.length > 14; n++) {
    switch (random.int(0, 6)) {
      case 0:
        out[place()] ^= 1 << random.int(0, 7);
        break;
      case 1:
        out[place()] = random.int(0, 255);
        break;
      case 2:
        out[place()] = random.pick(NASTY);
        break;
      case 3:
        if (random.chance(0.4)) out = out.slice(0, random.int(random.chance(0.2) ? 0 : 14, out.length));
        break;
      case 4:
        out = B.concat(out, random.bytes(random.int(1, 40)));
        break;
      case 5: {
        const other = random.pick(samples).frame;
        const at = random.int(14, Math.min(out.length, other.length));
        out = B.concat(out.subarray(0, at), other.subarray(at));
        break;
      }
      case 6: {
        // A length that is nearly right.
        const at = random.pick([16, 17, 18, 19, 38, 39, 58, 59]);
        if (at < out.length) out[at] += random.int(-9, 9);
        break;
      }
    }
  }
  if (kind >= 6) mendLength(out);
  if (kind >= 3) mend(out);
  return out;
}

/** Makes the length in the IP header fit the frame. */
function mendLength(frame: Uint8Array): void {
  const type = frame.length >= 14 ? B.get16(frame, 12) : 0;
  if (type === 0x0800 && frame.length >= 34) B.put16(frame, 16, frame.length - 14);
  else if (type === 0x86dd && frame.length >= 54) B.put16(frame, 18, frame.length - 54);
}

/** Makes the checksums of an IP packet right where its lengths allow, so that the other fields are what is judged. */
export function mend(frame: Uint8Array): void {
  const p = frame.subarray(14);
  const type = frame.length >= 14 ? B.get16(frame, 12) : 0;
  let l4: Uint8Array;
  let pseudo: Uint8Array;
  let proto: number;
  if (type === 0x0800 && p.length >= 20) {
    const header = (p[0] & 15) * 4;
    const total = B.get16(p, 2);
    if (header < 20 || header > p.length) return;
    B.put16(p, 10, 0);
    B.put16(p, 10, B.checksum(p.subarray(0, header)));
    if (total < header || total > p.length) return;
    proto = p[9];
    l4 = p.subarray(header, total);
    const length = proto === B.PROTO_UDP && l4.length >= 8 ? B.get16(l4, 4) : l4.length;
    pseudo = B.pseudoHeader(p.subarray(12, 16), p.subarray(16, 20), proto, length);
  } else if (type === 0x86dd && p.length >= 40) {
    const length = B.get16(p, 4);
    if (40 + length > p.length) return;
    proto = p[6];
    let at = 40;
    while ([0, 43, 60].includes(proto) && at + 8 <= 40 + length) {
      proto = p[at];
      at += (p[at + 1] + 1) * 8;
    }
    if (at > 40 + length) return;
    l4 = p.subarray(at, 40 + length);
    pseudo = B.pseudoHeader(p.subarray(8, 24), p.subarray(24, 40), proto, l4.length);
  } else return;
  const at = proto === B.PROTO_TCP ? 16 : proto === B.PROTO_UDP ? 6 : proto === B.PROTO_ICMP || proto === 58 ? 2 : -1;
  if (at < 0 || l4.length < at + 2) return;
  if (proto === B.PROTO_UDP) {
    const length = B.get16(l4, 4);
    if (length < 8 || length > l4.length) return;
    l4 = l4.subarray(0, length);
  }
  B.put16(l4, at, 0);
  const sum = proto === B.PROTO_ICMP ? B.checksum(l4) : B.checksum(pseudo, l4);
  B.put16(l4, at, sum === 0 && proto === B.PROTO_UDP ? 0xffff : sum);
}
