/**
 * Security groups: whose addresses are whose on the ports that have one (row F4), kept in step with the configuration,
 * the port's own prefixes, and what DHCP, DHCPv6 and its relay give and take back.
 *
 * A station has its link-local address made of its MAC; addresses made of its MAC in the port's prefixes of 64 bits; what
 * the configuration lists under its MAC; leases and delegated prefixes. A DHCPv6 client is known by its link-local
 * address: only the station whose it is can have sent from it, so that its MAC follows from it.
 *
 * Not here: the check itself (dataplane/path-source.ts), leases that another router's DHCPv4 relay has carried.
 */
import { type Binding, type BindingTable, BindingWriter } from '../dataplane/bindings.ts';
import {
  type Family,
  formatCidr,
  type Mac,
  networkWords,
  parseAddress,
  parseCidr,
  parseMac,
  type Words,
} from '../dataplane/wire/address.ts';
import { isLinkLocal } from '../dataplane/wire/ipv6.ts';
import type { Config } from './config/index.ts';
import { untilFirst } from './deadlines.ts';
import type { Addresses } from './neighbour/addresses.ts';
import type { Action, Event, Protocol, Told } from './protocol.ts';
import { macOfEui64 } from './ra/identifiers.ts';

/** Bindings that the router has room for when a port has a security group. */
const MAX_BINDINGS = 16384;
const LINK_LOCAL: Words = [0x80fe, 0, 0, 0];

/** Room in the table of bindings that a configuration needs (dataplane/tables.ts). */
export function bindingSizes(config: Config): { bindings: number } {
  return { bindings: config.ports.some((port) => port.securityGroup !== null) ? MAX_BINDINGS : 0 };
}

interface Leased extends Binding {
  mac: Mac;
  /** End on the router's clock; null: until it is taken back. */
  until: number | null;
}

export class SecurityGroups implements Protocol {
  readonly name = 'security-group';
  private readonly writer: BindingWriter;
  private readonly addresses: Addresses;
  private config: Config;
  private ports: ReadonlyMap<string, number> = new Map();
  /** Bindings of configuration and prefixes, by name; and of leases, by port and prefix. */
  private fixed = new Map<string, Binding>();
  private readonly leased = new Map<string, Leased>();
  private seen = -1;

  constructor(table: BindingTable, addresses: Addresses, config: Config) {
    this.writer = new BindingWriter(table);
    this.addresses = addresses;
    this.config = config;
    this.configure(config);
  }

  /** Another configuration is in force. */
  configure(config: Config): void {
    this.config = config;
    this.ports = new Map(config.ports.map((port) => [port.name, port.number]));
    for (const [key, { port }] of this.leased) if (!this.takesLeases(port)) this.end(key);
    this.seen = -1;
    this.follow();
  }

  step(now: number, event: Event): Action[] {
    const refused: string[] = [];
    if (event.kind === 'event') this.hear(now, event, refused);
    for (const [key, { until }] of this.leased) if (until !== null && ((until - now) | 0) <= 0) this.end(key);
    if (this.seen !== this.addresses.version) this.follow(refused);
    return refused.map((message) => ({ kind: 'log', level: 'warn', message: `security-group: ${message}` }));
  }

  next(now: number): number {
    return untilFirst(this.leased.values(), now);
  }

  /** All bindings of a port as people read them: `2001:db8::/60 52:54:00:…`. */
  ofPort(port: number): Binding[] {
    return [...this.fixed.values(), ...this.leased.values()].filter((binding) => binding.port === port);
  }

  private takesLeases(port: number): boolean {
    return this.config.ports[port]?.securityGroup?.leases === true;
  }

