/**
 * Gateway: brings a home up by itself, WAN then LAN, both families (the eRouter's procedure; RFC 7084, RFC 9096).
 *
 * It speaks no protocol: it hears what DHCP, DHCPv6 and router discovery tell, goes through the table (table.ts), starts
 * the DHCPv6 client, and numbers the LAN ports from what was delegated: subnet n of the prefix for the n-th LAN port, with
 * the EUI-64 identifier of its MAC. Everything else follows by itself: the sender of router advertisements announces what
 * the ports have, and ceases to, with lifetimes of 0, when they lose it.
 *
 * Events:
 *   gateway.state   { family, from, to, why } at every change of state
 *   gateway.lan     { port, address, prefixLength, op }: a LAN port was numbered: add, deprecate, remove
 *   gateway.prefixes { ports, prefixes: [{ prefix, valid }] }: what is delegated now, all of it, and the LAN ports' numbers
 *
 * Not here: what the configuration sets up beside it (config/gateway.ts): unique local prefix, DHCP server, resolver.
 */
import { IF_MAC_HI, IF_MAC_LO, type InterfaceTable } from '../../dataplane/interfaces.ts';
import {
  addressBytes,
  addressFromBytes,
  formatCidr,
  formatIpv6,
  networkWords,
  parseCidr,
  parseIpv6,
  type Words,
} from '../../dataplane/wire/address.ts';
import { isLinkLocal } from '../../dataplane/wire/ipv6.ts';
import { type Addresses, isUsable } from '../neighbour/addresses.ts';
import type { Action, Event, Protocol, Told } from '../protocol.ts';
import { compose, eui64 } from '../ra/identifiers.ts';
import { type Deed, type Input, IPV4, IPV6, type State } from './table.ts';

export interface GatewayConfig {
  wan: { port: number; name: string };
  /** In the order in which they get subnets. */
  lan: readonly { port: number; name: string }[];
  mode: 'v4' | 'dual' | 'v6';
  /** Program that hears every event; '' none. Started by the live router (controlplane/live/script.ts). */
  script: string;
}

/** A delegated prefix, as the event tells it; times in seconds from `at` on the router's clock, null: for ever. */
interface Delegated {
  words: Words;
  prefixLength: number;
  preferred: number | null;
  valid: number | null;
  at: number;
}

interface Numbered {
  port: number;
  name: string;
  words: Words;
  prefixLength: number;
  deprecated: boolean;
}

export class Gateway implements Protocol {
  readonly name = 'gateway';
  readonly states: { v4: State; v6: State } = { v4: 'down', v6: 'down' };
  private readonly interfaces: InterfaceTable;
  private readonly addresses: Addresses;
  private readonly config: GatewayConfig;
  /** Addresses given to ports, by text. */
  private readonly numbered = new Map<string, Numbered>();
  private delegated: Delegated[] = [];
  /** The lease brought an address for the WAN. */
  private hasAddress = false;
  private begun = false;
  private now = 0;
  /** The default router that was heard last; '' none. It may be heard while the link-local address is still being tested. */
  private router = '';

  constructor(interfaces: InterfaceTable, addresses: Addresses, config: GatewayConfig) {
    this.interfaces = interfaces;
    this.addresses = addresses;
    this.config = config;
  }

  step(now: number, event: Event): Action[] {
    const out: Action[] = [];
    this.now = now;
    const { wan } = this.config;
    if (!this.begun) {
      // Links that were up from the start are told by nobody.
      this.begun = true;
      if (this.interfaces.isUp(wan.port)) this.both('link up', 'at start', out);
    }
    if (event.kind === 'link' && event.port === wan.port)
      this.both(event.up ? 'link up' : 'link down', 'the link', out);
    else if (event.kind === 'event') this.hear(event, out);
    return out;
  }

  next(): number {
    return this.begun ? -1 : 0;
  }

  /** Addresses that ports have of what was delegated. */
  subnets(): { dev: string; address: string; deprecated: boolean }[] {
    return [...this.numbered.values()].map(({ name, words, prefixLength, deprecated }) => ({
      dev: name,
      address: `${formatIpv6(...words)}/${prefixLength}`,
      deprecated,
    }));
  }

