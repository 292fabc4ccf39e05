/**
 * `show leases`, `show ra`, `show dns`, `show gateway`: what the router's services have given, heard and done. Times are seconds
 * from now; null: for ever. But for the DNS forwarder these are in the families' domains, which are asked (describe.ts).
 *
 * Leases of both families that belong to one line stand together: what a relay writes into option 82, sub-option 2 (RFC
 * 3046), it writes behind its 4-byte enterprise number into option 37 of DHCPv6 (RFC 4649), and without a relay the line is the
 * client's MAC in both. A DHCPv6 client that is known by its DUID only is on no line.
 */
import { formatAddress } from '../../dataplane/wire/address.ts';
import { type GatewayHalfJson, type Lease4Json, protocolOf, type RaJson } from '../describe.ts';
import type { Dhcp6Json } from '../dhcp6/describe.ts';
import { DECLINED } from '../dhcp6/leases.ts';
import { DnsForwarder } from '../dns/forwarder.ts';
import { knownFilters, type Shown, type ShowSource } from './source.ts';

type Filters = Readonly<Record<string, string>>;

interface Line {
  /** Hexadecimal, `:` between bytes; '' when the client's line is not known. */
  line: string;
  ipv4: { address: string; dev: string; mac: string; host: string; state: string; valid: number }[];
  ipv6: { prefix: string; dev: string | null; client: string; valid: number | null }[];
}

/** Shows what domains answer: at once when they are in this thread, else when all have answered. */
function whenAnswered<T extends unknown[]>(asked: unknown[], show: (answers: T) => Shown): Shown | Promise<Shown> {
  const late = asked.some((one) => one instanceof Promise);
  return late ? Promise.all(asked).then((answers) => show(answers as T)) : show(asked as T);
}

function countsText(counts: Readonly<Record<string, number>>): string {
  const words = Object.entries(counts).filter(([, count]) => count > 0);
  return words.length === 0 ? 'nothing' : words.map(([word, count]) => `${word} ${count}`).join(' ');
}

const secondsText = (valid: number | null): string => (valid === null ? 'for ever' : `${valid} s`);

/** Leases of both families by line, in the order in which lines are first met. */
function linesOf(leases4: readonly Lease4Json[], leases6: Dhcp6Json['leases']): Line[] {
  const lines = new Map<string, Line>();
  /** @param alone tells apart those whose line is not known */
  const lineOf = (line: string, alone: string): Line => {
    const key = line === '' ? `? ${alone}` : line;
    const found = lines.get(key) ?? { line, ipv4: [], ipv6: [] };
    lines.set(key, found);
    return found;
  };
  for (const { address, dev, mac, remoteId, hostName, state, valid } of leases4) {
    const remote = remoteId.replace(/..(?=.)/g, '$&:');
    lineOf(remote || mac, address).ipv4.push({ address, dev, mac, host: hostName, state, valid });
  }
  for (const { client, prefix, dev, valid } of leases6) {
    if (client === DECLINED) continue;
    const line = client.startsWith('remote-id:') ? client.slice('remote-id:'.length) : '';
    lineOf(line, client).ipv6.push({ prefix, dev, client, valid });
  }
  return [...lines.values()];
}

/** Every lease of the router's DHCP and DHCPv6 servers, by line. */
export function showLeases(source: ShowSource, filters: Filters): Shown | Promise<Shown> {
  knownFilters(filters, ['line']);
  const { control } = source;
  const asked = [control.domains.ask('ipv4', 'leases'), control.domains.ask('ipv6', 'dhcp6')];
  return whenAnswered<[Lease4Json[] | null, Dhcp6Json | null]>(asked, ([four, six]) => {
    const wanted = filters.line?.toLowerCase();
    const json = linesOf(four ?? [], six?.leases ?? []).filter(({ line }) => wanted === undefined || line === wanted);
    return { text: json.length === 0 ? 'no leases' : json.map(lineText).join('\n'), json };
  });
}

