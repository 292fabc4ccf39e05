/**
 * Links: what the router asks of the host's devices, through the `ip` command, and what state they are in.
 *
 * Configuration happens once, at start, on the main thread: the command costs a few milliseconds and says in its own
 * words what is wrong. States are read from /sys/class/net, which shows the namespace that the *reader's mount* belongs
 * to; for a device in another namespace `ip` is asked instead. That something has changed is heard elsewhere
 * (rtnetlink.ts). Source: ip-link(8), Documentation/ABI/testing/sysfs-class-net.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { IoError } from './ffi.ts';

/** Runs `ip [-n netns] ...args` and returns what it printed. Errors: IoError with the command's own message. */
export function runIp(netns: string, args: readonly string[]): string {
  const all = netns === '' ? [...args] : ['-n', netns, ...args];
  try {
    return execFileSync('ip', all, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], timeout: 10000 });
  } catch (error) {
    const failure = error as { code?: string; stderr?: string };
    if (failure.code === 'ENOENT')
      throw new IoError('ip', 'the command "ip"', 'no such command', 'install iproute2', 'ENOENT');
    const said = (failure.stderr ?? '').trim().split('\n')[0] || String(failure.code ?? 'no message');
    const advice = /not permitted/.test(said) ? 'run as root or grant CAP_NET_ADMIN' : '';
    throw new IoError(`ip ${all.join(' ')}`, 'success', said, advice);
  }
}

export function setUp(device: string, up: boolean, netns = ''): void {
  runIp(netns, ['link', 'set', 'dev', device, up ? 'up' : 'down']);
}

/** Bytes of IP. */
export function setMtu(device: string, mtu: number, netns = ''): void {
  runIp(netns, ['link', 'set', 'dev', device, 'mtu', String(mtu)]);
}

/** `02:00:00:00:00:01` */
export function setMac(device: string, mac: string, netns = ''): void {
  runIp(netns, ['link', 'set', 'dev', device, 'address', mac]);
}

/** Frames queued towards the router; for a TAP, per queue. */
export function setQueueLength(device: string, frames: number, netns = ''): void {
  runIp(netns, ['link', 'set', 'dev', device, 'txqueuelen', String(frames)]);
}

/** Adds an address with its prefix length, `192.0.2.1/24`; one that is there already is no error. */
export function addAddress(device: string, address: string, netns = ''): void {
  // `nodad`: a router knows its addresses, and a tentative one could not be used for a second.
  const flags = address.includes(':') ? ['nodad'] : [];
  runIp(netns, ['address', 'replace', address, 'dev', device, ...flags]);
}

export function deleteAddress(device: string, address: string, netns = ''): void {
  runIp(netns, ['address', 'delete', address, 'dev', device]);
}

/** Moves a device into namespace `to`; it arrives down and without addresses. */
export function moveToNetns(device: string, to: string, netns = ''): void {
  runIp(netns, ['link', 'set', 'dev', device, 'netns', to]);
}

export function deleteLink(device: string, netns = ''): void {
  runIp(netns, ['link', 'delete', 'dev', device]);
}

export interface LinkDetails {
  /** 0: there is no such device. */
  ifindex: number;
  /** A veth whose other end is in another namespace. */
  peerElsewhere: boolean;
}

/** What kind of device it is and where its other end is. */
export function linkDetails(device: string): LinkDetails {
  try {
    const text = runIp('', ['-j', '-d', 'link', 'show', 'dev', device]);
    const link = JSON.parse(text)[0] as { ifindex: number; link_netnsid?: number; linkinfo?: { info_kind?: string } };
    return {
      ifindex: link.ifindex,
      peerElsewhere: link.linkinfo?.info_kind === 'veth' && link.link_netnsid !== undefined,
    };
  } catch {
    return { ifindex: 0, peerElsewhere: false };
  }
}

export interface LinkState {
  /** 0: there is no such device. */
  ifindex: number;
  /** Administratively up, and the kernel sees a carrier. A TAP has one while a descriptor is open. */
  up: boolean;
  mtu: number;
  mac: string;
}

export const NO_LINK: LinkState = { ifindex: 0, up: false, mtu: 0, mac: '' };

/** The state of a device; NO_LINK when it does not exist. */
export function linkState(device: string, netns = ''): LinkState {
  if (netns === '') return sysfsState(device);
  let text: string;
  try {
    text = runIp(netns, ['-j', 'link', 'show', 'dev', device]);
  } catch {
    return NO_LINK; // the device, or its whole namespace, is gone
  }
  const link = JSON.parse(text)[0] as { ifindex: number; flags: string[]; mtu: number; address?: string };
  return {
    ifindex: link.ifindex,
    up: link.flags.includes('UP') && link.flags.includes('LOWER_UP'),
    mtu: link.mtu,
    mac: link.address ?? '',
  };
}

function sysfsState(device: string): LinkState {
  const field = (name: string): string => readFileSync(`/sys/class/net/${device}/${name}`, 'latin1').trim();
  try {
    const up = (Number(field('flags')) & 1) !== 0; // IFF_UP
    // Reading the carrier of a device that is down fails with EINVAL.
    return {
      ifindex: Number(field('ifindex')),
      up: up && field('carrier') === '1',
      mtu: Number(field('mtu')),
      mac: field('address'),
    };
  } catch {
    return NO_LINK;
  }
}

/** How often the carrier of a device of the current namespace has come or gone since it was made; 0: there is none. */
export function carrierChanges(device: string): number {
  try {
    return Number(readFileSync(`/sys/class/net/${device}/carrier_changes`, 'latin1'));
  } catch {
    return 0;
  }
}
