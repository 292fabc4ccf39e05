/**
 * Burst: the fast path's two passes over the frames that an ordinary entry has, compiled to WebAssembly.
 *
 * AssemblyScript, TypeScript's syntax with a processor's types: `npm run build` compiles it (controlplane/compile.mjs).
 * JavaScript checks the bounds of every access and has no value between 32 bits and a double; here a key is compared in two
 * loads, a checksum adds sixteen bytes at a time, and only an address beyond the whole memory is caught, by a guard page.
 *
 * The checks are those of fastpath.ts, but only for what leaves nothing to decide: no verify mode, no fault, no second level. A
 * frame without an entry, or for which a check fails, stops the run; of the latter fastpath.ts says why. Both are held
 * to each other by test/dataplane/compiled.test.ts.
 *
 * All addresses are bytes in the one memory (dataplane/ground.ts). Values are as they are in frames, network order.
 */
import { EX_MISS } from '../../offload/engine.ts';
import { ENGINE_IDLE } from '../../offload/policy.ts';
import {
  F4_BYTES,
  F4_DELTA,
  F4_DMAC_HI,
  F4_EPOCH,
  F4_KEY,
  F4_LAST,
  F4_NEIGH,
  F4_NPORTS,
  F4_NSRC,
  F4_PACKETS,
  F4_PORTS,
  F6_DST,
  F6_KEY,
  F6_LAST,
  F6_PORTS,
  FLOW4_WORDS,
  FLOW6_WORDS,
  KEY_VALID,
} from '../../offload/table.ts';
import {
  FRAME_DATA_VALID,
  FRAME_NEEDS_CSUM,
  META_CSUM,
  META_FLAGS,
  META_GSO,
  META_LEN,
  META_OFF,
  META_WORDS,
} from '../frames.ts';
import { HOME6, REPORT_OUT, REPORT_RECEIVED, REPORT_SENT, REPORT_WHY, UNDECIDED } from '../ground.ts';
import { IF_MAC_HI, IF_MAC_LO, IF_MTU, IF_VLAN, IF_WORDS } from '../interfaces.ts';
import { NEIGH_GEN, NEIGH_HEAD, NEIGH_MAC_LO, NEIGH_WORDS, NUD_QUIET } from '../neighbours.ts';
import { ESP, IPV6_IN_IP, TCP, UDP } from '../parse.ts';
import { give, placeSlots, take } from './slots.ts';

export { give, placeSlots, take };

// Where things are in a frame, bytes from its start.
const ETHERTYPE: usize = 12;
const IP4: usize = 14;
const PROTO4: usize = 23;
const SRC4: usize = 26;
const L4_4: usize = 34;
const LENGTH6: usize = 18;
const PROTO6: usize = 20;
const HOPS6: usize = 21;
const SRC6: usize = 22;
const DST6: usize = 38;
const L4_6: usize = 54;

// Where things are in an entry of either family, bytes from its LAST.
const BEFORE4: usize = F4_LAST << 2;
const BEFORE6: usize = F6_LAST << 2;
const DMAC_HI: usize = (F4_DMAC_HI - F4_LAST) << 2;
const EPOCH: usize = (F4_EPOCH - F4_LAST) << 2;
const NEIGH: usize = (F4_NEIGH - F4_LAST) << 2;
const PACKETS: usize = (F4_PACKETS - F4_LAST) << 2;
const BYTES: usize = (F4_BYTES - F4_LAST) << 2;

/** Destination MAC, and the bit of the source MAC that a group has. */
const ENDS: u64 = 0x1ffffffffffff;
/** So many u64 are multiples of 65535, after 0. Negated it is 65535's inverse modulo 2^64: by it, multiples become 0, 1, 2 … */
const MULTIPLES: u64 = 0x1000100010001;

/** Places beyond the first that the first pass visits; up to so many places in the table it visits none of them. */
const ROUNDS = 2;
const WORTHWHILE = 1 << 13;

