/**
 * DHCP server: leases for the hosts of a LAN, and for those behind relays (RFC 2131 §4.3, RFC 3046, RFC 6842).
 *
 * Authoritative for its subnets: a client that asks for an address of another one is refused, so that it does not wait for
 * its old lease to end. Option 82 comes back as it was (RFC 3046 §2.2), and a reservation may name a relay's remote-id
 * instead of a MAC. Everything is bounded: pools by their range, messages by `rate`; what is refused is counted.
 *
 * An address that nobody has is asked for on the link before it is offered (probes.ts); one that somebody uses without a
 * lease rests for an hour. With a lease file (lease-file.ts) answers that promise something wait until it is on the disk:
 * those of one burst wait together, so that one write serves them all. Without one, leases outlive their domain (action
 * `keep`), not the router.
 *
 * Events: dhcp4.lease { port, address, mac, hostName, seconds, remoteId } at every lease given, dhcp4.released
 * { port, address, mac } when a client gives it back, or says that somebody else uses it.
 *
 * Not here: BOOTP.
 */
import type { InterfaceTable } from '../../dataplane/interfaces.ts';
import { formatIpv4, formatMac, inPrefix, macFromBytes, maskWords, type Words } from '../../dataplane/wire/address.ts';
import { swap32 } from '../../dataplane/wire/bytes.ts';
import { TYPE_ARP } from '../../dataplane/wire/ethernet.ts';
import { type Datagram, framed, readUdp, udpPacket } from '../datagram.ts';
import type { JournalRecord } from '../journal.ts';
import type { Addresses, OwnAddress } from '../neighbour/addresses.ts';
import type { Action, Event, KeptValues, Protocol } from '../protocol.ts';
import { TimeOfDay } from '../time-of-day.ts';
import { LeaseFile, leaseOf, recordOf } from './lease-file.ts';
import * as M from './message.ts';
import { type Holder, Pool, type PoolLease } from './pool.ts';
import { Probes } from './probes.ts';

interface Subnet {
  words: Words;
  prefixLength: number;
}

/** Addresses raw, times in seconds. */
export interface Dhcp4PoolConfig {
  /** The subnet served; null: the port's own. */
  subnet: Subnet | null;
  first: number;
  last: number;
  /** Null: the port's own address. */
  router: number | null;
}

export interface Dhcp4ServerConfig {
  /** Name of the port in events. */
  name: string;
  pools: Dhcp4PoolConfig[];
  lease: number;
  /** Empty: the port's own address, when the router answers questions there. */
  dns: number[];
  domain: string;
  ntp: number[];
  reservations: { key: string; address: number }[];
  /** Messages a second. */
  rate: number;
  /** Ask for an address on the link before it is offered. */
  probe: boolean;
  /** Leases are kept there; '': in memory only. */
  file: string;
  /** `known`: who has a reservation; all others get no answer. */
  clients: 'any' | 'known';
}

export interface Dhcp4ServerOptions {
  /** Hosts may ask the router for names: its address is the resolver unless one is given. */
  answersNames: boolean;
  /** The router's clock now. */
  now: number;
  /** Milliseconds since 1970 of a time of the router's clock. */
  wall: (clock: number) => number;
  log: (level: 'info' | 'warn', message: string) => void;
  kept: KeptValues;
}

/** How long an offer is kept, milliseconds. */
const OFFER_TIME = 60_000;
/** An address that somebody uses without a lease is left alone for so long. */
const DECLINE_TIME = 3_600_000;
/** Answers that wait for the disk at most: a burst is no longer. */
const MAX_WAITING = 256;
/** How often pools are settled: with the longest lease it is still less than the clock can count. */
const SETTLE_TIME = 86_400_000;

interface Served {
  pool: Pool;
  config: Dhcp4PoolConfig;
}

/** An offer that waits for its address's probe. */
interface Offer {
  server: Server;
  served: Served;
  message: M.Dhcp4Message;
  client: string;
  address: number;
}

interface Server {
  port: number;
  file: LeaseFile | null;
  config: Dhcp4ServerConfig;
  pools: Served[];
  /** Messages in the current second. */
  second: number;
  count: number;
}

export class Dhcp4Server implements Protocol {
  readonly name = 'dhcp4-server';
  readonly counters = {
    received: 0,
    malformed: 0,
    limited: 0,
    ignored: 0,
    unknown: 0,
    offers: 0,
    acks: 0,
    naks: 0,
    exhausted: 0,
    declined: 0,
    released: 0,
    probed: 0,
    conflicts: 0,
    notStored: 0,
  };
  private readonly interfaces: InterfaceTable;
  private readonly addresses: Addresses;
  private readonly options: Dhcp4ServerOptions;
  private readonly servers = new Map<number, Server>();

