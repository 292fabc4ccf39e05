/**
 * Samples: what verify mode's program shows the router of a hit, in a ring that the process maps (BPF_MAP_TYPE_RINGBUF):
 * the frame as it came in and as it left, each up to SAMPLE_ROOM bytes, both in one record (layout.ts). Neither goes
 * anywhere else, so a sample costs the flow nothing but the time of two copies.
 *
 * The first hits of an entry are all shown, then one of `sample`, by chance. A sampled hit is not counted here: the router
 * counts it when it walks it. When the ring is full, there is no sample, and the hit is counted as any other.
 */
import type { Assembler } from './assembler.ts';
import {
  ACTION_AT,
  action,
  LENGTH_AT,
  LOAD_BYTES,
  PORT_AT,
  RANDOM,
  RINGBUF_RESERVE,
  RINGBUF_SUBMIT,
  SAMPLE_AT,
  SKB_GSO_SIZE,
  SKB_LEN,
  SKB_VLAN_PRESENT,
  SKB_VLAN_TCI,
} from './context.ts';
import * as L from './layout.ts';

/** Hits of an entry that are shown whatever `sample` says. */
const FIRST_HITS = 16;
/** Nobody is woken: the router looks at the ring in each of its turns. */
const BPF_RB_NO_WAKEUP = 1;

/** Before the rewrite: is this one shown? Then goes on at label `counted`. r8: the counters. */
export function beginSample(a: Assembler, sample: number): void {
  a.store(8, 'r10', SAMPLE_AT, 0);
  a.load(8, 'r2', 'r8', L.N_SAMPLED * 4).when('r2', '<', FIRST_HITS, 'sample');
  a.call(RANDOM)
    .and('r0', sample - 1)
    .when('r0', '!=', 0, 'count');
  a.label('sample');
  a.map('r1', 'samples').mov('r2', L.SAMPLE_BYTES).mov('r3', 0).call(RINGBUF_RESERVE).when('r0', '==', 0, 'count');
  a.store(8, 'r10', SAMPLE_AT, 'r0');
  a.mov('r2', 1).atomicAdd('r8', L.N_SAMPLED * 4, 'r2');
  a.mov('r8', 'r0');
  a.load(4, 'r2', 'r10', PORT_AT)
    .rsh('r2', 8)
    .store(4, 'r8', L.S_IN * 4, 'r2');
  a.load(4, 'r2', 'r10', ACTION_AT + L.A_DMAC_HI * 4)
    .rsh('r2', 16)
    .store(4, 'r8', L.S_OUT * 4, 'r2');
  a.load(4, 'r2', 'r6', SKB_GSO_SIZE).store(4, 'r8', L.S_GSO * 4, 'r2');
  a.load(8, 'r2', 'r10', LENGTH_AT).store(4, 'r8', L.S_PACKET * 4, 'r2');
  a.store(4, 'r8', L.S_TAG * 4, 0);
  // Which entry has forwarded it: by the time the router looks, the flow may have another.
  a.load(4, 'r2', 'r10', action(L.A_CHANGES)).store(4, 'r8', L.S_CHANGES * 4, 'r2');
  a.load(4, 'r2', 'r10', action(L.A_COUNTER)).store(4, 'r8', L.S_COUNTER * 4, 'r2');
  a.load(8, 'r2', 'r10', action(L.A_EPOCH)).store(8, 'r8', L.S_EPOCH * 4, 'r2');
  a.load(8, 'r2', 'r10', action(L.A_NEIGH)).store(8, 'r8', L.S_NEIGH * 4, 'r2');
  copy(a, L.S_LENGTH, L.S_BEFORE, 'before');
  a.jump('counted');
  a.label('count');
}

/** Behind the rewrite, before the frame leaves: hands the sample over, if there is one. */
export function endSample(a: Assembler): void {
  a.load(8, 'r8', 'r10', SAMPLE_AT).when('r8', '==', 0, 'not-shown');
  a.load(4, 'r2', 'r6', SKB_VLAN_PRESENT).when('r2', '==', 0, 'no-tag');
  a.load(4, 'r2', 'r6', SKB_VLAN_TCI)
    .or('r2', L.S_TAGGED)
    .store(4, 'r8', L.S_TAG * 4, 'r2');
  a.label('no-tag');
  copy(a, L.S_LENGTH_AFTER, L.S_AFTER, 'after');
  a.mov('r1', 'r8').mov('r2', BPF_RB_NO_WAKEUP).call(RINGBUF_SUBMIT);
  a.label('not-shown');
}

/** The frame's length and as much of it as there is room for, to the record in r8. */
function copy(a: Assembler, lengthWord: number, to: number, name: string): void {
  a.load(4, 'r4', 'r6', SKB_LEN).store(4, 'r8', lengthWord * 4, 'r4');
  a.when('r4', '<=', L.SAMPLE_ROOM, `${name}-fits`).mov('r4', L.SAMPLE_ROOM);
  // The verifier wants to know that it is not 0, which it never is.
  a.label(`${name}-fits`).when('r4', '<', 1, `${name}-copied`);
  a.mov('r1', 'r6').mov('r2', 0).mov('r3', 'r8').add('r3', to).call(LOAD_BYTES);
  a.label(`${name}-copied`);
}
