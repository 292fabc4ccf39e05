/** For the tests of fragments: naive cutters and a naive joiner of both families, and a router to send them through. */
import { createRouter, type Router, type RouterOptions } from '../../controlplane/index.ts';
import {
  checksum,
  concat,
  ethernet,
  get16,
  type Payload,
  put16,
  type Random,
  toBytes,
  u16,
  u32,
  type VerifyOptions,
  verify,
} from '../lib/build.ts';

export interface Cut4Options {
  /** Changes a fragment's header bytes before its checksum is made; `n` counts from 0. */
  change?: (header: Uint8Array, n: number) => void;
  /** Header of the fragments behind the first, when it differs (options that are not copied). */
  later?: Uint8Array;
}

/** Cuts an IPv4 packet behind the payload offsets `cuts`, ascending multiples of 8. */
export function cut4(packet: Uint8Array, cuts: readonly number[], options: Cut4Options = {}): Uint8Array[] {
  const length = (packet[0] & 15) * 4;
  const body = packet.subarray(length);
  const bounds = [0, ...cuts, body.length];
  return bounds.slice(1).map((end, n) => {
    const header = (n > 0 && options.later ? options.later : packet.subarray(0, length)).slice();
    put16(header, 2, header.length + end - bounds[n]);
    const more = n < bounds.length - 2 ? 0x2000 : 0;
    put16(header, 6, (get16(packet, 6) & 0x4000) | more | (bounds[n] >> 3));
    options.change?.(header, n);
    put16(header, 10, 0);
    put16(header, 10, checksum(header));
    return concat(header, body.subarray(bounds[n], end));
  });
}

/** Cuts an IPv6 packet behind its first `fixed` bytes (40, or the headers that every fragment repeats as well). */
export function cut6(
  packet: Uint8Array,
  cuts: readonly number[],
  id: number,
  options: { fixed?: number; field?: number; change?: (header: Uint8Array, n: number) => void } = {},
): Uint8Array[] {
  const fixed = options.fixed ?? 40;
  const field = options.field ?? 6;
  const body = packet.subarray(fixed);
  const bounds = [0, ...cuts, body.length];
  return bounds.slice(1).map((end, n) => {
    const header = packet.slice(0, fixed);
    const next = header[field];
    header[field] = 44;
    put16(header, 4, fixed - 40 + 8 + end - bounds[n]);
    options.change?.(header, n);
    const more = n < bounds.length - 2 ? 1 : 0;
    return concat(header, Uint8Array.of(next, 0), u16(bounds[n] | more), u32(id), body.subarray(bounds[n], end));
  });
}

/** One fragment by hand: IPv4 with these fields, any payload. */
export function piece4(
  header: Uint8Array,
  o: { offset: number; more: boolean; df?: boolean },
  payload: Payload,
): Uint8Array {
  const body = toBytes(payload);
  const h = header.slice(0, (header[0] & 15) * 4);
  put16(h, 2, h.length + body.length);
  put16(h, 6, (o.df ? 0x4000 : 0) | (o.more ? 0x2000 : 0) | (o.offset >> 3));
  put16(h, 10, 0);
  put16(h, 10, checksum(h));
  return concat(h, body);
}

/** Ascending cuts of a payload of `length` bytes into at most `pieces`, multiples of 8. */
export function randomCuts(random: Random, length: number, pieces: number): number[] {
  const cuts = new Set<number>();
  for (let n = 1; n < pieces; n++) {
    const at = random.int(1, Math.max(1, (length - 1) >> 3)) * 8;
    if (at < length) cuts.add(at);
  }
  return [...cuts].sort((a, b) => a - b);
}

export function shuffled<T>(random: Random, items: readonly T[]): T[] {
  const out = [...items];
  for (let n = out.length - 1; n > 0; n--) {
    const m = random.int(0, n);
    [out[n], out[m]] = [out[m], out[n]];
  }
  return out;
}

// --- a router between two hosts ------------------------------------------------------------------------------------------

export const HOST = { mac: '02:00:00:00:0a:10', v4: '192.168.1.10', v6: '2001:db8:1::10' };
export const FAR = { mac: '02:00:00:00:00:fe', v4: '198.51.100.1', v6: '2001:db8:f::1' };
export const LAN = { mac: '02:00:00:00:01:01', v4: '192.168.1.1', v6: '2001:db8:1::1' };
export const WAN = { mac: '02:00:00:00:01:02', v4: '203.0.113.1', v6: '2001:db8:ffff::1' };

