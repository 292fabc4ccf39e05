/**
 * Memory: what a live router takes at start, so that the first packet of a connection does not wait for it.
 *
 * All tables lie on huge pages where the kernel gives them (a visit to a large table is a TLB miss otherwise). Those that
 * fill up by traffic alone, connections and engine entries, are taken at once: a page fault in a new connection would
 * cost as much as everything else that is done for it. IPv6 addresses and NAT mappings come as they are needed; many
 * routers never need them.
 */
import { adviseHugeAll, prefault } from '../../dataplane/ports/hugepages.ts';
import type { TableBuffers } from '../../dataplane/tables.ts';
import { FlowTable } from '../../offload/table.ts';

/** Call it before anything is written to the tables. Returns the bytes that lie on huge pages, if the kernel keeps its word. */
export function takeMemory(buffers: TableBuffers): number {
  const huge = adviseHugeAll(buffers);
  prefault(new Int32Array(buffers.conntrack.words));
  prefault(new Int32Array(buffers.conntrack.heads));
  if (buffers.flows !== null) {
    const { words4, words6, aux4, aux6, live4, live6 } = new FlowTable(buffers.flows, 0);
    for (const words of [words4, words6, aux4, aux6, live4, live6]) prefault(words);
  }
  return huge;
}