  private readonly probes: Probes<Offer>;
  private begun = false;
  private settledAt: number;
  private readonly day: TimeOfDay;
  /** Answers whose leases are written, but perhaps not on the disk yet. */
  private waiting: Action[] = [];
  /** Keys of what was kept and is in a file now. */
  private readonly filed: string[] = [];

  /** A port whose lease file cannot be used is not served, which is logged. */
  constructor(
    interfaces: InterfaceTable,
    addresses: Addresses,
    ports: ReadonlyMap<number, Dhcp4ServerConfig>,
    options: Dhcp4ServerOptions,
  ) {
    this.probes = new Probes(interfaces);
    this.interfaces = interfaces;
    this.addresses = addresses;
    this.options = options;
    this.settledAt = options.now;
    this.day = new TimeOfDay(options.now, options.wall);
    for (const [port, config] of ports) {
      const four = addresses.ofPort(port).filter(({ family }) => family === 4);
      const own = new Set(four.map(({ words }) => hostOrder(words[0])));
      const pools = config.pools.map((pool) => {
        // A client that has moved to another subnet has no use for what is reserved for it here.
        const subnets = pool.subnet === null ? four : [pool.subnet];
        const here = config.reservations.filter(({ address }) =>
          subnets.some((one) => covers(one, hostOrder(address) | 0)),
        );
        const reserved = new Map(here.map(({ key, address }) => [address, key]));
        return { pool: new Pool(pool.first, pool.last, reserved, own), config: pool };
      });
      const server: Server = { port, file: null, config, pools, second: 0, count: 0 };
      try {
        this.recover(server);
        this.servers.set(port, server);
      } catch (error) {
        const what = `ports.${config.name}.dhcp4.server.file: ${(error as Error).message}`;
        options.log('warn', `${what}; the port is not served until "sluice restart ipv4"`);
        server.file?.close();
      }
    }
  }

  /** Leases come back from the file and from the domain before. @throws Error when the file cannot be used */
  private recover(server: Server): void {
    const { now, wall, log, kept } = this.options;
    const known = new Set<number>();
    const restore = (lease: PoolLease): void => {
      known.add(lease.address);
      for (const { pool } of server.pools) pool.restore(lease);
    };
    if (server.config.file !== '') {
      const { file, leases, notes } = LeaseFile.open(server.config.file, now, wall);
      server.file = file;
      leases.forEach(restore);
      for (const note of notes) log('warn', note);
    }
    for (const [key, { value }] of kept) {
      if (!key.startsWith(keyPrefix(server))) continue;
      const lease = leaseOf(value as JournalRecord, now, wall);
      if (lease !== null && !known.has(lease.address)) {
        restore(lease);
        this.write(server, lease);
      }
      if (server.file !== null) this.filed.push(key);
    }
  }

  step(now: number, event: Event): Action[] {
    const out: Action[] = [];
    if (!this.begun) this.restored(now, out);
    if (this.day.step(now) !== 0) this.writeAgain(out);
    if (((now - this.settledAt) | 0) >= SETTLE_TIME) {
      this.settledAt = now;
      for (const { pools } of this.servers.values()) for (const { pool } of pools) pool.settle(now);
    }
    if (event.kind === 'tick') out.push(...this.flush());
    for (const offer of this.probes.done(now, out)) this.offer(now, offer, out);
    if (event.kind === 'frame') this.receive(now, event, out);
    return out;
  }

  private receive(now: number, event: Extract<Event, { kind: 'frame' }>, out: Action[]): void {
    const server = this.servers.get(event.port);
    if (server === undefined) return;
    if (event.etherType === TYPE_ARP) {
      const offer = this.probes.heard(event.port, event.frame, event.l3);
      if (offer !== undefined) this.conflict(now, offer, out);
      return;
    }
    const datagram = readUdp(event.frame, event.etherType, event.l3);
    if (datagram === null || datagram.family !== 4 || datagram.dport !== M.SERVER_PORT) return;
    const second = Math.floor((now >>> 0) / 1000);
    if (second !== server.second) {
      server.second = second;
      server.count = 0;
    }
    if (++server.count > server.config.rate) {
      this.counters.limited++;
      return;
    }
    const message = M.readMessage(datagram.payload);
    if (message === null || message.op !== M.REQUEST_OP || message.htype !== 1 || message.chaddr.length !== 6) {
      this.counters.malformed++;
      return;
    }
    this.counters.received++;
    const answers: Action[] = [];
    const stored = this.serve(now, server, message, datagram, answers);
    if (!stored || server.file === null) out.push(...answers);
    else this.waiting.push(...answers);
    if (this.waiting.length >= MAX_WAITING) out.push(...this.flush());
  }

