/**
 * Describe: what each port's role of DHCPv6 has and gives, and what was counted, as plain data: made in the domain's thread,
 * shown in another (controlplane/show/dhcp6.ts). Lifetimes are seconds from now; null: for ever.
 */
import { formatAddress } from '../../dataplane/wire/address.ts';
import type { Dhcp6 } from './index.ts';
import { prefixText } from './leases.ts';

export interface Dhcp6Json {
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
  servers: string[];
  relays: { port: string; routes: { prefix: string; via: string }[] }[];
  ldras: { port: string; network: string }[];
  received: Record<string, number>;
  sent: Record<string, number>;
  faults: Record<string, number>;
}

/** @param now the router's clock   @param names of the ports by number */
export function describeDhcp6(dhcp6: Dhcp6, now: number, names: readonly string[]): Dhcp6Json {
  const { time, wall } = dhcp6.times(now);
  const left = (end: number, now: number) => (end === Number.POSITIVE_INFINITY ? null : Math.round((end - now) / 1000));
  const name = (port: number) => names[port];
  return {
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
    servers: dhcp6.servers.map((server) => name(server.port)),
    relays: dhcp6.relays.map((relay) => ({
      port: name(relay.port),
      routes: [...relay.routes].map(([prefix, { via }]) => ({ prefix, via: formatAddress(6, ...via) })),
    })),
    ldras: dhcp6.ldras.map((ldra) => ({ port: name(ldra.port), network: name(ldra.network) })),
    received: { ...dhcp6.counters.received },
    sent: { ...dhcp6.counters.sent },
    faults: { ...dhcp6.counters.faults },
  };
}