// Set once.
let meta: usize = 0;
let frames: usize = 0;
let slots: usize = 0;
let homes: usize = 0;
/** Per frame, the ports and the key of its entry. */
let wanted: usize = 0;
let report: usize = 0;
let interfaces: usize = 0;
let neighbours: usize = 0;
let flows4: usize = 0;
let flows6: usize = 0;
let mask: i32 = 0;
/** Places beyond the first of each flow that the first pass visits: none where the table is in the nearer caches anyway. */
let rounds: i32 = 0;
let seed: i32 = 0;
/** What a frame's first 49 bits must be: sent to the port's MAC, by one that is no group; and the clock. Of this burst. */
let ends: u64 = 0;
let now: i32 = 0;
/** Of the run under way: its egress port (−1: none yet), bytes of its frames, and why it stopped. */
let out: i32 = -1;
let received: i32 = 0;
let sent: i32 = 0;
let why: i32 = 0;
/** The next frame leaves by another port. */
const ANOTHER = -3;

/** Where things are: addresses in bytes. `six` is 0 when the entries of IPv6 are not in this memory. */
export function place(
  metaAt: usize,
  framesAt: usize,
  slotsAt: usize,
  homesAt: usize,
  wantedAt: usize,
  reportAt: usize,
  interfacesAt: usize,
  neighboursAt: usize,
  four: usize,
  six: usize,
  lastPlace: i32,
  hashSeed: i32,
): void {
  meta = metaAt;
  frames = framesAt;
  slots = slotsAt;
  homes = homesAt;
  wanted = wantedAt;
  report = reportAt;
  interfaces = interfacesAt;
  neighbours = neighboursAt + (NEIGH_HEAD << 2);
  flows4 = four;
  flows6 = six;
  mask = lastPlace;
  rounds = mask < WORTHWHILE ? 0 : ROUNDS;
  seed = hashSeed;
}

// --- arithmetic ----------------------------------------------------------------------------------------------------------

/** Folds a sum of 32-bit words to 16 bits (RFC 1071 §2: 2^16 ≡ 1). @inline */
function fold(sum: u64): u32 {
  const words = (sum & 0xffffffff) + (sum >>> 32);
  const word = <u32>words + <u32>(words >>> 32);
  const low = (word & 0xffff) + (word >>> 16);
  return (low & 0xffff) + (low >>> 16);
}

/** The same of two sums of 16 bits. @inline */
function fold2(sum: u32): u32 {
  return (sum & 0xffff) + (sum >>> 16);
}

/** True when a sum of 32-bit words that is not 0 folds to 0xffff, as one does that includes its checksum. @inline */
function isWhole(sum: u64): bool {
  return sum * (0 - MULTIPLES) <= MULTIPLES;
}

/** What replacing a word adds to a sum (RFC 1624: ~m + m'). @inline */
function delta(before: u32, after: u32): u64 {
  return <u64>~before + <u64>after;
}

/** Both 32-bit halves. @inline */
function two(words: u64): u64 {
  return (words & 0xffffffff) + (words >>> 32);
}

/** Sum of `size` bytes, an odd last one as the low half. @inline */
function sumOf(from: usize, size: i32): u64 {
  let at = from;
  const end = from + size;
  let sum: u64 = 0;
  if (size >= 32) {
    let low = i64x2.splat(0);
    let high = i64x2.splat(0);
    for (; at + 16 <= end; at += 16) {
      const words = v128.load(at);
      low = i64x2.add(low, i64x2.extend_low_i32x4_u(words));
      high = i64x2.add(high, i64x2.extend_high_i32x4_u(words));
    }
    const all = i64x2.add(low, high);
    sum = i64x2.extract_lane(all, 0) + i64x2.extract_lane(all, 1);
  }
  for (; at + 8 <= end; at += 8) sum += two(load<u64>(at));
  if (at + 4 <= end) {
    sum += load<u32>(at);
    at += 4;
  }
  if (at + 2 <= end) {
    sum += load<u16>(at);
    at += 2;
  }
  if (at < end) sum += load<u8>(at);
  return sum;
}

