/**
 * Protocol: the shape of everything in the control plane that speaks on the wire.
 *
 * A protocol has no timers and no sockets: it is stepped with the router's clock and an event, and answers with
 * actions. So it runs the same inline under a virtual clock, in a replay and live. It must not keep the event's
 * frame after it returns.
 */

export type Event =
  /** A frame that the path punted: the whole Ethernet frame; `l3` is where the IP or ARP header begins in it. */
  | { kind: 'frame'; port: number; frame: Uint8Array; etherType: number; l3: number }
  /** The path wants a neighbour that is unknown or not usable; address raw (IPv4: word 0). */
  | { kind: 'resolve'; port: number; family: 4 | 6; address: readonly [number, number, number, number] }
  /** The path used a STALE neighbour (record number). */
  | { kind: 'used'; neighbour: number }
  | { kind: 'link'; port: number; up: boolean }
  /** Time has passed; sent no later than the time that `next` asked for. */
  | { kind: 'tick' };

export type Action =
  /** A complete Ethernet frame, to be sent as it is. */
  | { kind: 'send'; port: number; frame: Uint8Array }
  /** An IP packet of the router's own (no link header): enters the path at `output`. */
  | { kind: 'output'; packet: Uint8Array }
  /** Something a person may want to know. */
  | { kind: 'log'; level: 'info' | 'warn'; message: string };

export interface Protocol {
  readonly name: string;
  /** `now`: the router's clock, int32 milliseconds since start (wraps: compare by difference). */
  step(now: number, event: Event): Action[];
  /** Milliseconds from `now` until this protocol wants a tick; −1 when it waits for nothing. */
  next(now: number): number;
}