  private both(input: Input, why: string, out: Action[]): void {
    if (this.config.mode !== 'v6') this.turn('v4', input, why, out);
    if (this.config.mode === 'v4') return;
    this.turn('v6', input, why, out);
    // An address that has passed once is not tested again when the link comes back.
    const own = this.addresses
      .ofPort(this.config.wan.port)
      .find((one) => one.family === 6 && isLinkLocal(one.words[0]));
    if (input === 'link up' && own !== undefined && isUsable(own))
      this.turn('v6', 'link-local ready', formatIpv6(...own.words), out);
  }

  /** What was told, as an input of the table. */
  private hear(told: Told, out: Action[]): void {
    const { name, data } = told;
    const { wan, lan } = this.config;
    if (name === 'nd.ready') {
      const words = parseIpv6(String(data.address));
      if (words === null) return;
      if (data.port === wan.port && isLinkLocal(words[0]))
        this.turn('v6', 'link-local ready', String(data.address), out);
      else if (lan.some(({ port }) => port === data.port) && this.numbered.has(`${data.port} ${data.address}`))
        this.turn('v6', 'lan ready', String(data.address), out);
      return;
    }
    if (name === 'nd.duplicate' && data.port === wan.port && data.disables === true) {
      this.turn('v6', 'duplicate', `${data.mac} has our address`, out);
      return;
    }
    if (data.port !== wan.name) return;
    switch (name) {
      case 'ra.router':
        if (Number(data.lifetime) === 0) break;
        this.router = `${data.router}, M ${Number(data.managed)} O ${Number(data.other)}`;
        this.turn('v6', 'router', this.router, out);
        break;
      case 'ra.lost':
        this.router = '';
        this.turn('v6', 'router lost', 'no router is left', out);
        break;
      case 'dhcp6.bound':
      case 'dhcp6.deprecated':
        this.leased(told, out);
        break;
      case 'dhcp6.lost':
        this.lost(told, out);
        break;
      case 'dhcp4.bound':
        this.turn('v4', 'leased', `${data.address}/${data.prefixLength}, router ${data.router}`, out);
        break;
      case 'dhcp4.lost':
        this.turn('v4', 'lease lost', 'the lease is over', out);
        break;
    }
  }

  private leased({ name, data }: Told, out: Action[]): void {
    const prefixes = delegatedOf(data.prefixes, this.now);
    if (name === 'dhcp6.bound') {
      this.delegated = prefixes;
      this.hasAddress = Array.isArray(data.addresses) && data.addresses.length > 0;
    } else
      for (const prefix of this.delegated)
        if (prefixes.some((one) => sameWords(one.words, prefix.words))) prefix.preferred = 0;
    const texts = this.delegated.map(({ words, prefixLength }) => formatCidr(6, words, prefixLength));
    const address = this.hasAddress ? '' : ', no address of its own';
    if (texts.length > 0) this.turn('v6', 'leased', `${texts.join(', ')}${address}`, out);
  }

  private lost({ data }: Told, out: Action[]): void {
    const gone = delegatedOf(data.prefixes, this.now);
    this.delegated = this.delegated.filter(({ words }) => !gone.some((one) => sameWords(one.words, words)));
    if (gone.length === 0) return;
    if (this.delegated.length === 0) this.turn('v6', 'lease lost', String(data.reason), out);
    else this.number(out);
  }

  private turn(family: 'v4' | 'v6', input: Input, why: string, out: Action[]): void {
    const from = this.states[family];
    const row = (family === 'v6' ? IPV6 : IPV4)[from][input];
    if (row === undefined) return;
    this.states[family] = row.next;
    if (row.next !== from) {
      out.push({
        kind: 'log',
        level: 'info',
        message: `gateway: IP${family} ${from} → ${row.next}: ${input} (${why})`,
      });
      out.push({ kind: 'event', name: 'gateway.state', data: { family, from, to: row.next, why } });
    }
    for (const deed of row.deeds) this.perform(deed, out);
    if (row.next === 'soliciting' && this.router !== '') this.turn('v6', 'router', this.router, out);
  }

  private perform(deed: Deed, out: Action[]): void {
    switch (deed) {
      case 'start dhcp6':
        out.push({ kind: 'event', name: 'dhcp6.start', data: { port: this.config.wan.name } });
        break;
      case 'number lan':
        this.number(out);
        break;
      case 'withdraw lan':
        this.delegated = [];
        this.number(out);
        break;
    }
  }

  /** Seconds that are left of a time of a prefix: it was told when the lease came (RFC 9096 L-15). */
  private left({ at }: Delegated, seconds: number | null): number | null {
    return seconds === null ? null : Math.max(0, seconds - ((this.now - at) | 0) / 1000);
  }