// --- first pass: where each frame's entry must be ----------------------------------------------------------------------------

/** FlowTable.home4. @inline */
function home4(src: i32, dst: i32, ports: i32, key: i32): i32 {
  let h = (src ^ seed) * 0x9e3779b1;
  h = ((h ^ (h >>> 15)) + dst) * 0x85ebca6b;
  h = ((h ^ (h >>> 13)) + ports) * 0xc2b2ae35;
  h = ((h ^ (h >>> 16)) + key) * 0x27d4eb2f;
  return (h ^ (h >>> 15)) & mask;
}

/** FlowTable.home6 of the frame at `at`. @inline */
function home6(at: usize, key: i32): i32 {
  let g = (load<i32>(at, SRC6 + 12) ^ seed) * 0x9e3779b1;
  let h = (load<i32>(at, DST6 + 12) ^ load<i32>(at, SRC6)) * 0x85ebca6b;
  g = ((g ^ (g >>> 15)) + load<i32>(at, SRC6 + 8)) * 0xc2b2ae35;
  h = ((h ^ (h >>> 13)) + load<i32>(at, DST6 + 8)) * 0x27d4eb2f;
  g = ((g ^ (g >>> 16)) + load<i32>(at, SRC6 + 4)) * 0x85ebca6b;
  h = ((h ^ (h >>> 15)) + load<i32>(at, DST6 + 4) + load<i32>(at, DST6)) * 0x9e3779b1;
  h = ((h ^ (h >>> 13)) + (g ^ (g >>> 16))) * 0xc2b2ae35;
  h = ((h ^ (h >>> 16)) + load<i32>(at, L4_6) + key) * 0x27d4eb2f;
  h = (h ^ (h >>> 15)) * 0x85ebca6b;
  return (h ^ (h >>> 16)) & mask;
}

/**
 * The first pass over the `n` slots of the list, all from `port`: hashes, touches all entries at once, and where another
 * flow's is in an entry's place, touches the one behind it, where the second pass will begin. Returns what it has read, so that
 * the reads are not optimised away.
 */
export function touch(n: i32, port: i32, clock: i32, macLow: i32, macHigh: i32): i32 {
  now = clock;
  ends = <u64>(macLow & 0xffff) | ((<u64>(<u32>macHigh)) << 16);
  for (let k = 0; k < n; k++) {
    const m = meta + ((<usize>load<u32>(slots + (k << 2)) * META_WORDS) << 2);
    const at = frames + <usize>load<u32>(m, META_OFF << 2);
    const length = load<i32>(m, META_LEN << 2);
    const etherType = load<u16>(at, ETHERTYPE);
    let home = -1;
    let ports = 0;
    let key = 0;
    if (etherType === 0x0008) {
      const proto = <i32>load<u8>(at, PROTO4);
      // No options, no fragment; protocols that an entry can be keyed by.
      const plain = load<u8>(at, IP4) === 0x45 && (load<i32>(at, IP4 + 4) & <i32>0xff3f0000) === 0;
      if (plain && length >= 42 && (proto === UDP || proto === TCP || proto === ESP || proto === IPV6_IN_IP)) {
        ports = proto === IPV6_IN_IP ? 0 : load<i32>(at, L4_4);
        key = proto | (port << 8) | KEY_VALID;
        home = home4(load<i32>(at, SRC4), load<i32>(at, SRC4 + 4), ports, key);
      }
    } else if (etherType === 0xdd86) {
      const proto = <i32>load<u8>(at, PROTO6);
      const plain = (load<u8>(at, IP4) & 0xf0) === 0x60;
      if (plain && length >= 62 && (proto === UDP || proto === TCP || proto === ESP)) {
        ports = load<i32>(at, L4_6);
        key = proto | (port << 8) | KEY_VALID;
        home = HOME6 | home6(at, key);
      }
    }
    store<i32>(homes + (k << 2), home);
    store<u64>(wanted + (k << 3), both(ports, key));
  }
  let seen = 0;
  for (let k = 0; k < n; k++) {
    const home = load<i32>(homes + (k << 2));
    if (home < 0) continue;
    if (home < HOME6) seen ^= load<i32>(entry4(home), F4_KEY << 2);
    else if (flows6 !== 0) seen ^= load<i32>(entry6(home & ~HOME6), F6_KEY << 2);
  }
  for (let round = 0; round < rounds; round++) seen ^= step(n);
  return seen;
}

