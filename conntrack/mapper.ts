/**
 * Mapper: finds or makes the mapping of a new session, and keeps mappings and sessions alive together.
 *
 * Which outside address (one, a pool with paired or arbitrary choice, a subscriber's), which outside port (kept, even or
 * odd as the inside one, beside its RTP partner's, out of ranges or a subscriber's blocks, by chance), how long
 * (RFC 4787 REQ-5, RFC 5382 REQ-5, RFC 5508 REQ-2). What mappings are is in mapping.ts, whose a port is in ports.ts.
 */
import type { Packet } from '../dataplane/wire/packet.ts';
import {
  INDEPENDENT,
  MAPPING_INBOUND,
  MAPPING_LIMITED,
  MAPPING_SECOND,
  type MappingTable,
  NM_DEADLINE,
  NM_INSIDE,
  NM_KEY,
  NM_OUTSIDE,
  NM_PORTS,
  NM_WORDS,
  PORT_DEPENDENT,
} from './mapping.ts';
import {
  INBOUND_REFRESH,
  type NatRules,
  NH_ICMP,
  NH_OPTIONS,
  NH_OTHER,
  NH_TCP_ESTABLISHED,
  NH_TCP_TRANSITORY,
  NH_UDP,
  NR_BLOCK,
  NR_BLOCKS,
  NR_FILTERING,
  NR_FLAGS,
  NR_FROM,
  NR_MAPPING,
  NR_POOL,
  NR_PORT,
  NR_PORTS,
  NR_RATIO,
  NR_TO,
  NR_TO_HI,
  NR_TO_LO,
  NR_ZONE,
  NRF_DETERMINISTIC,
  NRF_PAIRED,
  NRF_PARITY,
  NRF_RANDOM,
} from './nat-rules.ts';
import { ANY_PARITY, EVEN, ODD, type PortPools, partnerOf } from './ports.ts';
import { ICMP, TCP, UDP, UDPLITE } from './protocols.ts';
import {
  CT_DEADLINE,
  CT_KEY,
  CT_MAPPING,
  CT_O_DST,
  CT_O_PORTS,
  CT_O_SRC,
  CT_R_DST,
  CT_STATE,
  CT_STATUS,
  CT_TCP,
  CT_WORDS,
  CT6_WORDS,
  IPS_DYING,
  IPS_SEEN_REPLY,
  ORIGINAL,
  TCP_ESTABLISHED,
} from './record.ts';
import {
  LOG_ASSIGN,
  LOG_RELEASE,
  MAX_BLOCKS,
  SUB_BASE,
  SUB_BLOCK,
  SUB_BLOCKS,
  SUB_OUTSIDE,
  SUB_REFUSED,
  SUB_SESSIONS,
  type Subscribers,
} from './subscribers.ts';
import type { ConntrackTable } from './table.ts';

/** Expired mappings that an exhausted pool looks for before it gives up. */
const SWEEP = 4096;
/** Addresses of a pool that arbitrary pooling tries. */
const ADDRESSES_TRIED = 16;
/** Protocols that share a subscriber's block. */
const BLOCK_PROTOCOLS = [TCP, UDP, ICMP, UDPLITE, 132, 33];

/** Where UDP and ICMP sessions keep the deadline that their last outbound packet set. */
const CT_OUTBOUND = CT_TCP;

export class Mapper {
  readonly mappings: MappingTable;
  readonly pools: PortPools;
  readonly subscribers: Subscribers;
  private readonly table: ConntrackTable;
  private readonly rules: NatRules;
  private readonly servicesUdp: Int32Array;
  private readonly servicesTcp: Int32Array;
  private random: number;

  /**
   * @param services 65,536 bits each for UDP and TCP: ports on which the router itself listens
   * @param seed of addresses and ports chosen by chance
   */
  constructor(
    table: ConntrackTable,
    rules: NatRules,
    mappings: MappingTable,
    pools: PortPools,
    subscribers: Subscribers,
    services: Uint8Array,
    seed: number,
  ) {
    this.table = table;
    this.rules = rules;
    this.mappings = mappings;
    this.pools = pools;
    this.subscribers = subscribers;
    this.servicesUdp = new Int32Array(services.buffer, services.byteOffset, 2048);
    this.servicesTcp = new Int32Array(services.buffer, services.byteOffset + 8192, 2048);
    this.random = Math.imul(seed, 0x9e3779b1) | 1;
    mappings.attached = true;
    mappings.onExpire = (index, now) => this.givePort(index, now);
  }

