/**
 * Services: the protocols that the configuration asks for, beside ARP, ND and echo which every router has, domain by domain
 * (domain.ts), so that what a router runs can be read in one place.
 *
 * But for DHCPv6, which then keeps silent by itself, nothing is made when the router is to be quiet (replay, embedding
 * without `unasked`): all of these speak without being asked.
 */
import { NUD_FAILED } from '../dataplane/neighbours.ts';
import { NH_CONNECTED, NH_GROUP, NH_PORT_WORD, NH_VIA } from '../dataplane/nexthops.ts';
import type { Tables } from '../dataplane/tables.ts';
import type { Family, Words } from '../dataplane/wire/address.ts';
import type { Config, PortConfig } from './config/index.ts';
import { Dhcp4Client } from './dhcp4/client.ts';
import { CLIENT_PORT, SERVER_PORT } from './dhcp4/message.ts';
import { Dhcp4Relay } from './dhcp4/relay.ts';
import { Dhcp4Server } from './dhcp4/server.ts';
import { CLIENT_PORT as DHCP6_CLIENT_PORT, SERVER_PORT as DHCP6_SERVER_PORT } from './dhcp6/constants.ts';
import { Dhcp6 } from './dhcp6/index.ts';
import { DnsForwarder } from './dns/forwarder.ts';
import { DNS_PORT } from './dns/wire.ts';
import type { Domain, DomainParts } from './domain.ts';
import { Gateway } from './gateway/gateway.ts';
import type { Protocol } from './protocol.ts';
import { RaReceiver } from './ra/receiver.ts';
import { RaSender } from './ra/sender.ts';
import { policyInForce } from './select-source.ts';
import { TCP } from './tcp/segment.ts';

const UDP = 17;

/** What a family speaks beside neighbour discovery and ping, in the order in which it is stepped. */
export function familyServices(domain: Domain, parts: DomainParts): { protocols: Protocol[]; dhcp6: Dhcp6 | null } {
  const protocols = parts.quiet ? [] : domain.family === 4 ? ipv4Services(parts) : ipv6Services(domain, parts);
  const { tables, addresses, config } = parts;
  if (domain.family === 4 || !Dhcp6.isWanted(config)) return { protocols, dhcp6: null };
  const dhcp6 = new Dhcp6(tables.interfaces, addresses, config, { ...parts, now: tables.now() });
  return { protocols: [...protocols, dhcp6], dhcp6 };
}

function ipv4Services({ tables, addresses, config, random, wall, log, kept }: DomainParts): Protocol[] {
  const protocols: Protocol[] = [];
  const clients = chosen(config, (port) => port.dhcp4?.client ?? null);
  if (clients.size > 0) protocols.push(new Dhcp4Client(tables.interfaces, clients, { random }));
  const servers = chosen(config, (port) => port.dhcp4?.server ?? null);
  if (servers.size > 0)
    protocols.push(
      new Dhcp4Server(tables.interfaces, addresses, servers, {
        answersNames: config.dns !== null,
        now: tables.now(),
        wall,
        log,
        kept,
      }),
    );
  const relays = chosen(config, (port) => port.dhcp4?.relay ?? null);
  if (relays.size > 0) protocols.push(new Dhcp4Relay(tables.interfaces, addresses, relays));
  const { gateway } = config;
  if (gateway !== null && gateway.mode !== 'v6')
    protocols.push(new Gateway(tables.interfaces, addresses, { ...gateway, mode: 'v4' }));
  return protocols;
}

function ipv6Services({ cache }: Domain, { tables, addresses, config, random }: DomainParts): Protocol[] {
  const protocols: Protocol[] = [];
  const hearing = chosen(config, (port) => port.acceptRa);
  if (hearing.size > 0)
    protocols.push(
      new RaReceiver(tables.interfaces, addresses, hearing, {
        random,
        isDead: (port, router) => {
          const n = cache.find(port, router);
          return n >= 0 && cache.stateOf(n) === NUD_FAILED;
        },
      }),
    );
  const telling = chosen(config, (port) => port.ra);
  if (telling.size > 0)
    protocols.push(
      new RaSender(tables.interfaces, addresses, telling, {
        random,
        hasDefault: () => tables.hasDefault(6),
        translates: config.nat.nptv6.length > 0,
      }),
    );
  const { gateway } = config;
  if (gateway !== null && gateway.mode !== 'v4')
    protocols.push(new Gateway(tables.interfaces, addresses, { ...gateway, mode: 'v6' }));
  return protocols;
}

/** What has no family of its own. */
export function managementServices({ tables, addresses, config, quiet, random, kept }: DomainParts): Protocol[] {
  if (config.dns === null || quiet) return [];
  return [
    new DnsForwarder(addresses, config.dns, {
      random,
      listen: (proto, port, on) => tables.setService(proto, port, on),
      routeTo: ({ family, words }) => egressOf(tables, family, words),
      policy: () => policyInForce(config.addressSelection, addresses),
      now: tables.now(),
      kept,
    }),
  ];
}

/**
 * Ports of UDP and TCP that the path is to hand to the control plane, and only these; those of the questions that it asks come
 * and go.
 */
export function openServices(tables: Tables, config: Config, quiet: boolean): void {
  const set = (on: boolean, proto: typeof TCP | typeof UDP, ...ports: number[]): void => {
    for (const port of ports) tables.setService(proto, port, on);
  };
  set(Dhcp6.isWanted(config), UDP, DHCP6_CLIENT_PORT, DHCP6_SERVER_PORT);
  set(!quiet && config.ports.some(({ dhcp4 }) => dhcp4?.client), UDP, CLIENT_PORT);
  set(!quiet && config.ports.some(({ dhcp4 }) => dhcp4?.server || dhcp4?.relay), UDP, SERVER_PORT);
  for (const proto of [UDP, TCP] as const) set(!quiet && config.dns !== null, proto, DNS_PORT);
}

/** The port by which a packet of the router's own leaves towards an address; −1: there is no route. */
function egressOf(tables: Tables, family: Family, words: Words): number {
  const { routes, nexthops } = tables;
  const found = family === 4 ? routes.lookup4(words[0]) : routes.lookup6(words[0], words[1], words[2], words[3]);
  const n = found !== 0 && nexthops.kind(found) === NH_GROUP ? nexthops.select(found, words[3]) : found;
  if (n === 0 || (nexthops.kind(n) !== NH_VIA && nexthops.kind(n) !== NH_CONNECTED)) return -1;
  return nexthops.words[nexthops.at(n) + NH_PORT_WORD];
}

/** True when the port takes part in IPv6 without an address in its configuration: it needs a link-local one. */
export function speaksIpv6(port: PortConfig): boolean {
  const { addresses, ra, acceptRa, dhcp6 } = port;
  return addresses.some(({ family }) => family === 6) || ra !== null || acceptRa !== null || dhcp6 !== null;
}

/** What a choice gives for each port that has it, by port number. */
function chosen<T>(config: Config, choose: (port: PortConfig) => T | null): Map<number, T> {
  const map = new Map<number, T>();
  for (const port of config.ports) {
    const one = choose(port);
    if (one !== null) map.set(port.number, one);
  }
  return map;
}
