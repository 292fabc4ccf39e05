/**
 * Devices: opens what the configuration names (TAP, AF_PACKET, libpcap) and says what each worker gets of it.
 *
 * All descriptors are opened here, on the main thread, and closed here: a worker that dies leaves its devices standing.
 * A port has one queue per worker; where a device offers fewer, workers share a descriptor (a read or write of one is
 * whole frames, so nothing is torn). Where a device was deleted, another of that name takes its place (reopenDevice): its
 * descriptors get the numbers of the old ones, so nobody needs another task. Not here: sluice0 (hostport.ts), watching
 * (links.ts), when to reopen (heal.ts).
 */
import { closeSync, openSync, statSync } from 'node:fs';
import { close, IoError, replaceDescriptor } from '../../dataplane/ports/ffi.ts';
import type { HostPort } from '../../dataplane/ports/host.ts';
import type { KernelEngine, KernelPort as KernelPortDevice } from '../../dataplane/ports/kernel-engine.ts';
import { linkDetails, linkState, NO_LINK } from '../../dataplane/ports/links.ts';
import {
  boundDevice,
  isBoundElsewhere,
  type OpenedPacket,
  openPacket,
  PLACE_BYTES,
} from '../../dataplane/ports/packet.ts';
import { type OpenedTap, openTap, type TapOptions, TUN_F_ALL } from '../../dataplane/ports/tap.ts';
import { openTapRings, setTapFilter, type TapRing } from '../../dataplane/ports/tap-ring.ts';
import { parseMac } from '../../dataplane/wire/address.ts';
import type { PortTask } from '../../dataplane/worker.ts';
import type { Config, PortConfig } from '../config/index.ts';
import { faultOptions } from '../faults.ts';

/** Frames that the kernel keeps for the router while it is busy, per queue: 4 ms of 1500-byte frames at 3 Gbit/s. */
const QUEUE_LENGTH = 1000;

/** The TAP device of a port with the kernel's program: its name, its MTU (nothing is too long for it), its queue. */
export const REDIRECT_DEVICE = 'sluice-up%d';
const REDIRECT_MTU = 65521;
const REDIRECT_QUEUE = 4096;

export interface Device {
  name: string;
  number: number;
  kind: 'tap' | 'packet' | 'host';
  /** The host's device. */
  ifname: string;
  fds: number[];
  /** Kind `host`: lives on the main thread. */
  host: HostPort | null;
  /**
   * Opens the device that has its name now, in place of the one that was deleted (a TAP is made). Errors: IoError; then nothing
   * has changed. Null: kind `host`, as the package `cap` ends the process when its device goes away (an assertion of its own).
   */
  reopen: (() => void) | null;
  /** What worker n gets. */
  tasks: PortTask[];
}

/** A configuration that cannot run live, although it is valid: exit code 2. */
export class LiveError extends Error {
  override readonly name = 'LiveError';
}

/** Refuses port kinds that only make sense in a replay or inside a program, before anything is opened. */
export function checkKinds(config: Config): void {
  for (const port of config.ports)
    if (port.kind === 'pcap' || port.kind === 'memory') {
      const place = config.file === '' ? '' : `${config.file}:${port.where.line}:${port.where.column} `;
      const advice = port.kind === 'pcap' ? 'play captures with "sluice replay"' : 'memory ports are for createRouter';
      throw new LiveError(
        `${place}ports.${port.name}.kind: expected tap, packet or host for a live router, got "${port.kind}"; ${advice}`,
      );
    }
}

/**
 * Tries the files that a router writes while it runs, before anything is opened: a mirror that cannot be made would end a
 * worker again and again, and a block log is owed to who asks later. Errors: IoError.
 */
export function tryFiles(config: Config, workers: number): void {
  if (config.nat.log !== '') tryFile('nat.log', config.nat.log);
  for (const { name, mirror } of config.ports)
    if (mirror !== '')
      for (let worker = 0; worker < workers; worker++) tryFile(`ports.${name}.mirror`, mirrorFile(mirror, worker));
}

/**
 * Opens all devices, or none: an error closes those already open. Ports of `kernel` get the TAP device that its programs
 * redirect to; TAP ports get receive rings where `rings` is true. Errors: IoError.
 */