  /** True when the router itself, or a port forward of it, has this port (host order): nobody else may. */
  isReserved(proto: number, port: number): boolean {
    const bit = 1 << (port & 31);
    if (proto === UDP) return ((this.servicesUdp[port >> 5] | this.rules.reservedUdp[port >> 5]) & bit) !== 0;
    return proto === TCP && ((this.servicesTcp[port >> 5] | this.rules.reservedTcp[port >> 5]) & bit) !== 0;
  }

  /** True when the router itself listens on this port. */
  isService(proto: number, port: number): boolean {
    if (proto !== UDP && proto !== TCP) return false;
    return ((proto === UDP ? this.servicesUdp : this.servicesTcp)[port >> 5] & (1 << (port & 31))) !== 0;
  }

  /** The address of a pool that an inside address always has. */
  addressFor(inside: number, list: number): number {
    return toRaw(this.rules.nth(list, hash(inside) % this.rules.total(list)));
  }

  // --- finding and making ------------------------------------------------------------------------------------------

  /**
   * The mapping for a new session's first packet by the rule at word `at`, or −1 when there is no port.
   * @param address4 the egress port's own address, raw   @param outPort number of the egress port
   */
  choose(p: Packet, at: number, address4: number, outPort: number, now: number): number {
    const w = this.table.words;
    const r = this.rules.words;
    const c = p.ct * CT_WORDS;
    const behaviour = r[at + NR_MAPPING];
    const remote = behaviour === INDEPENDENT ? 0 : w[c + CT_O_DST];
    const remotePort = behaviour === PORT_DEPENDENT && p.proto !== ICMP ? w[c + CT_O_PORTS] >>> 16 : 0;
    const key = p.proto | (behaviour << 8) | (r[at + NR_FILTERING] << 10) | (w[c + CT_KEY] & 0xffff0000);
    const scope = remotePort | ((outPort + 1) << 16);
    const port = p.ports & 0xffff;
    const mappings = this.mappings;
    for (let attempt = 0; attempt < 2; attempt++) {
      const found = mappings.findInside(p.s0, port, key, remote, scope, now);
      if (found >= 0) {
        // The address of the port has changed: what was said of the old one is not true any more.
        const own = r[at + NR_POOL] === 0 && r[at + NR_TO] === 0;
        if (!own || mappings.words[found * NM_WORDS + NM_OUTSIDE] === address4) return found;
        mappings.expire(found, now, true);
      }
      const made = this.make(p, at, address4, key, remote, scope, now);
      if (made >= -1) return made;
    }
    return -1;
  }

  /** −1: no port or no room; −2: another worker made it. */
  private make(
    p: Packet,
    at: number,
    address4: number,
    key: number,
    remote: number,
    scope: number,
    now: number,
  ): number {
    const r = this.rules.words;
    for (let attempt = 0; attempt < 2; attempt++) {
      const outside = this.allocate(p, at, address4, key, remote, scope, now);
      if (outside >= 0) {
        const rule = (r[at + NR_ZONE] + 1) | ((r[at + NR_PORT] + 1) << 8);
        const ports = (p.ports & 0xffff) | (swap(outside) << 16);
        const deadline = (now + this.lifetime(p.proto)) | 0;
        const made = this.mappings.add(p.s0, ports, key, this.address, remote, scope, rule, deadline, now);
        if (made < 0) this.giveBack(p.s0, this.address, p.proto, outside, now);
        return made;
      }
      // Ports of mappings that are over and that nobody has come across.
      if (attempt === 0 && this.mappings.sweep(now, SWEEP) === 0) break;
    }
    return -1;
  }

  /** Address that the last `allocate` chose. */
  private address = 0;

