/**
 * Routing: where the configuration would send a packet, for the preparations of a replay.
 *
 * Longest prefix over the connected prefixes and the configured routes, from the Config alone: the router does not exist
 * yet when its neighbours and ports are settled. Does not know the router's own addresses or metrics of equal routes.
 */
import { addressFromBytes, type Family, inPrefix, type Words } from '../../dataplane/wire/address.ts';
import type { AddressValue, Config, PrefixValue } from '../config/index.ts';

export interface Way {
  port: number;
  /** Null: the destination itself is the next hop. */
  gateway: AddressValue | null;
  prefixLength: number;
}

/** The way to an address, or to a whole prefix when `within` is its length; null when there is none or it ends in a refusal. */
export function wayTo(config: Config, family: Family, words: Words, within: number): Way | null {
  let best: Way | null = null;
  let bestLength = -1;
  for (const port of config.ports)
    for (const address of port.addresses)
      if (covers(address, family, words, within) && address.prefixLength > bestLength) {
        bestLength = address.prefixLength;
        best = { port: port.number, gateway: null, prefixLength: address.prefixLength };
      }
  for (const route of config.routes)
    if (covers(route.to, family, words, within) && route.to.prefixLength > bestLength) {
      bestLength = route.to.prefixLength;
      best =
        route.type !== 'unicast' || route.port < 0
          ? null
          : { port: route.port, gateway: route.via, prefixLength: bestLength };
    }
  return best;
}

function covers(prefix: PrefixValue, family: Family, words: Words, within: number): boolean {
  return prefix.family === family && prefix.prefixLength <= within && inPrefix(words, prefix);
}

/** Gateways of the configured routes, each once, with the port behind which they are. */
export function gateways(config: Config): { port: number; address: AddressValue }[] {
  const found = new Map<string, { port: number; address: AddressValue }>();
  for (const route of config.routes)
    if (route.type === 'unicast' && route.via !== null && route.port >= 0)
      found.set(`${route.port} ${route.via.text}`, { port: route.port, address: route.via });
  return [...found.values()];
}

/** True when the configuration names the neighbour. */
export function isNamed(config: Config, port: number, family: Family, words: Words): boolean {
  return config.neighbors.some(
    (n) => n.port === port && n.ip.family === family && n.ip.words.every((word, k) => word === words[k]),
  );
}

/** True when an address (raw words) can be a host's: not unspecified, multicast, broadcast or loopback. */
export function isHost(family: Family, words: Words): boolean {
  const first = words[0] & 0xff;
  if (family === 4) return words[0] !== 0 && first !== 127 && first < 224;
  return first !== 0xff && (words[0] !== 0 || words[1] !== 0 || words[2] !== 0 || (words[3] & ~0x01000000) !== 0);
}

/** Address bytes as a key of maps. */
export function keyOf(u8: Uint8Array, at: number, length: number): string {
  let key = '';
  for (let n = 0; n < length; n++) key += String.fromCharCode(u8[at + n]);
  return key;
}

/** The words of a key. */
export function wordsOf(key: string): Words {
  return addressFromBytes(key.length === 4 ? 4 : 6, bytesOf(key));
}

export function bytesOf(key: string): Uint8Array {
  return Uint8Array.from(key, (letter) => letter.charCodeAt(0));
}

/** Counts how often each of a few things was seen, and says which was seen most; of equals, the first. */
export class Votes {
  private readonly counts = new Map<string, number>();

  add(key: string): void {
    this.counts.set(key, (this.counts.get(key) ?? 0) + 1);
  }

  get winner(): string | null {
    let best: string | null = null;
    let most = 0;
    for (const [key, count] of this.counts)
      if (count > most) {
        best = key;
        most = count;
      }
    return best;
  }

  has(key: string): boolean {
    return this.counts.has(key);
  }
}
