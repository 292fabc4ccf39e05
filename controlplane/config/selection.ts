/**
 * The section `address-selection`: the policy table of RFC 6724 §2.1, as the router uses it for packets of its own.
 */
import { z } from 'zod';
import { type Cidr, formatCidr } from '../../dataplane/wire/address.ts';
import { DEFAULT_POLICY, type PolicyRow } from '../select-source.ts';
import { DEFAULTS } from './defaults.ts';
import type { Reader } from './reader.ts';
import { boolean, integer, map, prefix } from './values.ts';

export interface AddressSelectionConfig {
  /** Every row that is in force; IPv4 as IPv4-mapped. */
  policy: PolicyRow[];
  /** §10.6: unique local addresses of the router's own site before all others. */
  preferOwnUla: boolean;
}

// RFC 6724 sets no limits; 8 bits of each are what systems have in common.
export const policyRowSchema = map({ prefix, precedence: integer(0, 255), label: integer(0, 255) });
export const addressSelectionShallow = map({
  policy: z.unknown().optional(),
  'default-policy': boolean.optional(),
  'prefer-own-ula': boolean.optional(),
});

/** Reads the section; rows of one's own take the place of those of the RFC with the same prefix. */
export function normalizeAddressSelection(reader: Reader, value: unknown): AddressSelectionConfig {
  const path = ['address-selection'];
  const given = reader.read(addressSelectionShallow, value ?? {}, path) ?? {};
  const rows = new Map<string, PolicyRow>();
  const put = (row: PolicyRow): void => void rows.set(nameOf(row.prefix), row);
  if (given['default-policy'] ?? DEFAULTS['address-selection.default-policy'])
    for (const row of DEFAULT_POLICY) put(row);
  const seen = new Set<string>();
  reader.list(given.policy, [...path, 'policy']).forEach((item, n) => {
    const at = [...path, 'policy', n];
    const row = reader.read(policyRowSchema, item, at);
    if (row === undefined) return;
    const { family, words, prefixLength, text } = row.prefix;
    const cidr: Cidr =
      family === 6
        ? { family, words, prefixLength }
        : { family: 6, words: [0, 0, 0xffff0000 | 0, words[0]], prefixLength: prefixLength + 96 };
    if (seen.has(nameOf(cidr))) reader.report([...at, 'prefix'], 'a prefix that no row before has', text);
    seen.add(nameOf(cidr));
    put({ prefix: cidr, precedence: row.precedence, label: row.label });
  });
  return {
    policy: [...rows.values()],
    preferOwnUla: given['prefer-own-ula'] ?? DEFAULTS['address-selection.prefer-own-ula'],
  };
}

function nameOf({ words, prefixLength }: Cidr): string {
  return formatCidr(6, words, prefixLength);
}