  /** Takes an outside port (returned, host order; −1 none) and sets `address`. */
  private allocate(
    p: Packet,
    at: number,
    address4: number,
    key: number,
    remote: number,
    scope: number,
    now: number,
  ): number {
    const r = this.rules.words;
    const own = swap(p.ports & 0xffff);
    const partner = this.partner(p, at, key, remote, scope, now);
    if (r[at + NR_BLOCK] !== 0) return this.allocateFromBlocks(p, at, own, partner, now);
    const list = r[at + NR_POOL];
    const fixed = r[at + NR_TO] !== 0 ? r[at + NR_TO] : address4;
    const total = list === 0 ? 1 : this.rules.total(list);
    const paired = (r[at + NR_FLAGS] & NRF_PAIRED) !== 0;
    const start = list === 0 ? 0 : (paired ? hash(p.s0) : this.nextRandom() >>> 1) % total;
    const tries = paired ? 1 : Math.min(total, ADDRESSES_TRIED);
    for (let n = 0; n < tries; n++) {
      this.address = list === 0 ? fixed : toRaw(this.rules.nth(list, (start + n) % total));
      const pool = this.pools.find(this.address, p.proto, true);
      if (pool < 0) return -1;
      const port = this.takePort(pool, p.proto, at, own, partner);
      if (port >= 0) return port;
      this.pools.countExhausted(pool);
    }
    return -1;
  }

  /** Outside port of the mapping of the RTP or RTCP partner, when this one should be next to it; −1. */
  private partner(p: Packet, at: number, key: number, remote: number, scope: number, now: number): number {
    if (p.proto !== UDP || (this.rules.words[at + NR_FLAGS] & NRF_PARITY) === 0) return -1;
    const other = swap(partnerOf(swap(p.ports & 0xffff)));
    const m = this.mappings.findInside(p.s0, other, key, remote, scope, now);
    return m < 0 ? -1 : swap(this.mappings.words[m * NM_WORDS + NM_PORTS] >>> 16);
  }

  /** A port of a pool by the rule's ranges. */
  private takePort(pool: number, proto: number, at: number, own: number, partner: number): number {
    const rules = this.rules;
    const r = rules.words;
    const list = r[at + NR_PORTS];
    let low = r[at + NR_TO_LO];
    let high = r[at + NR_TO_HI];
    if (list === 0 && high === 0) {
      // A privileged port stays privileged (RFC 4787 REQ-3a); identifiers of ICMP have no such classes.
      low = proto === ICMP ? 0 : own < 512 ? 1 : own < 1024 ? 600 : 1024;
      high = proto === ICMP ? 65535 : own < 512 ? 511 : own < 1024 ? 1023 : 65535;
    }
    const flags = r[at + NR_FLAGS];
    const beside = partnerOf(partner);
    if (
      partner >= 0 &&
      this.takeOne(pool, proto, beside, list === 0 ? beside >= low && beside <= high : rules.holds(list, beside))
    )
      return beside;
    const keeps = (flags & NRF_RANDOM) === 0 && (list === 0 ? own >= low && own <= high : rules.holds(list, own));
    if (this.takeOne(pool, proto, own, keeps)) return own;
    const parity = proto === UDP && (flags & NRF_PARITY) !== 0 ? ((own & 1) === 0 ? EVEN : ODD) : ANY_PARITY;
    const port = this.searchPort(pool, proto, list, low, high, parity);
    // Better a port of the wrong parity than none.
    return port >= 0 || parity === ANY_PARITY ? port : this.searchPort(pool, proto, list, low, high, ANY_PARITY);
  }

  private takeOne(pool: number, proto: number, port: number, allowed: boolean): boolean {
    return allowed && port >= 0 && port < 65536 && !this.isReserved(proto, port) && this.pools.take(pool, port);
  }

  private searchPort(pool: number, proto: number, list: number, low: number, high: number, parity: number): number {
    const reserved = proto === UDP ? this.rules.reservedUdp : proto === TCP ? this.rules.reservedTcp : null;
    const services = proto === UDP ? this.servicesUdp : proto === TCP ? this.servicesTcp : null;
    const random = this.nextRandom() >>> 1;
    if (list === 0)
      return this.pools.takeFrom(pool, low, high, low + (random % (high - low + 1)), parity, reserved, services);
    const rules = this.rules;
    const k = random % rules.total(list);
    const first = rules.intervalOf(list, k);
    const count = rules.intervals(list);
    for (let n = 0; n < count; n++) {
      const interval = (first + n) % count;
      const from = rules.firstOf(list, interval);
      const start = n === 0 ? rules.nth(list, k) : from;
      const port = this.pools.takeFrom(pool, from, rules.lastOf(list, interval), start, parity, reserved, services);
      if (port >= 0) return port;
    }
    return -1;
  }

