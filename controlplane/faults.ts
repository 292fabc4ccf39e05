/** Faults: what `ports.NAME.fault` of a configuration is to the wrapper (dataplane/ports/fault.ts), live, inline and in a replay. */
import type { FaultOptions } from '../dataplane/ports/fault.ts';
import type { FaultConfig } from './config/index.ts';

export function faultOptions(fault: FaultConfig): FaultOptions {
  const { loss, duplicate, reorder, corrupt, delay } = fault;
  const rates = { loss, duplicate, reorder, corrupt, delay };
  return {
    seed: fault.seed,
    rx: fault.direction === 'tx' ? {} : rates,
    tx: fault.direction === 'rx' ? {} : rates,
  };
}
