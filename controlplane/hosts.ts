/**
 * Hosts: the addresses that a station named in `hosts` has now (row F6), and rules, port forwards and the DMZ with these in
 * place of its name.
 *
 * In IPv6, one address in each prefix of 64 bits that its port has, made of its interface identifier; without one, of its
 * MAC (modified EUI-64): these last, while temporary addresses (RFC 8981) are gone tomorrow, and are never taken. Beside
 * them what DHCPv6 has given to the MAC. In IPv4, its lease, its reservation, or its static neighbour entry. So the rules
 * follow a prefix that changes, and hold for the deprecated one until it is taken away.
 *
 * Not here: hosts that neither use their EUI-64 address nor a fixed identifier; nobody can tell which address will stay.
 */

import {
  type Family,
  formatCidr,
  inPrefix,
  type Mac,
  macBytes,
  networkWords,
  parseAddress,
  parseCidr,
  parseMac,
  type Words,
} from '../dataplane/wire/address.ts';
import { rawOrder } from '../dataplane/wire/bytes.ts';
import { isLinkLocal } from '../dataplane/wire/ipv6.ts';
import type { HostConfig } from './config/hosts.ts';
import type { AddressValue, Config, PrefixValue } from './config/index.ts';
import { untilFirst } from './deadlines.ts';
import { reservationKey } from './dhcp4/served.ts';
import type { Addresses } from './neighbour/addresses.ts';
import type { Action, Event, Protocol, Told } from './protocol.ts';
import { compose, eui64, macOfEui64 } from './ra/identifiers.ts';

interface Leased {
  port: number;
  mac: Mac;
  address: PrefixValue;
  /** End on the router's clock; null: until it is taken back. */
  until: number | null;
}

export class Hosts implements Protocol {
  readonly name = 'hosts';
  private readonly addresses: Addresses;
  private config: Config;
  /** Called when a host has other addresses than before. */
  private readonly changed: () => void;
  private readonly leased = new Map<string, Leased>();
  private seen = -1;
  private known = '';

  constructor(addresses: Addresses, config: Config, changed: () => void) {
    this.addresses = addresses;
    this.config = config;
    this.changed = changed;
  }

  /** Another configuration is in force; the caller resolves it. */
  configure(config: Config): void {
    this.config = config;
    this.seen = -1;
  }

  step(now: number, event: Event): Action[] {
    if (event.kind === 'event' && this.hear(now, event)) this.seen = -1;
    for (const [key, { until }] of this.leased)
      if (until !== null && ((until - now) | 0) <= 0 && this.leased.delete(key)) this.seen = -1;
    if (this.seen === this.addresses.version || this.config.hosts.length === 0) return [];
    this.seen = this.addresses.version;
    const before = this.known;
    this.known = this.snapshot();
    if (this.known !== before) this.changed();
    return [];
  }

  next(now: number): number {
    return untilFirst(this.leased.values(), now);
  }

  /** The configuration with addresses for names; rules and forwards for a host that has none now are left out. */
  resolve(config: Config): Config {
    if (config.hosts.length === 0) return config;
    this.known = this.snapshot();
    const of = (names: readonly string[]): PrefixValue[] =>
      config.hosts.filter(({ name }) => names.includes(name)).flatMap((host) => this.ofHost(config, host));
    const four = (name: string): AddressValue | undefined => of([name]).find(({ family }) => family === 4);
    const rules = config.rules.flatMap((rule) => {
      const [src, dst] = [of(rule.srcHosts), of(rule.dstHosts)];
      if ((rule.srcHosts.length > 0 && src.length === 0) || (rule.dstHosts.length > 0 && dst.length === 0)) return [];
      return [{ ...rule, src: [...rule.src, ...src], dst: [...rule.dst, ...dst] }];
    });
    const target = <T extends { to: AddressValue; toHost: string }>(entry: T): T[] => {
      const to = entry.toHost === '' ? entry.to : four(entry.toHost);
      return to === undefined ? [] : [{ ...entry, to }];
    };
    const { forward, dmz } = config.nat;
    return { ...config, rules, nat: { ...config.nat, forward: forward.flatMap(target), dmz: dmz.flatMap(target) } };
  }