  // --- blocks of ports (carrier grade) ---------------------------------------------------------------------------------

  private allocateFromBlocks(p: Packet, at: number, own: number, partner: number, now: number): number {
    const rules = this.rules;
    const r = rules.words;
    const size = r[at + NR_BLOCK];
    const base = r[at + NR_TO_LO];
    const list = r[at + NR_POOL];
    if ((r[at + NR_FLAGS] & NRF_DETERMINISTIC) !== 0) {
      // RFC 7422 §2.2: subscriber number n has address n / ratio of the pool and block n mod ratio of it.
      const n = (toHost(p.s0) - toHost(r[at + NR_FROM])) | 0;
      const k = Math.floor(n / r[at + NR_RATIO]);
      if (k >= rules.total(list)) return -1;
      this.address = toRaw(rules.nth(list, k));
      const low = base + (n % r[at + NR_RATIO]) * size;
      return this.takeInBlock(p.proto, at, own, partner, low, low + size - 1);
    }
    const subscribers = this.subscribers;
    const s = subscribers.find(p.s0, true);
    if (s < 0) return -1;
    subscribers.lock(s);
    const port = this.takeOfSubscriber(s, p.proto, at, own, partner, size, base, now);
    if (port < 0) subscribers.words[s + SUB_REFUSED]++;
    subscribers.unlock(s);
    return port;
  }

  /** With the subscriber's lock held: a port of its blocks, or of another block of its address. */
  private takeOfSubscriber(
    s: number,
    proto: number,
    at: number,
    own: number,
    partner: number,
    size: number,
    base: number,
    now: number,
  ): number {
    const r = this.rules.words;
    const w = this.subscribers.words;
    for (let n = 0; n < w[s + SUB_BLOCKS]; n++) {
      const block = w[s + SUB_BLOCK + n];
      const low = block & 0xffff;
      this.address = w[s + SUB_OUTSIDE];
      const port = this.takeInBlock(proto, at, own, partner, low, low + (block >>> 16) - 1);
      if (port >= 0) return port;
    }
    if (w[s + SUB_BLOCKS] >= r[at + NR_BLOCKS] || w[s + SUB_BLOCKS] >= MAX_BLOCKS) return -1;
    const count = Math.floor((r[at + NR_TO_HI] - base + 1) / size);
    const list = r[at + NR_POOL];
    const total = list === 0 ? 1 : this.rules.total(list);
    const start = hash(w[s]) % total;
    // A subscriber that has blocks keeps its address (RFC 6888 REQ-1, paired pooling).
    const held = w[s + SUB_BLOCKS] > 0;
    for (let n = 0; n < (held ? 1 : total); n++) {
      const address = held
        ? w[s + SUB_OUTSIDE]
        : list === 0
          ? r[at + NR_TO]
          : toRaw(this.rules.nth(list, (start + n) % total));
      const blocks = this.pools.find(address, 0, true);
      if (blocks < 0) return -1;
      const first = (this.nextRandom() >>> 1) % count;
      const block = this.pools.takeFrom(blocks, 0, count - 1, first, ANY_PARITY, null, null);
      if (block < 0) {
        this.pools.countExhausted(blocks);
        continue;
      }
      const low = base + block * size;
      w[s + SUB_OUTSIDE] = address;
      w[s + SUB_BASE] = base;
      w[s + SUB_BLOCK + w[s + SUB_BLOCKS]++] = low | (size << 16);
      this.subscribers.write(s, low | (size << 16), LOG_ASSIGN, now);
      this.address = address;
      return this.takeInBlock(proto, at, own, partner, low, low + size - 1);
    }
    return -1;
  }

