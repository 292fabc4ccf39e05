/**
 * What follows from the leases of a DHCPv6 client: addresses are the port's, as /128 (no on-link prefix follows from DHCPv6); each
 * delegated prefix is a route of type unreachable, so that what nobody inside has does not go round between the router and its
 * provider (RFC 7084 WPD-5). All of it is told in events (docs/dhcp6.md), for whoever numbers the LAN or asks the DNS.
 */
import { formatAddress, type Words } from '../../dataplane/wire/address.ts';
import type { Action } from '../protocol.ts';
import type { Held } from './held.ts';
import { prefixText } from './leases.ts';

const FOREVER = Number.POSITIVE_INFINITY;

/** What is to be done with one lease. @param now milliseconds that do not wrap, for what is left of its lifetimes */
export function actionsOf(port: number, held: Held, op: 'add' | 'remove' | 'deprecate', now: number): Action[] {
  const { words, prefixLength, kind } = held;
  if (kind === 'pd') {
    if (op === 'deprecate') return [];
    return [{ kind: 'route', op, family: 6, words, prefixLength, port: -1, source: 'pd', type: 'unreachable' }];
  }
  const left = (end: number) => (end === FOREVER ? undefined : Math.max(0, end - now));
  const lifetimes = op === 'add' ? { preferred: left(held.preferred), valid: left(held.valid) } : {};
  return [{ kind: 'address', op, port, family: 6, words, prefixLength, ...lifetimes }];
}

/**
 * An event about leases and what else the server told; lifetimes in whole seconds from now, null: for ever.
 *
 * @param port its name
 * @param more of the event's data
 */
export function eventOf(
  name: string,
  port: string,
  leases: readonly Held[],
  now: number,
  { dns, domains }: { dns: readonly Words[]; domains: readonly string[] },
  more: Record<string, unknown>,
): Action {
  const left = (end: number) => (end === FOREVER ? null : Math.max(0, Math.round((end - now) / 1000)));
  const item = (held: Held) => ({ iaid: held.iaid, preferred: left(held.preferred), valid: left(held.valid) });
  return {
    kind: 'event',
    name,
    data: {
      port,
      addresses: leases
        .filter((held) => held.kind === 'na')
        .map((held) => ({ address: formatAddress(6, ...held.words), ...item(held) })),
      prefixes: leases
        .filter((held) => held.kind === 'pd')
        .map((held) => ({ prefix: prefixText(held.words, held.prefixLength), ...item(held) })),
      dns: dns.map((words) => formatAddress(6, ...words)),
      domains,
      ...more,
    },
  };
}
