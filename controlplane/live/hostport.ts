/**
 * Host port: `sluice0`, the way between the router's own addresses and programs on this host.
 *
 *   network ── port ── path ── sluice0 (router's end) ═ TAP ═ sluice0 (kernel's end: the router's addresses, /32 and /128)
 *
 * What arrives for one of the router's addresses and no built-in protocol wants goes to the kernel unchanged, so that an
 * ordinary socket sees the true sender. What the kernel sends *from* one of these addresses is brought back by a policy
 * rule per address: `from ADDRESS lookup 7700`, and in that table a default route over sluice0 via a made-up gateway
 * whose neighbour entry is the router's own end. No ARP or ND runs on sluice0.
 *
 * Ports of kind packet and host share their device with the kernel, which sees every frame that the router sees: had it
 * their addresses too, it would answer beside the router (a RST for every connection behind NAT). So sluice0 has only the
 * addresses of TAP ports and of VLANs on them.
 *
 * Needs root. The rules outlive the device, so `closeHostPort` (and the next start) removes them.
 */
import { existsSync, readFileSync } from 'node:fs';
import * as IF from '../../dataplane/interfaces.ts';
import { close } from '../../dataplane/ports/ffi.ts';
import { addAddress, linkState, runIp } from '../../dataplane/ports/links.ts';
import { type OpenedTap, openTap, TUN_F_ALL } from '../../dataplane/ports/tap.ts';
import { HOST_PORT, type Tables } from '../../dataplane/tables.ts';
import { formatMac, parseMac } from '../../dataplane/wire/address.ts';
import type { PortTask } from '../../dataplane/worker.ts';
import type { Config, PortConfig } from '../config/index.ts';

export const HOST_DEVICE = 'sluice0';
const TABLE = '7700';
const PRIORITY = '7700';
/** Link-local (RFC 3927): it is only ever the name of a neighbour entry on sluice0. */
const GATEWAY4 = '169.254.77.1';
const GATEWAY6 = 'fe80::1';
const ROUTER_MAC = { lo: 0x6c730002, hi: 0x3075 }; // 02:00:73:6c:75:30

export interface HostPort {
  number: number;
  tap: OpenedTap;
  /** What worker n gets. */
  tasks: PortTask[];
}

/** Makes sluice0 with a queue per worker. Errors: IoError. */
export function openHostPort(config: Config, workers: number): HostPort {
  const number = config.ports.length;
  const mtu = Math.min(65535, ...config.ports.map((port) => port.mtu));
  const tap = openTap({ name: HOST_DEVICE, queues: workers, vnetHeader: true, offloads: TUN_F_ALL, mtu });
  try {
    wireKernel(config, mtu);
  } catch (error) {
    for (const fd of tap.fds) close(fd);
    removeRules();
    throw error;
  }
  const tasks: PortTask[] = [];
  for (let worker = 0; worker < workers; worker++)
    tasks.push({
      kind: 'tap',
      name: HOST_DEVICE,
      number,
      fd: tap.fds[worker],
      offloads: tap.offloads,
      ring: null,
      fault: null,
      mirror: '',
    });
  return { number, tap, tasks };
}

/** Gives sluice0 the addresses of another configuration; a fault is logged, as the router itself goes on. */
export function readdressHostPort(config: Config, log: (level: 'warn', message: string) => void): void {
  try {
    for (const family of ['-4', '-6']) runIp('', [family, 'address', 'flush', 'dev', HOST_DEVICE, 'scope', 'global']);
    wireKernel(config, linkState(HOST_DEVICE).mtu);
  } catch (error) {
    log('warn', `${(error as Error).message}; programs on this host cannot use the router's addresses`);
  }
}