  private takeInBlock(proto: number, at: number, own: number, partner: number, low: number, high: number): number {
    const pool = this.pools.find(this.address, proto, true);
    if (pool < 0) return -1;
    const beside = partnerOf(partner);
    if (partner >= 0 && this.takeOne(pool, proto, beside, beside >= low && beside <= high)) return beside;
    const flags = this.rules.words[at + NR_FLAGS];
    if ((flags & NRF_RANDOM) === 0 && this.takeOne(pool, proto, own, own >= low && own <= high)) return own;
    const parity = proto === UDP && (flags & NRF_PARITY) !== 0 ? ((own & 1) === 0 ? EVEN : ODD) : ANY_PARITY;
    const port = this.searchPort(pool, proto, 0, low, high, parity);
    return port >= 0 || parity === ANY_PARITY ? port : this.searchPort(pool, proto, 0, low, high, ANY_PARITY);
  }

  /** A mapping is gone: its port is free, and its block when that was its last. */
  private givePort(index: number, now: number): void {
    const m = index * NM_WORDS;
    const w = this.mappings.words;
    this.giveBack(w[m + NM_INSIDE], w[m + NM_OUTSIDE], w[m + NM_KEY] & 0xff, swap(w[m + NM_PORTS] >>> 16), now);
  }

  private giveBack(inside: number, outside: number, proto: number, port: number, now: number): void {
    const pool = this.pools.find(outside, proto, false);
    if (pool >= 0) this.pools.give(pool, port);
    const s = this.subscribers.find(inside, false);
    if (s < 0 || this.subscribers.words[s + SUB_BLOCKS] === 0) return;
    this.subscribers.lock(s);
    const w = this.subscribers.words;
    for (let n = 0; n < w[s + SUB_BLOCKS]; n++) {
      const block = w[s + SUB_BLOCK + n];
      const low = block & 0xffff;
      const size = block >>> 16;
      if (w[s + SUB_OUTSIDE] !== outside || port < low || port >= low + size) continue;
      if (this.inUse(outside, low, low + size - 1)) break;
      this.pools.give(this.pools.find(outside, 0, false), Math.floor((low - w[s + SUB_BASE]) / size));
      this.subscribers.write(s, block, LOG_RELEASE, now);
      w[s + SUB_BLOCK + n] = w[s + SUB_BLOCK + --w[s + SUB_BLOCKS]];
      break;
    }
    this.subscribers.unlock(s);
  }

  private inUse(outside: number, low: number, high: number): boolean {
    for (let n = 0; n < BLOCK_PROTOCOLS.length; n++) {
      const pool = this.pools.find(outside, BLOCK_PROTOCOLS[n], false);
      if (pool >= 0 && !this.pools.isEmpty(pool, low, high)) return true;
    }
    return false;
  }

  // --- lifetimes ---------------------------------------------------------------------------------------------------------

  /** How long a mapping lives after its last outbound packet, ms. */
  private lifetime(proto: number): number {
    const r = this.rules.words;
    if (proto === UDP || proto === UDPLITE) return r[NH_UDP];
    if (proto === TCP) return r[NH_TCP_TRANSITORY];
    return proto === ICMP ? r[NH_ICMP] : r[NH_OTHER];
  }

  /**
   * A packet of a session with a mapping: outbound packets move the deadlines, inbound ones when configured (RFC 4787
   * REQ-6); ICMP errors never get here (RFC 7857 §7.1). A TCP session lives at least as long as RFC 5382 REQ-5 asks, but for
   * one that an outside host begins: until the inside has answered, it does not keep the mapping any longer (RFC 7857 §7).
   */
  touch(p: Packet, now: number): void {
    const w = this.table.words;
    const c = p.ct * CT_WORDS;
    if ((w[c + CT_STATUS] & IPS_DYING) !== 0) return;
    const reference = w[c + CT_MAPPING];
    const r = this.rules.words;
    const lifetime = this.lifetime(p.proto);
    const second = (reference & MAPPING_SECOND) !== 0;
    const outbound = (p.dir === ORIGINAL) !== ((reference & MAPPING_INBOUND) !== 0);
    const refreshes = outbound || second || (r[NH_OPTIONS] & INBOUND_REFRESH) !== 0;
    if (p.proto === TCP) {
      if (!refreshes && (w[c + CT_STATUS] & IPS_SEEN_REPLY) === 0) {
        this.boundByMapping(c, reference, now);
        return;
      }
      const established = (w[c + CT_STATE] & 0xff) === TCP_ESTABLISHED;
      const least = (now + (established ? r[NH_TCP_ESTABLISHED] : r[NH_TCP_TRANSITORY])) | 0;
      if (((least - w[c + CT_DEADLINE]) | 0) > 0) w[c + CT_DEADLINE] = least;
    } else if (p.proto === UDP || p.proto === UDPLITE || p.proto === ICMP) {
      if (refreshes) w[c + CT_DEADLINE] = w[c + CT_OUTBOUND] = (now + lifetime) | 0;
      // Behind us: the engine has carried the outbound packets, and the tracker's own time stands.
      else if (((w[c + CT_OUTBOUND] - now) | 0) >= 0) w[c + CT_DEADLINE] = w[c + CT_OUTBOUND];
    }
    if (!refreshes) return;
    this.extend(reference, now, lifetime);
    if (second) this.extend(this.table.words6[p.ct * CT6_WORDS], now, lifetime);
  }

