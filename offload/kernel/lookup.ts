/**
 * Lookup: the second part of the kernel engine's program. The entry that the key has led to must be this flow's still, and
 * all that it depends on as it was; then it has one hit more.
 */
import type { Assembler } from './assembler.ts';
import {
  action,
  COUNTER_AT,
  KEY4_AT,
  KTIME_COARSE,
  LENGTH_AT,
  MAP_LOOKUP,
  type ProgramOptions,
  SIZE_AT,
} from './context.ts';
import * as L from './layout.ts';
import { beginSample } from './sample.ts';

/** The action must be this flow's, and everything that it depends on as it was. Afterwards r9 is the port of exit. */
export function lookup(a: Assembler, { neighbours, idle, sample = 0 }: ProgramOptions): void {
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
  if (sample > 0) beginSample(a, sample);
  a.mov('r2', 1).atomicAdd('r8', L.N_PACKETS * 4, 'r2');
  a.load(8, 'r2', 'r10', LENGTH_AT).atomicAdd('r8', L.N_BYTES * 4, 'r2');
  if (sample > 0) a.label('counted');
}
