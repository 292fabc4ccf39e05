/**
 * Router discovery in the configuration: `ports.NAME.ra` (what the port announces) and `ports.NAME.accept-ra` (what it
 * takes from others). Schema, what it becomes, and the checks of what keys mean together.
 */
import { z } from 'zod';
import type { Words } from '../../dataplane/wire/address.ts';
import type { RaReceiverConfig } from '../ra/receiver.ts';
import type { RaSenderConfig } from '../ra/sender.ts';
import { DEFAULTS } from './defaults.ts';
import type { Path } from './errors.ts';
import type { Reader } from './reader.ts';
import { boolean, domainNames, integer, map, oneOf, prefix, text, toAddress } from './values.ts';

const PREFERENCES = ['low', 'medium', 'high'] as const;
const seconds = integer(0, 0xffffffff);
const milliseconds = integer(0, 3_600_000);

/** `router`, or addresses of IPv6. */
const resolvers = z.unknown().transform((input, ctx): Words[] | 'router' => {
  if (input === 'router') return 'router';
  const words: Words[] = [];
  const items = Array.isArray(input) ? input : [input];
  for (const item of items) {
    const address = toAddress(item);
    if (address?.family === 6 && words.length < 8) words.push(address.words);
    else {
      const message = 'router, or up to 8 addresses of IPv6 such as 2001:db8::53';
      ctx.issues.push({ code: 'custom', message, input: item, path: [], params: { hint: '' } });
      return z.NEVER;
    }
  }
  return words;
});

export const raSchema = map({
  managed: boolean.optional(),
  other: boolean.optional(),
  // RFC 4861 §6.2.1: MaxRtrAdvInterval 4 to 1800 s, MinRtrAdvInterval 3 s to three quarters of it.
  'min-interval': integer(3, 1350).optional(),
  'max-interval': integer(4, 1800).optional(),
  lifetime: integer(0, 9000).optional(),
  default: oneOf(['always', 'routed']).optional(),
  preference: oneOf(PREFERENCES).optional(),
  'hop-limit': integer(0, 255).optional(),
  'reachable-time': milliseconds.optional(),
  'retransmit-timer': milliseconds.optional(),
  mtu: boolean.optional(),
  preferred: seconds.optional(),
  valid: seconds.optional(),
  autonomous: boolean.optional(),
  'on-link': boolean.optional(),
  rdnss: resolvers.optional(),
  dnssl: domainNames.optional(),
  routes: z
    .array(map({ to: prefix, preference: oneOf(PREFERENCES).optional(), lifetime: seconds.optional() }), {
      error: () => 'a list of routes',
    })
    .optional(),
});

export const acceptRaSchema = map({
  routes: boolean.optional(),
  dns: boolean.optional(),
  identifier: oneOf(['eui64', 'stable', 'none']).optional(),
  secret: text.optional(),
  temporary: boolean.optional(),
});

/** Reads `ports.NAME.ra`, checked by its schema already; null: the port announces nothing. */
export function normalizeRa(
  reader: Reader,
  given: z.infer<typeof raSchema> | undefined,
  path: Path,
): RaSenderConfig | null {
  if (given === undefined) return null;
  const longest = given['max-interval'] ?? DEFAULTS['ports.NAME.ra.max-interval'];
  const shortest =
    given['min-interval'] ?? Math.min(DEFAULTS['ports.NAME.ra.min-interval'], Math.floor(longest * 0.75));
  if (shortest > Math.max(3, longest * 0.75))
    reader.report(
      [...path, 'min-interval'],
      `a number from 3 to ${Math.max(3, Math.floor(longest * 0.75))}, three quarters of max-interval`,
      shortest,
    );
  const lifetime = given.lifetime ?? 3 * longest;
  // RFC 4861 §6.2.1: 0, or no shorter than the longest interval.
  if (lifetime !== 0 && lifetime < longest)
    reader.report([...path, 'lifetime'], `0 or a number from ${longest}, the longest interval, to 9000`, lifetime);
  const valid = given.valid ?? DEFAULTS['ports.NAME.ra.valid'];
  const preferred = given.preferred ?? Math.min(valid, DEFAULTS['ports.NAME.ra.preferred']);
  if (preferred > valid)
    reader.report([...path, 'preferred'], `a number from 0 to ${valid}, the valid lifetime`, preferred);
  given.routes?.forEach(({ to }, n) => {
    if (to.family !== 6) reader.report([...path, 'routes', n, 'to'], 'a prefix of IPv6', to.text);
  });
  return {
    managed: given.managed ?? DEFAULTS['ports.NAME.ra.managed'],
    other: given.other ?? DEFAULTS['ports.NAME.ra.other'],
    interval: [shortest, longest],
    lifetime,
    default: given.default ?? DEFAULTS['ports.NAME.ra.default'],
    preference: given.preference ?? DEFAULTS['ports.NAME.ra.preference'],
    hopLimit: given['hop-limit'] ?? DEFAULTS['ports.NAME.ra.hop-limit'],
    reachable: given['reachable-time'] ?? DEFAULTS['ports.NAME.ra.reachable-time'],
    retransmit: given['retransmit-timer'] ?? DEFAULTS['ports.NAME.ra.retransmit-timer'],
    mtu: given.mtu ?? DEFAULTS['ports.NAME.ra.mtu'],
    preferred,
    valid,
    autonomous: given.autonomous ?? DEFAULTS['ports.NAME.ra.autonomous'],
    onLink: given['on-link'] ?? DEFAULTS['ports.NAME.ra.on-link'],
    rdnss: given.rdnss ?? [],
    dnssl: given.dnssl ?? [],
    routes: (given.routes ?? []).map(({ to, preference, lifetime: until }) => ({
      words: to.words,
      prefixLength: to.prefixLength,
      preference: preference ?? DEFAULTS['ports.NAME.ra.routes[].preference'],
      lifetime: until ?? DEFAULTS['ports.NAME.ra.routes[].lifetime'],
    })),
  };
}

/** Reads `ports.NAME.accept-ra`; null: what routers say on this link is not for us. */
export function normalizeAcceptRa(
  reader: Reader,
  given: z.infer<typeof acceptRaSchema> | undefined,
  path: Path,
  name: string,
  mac: string,
): RaReceiverConfig | null {
  if (given === undefined) return null;
  const identifier = given.identifier ?? DEFAULTS['ports.NAME.accept-ra.identifier'];
  if (given.secret !== undefined && identifier !== 'stable')
    reader.warn([...path, 'secret'], `identifiers of kind ${identifier} have no secret`);
  return {
    name,
    routes: given.routes ?? DEFAULTS['ports.NAME.accept-ra.routes'],
    dns: given.dns ?? DEFAULTS['ports.NAME.accept-ra.dns'],
    identifier,
    secret: given.secret ?? mac,
    temporary: given.temporary ?? DEFAULTS['ports.NAME.accept-ra.temporary'],
  };
}
