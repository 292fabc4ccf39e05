/**
 * Services: the protocols that the configuration asks for, beside ARP, ND and echo which every router has.
 *
 * One function, so that what a router runs can be read in one place. Nothing is made when the router is to be quiet
 * (replay, embedding without `unasked`): all of these speak without being asked.
 */
import { NUD_FAILED } from '../dataplane/neighbours.ts';
import { NH_CONNECTED, NH_GROUP, NH_PORT_WORD, NH_VIA } from '../dataplane/nexthops.ts';
import type { Tables } from '../dataplane/tables.ts';
import type { Family, Words } from '../dataplane/wire/address.ts';
import type { Config, PortConfig } from './config/index.ts';
import type { Control } from './control.ts';
import { Dhcp4Client } from './dhcp4/client.ts';
import { CLIENT_PORT, SERVER_PORT } from './dhcp4/message.ts';
import { Dhcp4Relay } from './dhcp4/relay.ts';
import { Dhcp4Server } from './dhcp4/server.ts';
import { DNS_PORT, DnsForwarder } from './dns/forwarder.ts';
import { Gateway } from './gateway/gateway.ts';
import type { Protocol } from './protocol.ts';
import { RaReceiver } from './ra/receiver.ts';
import { RaSender } from './ra/sender.ts';
import type { RandomSource } from './random.ts';

const NOWHERE: Words = [0, 0, 0, 0];
const UDP = 17;

/** The protocols of a configuration, in the order in which they are stepped. */
export function createServices(control: Control, config: Config, random: RandomSource): Protocol[] {
  const { tables, addresses } = control;
  const protocols: Protocol[] = [];
  const hearing = chosen(config, (port) => port.acceptRa);
  if (hearing.size > 0)
    protocols.push(
      new RaReceiver(tables.interfaces, addresses, hearing, {
        random,
        isDead: (port, router) => {
          const n = control.nd.cache.find(port, router);
          return n >= 0 && control.nd.cache.stateOf(n) === NUD_FAILED;
        },
      }),
    );
  const telling = chosen(config, (port) => port.ra);
  if (telling.size > 0)
    protocols.push(
      new RaSender(tables.interfaces, addresses, telling, {
        random,
        hasDefault: () => control.routes.get(6, NOWHERE, 0) !== 0,
      }),
    );
  const clients = chosen(config, (port) => port.dhcp4?.client ?? null);
  if (clients.size > 0) {
    tables.setService(UDP, CLIENT_PORT, true);
    protocols.push(new Dhcp4Client(tables.interfaces, clients, { random }));
  }
  const servers = chosen(config, (port) => port.dhcp4?.server ?? null);
  const relays = chosen(config, (port) => port.dhcp4?.relay ?? null);
  if (servers.size + relays.size > 0) tables.setService(UDP, SERVER_PORT, true);
  if (servers.size > 0)
    protocols.push(new Dhcp4Server(tables.interfaces, addresses, servers, { answersNames: config.dns !== null }));
  if (relays.size > 0) protocols.push(new Dhcp4Relay(tables.interfaces, addresses, relays));
  if (config.dns !== null) {
    tables.setService(UDP, DNS_PORT, true);
    protocols.push(
      new DnsForwarder(addresses, config.dns, {
        random,
        listen: (port, on) => tables.setService(UDP, port, on),
        routeTo: ({ family, words }) => egressOf(tables, family, words),
      }),
    );
  }
  if (config.gateway !== null) protocols.push(new Gateway(tables.interfaces, addresses, config.gateway));
  return protocols;
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