  next(now: number): number {
    if (this.waiting.length > 0) return 0;
    const settle = Math.max(0, SETTLE_TIME - ((now - this.settledAt) | 0));
    const probe = this.probes.next(now);
    return probe < 0 ? settle : Math.min(probe, settle);
  }

  /** What waits for the disk may go once all is there; when the disk fails, nobody is promised anything. */
  private flush(): Action[] {
    const { waiting } = this;
    this.waiting = [];
    if (waiting.length === 0) return [];
    try {
      for (const { file } of this.servers.values()) file?.sync();
      return waiting;
    } catch (error) {
      return [this.notStored(error)];
    }
  }

  private notStored(error: unknown): Action {
    this.counters.notStored++;
    return { kind: 'log', level: 'warn', message: `dhcp4: ${(error as Error).message}; no answer was given` };
  }

  /** Writes down what has become of a lease, or has it kept; false when that failed. */
  private store(server: Server, lease: PoolLease | undefined, out: Action[]): boolean {
    if (lease === undefined) return true;
    if (server.file === null) {
      const value = recordOf(lease, this.options.wall);
      out.push({ kind: 'keep', key: `${keyPrefix(server)}${value.address}`, value });
      return true;
    }
    try {
      this.write(server, lease);
      return true;
    } catch (error) {
      out.push(this.notStored(error));
      return false;
    }
  }

  private write(server: Server, lease: PoolLease): void {
    server.file?.put(lease, () => recorded(server));
  }

  /** The time of day was set: leases go on by the router's clock, and what is written of them must say so. */
  private writeAgain(out: Action[]): void {
    for (const server of this.servers.values()) {
      const leases = recorded(server);
      if (server.file === null) for (const lease of leases) this.store(server, lease, out);
      else
        try {
          server.file.rewrite(leases);
        } catch (error) {
          const message = `dhcp4: ${(error as Error).message}; leases in the file have the time of day of before`;
          out.push({ kind: 'log', level: 'warn', message });
        }
    }
  }

  /** Closes the lease files. */
  close(): void {
    for (const { file } of this.servers.values()) file?.close();
  }

  /** Who is served, for show. */
  ports(): IterableIterator<number> {
    return this.servers.keys();
  }

  /** What a port's pools have given, for show: only what is in force, seconds that are left of it. */
  leases(now: number, port: number): (Omit<PoolLease, 'address' | 'until'> & { address: string; seconds: number })[] {
    const list: ReturnType<Dhcp4Server['leases']> = [];
    for (const { pool } of this.servers.get(port)?.pools ?? [])
      for (const { address, until, ...lease } of pool.leases()) {
        const left = (until - now) | 0;
        if (lease.state === 'free' || left <= 0) continue;
        list.push({ ...lease, address: formatIpv4(hostOrder(address)), seconds: Math.ceil(left / 1000) });
      }
    return list;
  }

