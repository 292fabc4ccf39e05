/**
 * What all roles of DHCPv6 share: the interfaces, the address book, randomness, time and counters.
 */
import { IF_MAC_HI, IF_MAC_LO, type InterfaceTable } from '../../dataplane/interfaces.ts';
import type { Words } from '../../dataplane/wire/address.ts';
import type { DuidConfig } from '../config/index.ts';
import type { Addresses } from '../neighbour/addresses.ts';
import type { Action } from '../protocol.ts';
import { Counters } from './counters.ts';
import { duidLl, duidLlt } from './duid.ts';

export class Context {
  readonly interfaces: InterfaceTable;
  readonly addresses: Addresses;
  /** Names of the ports by their numbers. */
  readonly names: readonly string[];
  /** Uniform in [0, 1). */
  readonly random: () => number;
  readonly counters = new Counters();

  constructor(interfaces: InterfaceTable, addresses: Addresses, names: readonly string[], random: () => number) {
    this.interfaces = interfaces;
    this.addresses = addresses;
    this.names = names;
    this.random = random;
  }

  /** The port's link-local address once nobody else is known to have it; undefined before. */
  linkLocal(port: number): Words | undefined {
    const own = this.addresses.sourceFor(port, 6, LINK_LOCAL);
    return own === undefined ? undefined : own.words;
  }

  /** An address of the port that means something beyond its link; undefined: it has none. */
  global(port: number): Words | undefined {
    for (const state of ['preferred', 'deprecated'])
      for (const own of this.addresses.ofPort(port))
        if (own.family === 6 && (own.words[0] & 0xc0ff) !== 0x80fe && own.state === state) return own.words;
    return undefined;
  }

  duid(config: DuidConfig, port: number): Uint8Array {
    if (config.kind === 'bytes') return config.bytes;
    const at = this.interfaces.at(port);
    const mac = { lo: this.interfaces.words[at + IF_MAC_LO], hi: this.interfaces.words[at + IF_MAC_HI] };
    return config.kind === 'll' ? duidLl(mac) : duidLlt(mac, config.made);
  }

  /** A number of 24 bits that nobody can guess from the one before, when `random` is good. */
  transaction(): number {
    return Math.floor(this.random() * 0x1000000);
  }
}

/** fe80::, to ask the address book for a link-local source. */
const LINK_LOCAL: Words = [0x80fe, 0, 0, 0];

export function isMulticast(words: Words): boolean {
  return (words[0] & 0xff) === 0xff;
}

export function isUnspecified(words: Words): boolean {
  return (words[0] | words[1] | words[2] | words[3]) === 0;
}

export function sameWords(a: Words, b: Words): boolean {
  return a[0] === b[0] && a[1] === b[1] && a[2] === b[2] && a[3] === b[3];
}

/** Tells everybody who has a prefix, or an address as a /128, behind a port of the router's own. */
export function told(
  name: 'dhcp6.delegated' | 'dhcp6.withdrawn',
  data: { port: string; prefix: string; via: string | null; client: string; valid: number | null },
): Action {
  return { kind: 'event', name, data };
}