export async function openDevices(
  config: Config,
  workers: number,
  rings: boolean,
  kernel: KernelEngine | null = null,
): Promise<Device[]> {
  const devices: Device[] = [];
  try {
    for (const port of config.ports) if (port.parent < 0) devices.push(await openDevice(port, workers, rings, kernel));
    return devices;
  } catch (error) {
    for (const device of devices) closeDevice(device);
    throw error;
  }
}

/** Releases a device; a TAP disappears with its last descriptor. */
export function closeDevice(device: Device): void {
  device.host?.close();
  for (const fd of device.fds) close(fd);
  device.fds = [];
}

/**
 * True when the device of a port of kind packet is not the one that has its name now: that one was made, or moved here, after
 * this one was deleted or moved away. (Of its own TAP a router knows by its descriptor.)
 */
export function isReplaced(device: Device): boolean {
  return device.kind === 'packet' && isBoundElsewhere(device.fds[0], device.ifname);
}

/** The file of a worker's mirror: one file has one writer. '' for none. */
function mirrorFile(mirror: string, worker: number): string {
  return mirror === '' || worker === 0 ? mirror : `${mirror}.${worker}`;
}

/** @param place in the configuration */
function tryFile(place: string, file: string): void {
  try {
    // A pipe opens when there is somebody to read it: that is not waited for here.
    if (statSync(file, { throwIfNoEntry: false })?.isFIFO()) return;
    closeSync(openSync(file, 'a', 0o600));
  } catch (error) {
    const { code = '' } = error as NodeJS.ErrnoException;
    const expected = 'a file that can be written';
    throw new IoError(`${place} ${file}`, expected, code, 'choose another file, or make its folder', code);
  }
}

async function openDevice(
  port: PortConfig,
  workers: number,
  rings: boolean,
  kernel: KernelEngine | null,
): Promise<Device> {
  const { name, number, ifname } = port;
  const device: Device = { name, number, kind: 'tap', ifname, fds: [], host: null, tasks: [], reopen: null };
  const inKernel = kernel?.ports.some((one) => one.number === number) === true;
  const task = (worker: number, more: Partial<PortTask>): PortTask => ({
    kind: 'ring',
    name,
    number,
    fd: -1,
    offloads: 0,
    ring: null,
    fault: port.fault === null ? null : faultOptions(port.fault),
    mirror: mirrorFile(port.mirror, worker),
    ...more,
  });
  if (port.kind === 'tap') {
    const queues = Math.min(port.queues, workers);
    const wanted = port.offloads ? TUN_F_ALL : 0;
    const options = {
      name: ifname,
      queues,
      vnetHeader: true,
      offloads: wanted,
      mtu: port.mtu,
      queueLength: QUEUE_LENGTH,
    };
    const tap = openTap(options);
    device.fds = tap.fds;
    if (kernel !== null && inKernel)
      try {
        kernel.attachTo(number, tap.ifindex, ifname);
      } catch (error) {
        closeDevice(device);
        throw error;
      }
    const { rings: receive, program } = rings ? openRingsOr(device, tap.fds) : { rings: [], program: -1 };
    device.reopen = () => {
      const { fds, ifindex } = openTap(options);
      takeOver(device, fds, () => {
        if (program >= 0) setTapFilter(name, fds[0], program);
        if (inKernel) kernel?.attachTo(number, ifindex, ifname);
      });
    };
    for (let worker = 0; worker < workers; worker++) {
      const queue = { kind: 'tap', fd: tap.fds[worker % queues], offloads: tap.offloads } as const;
      // A ring has one reader: of workers that share a queue, the first.
      device.tasks.push(task(worker, worker < receive.length ? { ...queue, receive: receive[worker] } : queue));
    }
    return device;
  }
  // The port's own MAC where the configuration has none is the device's.
  const link = linkState(ifname);
  if (port.mac === null && link !== NO_LINK) {
    const mac = parseMac(link.mac);
    if (mac !== null) port.mac = { ...mac, text: link.mac };
  }
  const foreignMac = port.mac !== null && port.mac.text.toLowerCase() !== link.mac;
  if (port.kind === 'packet') {
    device.kind = 'packet';
    const open = (promiscuous: boolean): OpenedPacket =>
      openPacket({
        device: ifname,
        queues: workers,
        mode: 'latency',
        superFrames: port.offloads,
        promiscuous,
        ringBytes: inKernel ? 0 : undefined,
      });
    const packet = open(foreignMac);
    device.fds = packet.fds;
    const { offloads, ring } = packet;
    device.reopen = () => {
      // The port keeps its MAC, which its neighbours know, whatever the new device has.
      const { fds } = open(port.mac !== null && port.mac.text.toLowerCase() !== linkState(ifname).mac);
      takeOver(device, fds, () => {
        if (inKernel) kernel?.attachTo(number, boundDevice(fds[0]), ifname);
      });
    };
    if (kernel !== null && inKernel) {
      const wanted = port.offloads ? TUN_F_ALL : 0;
      const options = { name: REDIRECT_DEVICE, queues: workers, vnetHeader: true, offloads: wanted, mute: true };
      const tap = openTapOr(device, { ...options, mtu: REDIRECT_MTU, queueLength: REDIRECT_QUEUE });
      device.fds = [...packet.fds, ...tap.fds];
      kernel.setTap(number, tap.ifindex);
      for (let worker = 0; worker < workers; worker++) {
        const queue = { fd: tap.fds[worker], offloads: tap.offloads };
        device.tasks.push(task(worker, { kind: 'kernel', fd: packet.fds[worker], offloads, tap: queue }));
      }
      return device;
    }
    for (let worker = 0; worker < workers; worker++) {
      // Each has a ring of its own, and a place in it that outlives it.
      const own = ring === null ? null : { ...ring, place: new SharedArrayBuffer(PLACE_BYTES) };
      device.tasks.push(task(worker, { kind: 'packet', fd: packet.fds[worker], offloads, ring: own }));
    }
    return device;
  }
  device.kind = 'host';
  // Loaded only where it is used: its addons are optional.
  const { HostPort } = await import('../../dataplane/ports/host.ts');
  device.host = new HostPort({ name, number, device: ifname, send: 'inject' });
  for (let worker = 0; worker < workers; worker++) device.tasks.push(task(worker, { kind: 'ring' }));
  return device;
}

