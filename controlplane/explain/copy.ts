/**
 * Copy: a second set of tables with what a running router knows, to walk a packet through without touching the first.
 *
 * Everything a walk may read is copied, counters, events and timers begin empty. The cost is that of the memory in use,
 * not of its size: connections are copied up to the highest record ever used. The workers do not notice.
 */
import { copyShared, snapshotConntrack, snapshotExpectations, snapshotMappings } from '../../conntrack/snapshot.ts';
import { SUB_WORDS } from '../../conntrack/subscribers.ts';
import type { Piece } from '../../dataplane/ground.ts';
import { type TableBuffers, Tables } from '../../dataplane/tables.ts';

/** Buffers whose content is of no use to a copy: counts, events for listeners, timers of the workers. */
const EMPTY: readonly (keyof TableBuffers)[] = ['counters', 'events', 'wheels'];

/** Tables of their own with the content of `from`, seen by the main thread's number. */
export function copyTables(from: Tables): Tables {
  const { buffers } = from;
  const copy: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(buffers)) {
    if (EMPTY.includes(name as keyof TableBuffers)) copy[name] = new SharedArrayBuffer(value.byteLength);
    else copy[name] = value instanceof SharedArrayBuffer ? copyShared(value) : value;
  }
  copy.conntrack = snapshotConntrack(from.conntrack);
  copy.natMappings = snapshotMappings(buffers.natMappings);
  copy.expectations = snapshotExpectations(from.expectations);
  copy.interfaces = copyPiece(buffers.interfaces);
  copy.neighbours = copyPiece(buffers.neighbours);
  copy.flows = from.flows?.copy() ?? null;
  copy.cachedFlows = from.cachedFlows?.copy() ?? null;
  // Of the ground there is no copy: whoever walks here does without compiled code.
  copy.ground = null;
  const tables = new Tables(copy as unknown as TableBuffers, buffers.sizes.workers);
  // Locks that somebody held at this moment are nobody's here.
  new Int32Array(tables.buffers.natPools)[0] = 0;
  new Int32Array(tables.buffers.natSubscribers)[1] = 0;
  const { words, capacity } = tables.natSubscribers;
  for (let n = 0; n < capacity; n++) words[n * SUB_WORDS + 4] = 0;
  return tables;
}

function copyPiece({ buffer, lead, bytes }: Piece): Piece {
  const copy = new SharedArrayBuffer(bytes);
  new Uint8Array(copy).set(new Uint8Array(buffer, lead, bytes));
  return { buffer: copy, lead: 0, bytes };
}