/** Where another flow's entry is in a frame's place, goes on to the next place and touches that. */
function step(n: i32): i32 {
  let seen = 0;
  for (let k = 0; k < n; k++) {
    const home = load<i32>(homes + (k << 2));
    if (home < 0) continue;
    const want = load<u64>(wanted + (k << 3));
    if (home < HOME6) {
      const next = (home + isOther(load<u64>(entry4(home), F4_PORTS << 2), want)) & mask;
      store<i32>(homes + (k << 2), next);
      seen ^= load<i32>(entry4(next), F4_KEY << 2);
    } else if (flows6 !== 0) {
      const place = home & ~HOME6;
      const next = (place + isOther(load<u64>(entry6(place), F6_PORTS << 2), want)) & mask;
      store<i32>(homes + (k << 2), HOME6 | next);
      seen ^= load<i32>(entry6(next), F6_KEY << 2);
    }
  }
  return seen;
}

/** Ports and key as entries have them side by side. @inline */
function both(ports: i32, key: i32): u64 {
  return <u64>(<u32>ports) | ((<u64>(<u32>key)) << 32);
}

/**
 * 1 when ports and key of an entry are another flow's; 0 when they are the wanted ones or nobody's, as where nobody is a frame
 * before may put its entry yet.
 * @inline
 */
function isOther(found: u64, want: u64): i32 {
  return <i32>(found !== want) & <i32>(<i32>(found >>> 32) > 0);
}

/** Address of the entry at a place. @inline */
function entry4(place: i32): usize {
  return flows4 + <usize>place * (FLOW4_WORDS << 2);
}

/** The same of IPv6. @inline */
function entry6(place: i32): usize {
  return flows6 + <usize>place * (FLOW6_WORDS << 2);
}

// --- second pass -----------------------------------------------------------------------------------------------------------

/** Address of an IPv4 flow's entry, from a place on; 0 when there is none. @inline */
function find4(from: i32, at: usize, rest: u64): usize {
  const addresses = load<u64>(at, SRC4);
  let p = from;
  let e = entry4(p);
  // The key first, as a writer stores it last.
  let found = load<u64>(e, F4_PORTS << 2);
  while (found !== rest || load<u64>(e) !== addresses) {
    if (found >>> 32 === 0) return 0;
    p = (p + 1) & mask;
    e = entry4(p);
    found = load<u64>(e, F4_PORTS << 2);
  }
  return e;
}

/** The same for IPv6. @inline */
function find6(from: i32, at: usize, rest: u64): usize {
  let p = from;
  let e = entry6(p);
  let found = load<u64>(e, F6_PORTS << 2);
  while (found !== rest || differ(e, at)) {
    if (found >>> 32 === 0) return 0;
    p = (p + 1) & mask;
    e = entry6(p);
    found = load<u64>(e, F6_PORTS << 2);
  }
  return e;
}

/** True when a frame has other IPv6 addresses than an entry. @inline */
function differ(e: usize, at: usize): bool {
  const src = v128.xor(v128.load(e), v128.load(at, SRC6));
  const dst = v128.xor(v128.load(e, F6_DST << 2), v128.load(at, DST6));
  return v128.any_true(v128.or(src, dst));
}

