/**
 * The kernel engine's program, one for each port, run by the kernel at the port's tc ingress hook.
 *
 * It does what dataplane/fastpath.ts does, in the same order and with the same exceptions: find the flow, make sure that
 * everything is as it was when the entry was made, rewrite, count, and send the frame out by another port. Whatever is
 * not plainly a hit goes unchanged to the port's TAP, where the router reads it; the host's own stack sees no frame of
 * this port. So a flow may be in either engine, and a frame is forwarded by exactly one of them.
 *
 * What it cannot do, and the emulated engine does: verify a transport checksum (a wrong one stays wrong, and its receiver
 * drops it, as behind Linux's flow table). Partial checksums and super-frames pass as they are: the checksum helper knows
 * which it has before it, and the MTU is compared with the size of the segments to be.
 *
 *   registers   r6 context   r7 first byte of the frame   r8 its end, later the counters   r9 protocol, later the port of exit
 *   stack       −40 … −1 key (its last word at −4)   −112 … −41 copy of the action   −120 length   −128 length for the MTU
 *               −132 place of the counters   −136 port of entry, as the key has it
 */
import { Assembler } from './assembler.ts';
import * as L from './layout.ts';

/** struct __sk_buff (linux/bpf.h). */
const SKB_LEN = 0;
const SKB_PKT_TYPE = 4;
const SKB_VLAN_PRESENT = 20;
const SKB_VLAN_TCI = 24;
const SKB_VLAN_PROTO = 28;
const SKB_CB = 48;
const SKB_DATA = 76;
const SKB_DATA_END = 80;
const SKB_GSO_SIZE = 176;

/** Helpers (linux/bpf.h). */
const MAP_LOOKUP = 1;
const L4_CSUM_REPLACE = 11;
const VLAN_PUSH = 18;
const VLAN_POP = 19;
const REDIRECT = 23;
const CHANGE_TYPE = 32;
const CHANGE_TAIL = 38;
const PULL_DATA = 39;
const CSUM_UPDATE = 40;
const REDIRECT_PEER = 155;
const KTIME_COARSE = 160;

/** Flags of L4_CSUM_REPLACE: addresses count in the pseudo-header; a UDP checksum of 0 stays 0, and none becomes 0. */
const PSEUDO_HEADER = 0x10;
const MANGLED_0 = 0x20;

/** As loaded from the frame, which is in network order. */
const IPV4 = 0x0008;
const IPV6 = 0xdd86;
const VLAN = 0x0081;
const TCP = 6;
const UDP = 17;
const IPV6_IN_IP = 41;
const ESP = 50;

/** Link header, and where things are behind it. */
const L3 = 14;
const L4 = L3 + 20;
const L4_6 = L3 + 40;
/** Bytes that must lie in one piece: all headers up to TCP's over IPv4, over IPv6. */
const HEADERS = L4 + 20;
const HEADERS_6 = L4_6 + 20;

const KEY6_AT = -L.KEY6_WORDS * 4;
const KEY4_AT = -L.KEY4_WORDS * 4;
const ACTION_AT = KEY6_AT - L.ACTION_WORDS * 4;
const LENGTH_AT = ACTION_AT - 8;
const SIZE_AT = ACTION_AT - 16;
const COUNTER_AT = ACTION_AT - 20;
const PORT_AT = ACTION_AT - 24;

/** In cb[0] after a hit: the port of exit, and this; 0 when the frame went up. Read by tests and by verify. */
export const VERDICT_HIT = 0x100;

export interface ProgramOptions {
  /** The port's number. */
  port: number;
  /** VLAN ports on its device: tag and number. */
  vlans: readonly { vlan: number; port: number }[];
  /** Size of the neighbour table, a power of two. */
  neighbours: number;
  /** An entry without a hit for this long is not used, ms. */
  idle: number;
}

/**
 * The program of one port.
 *
 * @returns instructions whose maps are called `flows4`, `flows6`, `counters` and `block` (layout.ts)
 */
export function engineProgram(options: ProgramOptions): Assembler {
  const a = new Assembler();
  frame(a, options);
  ipv4(a);
  ipv6(a);
  check(a, options);
  forward(a, options.vlans.length > 0);
  up(a, options);
  return a;
}

/** Word `word` of the copied action. */
function action(word: number): number {
  return ACTION_AT + word * 4;
}

/** Byte offset of a word of a port's record. */
function portWord(port: number, word: number): number {
  return (L.B_PORTS + port * L.PORT_WORDS + word) * 4;
}