/** Tells the path of it: from here on, what is for the host goes there. */
export function announceHostPort(tables: Tables, port: HostPort, mtu: number): void {
  const w = tables.interfaces.words;
  const r = port.number * IF.IF_WORDS;
  const kernel = parseMac(linkState(HOST_DEVICE).mac);
  w[r + IF.IF_MAC_LO] = ROUTER_MAC.lo;
  w[r + IF.IF_MAC_HI] = ROUTER_MAC.hi;
  w[r + IF.IF_PEER_MAC] = kernel?.lo ?? 0;
  w[r + IF.IF_PEER_MAC + 1] = kernel?.hi ?? 0;
  w[r + IF.IF_MTU] = mtu;
  w[r + IF.IF_FILTER] = IF.ALLOW_IPV4 | IF.ALLOW_IPV6;
  Atomics.store(w, r + IF.IF_FLAGS, IF.IFF_PRESENT | IF.IFF_UP | IF.IFF_HOST | IF.IFF_PROMISC);
  Atomics.store(tables.control, HOST_PORT, port.number + 1);
}

/** Takes the host port out of the path: what was for the host is refused from here on. */
export function withdrawHostPort(tables: Tables, port: HostPort): void {
  Atomics.store(tables.control, HOST_PORT, 0);
  tables.interfaces.words[port.number * IF.IF_WORDS + IF.IF_FLAGS] = IF.IFF_PRESENT | IF.IFF_HOST;
}

/** Removes the device and its rules. */
export function closeHostPort(port: HostPort): void {
  for (const fd of port.tap.fds) close(fd);
  port.tap.fds = [];
  removeRules();
}

function wireKernel(config: Config, mtu: number): void {
  removeRules();
  const mac = formatMac(ROUTER_MAC.lo, ROUTER_MAC.hi);
  const addresses = config.ports.filter((port) => isPrivate(config, port)).flatMap((port) => port.addresses);
  const four = addresses.filter((address) => address.family === 4);
  const six = addresses.filter((address) => address.family === 6);
  const hasIpv6 = mtu >= 1280 && ipv6Enabled();
  // Without a link-local address of its own and without multicast the kernel sends nothing unasked.
  runIp('', ['link', 'set', 'dev', HOST_DEVICE, 'down', 'addrgenmode', 'none', 'multicast', 'off']);
  runIp('', ['link', 'set', 'dev', HOST_DEVICE, 'up']);
  if (four.length > 0) {
    for (const address of four) addAddress(HOST_DEVICE, `${bare(address.text)}/32`);
    runIp('', ['neighbour', 'replace', GATEWAY4, 'lladdr', mac, 'nud', 'permanent', 'dev', HOST_DEVICE]);
    runIp('', ['route', 'replace', 'default', 'via', GATEWAY4, 'dev', HOST_DEVICE, 'onlink', 'table', TABLE]);
  }
  if (six.length > 0 && hasIpv6) {
    for (const address of six) addAddress(HOST_DEVICE, `${bare(address.text)}/128`);
    runIp('', ['neighbour', 'replace', GATEWAY6, 'lladdr', mac, 'nud', 'permanent', 'dev', HOST_DEVICE]);
    runIp('', ['-6', 'route', 'replace', 'default', 'via', GATEWAY6, 'dev', HOST_DEVICE, 'onlink', 'table', TABLE]);
  }
  for (const address of hasIpv6 ? addresses : four)
    runIp('', [
      address.family === 6 ? '-6' : '-4',
      'rule',
      'add',
      'from',
      bare(address.text),
      'lookup',
      TABLE,
      'priority',
      PRIORITY,
    ]);
}

/** True when nobody but the router sees what arrives at the port: its device, or the one under its VLAN, is a TAP. */
export function isPrivate(config: Config, port: PortConfig): boolean {
  return port.parent >= 0 ? isPrivate(config, config.ports[port.parent]) : port.kind === 'tap';
}

function ipv6Enabled(): boolean {
  const file = `/proc/sys/net/ipv6/conf/${HOST_DEVICE}/disable_ipv6`;
  return existsSync(file) && readFileSync(file, 'latin1').trim() === '0';
}

/** The address of `192.168.1.1/24`. */
function bare(prefix: string): string {
  return prefix.split('/')[0];
}

/** Removes every rule to the table, those of a router that was killed included. */
function removeRules(): void {
  for (const family of ['-4', '-6'])
    try {
      // Deletes one at a time, until there is none: then the command fails.
      for (let n = 0; n < 256; n++) runIp('', [family, 'rule', 'delete', 'lookup', TABLE]);
    } catch {}
}
