/**
 * `show link`: the ports, as `ip -s address` prints them in short. RX is what the router received, TX what it sent.
 */
import * as IF from '../../dataplane/interfaces.ts';
import { formatAddress, formatMac } from '../../dataplane/wire/address.ts';
import type { OwnAddress } from '../neighbour/addresses.ts';
import { readCounters } from './counters.ts';
import { portFilter } from './filters.ts';
import { knownFilters, type Shown, type ShowSource } from './source.ts';

export interface LinkJson {
  ifindex: number;
  ifname: string;
  flags: string[];
  mtu: number;
  operstate: 'UP' | 'DOWN' | 'NOTPRESENT';
  link_type: 'ether';
  address: string;
  /** Beyond iproute2: the configuration's words. */
  zone: string;
  kind: string;
  /** Device of the host, and the MAC of its end. */
  device?: string;
  peer?: string;
  /** Present for a TAP whose kernel end is in another namespace than the router. */
  elsewhere?: true;
  vlan?: number;
  /** Present for a port with a mirror: whether it is written now, and the frames that are missing in it. */
  mirror?: { file: string; stopped: boolean; lost: number };
  addr_info: { family: 'inet' | 'inet6'; local: string; prefixlen: number; scope: string; flags?: string[] }[];
  stats64: {
    rx: { bytes: number; packets: number; errors: number; dropped: number };
    tx: { bytes: number; packets: number; errors: number };
  };
}

export function showLink(source: ShowSource, filters: Readonly<Record<string, string>>): Shown {
  knownFilters(filters, ['dev']);
  const dev = portFilter(source.config, filters.dev);
  const counters = readCounters(source.tables, source.config).ports;
  const w = source.tables.interfaces.words;
  const links: LinkJson[] = [];
  for (const port of source.config.ports) {
    if (!dev(port.name)) continue;
    const r = port.number * IF.IF_WORDS;
    const device = source.live?.device(port.number) ?? null;
    const up = (w[r + IF.IF_FLAGS] & IF.IFF_UP) !== 0;
    const count = counters[port.name];
    const link: LinkJson = {
      ifindex: port.number,
      ifname: port.name,
      flags: ['BROADCAST', 'MULTICAST', ...(port.up ? ['UP'] : []), ...(up ? ['LOWER_UP'] : [])],
      mtu: w[r + IF.IF_MTU],
      operstate: up ? 'UP' : device !== null && !device.exists ? 'NOTPRESENT' : 'DOWN',
      link_type: 'ether',
      address: formatMac(w[r + IF.IF_MAC_LO], w[r + IF.IF_MAC_HI]),
      zone: port.zoneName,
      kind: port.kind,
      addr_info: source.control.addresses.ofPort(port.number).map(addressJson),
      stats64: {
        rx: {
          bytes: count.rx_bytes,
          packets: count.rx_packets,
          errors: device?.rx_errors ?? 0,
          dropped: count.dropped,
        },
        tx: { bytes: count.tx_bytes, packets: count.tx_packets, errors: device?.tx_errors ?? 0 },
      },
    };
    if (port.ifname !== '') link.device = port.ifname;
    if (device !== null && device.mac !== '') link.peer = device.mac;
    if (device?.elsewhere) link.elsewhere = true;
    if (port.vlan !== 0) link.vlan = port.vlan;
    if (port.mirror !== '' && device !== null)
      link.mirror = { file: port.mirror, stopped: device.mirrors_stopped > 0, lost: device.mirror_lost };
    links.push(link);
  }
  return { text: links.map(lines).join('\n'), json: links };
}

function addressJson(own: OwnAddress): LinkJson['addr_info'][number] {
  const { family, words, prefixLength, state } = own;
  const linkLocal = family === 6 && (words[0] & 0xc0ff) === 0x80fe;
  return {
    family: family === 4 ? 'inet' : 'inet6',
    local: formatAddress(family, words[0], words[1], words[2], words[3]),
    prefixlen: prefixLength,
    scope: linkLocal ? 'link' : 'global',
    ...(state === 'preferred' ? {} : { flags: [state] }),
  };
}

function lines(link: LinkJson): string {
  const { mirror } = link;
  const { rx, tx } = link.stats64;
  const device = link.device === undefined ? '' : ` device ${link.device}${link.elsewhere ? ' elsewhere' : ''}`;
  const vlan = link.vlan === undefined ? '' : ` vlan ${link.vlan}`;
  const peer = link.peer === undefined ? '' : ` peer ${link.peer}`;
  const pad = (...cells: (string | number)[]): string => cells.map((cell) => String(cell).padStart(12)).join('');
  return [
    `${link.ifindex}: ${link.ifname}: <${link.flags.join(',')}> mtu ${link.mtu} state ${link.operstate} zone ${link.zone} kind ${link.kind}${device}${vlan}`,
    `    link/ether ${link.address}${peer}`,
    ...(mirror === undefined
      ? []
      : [`    mirror ${mirror.file}${mirror.stopped ? ' stopped' : ''} lost ${mirror.lost}`]),
    ...link.addr_info.map(
      (a) => `    ${a.family} ${a.local}/${a.prefixlen} scope ${a.scope}${a.flags ? ` ${a.flags.join(' ')}` : ''}`,
    ),
    `    RX:${pad('bytes', 'packets', 'errors', 'dropped').slice(3)}`,
    `    ${pad(rx.bytes, rx.packets, rx.errors, rx.dropped)}`,
    `    TX:${pad('bytes', 'packets', 'errors').slice(3)}`,
    `    ${pad(tx.bytes, tx.packets, tx.errors)}`,
  ].join('\n');
}
