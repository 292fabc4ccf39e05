/** Counters: what the workers have counted, summed and named, for `show`, JSON and the embedding interface. */
import { REASONS } from '../../dataplane/drop.ts';
import * as T from '../../dataplane/tables.ts';
import { EX_CACHE_HITS, EX_HITS, EX_MISMATCH } from '../../offload/engine.ts';
import { STAT_INSTALLS } from '../../offload/table.ts';
import type { Config } from '../config/index.ts';

export interface PortCounters {
  rx_packets: number;
  rx_bytes: number;
  tx_packets: number;
  tx_bytes: number;
  dropped: number;
}

export interface Counters {
  received: number;
  forwarded: number;
  delivered: number;
  generated: number;
  held: number;
  dropped: Record<string, number>;
  offload: { installed: number; hits: number; mismatches: number };
  ports: Record<string, PortCounters>;
}

/** Reads all counters. */
export function readCounters(tables: T.Tables, config: Config): Counters {
  const dropped: Record<string, number> = {};
  REASONS.forEach(([name], reason) => {
    const count = tables.total(T.C_DROPS + reason);
    if (count > 0) dropped[name] = count;
  });
  const ports: Record<string, PortCounters> = {};
  for (const port of config.ports) {
    const row = T.C_PORTS + port.number * 8;
    ports[port.name] = {
      rx_packets: tables.total(row + T.CP_RX_PACKETS),
      rx_bytes: tables.total(row + T.CP_RX_BYTES),
      tx_packets: tables.total(row + T.CP_TX_PACKETS),
      tx_bytes: tables.total(row + T.CP_TX_BYTES),
      dropped: tables.total(row + T.CP_DROPS),
    };
  }
  return {
    received: tables.total(T.C_RECEIVED),
    forwarded: tables.total(T.C_FORWARDED),
    delivered: tables.total(T.C_DELIVERED),
    generated: tables.total(T.C_GENERATED),
    held: tables.total(T.C_HELD),
    dropped,
    offload: {
      installed: (tables.flows?.statistic(STAT_INSTALLS) ?? 0) + (tables.cachedFlows?.statistic(STAT_INSTALLS) ?? 0),
      hits: tables.total(T.C_ENGINE + EX_HITS) + tables.total(T.C_ENGINE + EX_CACHE_HITS),
      mismatches: tables.total(T.C_ENGINE + EX_MISMATCH),
    },
    ports,
  };
}

/** The sentence behind a drop reason's name. */
export function reasonText(name: string): string {
  return REASONS.find(([known]) => known === name)?.[1] ?? '';
}