function lineText({ line, ipv4, ipv6 }: Line): string {
  const items = [
    ...ipv4.map(
      ({ address, dev, host, state, valid }) =>
        `${address} dev ${dev} ${state} ${secondsText(valid)}${host === '' ? '' : ` ${host}`}`,
    ),
    ...ipv6.map(({ prefix, dev, valid }) => `${prefix}${dev === null ? '' : ` dev ${dev}`} ${secondsText(valid)}`),
  ];
  return [line === '' ? 'no line:' : `line ${line}:`, ...items.map((item) => `  ${item}`)].join('\n');
}

export function showRa(source: ShowSource, filters: Filters): Shown | Promise<Shown> {
  knownFilters(filters, []);
  return whenAnswered<[RaJson | null]>([source.control.domains.ask('ipv6', 'ra')], ([json]) => {
    if (json === null) return { text: 'no port sends or hears router advertisements', json };
    const lines = [
      ...json.senders.map(({ dev, prefixes, withdrawn }) => {
        const gone = withdrawn.length === 0 ? '' : `, withdraws ${withdrawn.join(' ')}`;
        return `${dev}: announces ${prefixes.join(' ') || 'no prefix'}${gone}`;
      }),
      ...json.routers.map(({ dev, router, prefix, preference, valid }) => {
        const what = prefix === '::/0' ? 'default' : prefix;
        return `${dev}: ${what} via ${router} preference ${preference} ${secondsText(valid)}`;
      }),
      `sent: ${countsText(json.sent)}`,
      `received: ${countsText(json.received)}`,
    ];
    return { text: lines.join('\n'), json };
  });
}

/** The forwarder is in the management domain, which is Control's own thread. */
export function showDns(source: ShowSource, filters: Filters): Shown {
  knownFilters(filters, []);
  const dns = protocolOf(source.control.protocols, DnsForwarder);
  if (dns === null) return { text: 'the router answers no questions', json: null };
  const { endpoint } = dns.streams;
  const json = {
    servers: dns.servers().map(({ family, words }) => formatAddress(family, ...words)),
    cache: { entries: dns.cache.size, max: dns.cache.capacity },
    counters: { ...dns.counters },
    tcp: { connections: endpoint.size, ...endpoint.counters, ...dns.streams.counters },
  };
  const lines = [
    `servers: ${json.servers.join(' ') || 'none'}`,
    `cache: ${json.cache.entries} of ${json.cache.max}`,
    `questions: ${countsText(json.counters)}`,
    `tcp: ${countsText(json.tcp)}`,
  ];
  return { text: lines.join('\n'), json };
}

/** Each family's half is in its own domain; `states` has null for a family that the mode leaves out. */
export function showGateway(source: ShowSource, filters: Filters): Shown | Promise<Shown> {
  knownFilters(filters, []);
  const { control, config } = source;
  const { gateway } = config;
  if (gateway === null) return { text: 'the router is no gateway', json: null };
  const asked = [control.domains.ask('ipv4', 'gateway'), control.domains.ask('ipv6', 'gateway')];
  return whenAnswered<[GatewayHalfJson | null, GatewayHalfJson | null]>(asked, ([four, six]) => {
    const json = {
      mode: gateway.mode,
      wan: gateway.wan.name,
      lan: gateway.lan.map(({ name }) => name),
      states: { v4: four?.state ?? null, v6: six?.state ?? null },
      subnets: six?.subnets ?? [],
    };
    const lines = [
      `wan ${json.wan}, lan ${json.lan.join(' ')}, mode ${json.mode}`,
      ...(four === null ? [] : [`IPv4: ${four.state}`]),
      ...(six === null ? [] : [`IPv6: ${six.state}`]),
      ...json.subnets.map(({ dev, address, deprecated }) => `  ${dev} ${address}${deprecated ? ' deprecated' : ''}`),
    ];
    return { text: lines.join('\n'), json };
  });
}