/** Record of the neighbour that an entry, from its LAST on, sends to. @inline */
function neighbourOf(e: usize): usize {
  return neighbours + <usize>load<u16>(e, NEIGH + 2) * (NEIGH_WORDS << 2);
}

/**
 * True when an entry, from its LAST on, may be used: made in this epoch, used lately, and its next hop is the neighbour that
 * it was made for, and need not be asked for.
 * @inline
 */
function isFresh(e: usize, epoch: i32): bool {
  const word = load<u32>(e, NEIGH);
  const n = neighbourOf(e);
  const young = load<i32>(e, EPOCH) === epoch && now - load<i32>(e) < ENGINE_IDLE;
  return young && (load<i32>(n) & NUD_QUIET) !== 0 && ((load<u32>(n, NEIGH_GEN << 2) ^ word) & 0xffff) === 0;
}

/** Counts a packet of `bytes` with an entry, from its LAST on. @inline */
function count(e: usize, bytes: i32): void {
  store<i32>(e, load<i32>(e, PACKETS) + 1, PACKETS);
  store<i32>(e, load<i32>(e, BYTES) + bytes, BYTES);
  store<i32>(e, now);
}

/** Interface record of an entry's egress port, from its LAST on. @inline */
function egressOf(e: usize): usize {
  return interfaces + <usize>load<u8>(e, DMAC_HI + 2) * (IF_WORDS << 2);
}

/** True when the frame must leave by the port of the run; the first one says which that is. @inline */
function isSamePort(e: usize): bool {
  const egress = <i32>load<u8>(e, DMAC_HI + 2);
  if (out === egress) return true;
  if (out >= 0) return false;
  out = egress;
  return true;
}

/** Bytes of headers, TCP's or UDP's included, of which every piece of a super-frame has a copy; 0: not for an engine. @inline */
function headersOf(l4: usize, size: i32, proto: i32, gso: i32, link: i32): i32 {
  if (proto === UDP) return gso !== 0 || <i32>bswap<u16>(load<u16>(l4, 4)) === size ? link + 8 : 0;
  if (proto !== TCP) return link + 8;
  if (size < 20) return 0;
  const words = load<i32>(l4, 12);
  const offset = (words & 0xf0) >> 2;
  // ACK, and none of FIN, SYN, RST.
  return (words & 0x1700) === 0x1000 && offset >= 20 && size >= offset ? link + offset : 0;
}

/** Address of the transport's checksum field; 0: it has none. @inline */
function fieldOf(l4: usize, proto: i32, flags: i32): usize {
  if (proto === TCP) return l4 + 16;
  return proto === UDP && (load<u16>(l4, 6) !== 0 || (flags & FRAME_NEEDS_CSUM) !== 0) ? l4 + 6 : 0;
}

/**
 * Writes the link header of a frame to the neighbour of an entry, from its LAST on: isFresh has seen that it has the MAC which
 * the entry was made with. Returns the bytes that its tag adds.
 * @inline
 */
function writeLink(e: usize, m: usize, at: usize, etherType: u32): i32 {
  const r = egressOf(e);
  const own = load<u32>(r, IF_MAC_LO << 2);
  const macs = (load<u64>(neighbourOf(e), NEIGH_MAC_LO << 2) & 0xffffffffffff) | ((<u64>own) << 48);
  const rest = (own >>> 16) | (load<u32>(r, IF_MAC_HI << 2) << 16);
  if (load<i32>(r, IF_VLAN << 2) !== 0) return writeTagged(m, at - 4, r, macs, rest, etherType);
  store<u64>(at, macs);
  store<u32>(at, rest, 8);
  store<u16>(at, etherType, ETHERTYPE);
  return 0;
}

