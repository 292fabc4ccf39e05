/**
 * Who: the inside address behind an outside address and port (RFC 7422 §4, RFC 6888 §4).
 *
 * Deterministic NAT answers by arithmetic, for any time; blocks answer by the log; single ports only while their mapping
 * lives, since nobody logs them.
 */

import { NM_INSIDE, NM_KEY, NM_OUTSIDE, NM_PORTS, NM_WORDS } from '../../conntrack/mapping.ts';
import { formatIpv4, parseAddress } from '../../dataplane/wire/address.ts';
import { hostOrder, rawOrder } from '../../dataplane/wire/bytes.ts';
import { deterministicPlan, poolOf } from '../compile-nat.ts';
import type { Config, MasqueradeConfig } from '../config/index.ts';
import type { Shown, ShowSource } from '../show/source.ts';
import { type BlockEvent, holderOf } from './log.ts';

export interface Subscriber {
  outside: string;
  port: number;
  inside: string;
  how: 'deterministic' | 'block' | 'mapping';
  /** Ports of the outside address that are this inside address's. */
  ports: string;
  /** ISO times of a block. */
  since?: string;
  until?: string;
}

/** RFC 7422 §2.2 backwards: whose a port of an entry's pool is; null: nobody's. */
export function inverseDeterministic(entry: MasqueradeConfig, outside: string, port: number): Subscriber | null {
  const address = parseAddress(outside);
  if (!entry.deterministic || entry.from.length !== 1 || address === null || address.family !== 4) return null;
  const wanted = hostOrder(address.words[0]);
  let k = 0;
  for (const [low, high] of poolOf(entry)) {
    if (wanted < low || wanted > high) {
      k += high - low + 1;
      continue;
    }
    const { ratio, size, base } = deterministicPlan(entry);
    const block = Math.floor((port - base) / size);
    if (port < base || block >= ratio) return null;
    const n = (k + wanted - low) * ratio + block;
    if (n >= 2 ** (32 - entry.from[0].prefixLength)) return null;
    const first = base + block * size;
    const inside = formatIpv4(rawOrder(hostOrder(entry.from[0].words[0]) + n));
    return { outside, port, inside, how: 'deterministic', ports: `${first}-${first + size - 1}` };
  }
  return null;
}

/** By the configuration and a log; `at` in milliseconds since 1970. */
export function findSubscriber(
  config: Config | null,
  events: readonly BlockEvent[],
  outside: string,
  port: number,
  at: number,
): Subscriber | null {
  for (const entry of config?.nat.masquerade ?? []) {
    const found = inverseDeterministic(entry, outside, port);
    if (found !== null) return found;
  }
  const holding = holderOf(events, outside, port, at);
  if (holding === null) return null;
  const { inside, low, high, since, until } = holding;
  const subscriber: Subscriber = { outside, port, inside, how: 'block', ports: `${low}-${high}` };
  subscriber.since = new Date(since).toISOString();
  if (until !== null) subscriber.until = new Date(until).toISOString();
  return subscriber;
}

/** What the running tables say of a port now, for single-port mappings. */
function mappedNow(source: ShowSource, outside: string, port: number): Subscriber | null {
  const { natMappings } = source.tables;
  const w = natMappings.words;
  for (let index = 0; index < natMappings.highWater; index++) {
    const m = index * NM_WORDS;
    const raw = w[m + NM_PORTS] >>> 16;
    if ((((raw & 0xff) << 8) | (raw >>> 8)) !== port || formatIpv4(w[m + NM_OUTSIDE]) !== outside) continue;
    if (natMappings.findOutside(w[m + NM_OUTSIDE], raw, w[m + NM_KEY] & 0xff, source.tables.now()) !== index) continue;
    return { outside, port, inside: formatIpv4(w[m + NM_INSIDE]), how: 'mapping', ports: String(port) };
  }
  return null;
}

export function whoLine(found: Subscriber | null, outside: string, port: number): string {
  if (found === null) return `${outside}:${port} nobody`;
  const times = found.since === undefined ? '' : ` since ${found.since}${found.until ? ` until ${found.until}` : ''}`;
  return `${outside}:${port} ${found.inside} by ${found.how}, ports ${found.ports}${times}`;
}

/** The view behind `sluice nat who`: filters address, port and at (milliseconds since 1970; absent: now). */
export function showWho(source: ShowSource, filters: Readonly<Record<string, string>>): Shown {
  const { address = '', port: portText = '', at } = filters;
  const port = Number(portText);
  const parsed = parseAddress(address);
  if (parsed === null || parsed.family !== 4 || !(port >= 0 && port < 65536 && portText !== ''))
    throw new RangeError(`who: expected address=ADDRESS port=PORT, got address="${address}" port="${portText}"`);
  const { blockLog } = source.control;
  blockLog.drain();
  const time = at === undefined ? Number.POSITIVE_INFINITY : Number(at);
  let found = findSubscriber(source.config, blockLog.events, address, port, time);
  if (found === null && at === undefined) found = mappedNow(source, address, port);
  return { text: whoLine(found, address, port), json: found };
}
