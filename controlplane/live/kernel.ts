/**
 * The kernel engine of a live router: opened when the configuration asks for it and the machine has it; the user hears why not,
 * and which ports have none of its programs. The engine itself is dataplane/ports/kernel-engine.ts.
 */
import { KernelEngine } from '../../dataplane/ports/kernel-engine.ts';
import { DEFAULT_SIZES } from '../../dataplane/tables.ts';
import { ENGINE_IDLE } from '../../offload/policy.ts';
import type { Config } from '../config/index.ts';
import { kernelPorts } from './devices.ts';
import type { Log } from './supervisor.ts';

/** Verify mode of the kernel engine: how many hits one is walked of, by chance, beside the first 16 of every entry. */
const SAMPLE_ONE_OF = 64;

/** The kernel engine that the configuration asks for; null, with a warning, when the emulated one must do. */
export function openKernel(config: Config, log: Log): KernelEngine | null {
  const { engine, mode, entries } = config.offload;
  if (engine !== 'kernel' || mode === 'off' || entries === 0) return null;
  const instead = 'the emulated engine is used';
  const ports = kernelPorts(config);
  if (ports.length === 0) {
    log('warn', `offload.engine: expected ports of kind packet for the kernel engine, got none; ${instead}`);
    return null;
  }
  try {
    const sample = mode === 'verify' ? SAMPLE_ONE_OF : 0;
    const { neighbours } = DEFAULT_SIZES;
    const kernel = new KernelEngine({ entries, neighbours, idle: ENGINE_IDLE, ports, sample });
    kernel.attach();
    for (const { name, kind, number, parent } of config.ports)
      if (parent < 0 && !ports.some((port) => port.number === number))
        log(
          'info',
          `ports.${name}: the kernel engine has no program on it (${whyNoProgram(kind)}); it has the emulated one`,
        );
    return kernel;
  } catch (error) {
    log('warn', `offload.engine: ${(error as Error).message}; ${instead}`);
    return null;
  }
}

/** Why a port has none of the kernel engine's programs (docs/offload.md). */
function whyNoProgram(kind: string): string {
  if (kind === 'tap') return 'fault, mirror, or VLANs on a TAP';
  return kind === 'packet' ? 'fault, mirror, or no such device' : `kind ${kind}`;
}
