/**
 * DHCPv6: one protocol of the control plane for all ports, with a client, a server, a relay or an LDRA on each.
 *
 * Datagrams to port 546 go to the client of the port that they came in by; those to 547 to the server, relay or LDRA of
 * that port, and Relay-replies to whoever relayed: told by interface-id. Where leases are kept in a file, answers wait
 * until the records behind them are on the disk: those of one burst wait together, so that one write serves them all.
 */
import type { InterfaceTable } from '../../dataplane/interfaces.ts';
import { IFF_LDRA } from '../../dataplane/interfaces.ts';
import type { Config } from '../config/index.ts';
import type { Addresses } from '../neighbour/addresses.ts';
import type { Action, Event, KeptValues, Protocol } from '../protocol.ts';
import type { RandomSource } from '../random.ts';
import { TimeOfDay } from '../time-of-day.ts';
import { Client } from './client.ts';
import { CLIENT_PORT, RELAY_REPL, SERVER_PORT } from './constants.ts';
import { Context } from './context.ts';
import type { Counters } from './counters.ts';
import { Delegation } from './delegation.ts';
import { Ldra } from './ldra.ts';
import { type Datagram, readDatagram } from './packet.ts';
import { Relay } from './relay.ts';
import { parseRelay } from './relay-message.ts';
import { Server } from './server.ts';

export interface Dhcp6Options {
  /** Nothing is sent unasked, and no file is written: clients rest, leases are in memory (replay, embedding). */
  quiet: boolean;
  /** The router's clock now. */
  now: number;
  /** Milliseconds since 1970 of a time of the router's clock. */
  wall: (clock: number) => number;
  random: RandomSource;
  log: (level: 'info' | 'warn', message: string) => void;
  /** What the one before wanted to be found again; absent: there was none. */
  kept?: KeptValues;
}

/** Answers that wait for the disk at most: a burst is no longer. */
const MAX_WAITING = 256;

export class Dhcp6 implements Protocol {
  readonly name = 'dhcp6';
  readonly clients: Client[] = [];
  readonly servers: Server[] = [];
  readonly relays: Relay[] = [];
  readonly ldras: Ldra[] = [];
  readonly delegation: Delegation;
  private readonly context: Context;
  private readonly day: TimeOfDay;
  private readonly options: Dhcp6Options;
  /** Answers whose leases are written, but perhaps not on the disk yet. */
  private waiting: Action[] = [];
  /** What the first step says: clients begin, routes of recovered leases come back. */
  private begun = false;
  private resumed: Action[] = [];

  /** When the lease file cannot be used there is no server, which is logged. */
  constructor(interfaces: InterfaceTable, addresses: Addresses, config: Config, options: Dhcp6Options) {
    this.options = options;
    this.day = new TimeOfDay(options.now, options.wall);
    const names = config.ports.map((port) => port.name);
    this.context = new Context(interfaces, addresses, names, () => (options.random() >>> 0) / 0x100000000);
    this.delegation = new Delegation(config.delegation, names);
    for (const { number, dhcp6 } of config.ports) {
      if (dhcp6 === null) continue;
      const { client, server, relay, ldra } = dhcp6;
      if (client !== null) this.clients.push(new Client(this.context, number, client));
      if (server !== null) this.servers.push(new Server(this.context, number, server, this.delegation));
      if (relay !== null) this.relays.push(new Relay(this.context, number, relay));
      if (ldra !== null) {
        this.ldras.push(new Ldra(this.context, number, ldra));
        interfaces.setFlags(ldra.to, IFF_LDRA, true);
      }
    }
    if (this.servers.length > 0) this.recover(config.delegation.file);
    this.autostart = options.quiet
      ? []
      : this.clients.filter((client) => config.ports[client.port].dhcp6?.client?.start === 'always');
  }

  private readonly autostart: readonly Client[];

  /** Leases come back from the file and from the domain before. Promises that cannot be kept are not given. */
  private recover(file: string): void {
    const { quiet, log, kept } = this.options;
    const { leases } = this.delegation;
    const wall = this.day.at(this.options.now);
    try {
      if (file !== '' && !quiet)
        for (const note of leases.open(file, wall)) {
          this.context.counters.fault('file-damaged');
          log('warn', note);
        }
      if (kept !== undefined) this.resumed = this.delegation.resume(wall, kept);
    } catch (error) {
      log('warn', `delegation.file: ${(error as Error).message}; no port is served until "sluice restart ipv6"`);
      this.servers.length = 0;
      leases.close();
    }
  }

  /** True when a port's configuration has any role. */
  static isWanted(config: Config): boolean {
    return config.ports.some((port) => port.dhcp6 !== null);
  }

  get counters(): Counters {
    return this.context.counters;
  }

  /** What the times of clients and relays, and those of leases, are compared with. */
  times(now: number): { time: number; wall: number } {
    return { time: this.day.time(now), wall: this.day.at(now) };
  }

