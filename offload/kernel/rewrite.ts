/**
 * Rewrite: the third part of the kernel engine's program. MACs, TTL or hop limit, addresses, ports and both checksums of
 * a hit, as its action says.
 */
import { FAULT_CHECKSUM, FAULT_MAC, FAULT_PROTO41 } from '../engine.ts';
import type { Assembler } from './assembler.ts';
import {
  action,
  CSUM_UPDATE,
  fold16,
  IPV4,
  IPV6_IN_IP,
  L3,
  L4,
  L4_CSUM_REPLACE,
  MANGLED_0,
  type ProgramOptions,
  PSEUDO_HEADER,
  SIZE_AT,
  TCP,
  UDP,
} from './context.ts';
import * as L from './layout.ts';

/** Ends at label `leave`. Calls of helpers that may move the frame come after all direct stores. */
export function rewrite(a: Assembler, { fault = 0 }: ProgramOptions): void {
  a.load(4, 'r2', 'r10', action(L.A_DMAC_LO)).store(4, 'r7', 0, 'r2');
  a.load(4, 'r2', 'r10', action(L.A_DMAC_HI)).store(2, 'r7', 4, 'r2');
  a.load(4, 'r2', 'r9', L.BP_MAC_LO * 4).store(4, 'r7', 6, 'r2');
  a.load(4, 'r2', 'r9', L.BP_MAC_HI * 4).store(2, 'r7', 10, 'r2');
  if (fault === FAULT_MAC) a.load(1, 'r2', 'r7', 1).xor('r2', 1).store(1, 'r7', 1, 'r2');
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
  a.when('r8', '==', TCP, 'ports').when('r8', '==', UDP, 'ports');
  if (fault === FAULT_PROTO41)
    a.when('r8', '!=', IPV6_IN_IP, 'leave')
      .load(1, 'r2', 'r7', L4 + 5)
      .xor('r2', 1)
      .store(1, 'r7', L4 + 5, 'r2');
  a.jump('leave').label('ports');
  a.load(4, 'r2', 'r10', action(L.A_NPORTS)).store(4, 'r7', L4, 'r2');

  if (fault === FAULT_CHECKSUM) return;

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
}
