/**
 * Protocol: the shape of everything in the control plane that speaks on the wire.
 *
 * A protocol has no timers and no sockets: it is stepped with the router's clock and an event, and answers with
 * actions. So it runs the same inline under a virtual clock, in a replay and live. It must not keep the event's
 * frame after it returns.
 */
import type { Family, Words } from '../dataplane/wire/address.ts';

export type Event =
  /** A frame that the path punted: the whole Ethernet frame; `l3` is where the IP or ARP header begins in it. */
  | { kind: 'frame'; port: number; frame: Uint8Array; etherType: number; l3: number }
  /** The path wants a neighbour that is unknown or not usable; address raw (IPv4: word 0). */
  | { kind: 'resolve'; port: number; family: 4 | 6; address: readonly [number, number, number, number] }
  /** The path used a STALE neighbour (record number). */
  | { kind: 'used'; neighbour: number }
  | { kind: 'link'; port: number; up: boolean }
  /** Time has passed; sent no later than the time that `next` asked for. */
  | { kind: 'tick' }
  /** Another protocol has something to tell (its action `event`): a lease came, a prefix changed. */
  | Told;

/** What protocols tell each other and the user's script. `data` is plain JSON: addresses as text, times in seconds. */
export interface Told {
  kind: 'event';
  /** `dhcp6.bound`, `dhcp6.lost` ...: the protocol's name, a dot, a word; each protocol's page in docs/ lists its own. */
  name: string;
  data: Record<string, unknown>;
}

/**
 * The router is about to end: hosts are told (RFC 4861 §6.2.5), leases are given back where the configuration says so. Handled
 * FAREWELLS times (RFC 4861 §10, MAX_FINAL_RTR_ADVERTISEMENTS), some milliseconds apart.
 */
export const STOPPING: Told = { kind: 'event', name: 'router.stop', data: {} };
export const FAREWELLS = 3;

/** Who learned a route. Of several routes to one prefix the first in this order is used; configured ones go before all. */
export type RouteSource = 'pd' | 'dhcp6' | 'dhcp4' | 'ra';

export type Action =
  /** A complete Ethernet frame, to be sent as it is. */
  | { kind: 'send'; port: number; frame: Uint8Array }
  /**
   * An IP packet of the router's own (no link header): enters the path at `output`. `port`: where a link-local destination
   * is; absent: on the port of the frame that is answered.
   */
  | { kind: 'output'; packet: Uint8Array; port?: number }
  /**
   * An address of a port. `add` also changes the lifetimes of one that is there and makes it preferred again; `preferred`
   * and `valid`: milliseconds from now, absent: forever. Who added an address deprecates and removes it in time.
   */
  | {
      kind: 'address';
      op: 'add' | 'remove' | 'deprecate';
      port: number;
      family: Family;
      words: Words;
      prefixLength: number;
      preferred?: number;
      valid?: number;
    }
  /**
   * A route by `via` on `port`; without `via` the prefix is on the link of `port`, or, with `type` unreachable, refused.
   * Several sources may hold routes to one prefix: taking one away brings back the next best.
   */
  | {
      kind: 'route';
      op: 'add' | 'remove';
      family: Family;
      words: Words;
      prefixLength: number;
      via?: Words;
      port: number;
      source: RouteSource;
      type?: 'unreachable';
    }
  /**
   * What the protocol wants to find again when its domain is made anew (domain.ts), by a key of its own; plain data, null:
   * not any more.
   */
  | { kind: 'keep'; key: string; value: unknown }
  | Told
  /** Something a person may want to know. */
  | { kind: 'log'; level: 'info' | 'warn'; message: string };

/** What the domain before wanted to be found again (action `keep`), by key, and how many milliseconds ago. */
export type KeptValues = ReadonlyMap<string, { value: unknown; age: number }>;

export interface Protocol {
  readonly name: string;
  /** `now`: the router's clock, int32 milliseconds since start (wraps: compare by difference). */
  step(now: number, event: Event): Action[];
  /** Milliseconds from `now` until this protocol wants a tick; −1 when it waits for nothing. */
  next(now: number): number;
  /** Gives back what is not memory, before another one takes its place. */
  close?(): void;
}