  /** The session at word `c` ends with its mapping, unless others keep that: then the tracker's own time stands. */
  private boundByMapping(c: number, reference: number, now: number): void {
    const w = this.table.words;
    const index = this.mappings.of(reference);
    if (index < 0) return;
    const until = this.mappings.words[index * NM_WORDS + NM_DEADLINE];
    if (((until - now) | 0) >= 0 && ((w[c + CT_DEADLINE] - until) | 0) > 0) w[c + CT_DEADLINE] = until;
  }

  private extend(reference: number, now: number, lifetime: number): void {
    const index = this.mappings.of(reference);
    if (index >= 0) this.mappings.words[index * NM_WORDS + NM_DEADLINE] = (now + lifetime) | 0;
  }

  /**
   * The session that an outside host begins by mapping `index` has had no outbound packet: it may not keep the mapping
   * alive any longer than that would live without it.
   */
  startInbound(c: number, proto: number, index: number): void {
    if (proto === UDP || proto === UDPLITE)
      this.table.words[c + CT_OUTBOUND] = this.mappings.words[index * NM_WORDS + NM_DEADLINE];
  }

  // --- sessions ------------------------------------------------------------------------------------------------------------

  /** True when the source has as many sessions as `limit` allows. */
  atLimit(inside: number, limit: number): boolean {
    const s = this.subscribers.find(inside, true);
    if (s >= 0 && this.subscribers.words[s + SUB_SESSIONS] < limit) return false;
    if (s >= 0) Atomics.add(this.subscribers.words, s + SUB_REFUSED, 1);
    return true;
  }

  /** A connection was confirmed (+1) or deleted (−1): its mappings and its subscriber hear of it. */
  count(index: number, by: number): void {
    const w = this.table.words;
    const c = index * CT_WORDS;
    const reference = w[c + CT_MAPPING];
    if (reference === 0) return;
    this.mappings.use(reference, w[c + ((reference & MAPPING_INBOUND) !== 0 ? CT_O_SRC : CT_O_DST)], by);
    if ((reference & MAPPING_SECOND) !== 0)
      this.mappings.use(this.table.words6[index * CT6_WORDS], w[c + CT_R_DST], by);
    if ((reference & MAPPING_LIMITED) === 0) return;
    const s = this.subscribers.find(w[c + CT_O_SRC], false);
    if (s >= 0) Atomics.add(this.subscribers.words, s + SUB_SESSIONS, by);
  }

  private nextRandom(): number {
    let x = this.random;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.random = x;
    return x;
  }
}

/** Swaps the bytes of a 16-bit number. */
function swap(port: number): number {
  return ((port & 0xff) << 8) | ((port >> 8) & 0xff);
}

/** A raw IPv4 address as a number in host order, and back. */
function toHost(raw: number): number {
  return (swap(raw & 0xffff) << 16) | swap(raw >>> 16);
}

function toRaw(host: number): number {
  return (swap(host & 0xffff) << 16) | swap(host >>> 16);
}

/** Spreads inside addresses over a pool; not negative. */
function hash(address: number): number {
  const h = Math.imul(address ^ (address >>> 16), 0x85ebca6b);
  return (h ^ (h >>> 13)) >>> 1;
}