/** The same with the VLAN tag of the egress port, 4 bytes before the old header. */
function writeTagged(m: usize, at: usize, r: usize, macs: u64, rest: u32, etherType: u32): i32 {
  const vlan = <u32>bswap<u16>(load<u16>(r, IF_VLAN << 2));
  store<u64>(at, macs);
  store<u32>(at, rest, 8);
  store<u32>(at, 0x0081 | (vlan << 16), ETHERTYPE);
  store<u16>(at, etherType, ETHERTYPE + 4);
  store<i32>(m, load<i32>(m, META_OFF << 2) - 4, META_OFF << 2);
  if ((load<i32>(m, META_FLAGS << 2) & FRAME_NEEDS_CSUM) !== 0)
    store<i32>(m, load<i32>(m, META_CSUM << 2) + 4, META_CSUM << 2);
  return 4;
}

/** Changes the transport checksum at `field` as an entry's translation demands; `begun`: it is the pseudo-header's sum. @inline */
function updateChecksum(field: usize, changes: u32, begun: bool, proto: i32, before: u64, after: u64): void {
  const old = <u32>load<u16>(field);
  if (begun) {
    const halves = delta(<u32>before, <u32>after) + delta(<u32>(before >>> 32), <u32>(after >>> 32));
    store<u16>(field, fold(halves + old));
    return;
  }
  const sum = ~fold2((~old & 0xffff) + (changes >>> 16)) & 0xffff;
  store<u16>(field, sum === 0 && proto === UDP ? 0xffff : sum);
}

/** `run` over frames of IPv4, up to one that is not. */
function run4(from: i32, n: i32, epoch: i32): i32 {
  let k = from;
  for (; k < n; k++) {
    const home = load<i32>(homes + (k << 2));
    if (home < 0 || home >= HOME6) break;
    const m = meta + ((<usize>load<u32>(slots + (k << 2)) * META_WORDS) << 2);
    const at = frames + <usize>load<u32>(m, META_OFF << 2);
    const proto = <i32>load<u8>(at, PROTO4);
    const found = find4(home, at, load<u64>(wanted + (k << 3)));
    if (found === 0) {
      why = EX_MISS;
      break;
    }

    // What an engine must leave to the slow path.
    why = UNDECIDED;
    const e = found + BEFORE4;
    const words = load<u64>(at, IP4);
    const hops = load<i32>(at, IP4 + 8);
    const before = load<u64>(at, SRC4);
    const addresses = two(before);
    if (!isWhole(two(words) + <u64>(<u32>hops) + addresses) || (hops & 0xff) <= 1) break;
    const size = <i32>bswap<u16>(<u16>(words >>> 16)) - 20;
    const length = load<i32>(m, META_LEN << 2);
    if (size > length - 34 || size < 8 || !isFresh(e, epoch)) break;
    const l4 = at + L4_4;
    const flags = load<i32>(m, META_FLAGS << 2);
    const gso = load<i32>(m, META_GSO << 2);
    const headers = headersOf(l4, size, proto, gso, 20);
    const longest = gso === 0 ? size + 20 : headers + (gso >>> 16);
    if (headers === 0 || longest > load<i32>(egressOf(e), IF_MTU << 2)) break;
    const field = fieldOf(l4, proto, flags);
    if (field !== 0 && (flags & (FRAME_NEEDS_CSUM | FRAME_DATA_VALID)) === 0) {
      const pseudo = addresses + ((size & 0xff) << 8) + (size >> 8) + (proto << 8);
      if (!isWhole(sumOf(l4, size) + pseudo)) break;
    }
    if ((load<u64>(at) & ENDS) !== ends) break;
    why = 0;
    if (!isSamePort(e)) {
      why = ANOTHER;
      break;
    }

    count(e, size + 20);
    const changes = load<u32>(found, F4_DELTA << 2);
    const after = load<u64>(found, F4_NSRC << 2);
    store<u64>(at, after, SRC4);
    // TTL and header checksum share a word.
    const header = ~fold2((~(<u32>hops) >>> 16) + (changes & 0xffff));
    store<i32>(at, ((hops & 0xffff) - 1) | (header << 16), IP4 + 8);
    if (proto === UDP || proto === TCP) {
      store<i32>(l4, load<i32>(found, F4_NPORTS << 2));
      if (field !== 0) updateChecksum(field, changes, (flags & FRAME_NEEDS_CSUM) !== 0, proto, before, after);
    }
    const leaves = size + 34 + writeLink(e, m, at, 0x0008);
    store<i32>(m, leaves, META_LEN << 2);
    received += length;
    sent += leaves;
  }
  return k;
}

