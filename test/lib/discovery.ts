/**
 * discovery: router advertisements in tests (RFC 4861 §4.2, RFC 4191, RFC 8106): those that left a port, read by hand from
 * their bytes, and those of a router that a test makes up. Nothing here is the router's own code.
 */
import * as B from './build.ts';

export const ALL_NODES_MAC = '33:33:00:00:00:01';
/** The made-up router. */
export const GATE = '02:00:00:00:00:fe';
export const GATE_LINK_LOCAL = 'fe80::fe';

const HEADER = 54;
const OPTIONS = HEADER + 16;

/** Frames that are ICMPv6 of this type, without extension headers. */
export function icmpv6OfType(frames: readonly Uint8Array[], type: number): Uint8Array[] {
  return frames.filter((f) => B.get16(f, 12) === 0x86dd && f[20] === 58 && f[HEADER] === type);
}

/** Router advertisements among the frames: fields read by hand from the bytes. @throws Error when one is not sound */
export function advertisements(frames: readonly Uint8Array[]) {
  return icmpv6OfType(frames, 134).map((f) => {
    const faults = B.verify(f);
    if (faults.length > 0) throw new Error(`a router advertisement: ${faults.join('; ')}`);
    const options: { type: number; bytes: Uint8Array }[] = [];
    for (let at = OPTIONS; at < f.length; at += f[at + 1] * 8)
      options.push({ type: f[at], bytes: f.subarray(at, at + f[at + 1] * 8) });
    const ofType = (type: number) => options.filter((o) => o.type === type).map((o) => o.bytes);
    return {
      to: B.macText(f.subarray(0, 6)),
      source: B.ipText(f.subarray(22, 38)),
      hop: f[21],
      hopLimit: f[58],
      flags: f[59],
      lifetime: B.get16(f, 60),
      options,
      prefixes: ofType(3).map((o) => ({
        prefix: `${B.ipText(o.subarray(16, 32))}/${o[2]}`,
        flags: o[3],
        valid: B.get32(o, 4),
        preferred: B.get32(o, 8),
      })),
      routes: ofType(24).map((o) => ({
        prefix: `${B.ipText(B.concat(o.subarray(8), new Uint8Array(24 - o.length)))}/${o[2]}`,
        lifetime: B.get32(o, 4),
      })),
      resolvers: ofType(25).flatMap((o) =>
        Array.from({ length: (o.length - 8) / 16 }, (_, n) => B.ipText(o.subarray(8 + 16 * n, 24 + 16 * n))),
      ),
    };
  });
}

interface RaFields {
  from?: string;
  mac?: string;
  flags?: number;
  lifetime?: number;
  hop?: number;
  options?: Uint8Array[];
}

/** A router advertisement to all nodes; `flags`: M 0x80, O 0x40. */
export function advertisement({
  from = GATE_LINK_LOCAL,
  mac = GATE,
  flags = 0,
  lifetime = 1800,
  hop = 255,
  options = [],
}: RaFields) {
  const body = B.concat(B.u32(0), B.u32(0), ...options);
  const rest = ((64 << 24) | (flags << 16) | lifetime) >>> 0;
  return B.ethernet(
    { src: mac, dst: ALL_NODES_MAC },
    B.ipv6({ src: from, dst: 'ff02::1', hop }, B.icmpv6({ type: 134, rest }, body)),
  );
}

/** Prefix information; `flags`: L 0x80, A 0x40. */
export const prefixOption = (
  prefix: string,
  o: { length?: number; flags?: number; valid?: number; preferred?: number } = {},
) =>
  B.concat(
    Uint8Array.of(3, 4, o.length ?? 64, o.flags ?? 0xc0),
    B.u32(o.valid ?? 86400),
    B.u32(o.preferred ?? 14400),
    B.u32(0),
    B.ip(prefix),
  );
export const routeOption = (prefix: string, length: number, preference: number, lifetime = 1800) =>
  B.concat(Uint8Array.of(24, 3, length, preference << 3), B.u32(lifetime), B.ip(prefix));
export const rdnssOption = (lifetime: number, ...servers: string[]) =>
  B.concat(Uint8Array.of(25, 1 + 2 * servers.length, 0, 0), B.u32(lifetime), ...servers.map((s) => B.ip(s)));
