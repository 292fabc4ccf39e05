/**
 * ESP through a translated address (RFC 4303): several hosts inside with tunnels to one gateway, told apart by SPI.
 *
 * An SPI names a security association for its receiver alone, and the two directions of a tunnel have one each. They are
 * agreed inside IKE's encryption, so the router must learn which belong together, as home gateways do ("VPN masquerade"):
 *
 *   1. A new SPI from inside makes a connection whose REPLY tuple waits for the other SPI: it has a *slot*, a number from
 *      the range that is never on the wire (RFC 4303 §2.1 reserves 0 to 255).
 *   2. The next SPI from that gateway that nobody knows is taken for the answer, by one store: the connection is complete.
 *   3. Meanwhile another host's new SPI to the same gateway is refused (PENDING): one negotiation at a time. After
 *      PATIENCE ms without an answer it is the next one's turn.
 *   4. An unknown SPI that nobody waits for (rekeying that the gateway began) goes to the only host that has tunnels with
 *      that gateway, as a connection that it opened; the host's next new SPI answers it. With several hosts it is refused
 *      (AMBIGUOUS): a guess would feed one host's tunnel to another, and the host's own first packet settles it.
 *
 * What is not translated (IPv6, routed networks, port forwards, the router's own) needs none of this: such a connection has
 * port words of 0 and carries every SPI between its two addresses, as in nf_conntrack.
 *
 * All ESP connections between two addresses hang in one bucket: the SPI is no part of the hash (ConntrackTable.hashOf). So
 * learning an SPI moves nothing, and one walk sees everything that there is to know about a pair of addresses.
 *
 * Limits: equal SPIs of two hosts cannot be told apart; an answer that comes after PATIENCE, while another host waits, is
 * taken for that one's, until it rekeys; who can forge the gateway's address can answer first, as only the
 * tunnel's ends can check. IKE itself is UDP. AH covers its addresses and cannot be translated at all.
 */
import type { Packet } from '../dataplane/wire/packet.ts';
import { refresh, TRACK_ACCEPT } from './generic.ts';
import {
  CT_DEADLINE,
  CT_GEN,
  CT_KEY,
  CT_LAST_SEQ,
  CT_MASTER,
  CT_MASTER_GEN,
  CT_NEXT,
  CT_O_DST,
  CT_O_PORTS,
  CT_O_SRC,
  CT_R_PORTS,
  CT_R_SRC,
  CT_START,
  CT_STATUS,
  CT_WORDS,
  IPS_ASSURED,
  IPS_DST_NAT,
  IPS_DYING,
  IPS_EXPECTED,
  IPS_OFFLOAD,
  ORIGINAL,
} from './record.ts';
import type { ConntrackTable } from './table.ts';
import { CFG_GENERIC } from './timeouts.ts';

export const ESP = 50;
/** Where a record keeps the SPI of its first packet until NAT has decided whether tuples get it. */
export const CT_ESP_SPI = CT_LAST_SEQ;

/** How long a new SPI keeps other hosts from negotiating with the same gateway, ms: a few retransmissions of the inner SYN. */
export const PATIENCE = 10_000;
/** Life of a connection whose other SPI is not known, after its last packet, ms. */
export const UNANSWERED = 30_000;

/** Slots: bits 1 to 31 of a word. */
const SLOTS = 31;

/** What `find` answers beside a connection. */
export const ESP_UNKNOWN = -1;
export const ESP_AMBIGUOUS = -2;
/** What `masquerade` answers. */
export const ESP_OK = 0;
export const ESP_PENDING = 1;
export const ESP_RESERVED = 2;

/**
 * True for an SPI that is never on the wire, as a raw word: 0 stands for any, 1 to 31 are slots, so that many connections
 * between two addresses may wait at a time.
 */
function isReserved(spi: number): boolean {
  return (spi & 0x00ffffff) === 0;
}

/** The SPI of an ESP header at `l4`, as a raw word (network order as loaded). */
export function spiAt(u8: Uint8Array, l4: number): number {
  return u8[l4] | (u8[l4 + 1] << 8) | (u8[l4 + 2] << 16) | (u8[l4 + 3] << 24);
}

/** The SPI in a tuple as a number in host order; 0 when the tuple has none (any, or not known yet). */
export function spiOf(ports: number): number {
  if (isReserved(ports)) return 0;
  return (((ports & 0xff) << 24) | ((ports & 0xff00) << 8) | ((ports >>> 8) & 0xff00) | (ports >>> 24)) >>> 0;
}

