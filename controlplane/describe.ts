/**
 * Describe: what the services of a family have to tell about themselves, as plain data: made in the domain's thread, shown in
 * another (controlplane/show/services.ts). Times are seconds from now; null: for ever. DHCPv6 has dhcp6/describe.ts.
 */
import { Dhcp4Server } from './dhcp4/server.ts';
import type { Dhcp6 } from './dhcp6/index.ts';
import { DECLINED } from './dhcp6/leases.ts';
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

/** What a family's services have, for the metrics: a few numbers, however much there is. */
export interface CountsJson {
  /** Leases in force of the family's server, by the port that it serves; '': of DHCPv6 clients behind relays. */
  leases: Record<string, number>;
  /** Null: the router is no gateway of this family. */
  gateway: State | null;
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

/** @param now the router's clock   @param names of the ports by number */
export function describeCounts(
  protocols: readonly Protocol[],
  family: 4 | 6,
  dhcp6: Dhcp6 | null,
  now: number,
  names: readonly string[],
): CountsJson {
  const leases: Record<string, number> = {};
  const server = protocolOf(protocols, Dhcp4Server);
  for (const port of server?.ports() ?? []) leases[names[port]] = server?.leases(now, port).length ?? 0;
  for (const { port } of dhcp6?.servers ?? []) leases[names[port]] = 0;
  for (const { client, port } of dhcp6?.delegation.leases ?? [])
    if (client !== DECLINED) leases[port] = (leases[port] ?? 0) + 1;
  return { leases, gateway: describeGateway(protocols, family)?.state ?? null };
}

/** @param family of the domain */
export function describeGateway(protocols: readonly Protocol[], family: 4 | 6): GatewayHalfJson | null {
  const gateway = protocolOf(protocols, Gateway);
  return gateway && { state: gateway.states[family === 4 ? 'v4' : 'v6'], subnets: gateway.subnets() };
}
