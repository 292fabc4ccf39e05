/**
 * Security groups in the configuration: `ports.NAME.security-group`, which station of a port may use which addresses.
 */
import { z } from 'zod';
import { MAX_SOURCES } from '../../dataplane/interfaces.ts';
import { DEFAULTS } from './defaults.ts';
import type { Path } from './errors.ts';
import type { Reader } from './reader.ts';
import type { MacValue, PrefixValue, Where } from './types.ts';
import { boolean, mac, map, prefixes } from './values.ts';

export interface SecurityGroupConfig {
  /** Stations by their MACs, and what is theirs beside the below. Empty: any MAC may be a station. */
  hosts: { mac: MacValue; addresses: PrefixValue[] }[];
  /** Addresses made of a station's MAC, in the port's own prefixes of 64 bits. */
  eui64: boolean;
  /** Addresses and prefixes that the router's own DHCP and DHCPv6 have given, or its relay has seen given. */
  leases: boolean;
  where: Where;
}

export const securityGroupSchema = map({
  hosts: z
    .array(map({ mac, addresses: prefixes.optional() }), { error: () => 'a list of hosts' })
    .max(MAX_SOURCES, { error: () => `at most ${MAX_SOURCES} hosts` })
    .optional(),
  eui64: boolean.optional(),
  leases: boolean.optional(),
});

/** Reads `ports.NAME.security-group`, checked by its schema already; null: the port has none. */
export function normalizeSecurityGroup(
  reader: Reader,
  given: z.infer<typeof securityGroupSchema> | undefined,
  path: Path,
): SecurityGroupConfig | null {
  if (given === undefined) return null;
  const hosts = (given.hosts ?? []).map(({ mac: of, addresses = [] }) => ({ mac: of, addresses }));
  const owners = new Map<string, string>();
  hosts.forEach(({ mac: of, addresses }, n) => {
    if (hosts.findIndex((other) => other.mac.text === of.text) !== n)
      reader.report([...path, 'hosts', n, 'mac'], 'a MAC that no host before has', of.text);
    for (const { text } of addresses) {
      const owner = owners.get(text);
      if (owner !== undefined && owner !== of.text)
        reader.warn([...path, 'hosts', n, 'addresses'], `${text} is ${owner}'s too`);
      owners.set(text, of.text);
    }
  });
  return {
    hosts,
    eui64: given.eui64 ?? DEFAULTS['ports.NAME.security-group.eui64'],
    leases: given.leases ?? DEFAULTS['ports.NAME.security-group.leases'],
    where: reader.where(path),
  };
}