/** A packet of a connection: what is translated and unanswered ends soon, so that it makes room for the next one. */
export function trackEsp(w: Int32Array, c: number, now: number, cfg: Int32Array): number {
  if (w[c + CT_O_PORTS] === 0) refresh(w, c, now, cfg[CFG_GENERIC]);
  else if (isReserved(w[c + CT_O_PORTS]) || isReserved(w[c + CT_R_PORTS])) refresh(w, c, now, UNANSWERED);
  else {
    refresh(w, c, now, cfg[CFG_GENERIC]);
    if ((w[c + CT_STATUS] & IPS_ASSURED) === 0) Atomics.or(w, c + CT_STATUS, IPS_ASSURED);
  }
  return TRACK_ACCEPT;
}

export class EspTunnels {
  private readonly table: ConntrackTable;
  /** After `find` said ESP_UNKNOWN: the connection (handle) whose inside host gets the new SPI; −1 none. */
  private heir = -1;

  constructor(table: ConntrackTable) {
    this.table = table;
  }

  /**
   * The connection of an IPv4 ESP packet with SPI `spi` (raw), as (record << 1) | direction; learns the SPI where one waits
   * for it. ESP_UNKNOWN: a new one; ESP_AMBIGUOUS: of several hosts, nobody knows whose. Sets the table's `hash`.
   */
  find(p: Packet, spi: number, key: number, now: number): number {
    const w = this.table.words;
    // Again when another worker has given the waiting connection its SPI a moment ago; that ends with the slots.
    for (let attempt = 0; attempt <= SLOTS; attempt++) {
      let any = -1;
      let waiting = -1;
      let stale = -1;
      let host = 0;
      let hosts = 0;
      this.heir = -1;
      for (let link = this.first(p.s0, p.d0, key); link !== 0; link = this.after(link)) {
        const handle = link - 1;
        const t = this.tuple(handle);
        if (!this.isPair(handle, p.s0, p.d0, key, now)) continue;
        const known = w[t + CT_O_PORTS];
        if (known === spi && !isReserved(spi)) return handle;
        if (known === 0) {
          any = handle;
          continue;
        }
        const c = (handle >> 1) * CT_WORDS;
        // The receiver: the other tuple's source.
        const receiver = w[c + ((handle & 1) === ORIGINAL ? CT_R_SRC : CT_O_SRC)];
        if (receiver !== p.d0 && receiver !== host) {
          hosts++;
          host = receiver;
          this.heir = handle;
        }
        if (!isReserved(known)) continue;
        if (((now - w[c + CT_START]) | 0) > PATIENCE) stale = this.older(stale, handle);
        else waiting = this.older(waiting, handle);
      }
      if (isReserved(spi)) {
        this.heir = -1;
        return any;
      }
      // Who waits longer than that only counts where there is no doubt about the host.
      if (waiting < 0 && hosts < 2) waiting = stale;
      if (waiting >= 0) {
        const at = this.tuple(waiting) + CT_O_PORTS;
        const slot = w[at];
        if (isReserved(slot) && slot !== 0 && Atomics.compareExchange(w, at, slot, spi) === slot) return waiting;
        continue;
      }
      if (any >= 0) return any;
      if (hosts > 1) return ESP_AMBIGUOUS;
      return ESP_UNKNOWN;
    }
    return ESP_AMBIGUOUS;
  }

  /**
   * The private record `index` of a packet that `find` did not know: when its gateway has tunnels with one host inside, it
   * becomes that host's. False: an ordinary new connection (there was no such host, or too many of its wait already).
   */
  inherit(p: Packet, index: number, now: number): boolean {
    const heir = this.heir;
    if (heir < 0) return false;
    this.heir = -1;
    const w = this.table.words;
    const c = index * CT_WORDS;
    const m = (heir >> 1) * CT_WORDS;
    const host = w[m + ((heir & 1) === ORIGINAL ? CT_R_SRC : CT_O_SRC)];
    const used = this.usedSlots(host, p.s0, w[c + CT_KEY], now);
    const slot = freeSlot(used);
    if (slot === 0) return false;
    w[c + CT_O_PORTS] = w[c + CT_ESP_SPI];
    w[c + CT_R_PORTS] = slot;
    w[c + CT_R_SRC] = host;
    w[c + CT_STATUS] |= IPS_EXPECTED | IPS_DST_NAT;
    w[c + CT_MASTER] = (heir >> 1) + 1;
    w[c + CT_MASTER_GEN] = w[m + CT_GEN];
    w[c + CT_DEADLINE] = (now + UNANSWERED) | 0;
    return true;
  }