  /** True when something was written that the answers must wait for. */
  private serve(now: number, server: Server, message: M.Dhcp4Message, datagram: Datagram, out: Action[]): boolean {
    const own = this.ownAddress(server.port);
    const served = this.poolFor(server, message, own);
    if (own === null || served === null) {
      this.counters.ignored++;
      return false;
    }
    const client = keyOf(message, server.config);
    // Silence, not a refusal: another server may know the client.
    if (server.config.clients === 'known' && !server.config.reservations.some(({ key }) => key === client)) {
      this.counters.unknown++;
      return false;
    }
    switch (message.type) {
      case M.DISCOVER: {
        const wanted = hostOrder(M.addressOption(message, M.OPT_REQUESTED));
        const address = served.pool.choose(now, client, wanted);
        if (address === 0) {
          if (this.counters.exhausted++ === 0)
            out.push({ kind: 'log', level: 'warn', message: `dhcp4: ${server.config.name}: no address is left` });
          return false;
        }
        const offer: Offer = { server, served, message, client, address };
        const raw = hostOrder(address) | 0;
        // Asked for already, by an earlier one of the client's messages: the answer comes when that is done.
        if (this.probes.has(raw)) return false;
        const known = served.pool.find(client);
        const isKnown = known?.address === address && ((known.until - now) | 0) > 0;
        // §3.1 (2): what the client has, or was offered a moment ago, is not asked for again.
        if (isKnown || !server.config.probe || message.giaddr !== 0 || this.probes.full) this.offer(now, offer, out);
        else {
          served.pool.assign(client, address, 'offered', (now + OFFER_TIME) | 0, holderOf(message));
          this.counters.probed++;
          const source = this.subnetOf(server, served, own, raw).words[0];
          this.probes.begin(now, server.port, raw, source, macFromBytes(message.chaddr), offer, out);
        }
        return false;
      }
      case M.REQUEST:
        return this.request(now, server, served, message, own, client, out);
      case M.DECLINE: {
        // §4.3.3: only of the address that the client was given.
        const lease = served.pool.find(client);
        if (lease === undefined || hostOrder(M.addressOption(message, M.OPT_REQUESTED)) !== lease.address) {
          this.counters.ignored++;
          return false;
        }
        this.counters.declined++;
        this.quarantine(now, server, served.pool, lease, out);
        return false;
      }
      case M.RELEASE: {
        const lease = served.pool.find(client);
        // §4.3.4; only who has the address may give it back.
        if (lease === undefined || hostOrder(message.ciaddr) !== lease.address) return false;
        this.counters.released++;
        served.pool.release(now, client);
        this.store(server, lease, out);
        this.tellEnd(server, lease, out);
        return false;
      }
      case M.INFORM:
        // §4.3.5: parameters for an address that came from elsewhere; no lease.
        if (message.ciaddr === datagram.src[0] && message.ciaddr !== 0)
          this.reply(server, served, message, own, M.ACK, 0, out);
        return false;
      default:
        this.counters.ignored++;
        return false;
    }
  }

  /** Makes an offer, whose address nobody seems to use. */
  private offer(now: number, { server, served, message, client, address }: Offer, out: Action[]): void {
    const own = this.ownAddress(server.port);
    if (own === null) return;
    const known = served.pool.find(client);
    // An offer must not shorten a lease in force: the client may come back to it.
    if (known?.state !== 'bound' || ((known.until - now) | 0) <= 0)
      served.pool.assign(client, address, 'offered', (now + OFFER_TIME) | 0, holderOf(message));
    this.counters.offers++;
    this.reply(server, served, message, own, M.OFFER, address, out);
  }

  /** Somebody answered for an address that nobody has: it rests, and the client, which asks again, gets another one. */
  private conflict(now: number, { server, served, client, address }: Offer, out: Action[]): void {
    const lease = served.pool.find(client);
    if (lease?.address !== address) return;
    this.counters.conflicts++;
    this.quarantine(now, server, served.pool, lease, out);
  }

  /** Somebody uses an address without a lease: nobody gets it for an hour. */
  private quarantine(now: number, server: Server, pool: Pool, lease: PoolLease, out: Action[]): void {
    const address = formatIpv4(hostOrder(lease.address));
    this.store(server, pool.decline(lease.client, (now + DECLINE_TIME) | 0), out);
    if (lease.state === 'bound') this.tellEnd(server, lease, out);
    const text = `dhcp4: ${server.config.name}: ${address} is in use by somebody without a lease`;
    out.push({ kind: 'log', level: 'warn', message: text });
  }

  /** §4.3.2: selecting, init-reboot, renewing and rebinding are told apart by what the message carries. */
  private request(
    now: number,
    server: Server,
    served: Served,
    message: M.Dhcp4Message,
    own: OwnAddress,
    client: string,
    out: Action[],
  ): boolean {
    const { pool } = served;
    const chosen = M.addressOption(message, M.OPT_SERVER);
    const requested = M.addressOption(message, M.OPT_REQUESTED);
    if (chosen !== 0 && chosen !== own.words[0]) {
      // Another server's offer was taken.
      if (pool.find(client)?.state === 'offered') pool.release(now, client);
      return false;
    }
    const wanted = requested !== 0 ? requested : message.ciaddr;
    const address = hostOrder(wanted);
    const isHere = covers(this.subnetOf(server, served, own, wanted), wanted);
    if (wanted === 0 || !isHere || !this.isAllowed(now, pool, client, address)) {
      this.counters.naks++;
      this.reply(server, served, message, own, M.NAK, 0, out);
      return false;
    }
    const seconds = server.config.lease;
    const lease = pool.assign(client, address, 'bound', (now + seconds * 1000) | 0, holderOf(message));
    if (!this.store(server, lease, out)) return false;
    this.counters.acks++;
    this.reply(server, served, message, own, M.ACK, address, out);
    this.tell(server, lease, seconds, out);
    return true;
  }

