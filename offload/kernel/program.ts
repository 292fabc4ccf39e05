/**
 * The kernel engine's program, one for each port, run by the kernel at the port's tc ingress hook.
 *
 * It does what dataplane/fastpath.ts does, in the same order and with the same exceptions: find the flow, make sure that
 * everything is as it was when the entry was made, rewrite, count, and send the frame out by another port. Whatever is
 * not plainly a hit goes unchanged to the port's TAP, where the router reads it; the host's own stack sees no frame of
 * this port. So a flow may be in either engine, and a frame is forwarded by exactly one of them.
 *
 *   parse.ts      which port, what packet, its key     ─┐
 *   lookup.ts     its entry, and whether that holds     ├─ not plainly a hit: label `up`
 *   rewrite.ts    what the entry says                  ─┘
 *   redirect.ts   out, or up to the router
 *   sample.ts     verify mode only: shows the router what was done
 *
 * What it cannot do, and the emulated engine does: verify a transport checksum (a wrong one stays wrong, and its receiver
 * drops it, as behind Linux's flow table). Partial checksums and super-frames pass as they are: the checksum helper knows
 * which it has before it, and the MTU is compared with the size of the segments to be.
 */
import { Assembler } from './assembler.ts';
import type { ProgramOptions } from './context.ts';
import { lookup } from './lookup.ts';
import { frame, ipv4, ipv6 } from './parse.ts';
import { leave, up } from './redirect.ts';
import { rewrite } from './rewrite.ts';

export { type ProgramOptions, VERDICT_HIT } from './context.ts';

/**
 * The program of one port.
 *
 * @returns instructions whose maps are called `flows4`, `flows6`, `counters`, `block` and, in verify mode, `samples`
 *   (layout.ts)
 */
export function engineProgram(options: ProgramOptions): Assembler {
  const a = new Assembler();
  frame(a, options);
  ipv4(a);
  ipv6(a);
  lookup(a, options);
  rewrite(a, options);
  leave(a, options);
  up(a, options);
  return a;
}