/**
 * Puts a device's new descriptors where its old ones are, one for one, once `prepare` has made the new device what the old one
 * was; when that fails, the new ones are closed.
 */
function takeOver(device: Device, fds: readonly number[], prepare: () => void): void {
  try {
    prepare();
  } catch (error) {
    for (const fd of fds) close(fd);
    throw error;
  }
  for (let n = 0; n < fds.length; n++) replaceDescriptor(device.fds[n], fds[n], `ports.${device.name}`);
}

/** Opens a TAP device that belongs to a device; when that fails, the device is closed. */
function openTapOr(device: Device, options: TapOptions): OpenedTap {
  try {
    return openTap(options);
  } catch (error) {
    closeDevice(device);
    throw error;
  }
}

/** Gives a TAP device receive rings; when that fails, the device is closed. Errors: IoError. */
function openRingsOr(device: Device, queues: readonly number[]): { rings: TapRing[]; program: number } {
  try {
    const { rings, fds, program } = openTapRings(device.name, queues);
    device.fds = [...device.fds, ...fds];
    return { rings, program };
  } catch (error) {
    closeDevice(device);
    throw error;
  }
}

/** Ports that the kernel engine can have a program on: their frames must all be seen by it, and by nobody's wrapper. */
export function kernelPorts(config: Config): KernelPortDevice[] {
  const ports: KernelPortDevice[] = [];
  for (const { number, kind, ifname, parent, fault, mirror } of config.ports) {
    if (parent >= 0 || fault !== null || mirror !== '') continue;
    const children = config.ports.filter((child) => child.parent === number);
    if (kind === 'tap' && children.length === 0)
      ports.push({ number, ifname, ifindex: 0, tap: true, peer: false, vlans: [] });
    if (kind !== 'packet') continue;
    const { ifindex, peerElsewhere } = linkDetails(ifname);
    const vlans = children.map((child) => ({ vlan: child.vlan, port: child.number }));
    if (ifindex > 0) ports.push({ number, ifname, ifindex, peer: peerElsewhere, vlans });
  }
  // TAPs alone are cables to other namespaces, where no program of this one can send to.
  return ports.some(({ tap }) => tap !== true) ? ports : [];
}
