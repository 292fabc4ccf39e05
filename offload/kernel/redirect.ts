/**
 * Redirect: the last part of the kernel engine's program. A hit leaves by its port, straight into the namespace of that
 * device's other end where it has one; everything else goes to the port's TAP device, unchanged, for the router to read.
 */
import type { Assembler } from './assembler.ts';
import {
  action,
  CHANGE_TAIL,
  CHANGE_TYPE,
  L3,
  LENGTH_AT,
  type ProgramOptions,
  portWord,
  REDIRECT,
  REDIRECT_PEER,
  SKB_CB,
  SKB_LEN,
  SKB_PKT_TYPE,
  SKB_VLAN_PRESENT,
  VERDICT_HIT,
  VLAN,
  VLAN_POP,
  VLAN_PUSH,
} from './context.ts';
import * as L from './layout.ts';
import { endSample } from './sample.ts';

/** Flag of REDIRECT: as if the device had received it. */
const BPF_F_INGRESS = 1;
/** What a program returns that has no say in it. */
const TCX_NEXT = -1;

/** Out by the port in r9: trimmed, with that port's tag, and marked as one that is for whoever receives it. */
export function leave(a: Assembler, { tap = false, vlans, sample = 0 }: ProgramOptions): void {
  a.label('leave');
  // Bytes behind the datagram (RFC 894's padding) stay here.
  a.load(8, 'r2', 'r10', LENGTH_AT).add('r2', L3).load(4, 'r3', 'r6', SKB_LEN).when('r3', '<=', 'r2', 'trimmed');
  a.mov('r1', 'r6').mov('r3', 0).call(CHANGE_TAIL);
  a.label('trimmed');
  // Frames to a port whose MAC is not its device's are marked as somebody else's; the next device would drop them.
  a.load(4, 'r2', 'r6', SKB_PKT_TYPE).when('r2', '==', 0, 'ours');
  a.mov('r1', 'r6').mov('r2', 0).call(CHANGE_TYPE);
  a.label('ours');
  if (vlans.length > 0) {
    a.load(4, 'r2', 'r6', SKB_VLAN_PRESENT).when('r2', '==', 0, 'bare');
    a.mov('r1', 'r6').call(VLAN_POP);
    a.label('bare');
  }
  a.load(4, 'r3', 'r9', L.BP_VLAN * 4).when('r3', '==', 0, 'untagged');
  a.mov('r1', 'r6').mov('r2', VLAN).call(VLAN_PUSH);
  a.label('untagged');
  a.load(4, 'r2', 'r10', action(L.A_DMAC_HI)).rsh('r2', 16).or('r2', VERDICT_HIT).store(4, 'r6', SKB_CB, 'r2');
  if (sample > 0) endSample(a);
  a.load(4, 'r1', 'r9', L.BP_IFINDEX * 4).mov('r2', 0);
  a.load(4, 'r3', 'r9', L.BP_FLAGS * 4);
  // Only at tc ingress can a frame be put into another namespace; from a TAP it takes the way of the device.
  if (!tap) a.when('r3', '&', L.BP_PEER, 'peer');
  a.when('r3', '&', L.BP_INWARD, 'inward');
  a.label('out').call(REDIRECT).exit();
  a.label('inward').mov('r2', BPF_F_INGRESS).jump('out');
  if (!tap) a.label('peer').call(REDIRECT_PEER).exit();
}

/** To the router: from a TAP, on to where it was going. */
export function up(a: Assembler, { port, tap = false }: ProgramOptions): void {
  a.label('up');
  a.store(4, 'r6', SKB_CB, 0);
  if (tap) {
    a.mov('r0', TCX_NEXT).exit();
    return;
  }
  a.mapValue('r2', 'block', portWord(port, L.BP_TAP)).load(4, 'r1', 'r2', 0).mov('r2', 0);
  a.call(REDIRECT).exit();
}