  /** When the time of day is set, no lease ends or lives on because of it. */
  private follow(now: number): Action[] {
    const step = this.day.step(now);
    if (step === 0) return [];
    try {
      return this.delegation.shift(step);
    } catch (error) {
      this.context.counters.fault('not-stored');
      return [{ kind: 'log', level: 'warn', message: `delegation.file: ${(error as Error).message}` }];
    }
  }

  step(now: number, event: Event): Action[] {
    const time = this.day.time(now);
    const actions: Action[] = [...this.follow(now), ...(this.begun ? [] : this.begin(now))];
    switch (event.kind) {
      case 'frame': {
        const datagram = readDatagram(event);
        if (datagram !== null) actions.push(...this.receive(now, datagram));
        break;
      }
      case 'link':
        for (const client of this.clients) if (client.port === event.port) actions.push(...client.link(time, event.up));
        break;
      case 'event':
        for (const client of this.clients) actions.push(...client.hear(time, event));
        break;
      case 'tick':
        actions.push(...this.flush());
        break;
    }
    // Also after frames: neighbour discovery may have found one of the addresses to be somebody else's.
    for (const client of this.clients) actions.push(...client.tick(time));
    for (const relay of this.relays) if (relay.next() <= time) actions.push(...relay.expire(time));
    const wall = this.day.at(now);
    if (this.delegation.leases.next() <= wall) actions.push(...this.delegation.expire(wall));
    return actions;
  }

  next(now: number): number {
    if (!this.begun || this.waiting.length > 0) return 0;
    const { time, wall } = this.times(now);
    let wait = this.delegation.leases.next() - wall;
    for (const client of this.clients) wait = Math.min(wait, client.next() - time);
    for (const relay of this.relays) wait = Math.min(wait, relay.next() - time);
    // The router's clock wraps: a wait is never so long that its end could be mistaken.
    return wait === Number.POSITIVE_INFINITY ? -1 : Math.max(0, Math.min(Math.ceil(wait), 0x3fffffff));
  }

  private begin(now: number): Action[] {
    this.begun = true;
    const { time, wall } = this.times(now);
    const actions = [...this.resumed, ...(this.servers.length > 0 ? this.delegation.restore(wall) : [])];
    const { kept } = this.options;
    if (kept !== undefined) for (const relay of this.relays) actions.push(...relay.resume(time, kept));
    for (const client of this.autostart) actions.push(...client.start(time));
    return actions;
  }

  private receive(now: number, datagram: Datagram): Action[] {
    const { time, wall } = this.times(now);
    if (datagram.toPort === CLIENT_PORT) {
      const client = this.clients.find((one) => one.port === datagram.port);
      return client === undefined ? [] : client.receive(time, datagram);
    }
    if (datagram.toPort !== SERVER_PORT) return [];
    if (datagram.payload[0] === RELAY_REPL) return this.relayed(time, datagram);
    const server = this.servers.find((one) => one.port === datagram.port) ?? this.serverOfRelayed(datagram);
    if (server !== undefined) return this.hold(server.receive(time, wall, datagram));
    const relay = this.relays.find((one) => one.port === datagram.port);
    if (relay !== undefined) return relay.receive(time, datagram);
    return this.ldras.find((one) => one.port === datagram.port)?.receive(time, datagram) ?? [];
  }

  /** A relay may ask an address of another port than the one that its message comes in by. */
  private serverOfRelayed(datagram: Datagram): Server | undefined {
    const own = this.context.addresses.findAnywhere(datagram.port, 6, datagram.to);
    return own === undefined ? undefined : this.servers.find((one) => one.port === own.port);
  }

  private relayed(time: number, datagram: Datagram): Action[] {
    const { counters } = this.context;
    counters.gotMessage(RELAY_REPL);
    const reply = parseRelay(datagram.payload);
    if (reply === null) {
      counters.fault('malformed');
      return [];
    }
    const ldra = this.ldras.find((one) => one.isMine(reply, datagram));
    if (ldra !== undefined) return ldra.deliver(reply, datagram);
    const relay = this.relays.find((one) => one.isMine(reply, datagram.from));
    if (relay !== undefined) return relay.deliver(time, reply);
    counters.fault('untrusted-relay');
    return [];
  }

  private hold(actions: Action[]): Action[] {
    if (!this.delegation.leases.stored) return actions;
    this.waiting.push(...actions);
    return this.waiting.length >= MAX_WAITING ? this.flush() : [];
  }

  /** What waits for the disk may go once all is there; when the disk fails, nobody is promised anything. */
  private flush(): Action[] {
    const { waiting } = this;
    this.waiting = [];
    if (waiting.length === 0) return [];
    try {
      this.delegation.leases.sync();
      return waiting;
    } catch (error) {
      this.context.counters.fault('not-stored');
      this.options.log('warn', `delegation.file: ${(error as Error).message}; no answer was given`);
      return waiting.filter((action) => action.kind !== 'send' && action.kind !== 'output');
    }
  }

  /** Closes the lease file; the ports are lightweight relays no more. */
  close(): void {
    const { interfaces } = this.context;
    for (const { network } of this.ldras) interfaces.setFlags(network, IFF_LDRA, false);
    this.delegation.leases.close();
  }
}