  private hear(now: number, { name, data }: Told, refused: string[]): void {
    const port = this.ports.get(String(data.port));
    if (port === undefined || !this.takesLeases(port)) return;
    if (name === 'dhcp4.lease' || name === 'dhcp4.released') {
      const address = parseAddress(String(data.address));
      const mac = parseMac(String(data.mac));
      if (address === null || mac === null) return;
      const key = keyOf(port, 4, address.words, 32);
      if (name === 'dhcp4.released') {
        this.end(key);
        return;
      }
      const until = (now + Number(data.seconds) * 1000) | 0;
      this.put(key, { port, family: 4, words: address.words, prefixLength: 32, mac, until }, refused);
    } else if (name === 'dhcp6.delegated' || name === 'dhcp6.withdrawn') {
      const prefix = parseCidr(String(data.prefix));
      const via = typeof data.via === 'string' ? parseAddress(data.via) : null;
      if (prefix === null || via === null) return;
      const { words, prefixLength } = prefix;
      const key = keyOf(port, 6, words, prefixLength);
      const mac = name === 'dhcp6.withdrawn' ? null : this.stationOf(port, via.words);
      if (mac !== null) this.put(key, { port, family: 6, words, prefixLength, mac, until: null }, refused);
      else this.end(key);
      if (mac === null && name !== 'dhcp6.withdrawn')
        refused.push(`no station is known to be ${data.via}: what it was given (${data.prefix}) stays closed`);
    }
  }

  /** A lease has come; one that is renewed stays where it is, so that no packet meanwhile finds it gone. */
  private put(key: string, binding: Leased, refused: string[]): void {
    const before = this.leased.get(key);
    if (before !== undefined && nameOf(before) !== nameOf(binding)) this.end(key);
    const why = this.writer.add(binding);
    if (why === null) this.leased.set(key, binding);
    else refused.push(`${formatCidr(binding.family, binding.words, binding.prefixLength)}: ${why}`);
  }

  /** What the configuration gives to the same station stays. */
  private end(key: string): void {
    const lease = this.leased.get(key);
    if (lease === undefined) return;
    this.leased.delete(key);
    if (!this.fixed.has(nameOf(lease))) this.writer.remove(lease);
  }

  /** Whose a link-local address is: made of a MAC, or listed under one. */
  private stationOf(port: number, linkLocal: Words): Mac | null {
    const made = macOfEui64([linkLocal[2], linkLocal[3]]);
    if (made !== null) return made;
    const hosts = this.config.ports[port].securityGroup?.hosts ?? [];
    const is = (words: Words) => words.every((word, n) => word === linkLocal[n]);
    return hosts.find(({ addresses }) => addresses.some(({ words }) => is(words)))?.mac ?? null;
  }

  /** Bindings of the configuration and of the prefixes that ports have now take the place of those before. */
  private follow(refused: string[] = []): void {
    this.seen = this.addresses.version;
    const next = new Map<string, Binding>();
    const want = (binding: Binding): void => void next.set(nameOf(binding), binding);
    for (const { number: port, securityGroup: group } of this.config.ports) {
      if (group === null) continue;
      want({ port, family: 6, words: LINK_LOCAL, prefixLength: 64, mac: null });
      for (const { mac, addresses } of group.hosts)
        for (const { family, words, prefixLength } of addresses) want({ port, family, words, prefixLength, mac });
      if (!group.eui64) continue;
      for (const { family, words, prefixLength } of this.addresses.ofPort(port))
        if (family === 6 && prefixLength === 64 && !isLinkLocal(words[0]))
          want({ port, family, words: networkWords(6, words, 64), prefixLength, mac: null });
    }
    const leased = new Set([...this.leased.values()].map(nameOf));
    for (const [name, binding] of this.fixed) if (!next.has(name) && !leased.has(name)) this.writer.remove(binding);
    this.fixed = next;
    for (const binding of next.values()) {
      const why = this.writer.add(binding);
      if (why !== null) refused.push(`${formatCidr(binding.family, binding.words, binding.prefixLength)}: ${why}`);
    }
  }
}

function keyOf(port: number, family: Family, words: Words, prefixLength: number): string {
  return [port, family, ...words, prefixLength].join();
}

function nameOf({ port, family, words, prefixLength, mac }: Binding): string {
  return [keyOf(port, family, words, prefixLength), mac?.lo, mac?.hi].join();
}
