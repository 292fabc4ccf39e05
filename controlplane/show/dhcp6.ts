/**
 * `show dhcp6`: what each port's role of DHCPv6 has and gives, and what was counted. Leases of a server are counted in
 * text and listed in JSON (there may be ten thousand). Lifetimes are seconds from now; null: for ever.
 */
import { formatAddress } from '../../dataplane/wire/address.ts';
import { prefixText } from '../dhcp6/leases.ts';
import { knownFilters, type Shown, type ShowSource } from './source.ts';

interface Dhcp6Json {
  clients: {
    port: string;
    state: string;
    leases: { prefix: string; preferred: number | null; valid: number | null }[];
    dns: string[];
    domains: string[];
  }[];
  leases: {
    client: string;
    prefix: string;
    iaid: number;
    dev: string | null;
    via: string | null;
    valid: number | null;
  }[];
  relays: { port: string; routes: { prefix: string; via: string }[] }[];
  received: Record<string, number>;
  sent: Record<string, number>;
  faults: Record<string, number>;
}

export function showDhcp6(source: ShowSource, filters: Readonly<Record<string, string>>): Shown {
  knownFilters(filters, []);
  const { dhcp6 } = source.control;
  if (dhcp6 === null) return { text: 'no port has DHCPv6', json: null };
  const { time, wall } = dhcp6.times(source.tables.now());
  const left = (end: number, now: number) => (end === Number.POSITIVE_INFINITY ? null : Math.round((end - now) / 1000));
  const name = (port: number) => source.config.ports[port].name;
  const json: Dhcp6Json = {
    clients: dhcp6.clients.map((client) => ({
      port: name(client.port),
      state: client.state,
      leases: client.held.map((held) => ({
        prefix: prefixText(held.words, held.prefixLength),
        preferred: left(held.preferred, time),
        valid: left(held.valid, time),
      })),
      dns: client.dns.map((words) => formatAddress(6, ...words)),
      domains: client.domains,
    })),
    leases: [...dhcp6.delegation.leases].map((lease) => ({
      client: lease.client,
      prefix: prefixText(lease.words, lease.prefixLength),
      iaid: lease.iaid,
      dev: lease.port === '' ? null : lease.port,
      via: lease.via === null ? null : formatAddress(6, ...lease.via),
      valid: left(lease.valid, wall),
    })),
    relays: dhcp6.relays.map((relay) => ({
      port: name(relay.port),
      routes: [...relay.routes].map(([prefix, { via }]) => ({ prefix, via: formatAddress(6, ...via) })),
    })),
    received: { ...dhcp6.counters.received },
    sent: { ...dhcp6.counters.sent },
    faults: { ...dhcp6.counters.faults },
  };
  const counts = (of: Record<string, number>) =>
    Object.entries(of)
      .map(([word, count]) => ` ${word} ${count}`)
      .join('') || ' nothing';
  const seconds = (valid: number | null) => (valid === null ? 'for ever' : `for ${valid} s`);
  const lines = [
    ...json.clients.flatMap(({ port, state, leases }) => [
      `${port}: client, ${state}`,
      ...leases.map(({ prefix, valid }) => `  ${prefix} ${seconds(valid)}`),
    ]),
    ...dhcp6.servers.map((server) => `${name(server.port)}: server`),
    ...(dhcp6.servers.length > 0 ? [`leases: ${json.leases.length}`] : []),
    ...json.relays.flatMap(({ port, routes }) => [`${port}: relay, ${routes.length} routes`]),
    ...dhcp6.ldras.map((ldra) => `${name(ldra.port)}: LDRA toward ${name(ldra.network)}`),
    `received:${counts(json.received)}`,
    `sent:${counts(json.sent)}`,
    `faults:${counts(json.faults)}`,
  ];
  return { text: lines.join('\n'), json };
}