/** Link header: of which port, to its MAC, from a single sender; IPv4 or IPv6. The kernel keeps a tag beside the frame. */
function frame(a: Assembler, { port, vlans }: ProgramOptions): void {
  a.mov('r6', 'r1');
  a.load(4, 'r7', 'r6', SKB_DATA).load(4, 'r8', 'r6', SKB_DATA_END);
  // Drivers may leave all but a few bytes in pages: those that matter are pulled together. Short frames are whole.
  a.mov('r2', 'r7').add('r2', HEADERS).when('r2', '<=', 'r8', 'linear');
  a.load(4, 'r2', 'r6', SKB_LEN).when('r2', '<', HEADERS, 'linear');
  a.when('r2', '<=', HEADERS_6, 'pull').mov('r2', HEADERS_6);
  a.label('pull').mov('r1', 'r6').call(PULL_DATA);
  a.load(4, 'r7', 'r6', SKB_DATA).load(4, 'r8', 'r6', SKB_DATA_END);

  a.label('linear');
  a.mov('r2', 'r7')
    .add('r2', L4 + 8)
    .when('r2', '>', 'r8', 'up');
  a.mapValue('r1', 'block');
  a.load(4, 'r2', 'r6', SKB_VLAN_PRESENT).when('r2', '!=', 0, 'tagged');
  entry(a, port);
  for (const one of vlans) {
    a.jump('link').label(`vlan-${one.vlan}`);
    entry(a, one.port);
  }
  a.jump('link').label('tagged');
  if (vlans.length > 0) a.load(4, 'r2', 'r6', SKB_VLAN_PROTO).when('r2', '!=', VLAN, 'up');
  if (vlans.length > 0) a.load(4, 'r2', 'r6', SKB_VLAN_TCI).and('r2', 0xfff);
  for (const { vlan } of vlans) a.when('r2', '==', vlan, `vlan-${vlan}`);
  a.jump('up').label('link');
  a.load(1, 'r2', 'r7', 6).when('r2', '&', 1, 'up');
  a.load(2, 'r2', 'r7', 12);
  a.when('r2', '==', IPV6, 'ipv6').when('r2', '!=', IPV4, 'up');
}

/** The frame came in by `port`, and must be meant for it. r1: the block. */
function entry(a: Assembler, port: number): void {
  a.load(4, 'r2', 'r1', portWord(port, L.BP_FLAGS)).and('r2', L.BP_INGRESS).when('r2', '==', 0, 'up');
  a.load(4, 'r2', 'r7', 0).load(4, 'r3', 'r1', portWord(port, L.BP_MAC_LO)).when('r2', '!=', 'r3', 'up');
  a.load(2, 'r2', 'r7', 4).load(4, 'r3', 'r1', portWord(port, L.BP_MAC_HI)).when('r2', '!=', 'r3', 'up');
  a.store(4, 'r10', PORT_AT, port << 8);
}

/** No options, no fragment, a sound header; ends at `check` with the key's action in r0, or 0. */
function ipv4(a: Assembler): void {
  a.load(1, 'r2', 'r7', L3).when('r2', '!=', 0x45, 'up');
  // MF and offset; bits 6 and 7 of the first byte are DF and reserved.
  a.load(2, 'r2', 'r7', L3 + 6)
    .and('r2', 0xff3f)
    .when('r2', '!=', 0, 'up');
  a.load(1, 'r2', 'r7', L3 + 8).when('r2', '<=', 1, 'up');
  a.load(2, 'r5', 'r7', L3 + 2).be16('r5');
  a.when('r5', '<', 28, 'up');
  a.load(4, 'r2', 'r6', SKB_LEN).sub('r2', L3).when('r5', '>', 'r2', 'up');
  a.store(8, 'r10', LENGTH_AT, 'r5');
  // RFC 1071: the sum over the header is all ones.
  a.load(4, 'r2', 'r7', L3);
  for (let word = 1; word < 5; word++) a.load(4, 'r3', 'r7', L3 + word * 4).add('r2', 'r3');
  a.mov32('r3', 'r2').rsh('r2', 32).add('r2', 'r3');
  for (let n = 0; n < 3; n++) fold16(a, 'r2', 'r3');
  a.when('r2', '!=', 0xffff, 'up');

  for (const [from, to] of [
    [L3 + 12, KEY4_AT],
    [L3 + 16, KEY4_AT + 4],
    [L4, KEY4_AT + 8],
  ])
    a.load(4, 'r2', 'r7', from).store(4, 'r10', to, 'r2');
  a.load(1, 'r9', 'r7', L3 + 9);
  a.load(4, 'r2', 'r10', PORT_AT)
    .or('r2', 'r9')
    .store(4, 'r10', KEY4_AT + 12, 'r2');
  a.load(4, 'r4', 'r6', SKB_GSO_SIZE);
  a.when('r9', '==', UDP, 'udp4').when('r9', '==', TCP, 'tcp4');
  // Tunnels have no ports, and a super-frame of one has headers that are not looked at.
  a.when('r4', '!=', 0, 'up').store(8, 'r10', SIZE_AT, 'r5');
  a.when('r9', '==', ESP, 'find4').when('r9', '!=', IPV6_IN_IP, 'up');
  a.store(4, 'r10', KEY4_AT + 8, 0).jump('find4');

  a.label('udp4');
  a.store(8, 'r10', SIZE_AT, 'r5');
  a.when('r4', '!=', 0, 'udp4-super');
  a.load(2, 'r2', 'r7', L4 + 4)
    .be16('r2')
    .sub('r5', 20)
    .when('r2', '!=', 'r5', 'up');
  a.jump('find4');
  a.label('udp4-super').add('r4', 28).store(8, 'r10', SIZE_AT, 'r4').jump('find4');

  a.label('tcp4');
  tcp(a, L4, 20, 'tcp4-whole');

  a.label('find4');
  a.map('r1', 'flows4').mov('r2', 'r10').add('r2', KEY4_AT).call(MAP_LOOKUP);
  a.jump('check');
}