  private isAllowed(now: number, pool: Pool, client: string, address: number): boolean {
    const own = pool.find(client);
    // Who has an address may not ask for a second one.
    if (own !== undefined && own.address !== address && own.state === 'bound' && ((own.until - now) | 0) > 0)
      return false;
    return pool.mayHave(now, client, address);
  }

  private tell(server: Server, lease: PoolLease, seconds: number, out: Action[]): void {
    const { hostName, mac, remoteId } = lease;
    const address = formatIpv4(hostOrder(lease.address));
    const data = { port: server.config.name, address, mac, hostName, seconds, remoteId };
    out.push({ kind: 'event', name: 'dhcp4.lease', data });
  }

  /** What has come back is told as if it were given now: names, security groups and scripts hear of it. */
  private restored(now: number, out: Action[]): void {
    this.begun = true;
    for (const key of this.filed) out.push({ kind: 'keep', key, value: null });
    for (const server of this.servers.values())
      for (const { pool } of server.pools)
        for (const lease of pool.leases()) {
          const left = (lease.until - now) | 0;
          if (lease.state === 'bound' && left > 0) this.tell(server, lease, Math.ceil(left / 1000), out);
        }
  }

  private tellEnd(server: Server, lease: PoolLease, out: Action[]): void {
    const data = { port: server.config.name, address: formatIpv4(hostOrder(lease.address)), mac: lease.mac };
    out.push({ kind: 'event', name: 'dhcp4.released', data });
  }

  // --- answers -----------------------------------------------------------------------------------------------------------

  private reply(
    server: Server,
    served: Served,
    message: M.Dhcp4Message,
    own: OwnAddress,
    type: number,
    address: number,
    out: Action[],
  ): void {
    const options = new Map<number, Uint8Array>([[M.OPT_SERVER, M.addressBytes4(own.words[0])]]);
    const holder = address === 0 ? message.ciaddr : hostOrder(address) | 0;
    if (type !== M.NAK) this.parameters(server, served, own, holder, message.type !== M.INFORM, options);
    // RFC 6842: the client identifier comes back; RFC 3046 §2.2: so does the relay's option.
    for (const code of [M.OPT_CLIENT, M.OPT_RELAY]) {
      const data = message.options.get(code);
      if (data !== undefined) options.set(code, data);
    }
    const answer: M.Dhcp4Message = {
      ...message,
      op: M.REPLY_OP,
      hops: 0,
      secs: 0,
      ciaddr: type === M.ACK ? message.ciaddr : 0,
      yiaddr: hostOrder(address),
      siaddr: 0,
      boot: undefined,
      type,
      options,
    };
    const from = own.words;
    // §4.3.2: a refusal by way of a relay is to be broadcast by it.
    if (type === M.NAK && message.giaddr !== 0) answer.flags |= M.BROADCAST_FLAG;
    const payload = M.writeMessage(answer);
    const port = server.port;
    if (message.giaddr !== 0) {
      const packet = udpPacket(4, from, [message.giaddr, 0, 0, 0], M.SERVER_PORT, M.SERVER_PORT, payload);
      out.push({ kind: 'output', packet, port });
      return;
    }
    if (type !== M.NAK && message.ciaddr !== 0) {
      const packet = udpPacket(4, from, [message.ciaddr, 0, 0, 0], M.SERVER_PORT, M.CLIENT_PORT, payload);
      out.push({ kind: 'output', packet, port });
      return;
    }
    const toAll = type === M.NAK || (message.flags & M.BROADCAST_FLAG) !== 0;
    const to: Words = toAll ? [-1, 0, 0, 0] : [answer.yiaddr, 0, 0, 0];
    const packet = udpPacket(4, from, to, M.SERVER_PORT, M.CLIENT_PORT, payload);
    const mac = toAll ? { lo: -1, hi: 0xffff } : macFromBytes(message.chaddr);
    out.push({ kind: 'send', port, frame: framed(this.interfaces, port, mac.lo, mac.hi, packet) });
  }

