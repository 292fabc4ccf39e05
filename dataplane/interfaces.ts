/**
 * Interfaces: what the path must know of every port, in shared memory (32 words a port, up to MAX_PORTS).
 *
 * The control plane writes, workers read. The full address list lives in the control plane and in the route table (as
 * local routes); here are only the addresses that the path itself puts into packets.
 *
 *   0 FLAGS   IFF_*                       6 FILTER   EtherType filter, ALLOW_*       14–17 GLOBAL6     for ICMPv6 errors
 *   1 MAC_LO  first four bytes, raw       7 OFFLOADS what the device takes: virtio   18 SOURCES        L2 source filter: count
 *   2 MAC_HI  last two bytes, raw              TUN_F_* bits                          19 LINK_GEN       grows with every link change
 *   3 MTU     bytes of IP                 8 ADDRESS4 primary, raw (masquerade,       20 SPEED
 *   4 ZONE    number                           ICMP errors); 0 none                  22,23 PEER_MAC of the host's end of sluice0
 *                                                                                    24 CT_ZONE  conntrack zone
 *                                                                                    25 MSS_CLAMP  0 off, −1 to path MTU, else bytes
 *   5 VLAN    tag of a VLAN port; 0 none  9 PREFIX4  10–13 LINKLOCAL6, raw              21 CHILDREN VLAN ports on it
 */
export const MAX_PORTS = 64;
export const IF_WORDS = 32;
export const IF_FLAGS = 0;
export const IF_MAC_LO = 1;
export const IF_MAC_HI = 2;
export const IF_MTU = 3;
export const IF_ZONE = 4;
export const IF_VLAN = 5;
export const IF_FILTER = 6;
export const IF_OFFLOADS = 7;
export const IF_ADDRESS4 = 8;
export const IF_PREFIX4 = 9;
export const IF_LINKLOCAL6 = 10;
export const IF_GLOBAL6 = 14;
export const IF_SOURCES = 18;
export const IF_LINK_GEN = 19;
export const IF_PARENT = 20;
export const IF_CHILDREN = 21;
export const IF_PEER_MAC = 22;
export const IF_CT_ZONE = 24;
export const IF_MSS_CLAMP = 25;

/** PRESENT: configured. UP: administratively and physically up. HOST: the way to the host kernel (sluice0). */
export const IFF_PRESENT = 1;
export const IFF_UP = 2;
export const IFF_HOST = 4;
/** Accept frames for any destination MAC (replay of one capture, bridges). */
export const IFF_PROMISC = 8;
/** A lightweight DHCPv6 relay agent gets what is sent to link-local addresses of its clients (RFC 6221). */
export const IFF_LDRA = 16;
/** IPv6 packets enter only where the way back to their source leads (RFC 3704 §2.2, RFC 8987 R-3). */
export const IFF_SOURCE_CHECK = 32;
/** Stations send from addresses of their own (bindings.ts). */
export const IFF_SECURITY = 64;

export const ALLOW_IPV4 = 1;
export const ALLOW_ARP = 2;
export const ALLOW_IPV6 = 4;
export const ALLOW_ALL = 7;

/** Up to MAX_SOURCES allowed source MACs a port, two words each, behind the interface records. */
export const MAX_SOURCES = 32;
const SOURCE_BASE = MAX_PORTS * IF_WORDS;

export class InterfaceTable {
  readonly words: Int32Array;

  /** @param lead bytes of the buffer before the table */
  constructor(buffer: SharedArrayBuffer, lead = 0) {
    this.words = new Int32Array(buffer, lead, InterfaceTable.bytes() >> 2);
  }

  static bytes(): number {
    return (SOURCE_BASE + MAX_PORTS * MAX_SOURCES * 2) * 4;
  }

  at(port: number): number {
    return port * IF_WORDS;
  }

  /** Word index of the n-th allowed source MAC of a port. */
  sourceAt(port: number, n: number): number {
    return SOURCE_BASE + (port * MAX_SOURCES + n) * 2;
  }

  /** The VLAN port that carries tag `vlan` on `parent`, or −1. */
  vlanPort(parent: number, vlan: number): number {
    const w = this.words;
    for (let port = 0; port < MAX_PORTS; port++) {
      const r = port * IF_WORDS;
      if (w[r + IF_PARENT] === parent + 1 && w[r + IF_VLAN] === vlan) return port;
    }
    return -1;
  }

  isUp(port: number): boolean {
    return (this.words[port * IF_WORDS] & IFF_UP) !== 0;
  }

  /** Sets or clears flags (IFF_*) of a port and leaves the others: two threads of the control plane have some each. */
  setFlags(port: number, flags: number, on: boolean): void {
    const at = port * IF_WORDS + IF_FLAGS;
    if (on) Atomics.or(this.words, at, flags);
    else Atomics.and(this.words, at, ~flags);
  }

  /** True when a frame with this source MAC (raw words) may enter: the list is empty or names it (row L3). */
  allowsSource(port: number, macLo: number, macHi: number): boolean {
    const w = this.words;
    const count = w[port * IF_WORDS + IF_SOURCES];
    if (count === 0) return true;
    let at = SOURCE_BASE + port * MAX_SOURCES * 2;
    for (let n = 0; n < count; n++, at += 2) if (w[at] === macLo && w[at + 1] === macHi) return true;
    return false;
  }
}