/**
 * TCP: ACK, and none of FIN, SYN and RST; a header that fits. r5 is the packet's length, r4 the super-frame's segment
 * size or 0. Clobbers r2, r3, r5.
 */
function tcp(a: Assembler, l4: number, ip: number, whole: string): void {
  a.mov('r2', 'r7')
    .add('r2', l4 + 20)
    .when('r2', '>', 'r8', 'up');
  a.load(2, 'r2', 'r7', l4 + 12);
  a.mov('r3', 'r2').and('r3', 0x1700).when('r3', '!=', 0x1000, 'up');
  a.and('r2', 0xf0).rsh('r2', 2).when('r2', '<', 20, 'up');
  a.add('r2', ip).when('r2', '>', 'r5', 'up');
  a.store(8, 'r10', SIZE_AT, 'r5');
  a.when('r4', '==', 0, whole);
  a.add('r4', 'r2').store(8, 'r10', SIZE_AT, 'r4');
  a.label(whole);
}

/** No extension header that the key could not see behind; ends at `check` with the key's action in r0, or 0. */
function ipv6(a: Assembler): void {
  a.label('ipv6');
  a.mov('r2', 'r7')
    .add('r2', L4_6 + 8)
    .when('r2', '>', 'r8', 'up');
  a.load(1, 'r2', 'r7', L3).and('r2', 0xf0).when('r2', '!=', 0x60, 'up');
  a.load(1, 'r2', 'r7', L3 + 7).when('r2', '<=', 1, 'up');
  a.load(2, 'r5', 'r7', L3 + 4).be16('r5');
  a.when('r5', '<', 8, 'up').add('r5', 40);
  a.load(4, 'r2', 'r6', SKB_LEN).sub('r2', L3).when('r5', '>', 'r2', 'up');
  a.store(8, 'r10', LENGTH_AT, 'r5');
  for (let word = 0; word < 9; word++)
    a.load(4, 'r2', 'r7', L3 + 8 + word * 4).store(4, 'r10', KEY6_AT + word * 4, 'r2');
  a.load(1, 'r9', 'r7', L3 + 6);
  a.load(4, 'r2', 'r10', PORT_AT)
    .or('r2', 'r9')
    .store(4, 'r10', KEY6_AT + 36, 'r2');
  a.load(4, 'r4', 'r6', SKB_GSO_SIZE);
  a.when('r9', '==', TCP, 'tcp6').when('r9', '==', UDP, 'udp6');
  a.when('r9', '!=', ESP, 'up').when('r4', '!=', 0, 'up');
  a.store(8, 'r10', SIZE_AT, 'r5').jump('find6');

  a.label('udp6');
  a.store(8, 'r10', SIZE_AT, 'r5');
  a.when('r4', '!=', 0, 'udp6-super');
  a.load(2, 'r2', 'r7', L4_6 + 4)
    .be16('r2')
    .sub('r5', 40)
    .when('r2', '!=', 'r5', 'up');
  a.jump('find6');
  a.label('udp6-super').add('r4', 48).store(8, 'r10', SIZE_AT, 'r4').jump('find6');

  a.label('tcp6');
  tcp(a, L4_6, 40, 'tcp6-whole');

  a.label('find6');
  a.map('r1', 'flows6').mov('r2', 'r10').add('r2', KEY6_AT).call(MAP_LOOKUP);
}