/** `run` over frames of IPv6, up to one that is not. */
function run6(from: i32, n: i32, epoch: i32): i32 {
  let k = from;
  for (; k < n; k++) {
    const home = load<i32>(homes + (k << 2));
    if (home < HOME6) break;
    const m = meta + ((<usize>load<u32>(slots + (k << 2)) * META_WORDS) << 2);
    const at = frames + <usize>load<u32>(m, META_OFF << 2);
    const proto = <i32>load<u8>(at, PROTO6);
    let e = find6(home & ~HOME6, at, load<u64>(wanted + (k << 3)));
    if (e === 0) {
      why = EX_MISS;
      break;
    }

    why = UNDECIDED;
    e += BEFORE6;
    const size = <i32>bswap<u16>(load<u16>(at, LENGTH6));
    const hops = load<u8>(at, HOPS6);
    const length = load<i32>(m, META_LEN << 2);
    if (size > length - 54 || size < 8 || hops <= 1 || !isFresh(e, epoch)) break;
    const l4 = at + L4_6;
    const flags = load<i32>(m, META_FLAGS << 2);
    const gso = load<i32>(m, META_GSO << 2);
    const headers = headersOf(l4, size, proto, gso, 40);
    const longest = gso === 0 ? size + 40 : headers + (gso >>> 16);
    if (headers === 0 || longest > load<i32>(egressOf(e), IF_MTU << 2)) break;
    if (fieldOf(l4, proto, flags) !== 0 && (flags & (FRAME_NEEDS_CSUM | FRAME_DATA_VALID)) === 0) {
      // The addresses lie before the transport: one sum.
      const pseudo = <u64>(((size & 0xff) << 8) + (size >> 8) + (proto << 8));
      if (!isWhole(sumOf(l4 - 32, size + 32) + pseudo)) break;
    }
    if ((load<u64>(at) & ENDS) !== ends) break;
    why = 0;
    if (!isSamePort(e)) {
      why = ANOTHER;
      break;
    }

    count(e, size + 40);
    store<u8>(at, hops - 1, HOPS6);
    const leaves = size + 54 + writeLink(e, m, at, 0xdd86);
    store<i32>(m, leaves, META_LEN << 2);
    received += length;
    sent += leaves;
  }
  return k;
}

/**
 * The second pass, from place `from` of the list on, as long as frames are hits that leave by one port. Returns the place
 * behind the last; the report says the port, the bytes received and sent, and why it stopped before `n`: 0, another port;
 * EX_MISS; UNDECIDED.
 */
export function run(from: i32, n: i32, epoch: i32): i32 {
  out = -1;
  received = 0;
  sent = 0;
  why = 0;
  let k = from;
  while (k < n && why === 0) {
    const home = load<i32>(homes + (k << 2));
    if (home < 0) why = EX_MISS;
    else if (home < HOME6) k = run4(k, n, epoch);
    else if (flows6 !== 0) k = run6(k, n, epoch);
    else why = UNDECIDED;
  }
  store<i32>(report, out, REPORT_OUT << 2);
  store<i32>(report, received, REPORT_RECEIVED << 2);
  store<i32>(report, sent, REPORT_SENT << 2);
  store<i32>(report, why === ANOTHER ? 0 : why, REPORT_WHY << 2);
  return k;
}
