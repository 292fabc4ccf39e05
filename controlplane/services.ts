/**
 * Services: the protocols that the configuration asks for, beside ARP, ND and echo which every router has.
 *
 * One function, so that what a router runs can be read in one place. Nothing is made when the router is to be quiet
 * (replay, embedding without `unasked`): all of these speak without being asked.
 */
import { NUD_FAILED } from '../dataplane/neighbours.ts';
import type { Words } from '../dataplane/wire/address.ts';
import type { Config, PortConfig } from './config/index.ts';
import type { Control } from './control.ts';
import type { Protocol } from './protocol.ts';
import { RaReceiver } from './ra/receiver.ts';
import { RaSender } from './ra/sender.ts';
import type { RandomSource } from './random.ts';

const NOWHERE: Words = [0, 0, 0, 0];

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
  return protocols;
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