  /** Makes the ports' addresses what the delegated prefixes say. */
  private number(out: Action[]): void {
    const wanted = new Map<string, Numbered & { preferred: number | null; valid: number | null }>();
    const prefixes: { prefix: string; valid: number | null }[] = [];
    for (const one of this.delegated) {
      const { words, prefixLength } = one;
      const preferred = this.left(one, one.preferred);
      const valid = this.left(one, one.valid);
      if (valid === 0) continue;
      prefixes.push({
        prefix: formatCidr(6, words, prefixLength),
        valid: valid === null ? null : Math.floor(valid),
      });
      const want = (port: number, name: string, address: Words, length: number): void => {
        const key = `${port} ${formatIpv6(...address)}`;
        const deprecated = preferred === 0;
        wanted.set(key, { port, name, words: address, prefixLength: length, deprecated, preferred, valid });
      };
      const room = prefixLength > 64 ? 0 : 2 ** Math.min(16, 64 - prefixLength);
      this.config.lan.forEach(({ port, name }, n) => {
        if (n >= room) {
          const text = `gateway: ${formatIpv6(...words)}/${prefixLength} has no subnet for port ${name}`;
          out.push({ kind: 'log', level: 'warn', message: text });
          return;
        }
        const at = this.interfaces.at(port);
        const id = eui64(this.interfaces.words[at + IF_MAC_LO], this.interfaces.words[at + IF_MAC_HI]);
        want(port, name, compose(subnet(words, n), id), 64);
      });
      // Row E4: without an address of its own the router is the first one of its prefix.
      if (!this.hasAddress && room > 0) {
        const { port, name } = this.config.wan;
        want(port, name, [words[0], words[1], words[2], words[3] | 0x01000000], 128);
      }
    }
    for (const [key, old] of this.numbered)
      if (!wanted.has(key)) {
        this.numbered.delete(key);
        this.say('remove', old, {}, out);
      }
    for (const [key, one] of wanted) {
      const known = this.numbered.get(key);
      this.numbered.set(key, one);
      const times = {
        ...(one.preferred === null ? {} : { preferred: Math.floor(one.preferred * 1000) }),
        ...(one.valid === null ? {} : { valid: Math.floor(one.valid * 1000) }),
      };
      this.say('add', one, times, out, known !== undefined);
      if (one.deprecated) this.say('deprecate', one, {}, out, known?.deprecated === true);
    }
    const ports = this.config.lan.map(({ port }) => port);
    out.push({ kind: 'event', name: 'gateway.prefixes', data: { ports, prefixes } });
    for (const { port, words } of wanted.values()) {
      // Kept from before, and tested then.
      const own = port === this.config.wan.port ? undefined : this.addresses.find(port, 6, words);
      if (own !== undefined && isUsable(own)) this.turn('v6', 'lan ready', formatIpv6(...words), out);
    }
  }

  private say(
    op: 'add' | 'deprecate' | 'remove',
    { port, name, words, prefixLength }: Numbered,
    times: { preferred?: number; valid?: number },
    out: Action[],
    known = false,
  ): void {
    out.push({ kind: 'address', op, port, family: 6, words, prefixLength, ...times });
    if (known) return;
    const address = formatIpv6(...words);
    out.push({ kind: 'log', level: 'info', message: `gateway: ${name}: ${op} ${address}/${prefixLength}` });
    out.push({ kind: 'event', name: 'gateway.lan', data: { port: name, address, prefixLength, op } });
  }
}

/** Subnet n of a prefix of at most 64 bits: n counts in the bits behind the prefix. */
function subnet(prefix: Words, n: number): Words {
  const bytes = addressBytes(6, prefix);
  bytes[6] |= n >> 8;
  bytes[7] |= n & 0xff;
  return networkWords(6, addressFromBytes(6, bytes), 64);
}

function delegatedOf(list: unknown, at: number): Delegated[] {
  const found: Delegated[] = [];
  for (const item of Array.isArray(list) ? list : []) {
    const cidr = parseCidr(String(item.prefix));
    const { preferred = null, valid = null } = item as { preferred?: number | null; valid?: number | null };
    if (cidr?.family === 6) found.push({ words: cidr.words, prefixLength: cidr.prefixLength, preferred, valid, at });
  }
  return found;
}

function sameWords(a: Words, b: Words): boolean {
  return a.every((word, n) => word === b[n]);
}