/** A router without NAT; `lan` and `wan` are merged into the ports. */
export function routed(o: { lan?: object; wan?: object; extra?: object; options?: RouterOptions } = {}): Router {
  return createRouter(
    {
      ports: {
        lan: { kind: 'memory', zone: 'lan', mac: LAN.mac, addresses: [`${LAN.v4}/24`, `${LAN.v6}/64`], ...o.lan },
        wan: { kind: 'memory', zone: 'wan', mac: WAN.mac, addresses: [`${WAN.v4}/24`, `${WAN.v6}/64`], ...o.wan },
      },
      routes: [
        { to: '0.0.0.0/0', via: '203.0.113.254' },
        { to: '::/0', via: '2001:db8:ffff::fe' },
      ],
      neighbors: [
        { port: 'lan', ip: HOST.v4, mac: HOST.mac },
        { port: 'lan', ip: HOST.v6, mac: HOST.mac },
        { port: 'wan', ip: '203.0.113.254', mac: FAR.mac },
        { port: 'wan', ip: '2001:db8:ffff::fe', mac: FAR.mac },
      ],
      conntrack: { max: 4096 },
      offload: { mode: 'off' },
      ...o.extra,
    },
    o.options,
  );
}

/** Sends IP packets from the host into the router. */
export function send(router: Router, packets: readonly Uint8Array[], port = 'lan'): void {
  const [src, dst] = port === 'lan' ? [HOST.mac, LAN.mac] : [FAR.mac, WAN.mac];
  for (const p of packets) router.inject(port, ethernet({ src, dst }, p));
}

/** The IP packets that left a port. Every frame is well formed. */
export function taken(router: Router, port = 'wan', options: VerifyOptions = {}): Uint8Array[] {
  return router.take(port).map((frame) => {
    const problems = verify(frame, options);
    if (problems.length > 0) throw new Error(problems.join('; '));
    return frame.slice(14);
  });
}

/** Drops by reason, without those that are zero. */
export function drops(router: Router): Record<string, number> {
  return Object.fromEntries(Object.entries(router.counters.dropped).filter(([, n]) => n > 0));
}

/** Nothing is left of what went through: every slot is free, nothing waits. */
export function isIdle(router: Router): boolean {
  const { frames, path } = router;
  return (
    frames.freeSmallCount === frames.small &&
    frames.freeLargeCount === frames.large &&
    path.fragments.count === 0 &&
    path.fragments.held === 0 &&
    router.counters.held === 0
  );
}

/**
 * Puts the fragments of any number of datagrams together, naively: a map of bytes by key. Returns each whole datagram with the
 * first fragment's header, fragment header taken out, length and checksum right, DF cleared; in order of completion.
 */
export function joined(packets: readonly Uint8Array[]): Uint8Array[] {
  const parts = new Map<string, { at: number; more: boolean; body: Uint8Array; head: Uint8Array }[]>();
  const out: Uint8Array[] = [];
  for (const p of packets) {
    const four = p[0] >> 4 === 4;
    let field = 6;
    let header = four ? (p[0] & 15) * 4 : 40;
    if (!four)
      while (p[field] === 0 || p[field] === 43 || p[field] === 60) {
        field = header;
        header += (p[header + 1] + 1) * 8;
      }
    if (!four && p[field] !== 44) {
      out.push(p);
      continue;
    }
    const word = get16(p, four ? 6 : header + 2);
    const at = four ? (word & 0x1fff) * 8 : word & 0xfff8;
    const more = (four ? word & 0x2000 : word & 1) !== 0;
    const body = p.subarray(four ? header : header + 8, four ? get16(p, 2) : 40 + get16(p, 4));
    const head = p.slice(0, header);
    if (!four) head[field] = p[header];
    const key = `${p.subarray(four ? 12 : 8, four ? 20 : 40)} ${four ? `${get16(p, 4)} ${p[9]}` : p.subarray(header + 4, header + 8)}`;
    const list = parts.get(key) ?? [];
    parts.set(key, list);
    list.push({ at, more, body, head });
    list.sort((a, b) => a.at - b.at);
    let end = 0;
    for (const part of list) if (part.at === end) end += part.body.length;
    const last = list[list.length - 1];
    if (last.more || end !== last.at + last.body.length) continue;
    parts.delete(key);
    const whole = concat(list[0].head, ...list.map((x) => x.body));
    if (four) {
      put16(whole, 2, whole.length);
      put16(whole, 6, 0);
      put16(whole, 10, 0);
      put16(whole, 10, checksum(whole.subarray(0, header)));
    } else put16(whole, 4, whole.length - 40);
    out.push(whole);
  }
  return out;
}

/** The packet as a router forwards it: TTL one less, DF as `joined` leaves it. */
export function hopped(packet: Uint8Array): Uint8Array {
  const out = packet.slice();
  if (out[0] >> 4 === 6) out[7]--;
  else {
    out[8]--;
    put16(out, 6, get16(out, 6) & 0xbfff);
    put16(out, 10, 0);
    put16(out, 10, checksum(out.subarray(0, (out[0] & 15) * 4)));
  }
  return out;
}
