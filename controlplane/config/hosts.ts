/**
 * Hosts in the configuration: names for stations of a link by their MAC or interface identifier, for rules, port forwards
 * and the DMZ to use in place of addresses that change.
 */
import type { z } from 'zod';
import { parseIpv6 } from '../../dataplane/wire/address.ts';
import { didYouMean, type Path } from './errors.ts';
import type { Reader } from './reader.ts';
import type { Scopes } from './scopes.ts';
import type { MacValue, Where } from './types.ts';
import { leaf, mac, map, NAME, NAME_RULE, oneOrMore, reference } from './values.ts';

/** The low 64 bits of an address, raw words. */
export type IdentifierValue = readonly [number, number];

export interface HostConfig {
  name: string;
  port: number;
  /** Null: only the identifier is known, so that IPv4 does not find it. */
  mac: MacValue | null;
  /** Null: made of the MAC. */
  id: IdentifierValue | null;
  where: Where;
}

const identifier = leaf(
  'an interface identifier, 64 bits, such as ::5054:ff:fe12:3456',
  (input): IdentifierValue | undefined => {
    const words = typeof input === 'string' ? parseIpv6(input) : null;
    if (words === null || words[0] !== 0 || words[1] !== 0 || (words[2] === 0 && words[3] === 0)) return undefined;
    return [words[2], words[3]];
  },
);

export const hostSchema = map({ port: reference, mac: mac.optional(), id: identifier.optional() });

const HOST_RULE = 'the name of a host';
const toName = (input: unknown) => (typeof input === 'string' && NAME.test(input) ? input : undefined);
export const hostName = leaf(HOST_RULE, toName);
export const hostNames = oneOrMore(HOST_RULE, toName, 64);

/** Reads `hosts`. */
export function normalizeHosts(reader: Reader, value: unknown, scopes: Scopes): HostConfig[] {
  const entries = reader.map(value, ['hosts'], 'a map of host names') ?? {};
  const hosts: HostConfig[] = [];
  for (const name of Object.keys(entries)) {
    const path: Path = ['hosts', name];
    if (!NAME.test(name)) reader.report(path, NAME_RULE, name);
    const given: z.infer<typeof hostSchema> | undefined = reader.read(hostSchema, entries[name] ?? {}, path);
    if (given === undefined) continue;
    const { mac: of = null, id = null } = given;
    if (of === null && id === null && !reader.faulty([...path, 'mac']) && !reader.faulty([...path, 'id']))
      reader.reportWords(path, '"mac", "id" or both', 'neither');
    const port = scopes.port(given.port, [...path, 'port']);
    if (port >= 0) hosts.push({ name, port, mac: of, id, where: reader.where(path) });
  }
  return hosts;
}

/** Reports names that no host has. `path`: of the key that names them. */
export function checkHosts(reader: Reader, hosts: readonly HostConfig[], names: readonly string[], path: Path): void {
  const known = hosts.map(({ name }) => name);
  for (const name of names)
    if (!known.includes(name)) reader.report(path, 'the name of a host of "hosts"', name, didYouMean(name, known));
}