  private parameters(
    server: Server,
    served: Served,
    own: OwnAddress,
    holder: number,
    isLease: boolean,
    options: Map<number, Uint8Array>,
  ) {
    const { config } = server;
    const subnet = this.subnetOf(server, served, own, holder);
    const isFurther = served.config.subnet === null && subnet !== own;
    const router = isFurther ? subnet.words[0] : (served.config.router ?? own.words[0]);
    if (isLease) {
      options.set(M.OPT_LEASE, M.numberBytes(config.lease));
      options.set(M.OPT_T1, M.numberBytes(Math.floor(config.lease / 2)));
      options.set(M.OPT_T2, M.numberBytes(Math.floor(config.lease * 0.875)));
    }
    options.set(M.OPT_MASK, M.addressBytes4(maskWords(4, subnet.prefixLength)[0]));
    options.set(M.OPT_ROUTER, M.addressBytes4(router));
    const dns = config.dns.length > 0 ? config.dns : this.options.answersNames ? [own.words[0]] : [];
    if (dns.length > 0) options.set(M.OPT_DNS, M.addressBytes4(...dns));
    if (config.domain !== '') options.set(M.OPT_DOMAIN, new TextEncoder().encode(config.domain));
    if (config.ntp.length > 0) options.set(M.OPT_NTP, M.addressBytes4(...config.ntp));
  }

  /** §4.3.1: the relay's address says on which subnet the client is; without one it is on ours. */
  private poolFor(server: Server, message: M.Dhcp4Message, own: OwnAddress | null): Served | null {
    for (const served of server.pools) {
      const { subnet } = served.config;
      if (message.giaddr === 0 ? subnet === null : subnet !== null && covers(subnet, message.giaddr)) return served;
    }
    const isOurs = message.giaddr !== 0 && own !== null && covers(own, message.giaddr);
    return isOurs ? (server.pools.find(({ config }) => config.subnet === null) ?? null) : null;
  }

  /** The subnet that an address (raw) of a pool is in: reservations may be of any of the port's own. */
  private subnetOf(server: Server, { config }: Served, own: OwnAddress, address: number): Subnet {
    if (config.subnet !== null || covers(own, address)) return config.subnet ?? own;
    return this.addresses.ofPort(server.port).find((one) => one.family === 4 && covers(one, address)) ?? own;
  }

  private ownAddress(port: number): OwnAddress | null {
    return this.addresses.ofPort(port).find(({ family, state }) => family === 4 && state === 'preferred') ?? null;
  }
}

/** What is written down of a server's leases. */
function recorded(server: Server): PoolLease[] {
  return server.pools.flatMap(({ pool }) => [...pool.leases()].filter(({ state }) => state !== 'offered'));
}

/** What the keys of a port's leases begin with, when they are in no file. */
function keyPrefix({ config }: Server): string {
  return `dhcp4-server ${config.name} `;
}

/** A reservation's remote-id, else the client identifier, else the MAC (RFC 2131 §4.2). */
function keyOf(message: M.Dhcp4Message, config: Dhcp4ServerConfig): string {
  const remote = M.relayOption(message).get(M.SUB_REMOTE);
  const byRelay = remote === undefined ? '' : `remote ${hex(remote)}`;
  const byMac = `mac ${hex(message.chaddr)}`;
  for (const { key } of config.reservations) if (key === byRelay || key === byMac) return key;
  const id = message.options.get(M.OPT_CLIENT);
  return id === undefined || id.length < 2 ? byMac : `id ${hex(id)}`;
}

/** How reservations name a client: `mac` and its six bytes, or `remote` and a remote-id. */
export function reservationKey(kind: 'mac' | 'remote', bytes: Uint8Array): string {
  return `${kind} ${hex(bytes)}`;
}

function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (b) => b.toString(16).padStart(2, '0')).join('');
}

function holderOf(message: M.Dhcp4Message): Holder {
  const { lo, hi } = macFromBytes(message.chaddr);
  const remoteId = hex(M.relayOption(message).get(M.SUB_REMOTE) ?? new Uint8Array(0));
  return { hostName: M.textOption(message, M.OPT_HOST_NAME).slice(0, 63), mac: formatMac(lo, hi), remoteId };
}

function covers(prefix: Subnet, address: number): boolean {
  return inPrefix([address, 0, 0, 0], { family: 4, words: prefix.words, prefixLength: prefix.prefixLength });
}

/** A raw word as an unsigned number that counts as addresses do, and back. */
export function hostOrder(word: number): number {
  return swap32(word) >>> 0;
}
