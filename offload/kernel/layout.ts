/**
 * What the kernel engine's program and this process share: keys, actions, counters, and one block of everything else.
 *
 * Flows are in two hash maps, one a family. An entry's action is replaced as a whole and atomically for a reader (bpf(2)
 * gives a changed entry new memory), so there is never half of one. Its counters stand apart, in a mapped array, at the
 * place that the entry has in the flow table: read without a system call, and untouched when the action changes.
 *
 *   key, IPv4: words 0 SRC   1 DST   2 PORTS 3 KEY              all raw, as in offload/table.ts;
 *   key, IPv6: words 0–3 SRC 4–7 DST 8 PORTS 9 KEY              KEY: protocol | ingress port << 8
 *
 *   action, 18 words
 *    0 NSRC      1 NDST      2 NPORTS    IPv4: what addresses and ports become
 *    3 CHANGES   bit 0 an address changes, 1 a port; the others: a mark of the connection and direction (connectionMark)
 *    4 ADELTA    5 PDELTA    6 IPDELTA   what to add to one's complement sums: addresses, ports, the IP header
 *    7 COUNTER   place of the counters
 *    8–9 EPOCH   the epoch word and the number of sweeps, as read before the walk that made the entry
 *   10 DMAC_LO  11 DMAC_HI | egress port << 16
 *   12 NEIGH     the neighbour's word in the block, as it must be       13 NEIGH_AT its number
 *   14–17 SAME   the last four words of the key: memory of an entry that was taken out may be another's at once
 *
 *   counters, 8 words: 0–1 packets, 2–3 bytes (IP), 4–5 last hit (ns of the monotonic clock), 6–7 hits shown as samples
 *
 *   block: one value, mapped
 *    0–1 EPOCH    as in an action; the flush is one store here
 *    16 + 8 p     of port p: 0 FLAGS  1 IFINDEX  2 MTU  3 VLAN (TCI of a VLAN port)  4 MAC_LO  5 MAC_HI
 *                 6 TAP: index of the device that takes what the program leaves to the router
 *    528 + n      of neighbour n: low half of its generation | NEIGH_QUIET
 *
 *   sample (verify mode), a record of the ring
 *    0 LENGTH of the frame as it came  1 IN port  2 OUT port  3 GSO segment size, 0 none  4 PACKET: bytes of IP
 *    5 LENGTH_AFTER  6 TAG it left with (TCI | TAGGED), 0 none, as the kernel keeps it beside the frame
 *    7 CHANGES  8–9 EPOCH  10 NEIGH  11 NEIGH_AT  12 COUNTER of the action that it was forwarded by  13 spare
 *    then SAMPLE_ROOM bytes of the frame before, and SAMPLE_ROOM after
 *
 * Pure: words in, words out. The maps themselves are dataplane/ports/kernel-engine.ts.
 */
import { delta, fold } from '../../dataplane/wire/sum.ts';

export const KEY4_WORDS = 4;
export const KEY6_WORDS = 10;

export const ACTION_WORDS = 18;
export const A_NSRC = 0;
export const A_NDST = 1;
export const A_NPORTS = 2;
export const A_CHANGES = 3;
export const A_ADELTA = 4;
export const A_PDELTA = 5;
export const A_IPDELTA = 6;
export const A_COUNTER = 7;
export const A_EPOCH = 8;
export const A_DMAC_LO = 10;
export const A_DMAC_HI = 11;
export const A_NEIGH = 12;
export const A_NEIGH_AT = 13;
export const A_SAME = 14;

export const CHANGES_ADDRESS = 1;
export const CHANGES_PORT = 2;
export const CHANGES = CHANGES_ADDRESS | CHANGES_PORT;

export const COUNTER_WORDS = 8;
export const N_PACKETS = 0;
export const N_BYTES = 2;
export const N_LAST = 4;
export const N_SAMPLED = 6;

export const B_EPOCH = 0;
export const B_PORTS = 16;
export const PORT_WORDS = 8;
export const BP_FLAGS = 0;
export const BP_IFINDEX = 1;
export const BP_MTU = 2;
export const BP_VLAN = 3;
export const BP_MAC_LO = 4;
export const BP_MAC_HI = 5;
export const BP_TAP = 6;
/** As many as dataplane/interfaces.ts has. */
export const BLOCK_PORTS = 64;
export const B_NEIGHBOURS = B_PORTS + BLOCK_PORTS * PORT_WORDS;

