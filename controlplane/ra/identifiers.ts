/**
 * Interface identifiers: the low 64 bits of addresses that the router makes for itself (RFC 4862 §5.5.3).
 *
 *   eui64      from the MAC: the same on every link (RFC 4291 appendix A)
 *   stable     from prefix, port and a secret: the same whenever the port is back on the link (RFC 7217)
 *   temporary  random, replaced daily (RFC 8981)
 *
 * All results are two raw words. Reserved identifiers (RFC 5453) are never given.
 */
import { createHash } from 'node:crypto';
import { addressBytes, macBytes, type Words } from '../../dataplane/wire/address.ts';
import { raw32 } from '../../dataplane/wire/bytes.ts';

export type IdentifierKind = 'eui64' | 'stable' | 'temporary';
export type Identifier = readonly [number, number];

/** Modified EUI-64: ff:fe in the middle, universal/local bit inverted. `lo`, `hi`: the MAC, raw. */
export function eui64(lo: number, hi: number): Identifier {
  const m = macBytes(lo, hi);
  return fromBytes(Uint8Array.of(m[0] ^ 0x02, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]));
}

/** The MAC that an identifier is made of; null: it is made otherwise. */
export function macOfEui64(id: Identifier): { lo: number; hi: number } | null {
  const [first, second] = id;
  if (first >>> 24 !== 0xff || (second & 0xff) !== 0xfe) return null;
  return { lo: ((first & 0xffffff) ^ 0x02) | ((second & 0xff00) << 16), hi: second >>> 16 };
}

/**
 * RFC 7217 §5: F(prefix, interface, network, DAD counter, secret). `attempt` is the DAD counter: one more after every
 * duplicate. Network_ID is left empty, as a wired link has none.
 */
export function stable(prefix: Words, port: string, attempt: number, secret: string): Identifier {
  for (let counter = attempt; ; counter += 0x10000) {
    const hash = createHash('sha256');
    hash.update(addressBytes(6, prefix).subarray(0, 8));
    for (const part of [port, String(counter), secret]) hash.update(`${part.length}:${part}`);
    const id = fromBytes(hash.digest().subarray(0, 8));
    if (!isReserved(id)) return id;
  }
}

/** RFC 8981 §3.3.1: 64 random bits. `random`: an int32, all bits used. */
export function temporary(random: () => number): Identifier {
  for (;;) {
    const id = [random() | 0, random() | 0] as const;
    if (!isReserved(id)) return id;
  }
}

/** Prefix and identifier as one address. */
export function compose(prefix: Words, id: Identifier): Words {
  return [prefix[0], prefix[1], id[0], id[1]];
}

/** RFC 5453: the subnet-router anycast address and the reserved anycast addresses fdff:ffff:ffff:ff80 to :ffff. */
export function isReserved(id: Identifier): boolean {
  if (id[0] === 0 && id[1] === 0) return true;
  return id[0] === (0xfffffffd | 0) && (id[1] & 0x80ffffff) === (0x80ffffff | 0);
}

function fromBytes(bytes: Uint8Array): Identifier {
  return [raw32(bytes, 0), raw32(bytes, 4)];
}
