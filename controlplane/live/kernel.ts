/**
 * The kernel engine of a live router: opened when the configuration asks for it and the machine has it; the user hears why not,
 * and which ports have none of its programs. The engine itself is dataplane/ports/kernel-engine.ts.
 */
import { readdirSync } from 'node:fs';
import { programsAt } from '../../dataplane/ports/bpf.ts';
import { IoError } from '../../dataplane/ports/ffi.ts';
import { KernelEngine, type KernelPort } from '../../dataplane/ports/kernel-engine.ts';
import { DEFAULT_SIZES } from '../../dataplane/tables.ts';
import { ENGINE_IDLE } from '../../offload/policy.ts';
import type { Config } from '../config/index.ts';
import { type Device, kernelPorts, openDevices, REDIRECT_DEVICE } from './devices.ts';
import type { Log } from './supervisor.ts';

/** Verify mode of the kernel engine: how many hits one is walked of, by chance, beside the first 16 of every entry. */
const SAMPLE_ONE_OF = 64;

const INSTEAD = 'the emulated engine is used';
/** What a router that has ended may leave for a moment: its links are taken down by a thread of the kernel's. */
const LINGER_MS = 2000;

/**
 * Opens all devices, or none, with the kernel engine where the configuration asks for it and it can be had. Errors: IoError.
 */
export async function openWithEngine(
  config: Config,
  workers: number,
  rings: boolean,
  log: Log,
): Promise<{ kernel: KernelEngine | null; devices: Device[] }> {
  const kernel = await openKernel(config, log);
  try {
    return { kernel, devices: await openDevices(config, workers, rings, kernel) };
  } catch (error) {
    kernel?.close();
    if (kernel === null) throw error;
    // A container may have packet sockets and eBPF, but no /dev/net/tun for the devices that the programs redirect to.
    const devices = await openDevices(config, workers, rings);
    log('warn', `offload.engine: ${(error as Error).message}; ${INSTEAD}`);
    return { kernel: null, devices };
  }
}

/**
 * The kernel engine that the configuration asks for; null, with a warning, when the emulated one must do. Errors: IoError
 * when another router has it on the same device: whatever this one did, one of the two would not work.
 */
async function openKernel(config: Config, log: Log): Promise<KernelEngine | null> {
  const { engine, mode, entries } = config.offload;
  if (engine !== 'kernel' || mode === 'off' || entries === 0) return null;
  const ports = kernelPorts(config);
  if (ports.length === 0) {
    log('warn', `offload.engine: expected ports of kind packet for the kernel engine, got none; ${INSTEAD}`);
    return null;
  }
  await checkAlone(config, ports, log);
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
    log('warn', `offload.engine: ${(error as Error).message}; ${INSTEAD}`);
    return null;
  }
}

/**
 * Programs of others at the same hook are run before ours. Another router's takes every frame, and this one would hear
 * nothing; that it is one is seen by the devices that its programs redirect to.
 */
async function checkAlone(config: Config, ports: readonly KernelPort[], log: Log): Promise<void> {
  const end = performance.now() + LINGER_MS;
  for (const { number, ifname, ifindex } of ports) {
    const isTaken = () => ifindex > 0 && programsAt(ifindex) > 0;
    while (isTaken() && performance.now() < end) await new Promise((resolve) => setTimeout(resolve, 20));
    if (!isTaken()) continue;
    const { name } = config.ports[number];
    if (hasRedirectDevices())
      throw new IoError(
        `port ${name} (packet)`,
        `${ifname} to be no other router's`,
        'programs of a kernel engine on it',
        'stop the router that runs on it, or choose another ifname',
      );
    log(
      'warn',
      `ports.${name}: another program is at the tc hook of ${ifname} (TCX), before this router's: what it takes never gets here`,
    );
  }
}

/** True when there are devices of a kernel engine in this namespace. */
function hasRedirectDevices(): boolean {
  try {
    return readdirSync('/sys/class/net').some((name) => name.startsWith(REDIRECT_DEVICE.replace('%d', '')));
  } catch {
    return false;
  }
}

/** Why a port has none of the kernel engine's programs (docs/offload.md). */
function whyNoProgram(kind: string): string {
  if (kind === 'tap') return 'fault, mirror, or VLANs on a TAP';
  return kind === 'packet' ? 'fault, mirror, or no such device' : `kind ${kind}`;
}