  private snapshot(): string {
    const { config } = this;
    return config.hosts.map((host) => this.ofHost(config, host).map(({ text }) => text)).join(';');
  }

  private ofHost(config: Config, { port, mac, id }: HostConfig): PrefixValue[] {
    const found = new Map<string, PrefixValue>();
    const add = (prefix: PrefixValue): void => void found.set(prefix.text, prefix);
    const identifier = id ?? (mac === null ? null : eui64(mac.lo, mac.hi));
    if (identifier !== null)
      for (const { family, words, prefixLength, state } of this.addresses.ofPort(port))
        if (family === 6 && prefixLength === 64 && state !== 'duplicate' && !isLinkLocal(words[0]))
          add(whole(6, compose(networkWords(6, words, 64), identifier)));
    if (mac === null) return [...found.values()];
    const is = (other: Mac): boolean => other.lo === mac.lo && (other.hi & 0xffff) === (mac.hi & 0xffff);
    const leases = [...this.leased.values()].filter((lease) => lease.port === port && is(lease.mac));
    for (const { address } of leases) add(address);
    if (leases.some(({ address }) => address.family === 4)) return [...found.values()];
    const key = reservationKey('mac', macBytes(mac.lo, mac.hi));
    // It may have one in each subnet that is served; the host is on the port's own link.
    const all = config.ports[port].dhcp4?.server?.reservations.filter((one) => one.key === key) ?? [];
    const four = this.addresses.ofPort(port).filter(({ family }) => family === 4);
    const isHere = (address: number) => four.some((own) => inPrefix([rawOrder(address), 0, 0, 0], own));
    const reserved = all.find(({ address }) => isHere(address)) ?? all.at(0);
    const neighbour = config.neighbors.find((one) => one.port === port && one.ip.family === 4 && is(one.mac));
    if (reserved !== undefined) add(whole(4, [rawOrder(reserved.address), 0, 0, 0]));
    else if (neighbour !== undefined) add(whole(4, neighbour.ip.words));
    return [...found.values()];
  }

  /** True when a lease has come or gone. */
  private hear(now: number, { name, data }: Told): boolean {
    const port = this.config.ports.find((one) => one.name === data.port)?.number;
    if (port === undefined) return false;
    if (name === 'dhcp4.lease' || name === 'dhcp4.released') {
      const address = parseAddress(String(data.address));
      const mac = parseMac(String(data.mac));
      if (address === null || mac === null) return false;
      const key = `${port} ${data.address}`;
      if (name === 'dhcp4.released') return this.leased.delete(key);
      const until = (now + Number(data.seconds) * 1000) | 0;
      this.leased.set(key, { port, mac, address: whole(4, address.words), until });
      return true;
    }
    if (name !== 'dhcp6.delegated' && name !== 'dhcp6.withdrawn') return false;
    const prefix = parseCidr(String(data.prefix));
    const via = typeof data.via === 'string' ? parseAddress(data.via) : null;
    const mac = via === null ? null : macOfEui64([via.words[2], via.words[3]]);
    if (prefix === null || prefix.prefixLength !== 128) return false;
    const key = `${port} ${data.prefix}`;
    if (name === 'dhcp6.withdrawn') return this.leased.delete(key);
    if (mac === null) return false;
    this.leased.set(key, { port, mac, address: whole(6, prefix.words), until: null });
    return true;
  }
}

function whole(family: Family, words: Words): PrefixValue {
  const prefixLength = family === 4 ? 32 : 128;
  return { family, words, prefixLength, text: formatCidr(family, words, prefixLength) };
}
