/**
 * Describe: what the services of a family have to tell about themselves, as plain data: made in the domain's thread, shown in
 * another (controlplane/show/services.ts). Times are seconds from now; null: for ever. DHCPv6 has dhcp6/describe.ts.
 */
import { Dhcp4Server } from './dhcp4/server.ts';
import { Gateway } from './gateway/gateway.ts';
import type { State } from './gateway/table.ts';
import type { Protocol } from './protocol.ts';
import { RaReceiver } from './ra/receiver.ts';
import { RaSender } from './ra/sender.ts';

/** A lease of the router's DHCP server that is in force; `remoteId`: option 82.2 in hexadecimal, '' none. */
export interface Lease4Json {
  address: string;
  dev: string;
  client: string;
  mac: string;
  remoteId: string;
  hostName: string;
  state: string;
  valid: number;
}

/** Router advertisements: what is sent by which port, and what routers on others have said. */
export interface RaJson {
  /** `withdrawn`: prefixes that are announced with lifetimes of 0, until no host can still have them. */
  senders: { dev: string; prefixes: string[]; withdrawn: string[] }[];
  /** A line for each prefix that a router leads to; ::/0: it is a default router. */
  routers: { dev: string; router: string; prefix: string; preference: string; valid: number | null }[];
  sent: Record<string, number>;
  received: Record<string, number>;
}

/** One family's half of the gateway, and the addresses that ports have of what was delegated. */
export interface GatewayHalfJson {
  state: State;
  subnets: { dev: string; address: string; deprecated: boolean }[];
}

type Class<T> = abstract new (...args: never[]) => T;

/** The protocol of this kind; null: the configuration does not ask for it. */
export function protocolOf<T extends Protocol>(protocols: readonly Protocol[], kind: Class<T>): T | null {
  return protocols.find((protocol): protocol is T => protocol instanceof kind) ?? null;
}

/** @param now the router's clock   @param names of the ports by number */
export function describeLeases4(
  protocols: readonly Protocol[],
  now: number,
  names: readonly string[],
): Lease4Json[] | null {
  const server = protocolOf(protocols, Dhcp4Server);
  if (server === null) return null;
  return [...server.ports()].flatMap((port) =>
    server.leases(now, port).map(({ seconds, ...lease }) => ({ ...lease, dev: names[port], valid: seconds })),
  );
}

/** @param now the router's clock   @param names of the ports by number */
export function describeRa(protocols: readonly Protocol[], now: number, names: readonly string[]): RaJson | null {
  const sender = protocolOf(protocols, RaSender);
  const receiver = protocolOf(protocols, RaReceiver);
  if (sender === null && receiver === null) return null;
  return {
    senders: (sender?.view() ?? []).map(({ port, ...said }) => ({ dev: names[port], ...said })),
    routers: (receiver?.view(now) ?? []).map(({ port, ...heard }) => ({ dev: names[port], ...heard })),
    sent: { ...sender?.counters },
    received: { ...receiver?.counters },
  };
}

/** @param family of the domain */
export function describeGateway(protocols: readonly Protocol[], family: 4 | 6): GatewayHalfJson | null {
  const gateway = protocolOf(protocols, Gateway);
  return gateway && { state: gateway.states[family === 4 ? 'v4' : 'v6'], subnets: gateway.subnets() };
}
