/**
 * What all parts of the kernel engine's program share: the context's fields, helpers, registers and the stack.
 *
 *   registers   r6 context   r7 first byte of the frame   r8 its end, later the counters   r9 protocol, later the port of exit
 *   stack       −40 … −1 key (its last word at −4)   −112 … −41 copy of the action   −120 length   −128 length for the MTU
 *               −132 place of the counters   −136 port of entry, as the key has it   −144 the sample under way, or 0
 *
 * Source: linux/bpf.h.
 */
import type { Assembler } from './assembler.ts';
import * as L from './layout.ts';

/** struct __sk_buff (linux/bpf.h). */
export const SKB_LEN = 0;
export const SKB_PKT_TYPE = 4;
export const SKB_QUEUE = 12;
export const SKB_VLAN_PRESENT = 20;
export const SKB_VLAN_TCI = 24;
export const SKB_VLAN_PROTO = 28;
export const SKB_CB = 48;
export const SKB_DATA = 76;
export const SKB_DATA_END = 80;
export const SKB_GSO_SIZE = 176;

/** Helpers (linux/bpf.h). */
export const MAP_LOOKUP = 1;
export const RANDOM = 7;
export const L4_CSUM_REPLACE = 11;
export const VLAN_PUSH = 18;
export const VLAN_POP = 19;
export const REDIRECT = 23;
export const LOAD_BYTES = 26;
export const CHANGE_TYPE = 32;
export const CHANGE_TAIL = 38;
export const PULL_DATA = 39;
export const CSUM_UPDATE = 40;
export const RINGBUF_RESERVE = 131;
export const RINGBUF_SUBMIT = 132;
export const RINGBUF_DISCARD = 133;
export const REDIRECT_PEER = 155;
export const KTIME_COARSE = 160;

/** Flags of L4_CSUM_REPLACE: addresses count in the pseudo-header; a UDP checksum of 0 stays 0, and none becomes 0. */
export const PSEUDO_HEADER = 0x10;
export const MANGLED_0 = 0x20;

/** As loaded from the frame, which is in network order. */
export const IPV4 = 0x0008;
export const IPV6 = 0xdd86;
export const VLAN = 0x0081;
export const TCP = 6;
export const UDP = 17;
export const IPV6_IN_IP = 41;
export const ESP = 50;

/** Link header, and where things are behind it. */
export const L3 = 14;
export const L4 = L3 + 20;
export const L4_6 = L3 + 40;
/** Bytes that must lie in one piece: all headers up to TCP's over IPv4, over IPv6. */
export const HEADERS = L4 + 20;
export const HEADERS_6 = L4_6 + 20;

export const KEY6_AT = -L.KEY6_WORDS * 4;
export const KEY4_AT = -L.KEY4_WORDS * 4;
export const ACTION_AT = KEY6_AT - L.ACTION_WORDS * 4;
export const LENGTH_AT = ACTION_AT - 8;
export const SIZE_AT = ACTION_AT - 16;
export const COUNTER_AT = ACTION_AT - 20;
export const PORT_AT = ACTION_AT - 24;
export const SAMPLE_AT = ACTION_AT - 32;

/** In cb[0] after a hit: the port of exit, and this; 0 when the frame went up. Read by tests. */
export const VERDICT_HIT = 0x100;

export interface ProgramOptions {
  /** The port's number. */
  port: number;
  /** The port is a TAP: the program runs where the device hands frames to this process (tc egress). */
  tap?: boolean;
  /** VLAN ports on its device: tag and number. */
  vlans: readonly { vlan: number; port: number }[];
  /** Size of the neighbour table, a power of two. */
  neighbours: number;
  /** An entry without a hit for this long is not used, ms. */
  idle: number;
  /** Verify mode: one hit of this many, a power of two, is shown to the router with what became of it; 0: none. */
  sample?: number;
  /** FAULT_* of offload/engine.ts: makes the program wrong on purpose. Tests only. */
  fault?: number;
}

/** Word `word` of the copied action. */
export function action(word: number): number {
  return ACTION_AT + word * 4;
}

/** Byte offset of a word of a port's record. */
export function portWord(port: number, word: number): number {
  return (L.B_PORTS + port * L.PORT_WORDS + word) * 4;
}

/** One step of folding a sum to 16 bits. */
export function fold16(a: Assembler, sum: 'r2', scratch: 'r3'): void {
  a.mov(scratch, sum).rsh(scratch, 16).and(sum, 0xffff).add(sum, scratch);
}
