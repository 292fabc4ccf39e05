/**
 * Parse: the first part of the kernel engine's program. Of which port the frame is, whether it is one that an entry may
 * have, and its key; what is not plainly so goes up to the router (label `up`), untouched.
 *
 * The exceptions are those of dataplane/fastpath.ts, in the same order, but for transport checksums: no program can tell a
 * partial one from a wrong one.
 */
import type { Assembler } from './assembler.ts';
import {
  ESP,
  fold16,
  HEADERS,
  HEADERS_6,
  IPV4,
  IPV6,
  IPV6_IN_IP,
  KEY4_AT,
  KEY6_AT,
  L3,
  L4,
  L4_6,
  LENGTH_AT,
  MAP_LOOKUP,
  PORT_AT,
  type ProgramOptions,
  PULL_DATA,
  portWord,
  SIZE_AT,
  SKB_DATA,
  SKB_DATA_END,
  SKB_GSO_SIZE,
  SKB_LEN,
  SKB_VLAN_PRESENT,
  SKB_VLAN_PROTO,
  SKB_VLAN_TCI,
  TCP,
  UDP,
  VLAN,
} from './context.ts';
import * as L from './layout.ts';

/** Link header: of which port, to its MAC, from a single sender; IPv4 or IPv6. The kernel keeps a tag beside the frame. */
export function frame(a: Assembler, { port, vlans }: ProgramOptions): void {
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
export function ipv4(a: Assembler): void {
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

  udp(a, L4, 20, 'udp4', 'find4');
  tcp(a, L4, 20, 'tcp4');

  a.label('find4');
  a.map('r1', 'flows4').mov('r2', 'r10').add('r2', KEY4_AT).call(MAP_LOOKUP);
  a.jump('check');
}

/**
 * At label `name`, UDP: its own length, which a super-frame does not have, is the packet's. r5 is that of the packet with
 * its header of `ip` bytes, r4 the super-frame's segment size or 0. Goes on at `found`. Clobbers r2, r4, r5.
 */
function udp(a: Assembler, l4: number, ip: number, name: string, found: string): void {
  a.label(name);
  a.store(8, 'r10', SIZE_AT, 'r5');
  a.when('r4', '!=', 0, `${name}-super`);
  a.load(2, 'r2', 'r7', l4 + 4)
    .be16('r2')
    .sub('r5', ip)
    .when('r2', '!=', 'r5', 'up');
  a.jump(found);
  a.label(`${name}-super`)
    .add('r4', ip + 8)
    .store(8, 'r10', SIZE_AT, 'r4')
    .jump(found);
}

/**
 * At label `name`, TCP: ACK, and none of FIN, SYN and RST; a header that fits. Lengths as in `udp`. Goes on behind.
 * Clobbers r2, r3, r4.
 */
function tcp(a: Assembler, l4: number, ip: number, name: string): void {
  a.label(name);
  a.mov('r2', 'r7')
    .add('r2', l4 + 20)
    .when('r2', '>', 'r8', 'up');
  a.load(2, 'r2', 'r7', l4 + 12);
  a.mov('r3', 'r2').and('r3', 0x1700).when('r3', '!=', 0x1000, 'up');
  a.and('r2', 0xf0).rsh('r2', 2).when('r2', '<', 20, 'up');
  a.add('r2', ip).when('r2', '>', 'r5', 'up');
  a.store(8, 'r10', SIZE_AT, 'r5');
  a.when('r4', '==', 0, `${name}-whole`);
  a.add('r4', 'r2').store(8, 'r10', SIZE_AT, 'r4');
  a.label(`${name}-whole`);
}

/** No extension header that the key could not see behind; ends at `check` with the key's action in r0, or 0. */
export function ipv6(a: Assembler): void {
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

  udp(a, L4_6, 40, 'udp6', 'find6');
  tcp(a, L4_6, 40, 'tcp6');

  a.label('find6');
  a.map('r1', 'flows6').mov('r2', 'r10').add('r2', KEY6_AT).call(MAP_LOOKUP);
}