/** Frames that come in by this port may be looked up. */
export const BP_INGRESS = 1;
/** Frames may leave by this port. */
export const BP_EGRESS = 2;
/** The device's other end is in another namespace: frames are put there directly (bpf_redirect_peer). */
export const BP_PEER = 4;
/** The device is a TAP of this namespace: frames are put where this process would have written them (BPF_F_INGRESS). */
export const BP_INWARD = 8;

/** The neighbour may be used without telling the control plane. */
export const NEIGH_QUIET = 0x10000;

export const S_LENGTH = 0;
export const S_IN = 1;
export const S_OUT = 2;
export const S_GSO = 3;
export const S_PACKET = 4;
export const S_LENGTH_AFTER = 5;
export const S_TAG = 6;
export const S_TAGGED = 0x10000;
export const S_CHANGES = 7;
export const S_EPOCH = 8;
export const S_NEIGH = 10;
export const S_NEIGH_AT = 11;
export const S_COUNTER = 12;
/** Byte offsets; a frame of the usual MTU is there as a whole, so that its checksum can be judged. */
export const SAMPLE_ROOM = 1536;
export const S_BEFORE = 56;
export const S_AFTER = S_BEFORE + SAMPLE_ROOM;
export const SAMPLE_BYTES = S_AFTER + SAMPLE_ROOM;

/** Bytes of the block for `neighbours` neighbours. */
export function blockBytes(neighbours: number): number {
  return (B_NEIGHBOURS + neighbours) * 4;
}

/** What an action is made of: a FlowSpec of offload/table.ts, and what its walk changed. */
export interface Flow {
  family: number;
  src: Int32Array;
  dst: Int32Array;
  ports: number;
  proto: number;
  inPort: number;
  newSrc: number;
  newDst: number;
  newPorts: number;
  macLo: number;
  macHi: number;
  outPort: number;
  epoch: number;
  sweep: number;
  neighbour: number;
  connection: number;
  generation: number;
}

/** Writes a flow's key; returns its length in words. */
export function writeKey(f: Flow, into: Int32Array): number {
  const words = f.family === 4 ? 1 : 4;
  for (let n = 0; n < words; n++) {
    into[n] = f.src[n];
    into[words + n] = f.dst[n];
  }
  into[2 * words] = f.ports;
  into[2 * words + 1] = f.proto | (f.inPort << 8);
  return 2 * words + 2;
}

/**
 * Tells an entry from an earlier or later one with the same key: 30 bits of a hash of the connection's record, the direction
 * (both in `connection`, as in a FlowSpec) and the record's generation.
 */
export function connectionMark(connection: number, generation: number): number {
  const h = Math.imul(connection ^ Math.imul(generation, 0x85ebca6b), 0x9e3779b1);
  return (h ^ (h >>> 15)) & ~CHANGES;
}

/** Writes a flow's action. */
export function writeAction(f: Flow, counter: number, into: Int32Array): void {
  const four = f.family === 4;
  into.fill(0, 0, ACTION_WORDS);
  if (four) {
    // Sums of what changes; a folded sum of a change is never 0 (RFC 1624).
    const addresses =
      f.src[0] === f.newSrc && f.dst[0] === f.newDst ? 0 : fold(delta(f.src[0], f.newSrc) + delta(f.dst[0], f.newDst));
    const hasPorts = f.proto === 6 || f.proto === 17;
    const ports = !hasPorts || f.ports === f.newPorts ? 0 : fold(delta(f.ports, f.newPorts));
    into[A_NSRC] = f.newSrc;
    into[A_NDST] = f.newDst;
    into[A_NPORTS] = f.newPorts;
    into[A_CHANGES] = (addresses !== 0 ? CHANGES_ADDRESS : 0) | (ports !== 0 ? CHANGES_PORT : 0);
    into[A_ADELTA] = addresses;
    into[A_PDELTA] = ports;
    // The TTL, low byte of its half as loaded, falls by one: ~1 is added.
    into[A_IPDELTA] = fold(addresses + 0xfffe);
  }
  into[A_CHANGES] |= connectionMark(f.connection, f.generation);
  into[A_COUNTER] = counter;
  into[A_EPOCH] = f.epoch;
  into[A_EPOCH + 1] = f.sweep;
  into[A_DMAC_LO] = f.macLo;
  into[A_DMAC_HI] = (f.macHi & 0xffff) | (f.outPort << 16);
  into[A_NEIGH] = (f.neighbour & 0xffff) | NEIGH_QUIET;
  into[A_NEIGH_AT] = f.neighbour >>> 16;
  into[A_SAME] = four ? f.src[0] : f.dst[2];
  into[A_SAME + 1] = four ? f.dst[0] : f.dst[3];
  into[A_SAME + 2] = f.ports;
  into[A_SAME + 3] = f.proto | (f.inPort << 8);
}