  /**
   * Makes the private record at word `c`, whose REPLY tuple has its addresses, one that is told apart by its SPI. Returns
   * ESP_OK; ESP_PENDING: another host's new tunnel to this gateway has not been answered; ESP_RESERVED: no SPI.
   */
  masquerade(c: number, now: number): number {
    const w = this.table.words;
    const spi = w[c + CT_ESP_SPI];
    if (isReserved(spi)) return ESP_RESERVED;
    const host = w[c + CT_O_SRC];
    const used = this.usedSlots(w[c + CT_R_SRC], w[c + CT_R_SRC + 1], w[c + CT_KEY], now, host);
    const slot = freeSlot(used);
    if (slot === 0) return ESP_PENDING;
    w[c + CT_O_PORTS] = spi;
    w[c + CT_R_PORTS] = slot;
    w[c + CT_DEADLINE] = (now + UNANSWERED) | 0;
    return ESP_OK;
  }

  /**
   * Slots (bits 1 to 31) that connections from `src` to `dst` have; all of them when a connection of another host than
   * `host` waits for its answer (`host` 0: nobody minds).
   */
  private usedSlots(src: number, dst: number, key: number, now: number, host = 0): number {
    const w = this.table.words;
    let used = 1;
    for (let link = this.first(src, dst, key); link !== 0; link = this.after(link)) {
      const handle = link - 1;
      if (!this.isPair(handle, src, dst, key, now)) continue;
      const known = w[this.tuple(handle) + CT_O_PORTS];
      if (known === 0 || !isReserved(known)) continue;
      used |= 1 << (known >>> 24);
      const c = (handle >> 1) * CT_WORDS;
      const receiver = w[c + ((handle & 1) === ORIGINAL ? CT_R_SRC : CT_O_SRC)];
      if (host !== 0 && receiver !== host && ((now - w[c + CT_START]) | 0) <= PATIENCE) return -1;
    }
    return used;
  }

  /**
   * The connection of a packet from `src` to `dst` that an ICMP error quotes, as the handle of the *other* direction (the
   * error travels in that one), or −1. The quoted SPI is in its own direction's tuple.
   */
  findQuoted(src: number, dst: number, spi: number, key: number, now: number): number {
    const w = this.table.words;
    let any = -1;
    for (let link = this.first(dst, src, key); link !== 0; link = this.after(link)) {
      const handle = link - 1;
      if (!this.isPair(handle, dst, src, key, now)) continue;
      const known = w[this.tuple(handle ^ 1) + CT_O_PORTS];
      if (known === spi && !isReserved(spi)) return handle;
      if (known === 0) any = handle;
    }
    return any;
  }

  /** Deletes what has expired between two addresses (it would stand in a new connection's way). */
  purge(src: number, dst: number, key: number, now: number): void {
    const w = this.table.words;
    for (let link = this.first(src, dst, key); link !== 0; ) {
      const handle = link - 1;
      link = this.after(link);
      const c = (handle >> 1) * CT_WORDS;
      const t = this.tuple(handle);
      if (w[t + CT_O_SRC] !== src || w[t + CT_O_DST] !== dst || w[c + CT_KEY] !== key) continue;
      const gone = (w[c + CT_STATUS] & (IPS_DYING | IPS_OFFLOAD)) === 0 && ((w[c + CT_DEADLINE] - now) | 0) < 0;
      if (gone) this.table.delete(handle >> 1);
    }
  }

  // --- the walk ----------------------------------------------------------------------------------------------------

  private first(src: number, dst: number, key: number): number {
    const hash = this.table.hash4(src, dst, 0, key);
    this.table.hash = hash;
    return this.table.heads[hash & this.table.mask];
  }

  private after(link: number): number {
    return this.table.words[((link - 1) >> 1) * CT_WORDS + CT_NEXT + ((link - 1) & 1)];
  }

  /** Word index of a handle's tuple: CT_O_SRC and its followers are counted from there. */
  private tuple(handle: number): number {
    return (handle >> 1) * CT_WORDS + ((handle & 1) << 2);
  }

  private isPair(handle: number, src: number, dst: number, key: number, now: number): boolean {
    const w = this.table.words;
    const t = this.tuple(handle);
    return (
      w[t + CT_O_SRC] === src &&
      w[t + CT_O_DST] === dst &&
      w[(handle >> 1) * CT_WORDS + CT_KEY] === key &&
      this.table.inUse(handle >> 1, now)
    );
  }

  /** The handle of the connection that began first, `b` when both began at once (chains have the latest in front); −1: none. */
  private older(a: number, b: number): number {
    if (a < 0) return b;
    const w = this.table.words;
    return ((w[(a >> 1) * CT_WORDS + CT_START] - w[(b >> 1) * CT_WORDS + CT_START]) | 0) < 0 ? a : b;
  }
}

/** The lowest slot that is free in `used`, as a raw port word; 0: none. */
function freeSlot(used: number): number {
  const free = ~used;
  if (free === 0) return 0;
  return (31 - Math.clz32(free & -free)) << 24;
}