/** The action must be this flow's, and everything that it depends on as it was. Afterwards r9 is the port of exit. */
function check(a: Assembler, { neighbours, idle }: ProgramOptions): void {
  a.label('check');
  a.when('r0', '==', 0, 'up');
  for (let word = 0; word < L.ACTION_WORDS; word += 2)
    a.load(8, 'r2', 'r0', word * 4).store(8, 'r10', action(word), 'r2');
  // Behind the copy: what was read may have been given to another flow meanwhile.
  a.load(8, 'r2', 'r10', action(L.A_SAME)).load(8, 'r3', 'r10', KEY4_AT).when('r2', '!=', 'r3', 'up');
  a.load(8, 'r2', 'r10', action(L.A_SAME + 2))
    .load(8, 'r3', 'r10', KEY4_AT + 8)
    .when('r2', '!=', 'r3', 'up');

  a.mapValue('r1', 'block');
  a.load(8, 'r2', 'r10', action(L.A_EPOCH))
    .load(8, 'r3', 'r1', L.B_EPOCH * 4)
    .when('r2', '!=', 'r3', 'up');
  a.load(4, 'r2', 'r10', action(L.A_NEIGH_AT));
  a.and('r2', neighbours - 1)
    .lsh('r2', 2)
    .mov('r3', 'r1')
    .add('r3', 'r2');
  a.load(4, 'r3', 'r3', L.B_NEIGHBOURS * 4)
    .load(4, 'r2', 'r10', action(L.A_NEIGH))
    .when('r2', '!=', 'r3', 'up');
  a.load(4, 'r2', 'r10', action(L.A_DMAC_HI))
    .rsh('r2', 16)
    .and('r2', L.BLOCK_PORTS - 1);
  a.lsh('r2', 5)
    .add('r1', 'r2')
    .mov('r9', 'r1')
    .add('r9', L.B_PORTS * 4);
  a.load(4, 'r2', 'r9', L.BP_FLAGS * 4)
    .and('r2', L.BP_EGRESS)
    .when('r2', '==', 0, 'up');
  a.load(8, 'r2', 'r10', SIZE_AT)
    .load(4, 'r3', 'r9', L.BP_MTU * 4)
    .when('r2', '>', 'r3', 'up');

  a.load(4, 'r2', 'r10', action(L.A_COUNTER)).store(4, 'r10', COUNTER_AT, 'r2');
  a.map('r1', 'counters').mov('r2', 'r10').add('r2', COUNTER_AT).call(MAP_LOOKUP);
  a.when('r0', '==', 0, 'up').mov('r8', 'r0');
  a.call(KTIME_COARSE);
  a.load(8, 'r1', 'r8', L.N_LAST * 4)
    .mov('r2', 'r0')
    .sub('r2', 'r1');
  a.constant('r3', idle * 1e6).when('r2', 's>', 'r3', 'up');
  a.store(8, 'r8', L.N_LAST * 4, 'r0');
  a.mov('r2', 1).atomicAdd('r8', L.N_PACKETS * 4, 'r2');
  a.load(8, 'r2', 'r10', LENGTH_AT).atomicAdd('r8', L.N_BYTES * 4, 'r2');
}

/** The rewrite, and out. Calls of helpers that may move the frame come after all direct stores. */
function forward(a: Assembler, mayBeTagged: boolean): void {
  a.load(4, 'r2', 'r10', action(L.A_DMAC_LO)).store(4, 'r7', 0, 'r2');
  a.load(4, 'r2', 'r10', action(L.A_DMAC_HI)).store(2, 'r7', 4, 'r2');
  a.load(4, 'r2', 'r9', L.BP_MAC_LO * 4).store(4, 'r7', 6, 'r2');
  a.load(4, 'r2', 'r9', L.BP_MAC_HI * 4).store(2, 'r7', 10, 'r2');
  a.load(2, 'r2', 'r7', 12).when('r2', '==', IPV4, 'rewrite4');

  a.load(1, 'r2', 'r7', L3 + 7)
    .sub('r2', 1)
    .store(1, 'r7', L3 + 7, 'r2');
  // A device that has summed the whole packet counts the hop limit: the high byte of a half in network order.
  a.mov('r1', 'r6').mov('r2', 0xfeff).call(CSUM_UPDATE);
  a.jump('leave');

  a.label('rewrite4');
  a.load(4, 'r2', 'r10', action(L.A_NSRC)).store(4, 'r7', L3 + 12, 'r2');
  a.load(4, 'r2', 'r10', action(L.A_NDST)).store(4, 'r7', L3 + 16, 'r2');
  a.load(1, 'r8', 'r7', L3 + 9);
  a.load(1, 'r2', 'r7', L3 + 8)
    .sub('r2', 1)
    .store(1, 'r7', L3 + 8, 'r2');
  // HC' = ~(~HC + change), RFC 1624 eq. 3.
  a.load(2, 'r2', 'r7', L3 + 10)
    .xor('r2', 0xffff)
    .load(4, 'r3', 'r10', action(L.A_IPDELTA))
    .add('r2', 'r3');
  for (let n = 0; n < 2; n++) fold16(a, 'r2', 'r3');
  a.xor('r2', 0xffff).store(2, 'r7', L3 + 10, 'r2');
  a.when('r8', '==', TCP, 'ports').when('r8', '!=', UDP, 'leave');
  a.label('ports');
  a.load(4, 'r2', 'r10', action(L.A_NPORTS)).store(4, 'r7', L4, 'r2');

  // Where the transport checksum is, and how it is to be treated.
  a.mov('r7', L4 + 16);
  a.store(8, 'r10', SIZE_AT, 0);
  a.when('r8', '==', TCP, 'checksum');
  a.mov('r7', L4 + 6).store(8, 'r10', SIZE_AT, MANGLED_0);
  a.label('checksum');
  a.load(4, 'r8', 'r10', action(L.A_CHANGES));
  a.mov('r2', 'r8').and('r2', L.CHANGES_ADDRESS).when('r2', '==', 0, 'checksum-port');
  a.mov('r1', 'r6').mov('r2', 'r7').mov('r3', 0);
  a.load(4, 'r4', 'r10', action(L.A_ADELTA))
    .load(8, 'r5', 'r10', SIZE_AT)
    .or('r5', PSEUDO_HEADER)
    .call(L4_CSUM_REPLACE);
  a.label('checksum-port');
  a.and('r8', L.CHANGES_PORT).when('r8', '==', 0, 'leave');
  a.mov('r1', 'r6').mov('r2', 'r7').mov('r3', 0);
  a.load(4, 'r4', 'r10', action(L.A_PDELTA)).load(8, 'r5', 'r10', SIZE_AT).call(L4_CSUM_REPLACE);

  a.label('leave');
  // Bytes behind the datagram (RFC 894's padding) stay here.
  a.load(8, 'r2', 'r10', LENGTH_AT).add('r2', L3).load(4, 'r3', 'r6', SKB_LEN).when('r3', '<=', 'r2', 'trimmed');
  a.mov('r1', 'r6').mov('r3', 0).call(CHANGE_TAIL);
  a.label('trimmed');
  // Frames to a port whose MAC is not its device's are marked as somebody else's; the next device would drop them.
  a.load(4, 'r2', 'r6', SKB_PKT_TYPE).when('r2', '==', 0, 'ours');
  a.mov('r1', 'r6').mov('r2', 0).call(CHANGE_TYPE);
  a.label('ours');
  if (mayBeTagged) {
    a.load(4, 'r2', 'r6', SKB_VLAN_PRESENT).when('r2', '==', 0, 'bare');
    a.mov('r1', 'r6').call(VLAN_POP);
    a.label('bare');
  }
  a.load(4, 'r3', 'r9', L.BP_VLAN * 4).when('r3', '==', 0, 'untagged');
  a.mov('r1', 'r6').mov('r2', VLAN).call(VLAN_PUSH);
  a.label('untagged');
  a.load(4, 'r2', 'r10', action(L.A_DMAC_HI)).rsh('r2', 16).or('r2', VERDICT_HIT).store(4, 'r6', SKB_CB, 'r2');
  a.load(4, 'r1', 'r9', L.BP_IFINDEX * 4).mov('r2', 0);
  a.load(4, 'r3', 'r9', L.BP_FLAGS * 4)
    .and('r3', L.BP_PEER)
    .when('r3', '!=', 0, 'peer');
  a.call(REDIRECT).exit();
  a.label('peer').call(REDIRECT_PEER).exit();
}

/** To the router. */
function up(a: Assembler, { port }: ProgramOptions): void {
  a.label('up');
  a.store(4, 'r6', SKB_CB, 0);
  a.mapValue('r2', 'block', portWord(port, L.BP_TAP)).load(4, 'r1', 'r2', 0).mov('r2', 0);
  a.call(REDIRECT).exit();
}

/** One step of folding a sum to 16 bits. */
function fold16(a: Assembler, sum: 'r2', scratch: 'r3'): void {
  a.mov(scratch, sum).rsh(scratch, 16).and(sum, 0xffff).add(sum, scratch);
}
