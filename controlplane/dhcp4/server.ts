/**
 * DHCP server: leases for the hosts of a LAN, and for those behind relays (RFC 2131 §4.3, RFC 3046, RFC 6842).
 *
 * Authoritative for its subnets: a client that asks for an address of another one is refused, so that it does not wait for
 * its old lease to end. Option 82 comes back as it was (RFC 3046 §2.2), and a reservation may name a relay's remote-id
 * instead of a MAC. Everything is bounded: pools by their range, messages by `rate`; what is refused is counted.
 *
 * An address that nobody has is asked for on the link before it is offered (probes.ts); one that somebody uses without a
 * lease rests for an hour. What keeps leases, and answers that must wait for a disk, is lease-store.ts; what a port
 * serves, served.ts.
 *
 * Events: dhcp4.lease { port, address, mac, hostName, seconds, remoteId } at every lease given, dhcp4.released
 * { port, address, mac } when a client gives it back, or says that somebody else uses it.
 *
 * Not here: BOOTP.
 */
import type { InterfaceTable } from '../../dataplane/interfaces.ts';
import { formatIpv4, macFromBytes, maskWords, type Words } from '../../dataplane/wire/address.ts';
import { hostOrder, rawOrder } from '../../dataplane/wire/bytes.ts';
import { TYPE_ARP } from '../../dataplane/wire/ethernet.ts';
import { type Datagram, framed, readUdp, udpPacket } from '../datagram.ts';
import type { Addresses, OwnAddress } from '../neighbour/addresses.ts';
import type { Action, Event, Protocol } from '../protocol.ts';
import { TimeOfDay } from '../time-of-day.ts';
import { LeaseStore, type LeaseStoreOptions } from './lease-store.ts';
import * as M from './message.ts';
import { Pool, type PoolLease } from './pool.ts';
import { Probes } from './probes.ts';
import {
  covers,
  type Dhcp4ServerConfig,
  holderOf,
  keyOf,
  poolFor,
  type Served,
  type Server,
  subnetOf,
} from './served.ts';

export interface Dhcp4ServerOptions extends LeaseStoreOptions {
  /** Hosts may ask the router for names: its address is the resolver unless one is given. */
  answersNames: boolean;
}

/** How long an offer is kept, milliseconds. */
const OFFER_TIME = 60_000;
/** An address that somebody uses without a lease is left alone for so long. */
const DECLINE_TIME = 3_600_000;
/** How often pools are settled: with the longest lease it is still less than the clock can count. */
const SETTLE_TIME = 86_400_000;

/** An offer that waits for its address's probe. */
interface Offer {
  server: Server;
  served: Served;
  message: M.Dhcp4Message;
  client: string;
  address: number;
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
  private readonly store: LeaseStore;

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
    this.store = new LeaseStore(this.servers, options, this.counters);
    this.settledAt = options.now;
    this.day = new TimeOfDay(options.now, options.wall);
    for (const [port, config] of ports) {
      const four = addresses.ofPort(port).filter(({ family }) => family === 4);
      const own = new Set(four.map(({ words }) => hostOrder(words[0])));
      const pools = config.pools.map((pool) => {
        // A client that has moved to another subnet has no use for what is reserved for it here.
        const subnets = pool.subnet === null ? four : [pool.subnet];
        const here = config.reservations.filter(({ address }) => subnets.some((one) => covers(one, rawOrder(address))));
        const reserved = new Map(here.map(({ key, address }) => [address, key]));
        return { pool: new Pool(pool.first, pool.last, reserved, own), config: pool };
      });
      const server: Server = { port, file: null, config, pools, second: 0, count: 0 };
      try {
        this.store.recover(server);
        this.servers.set(port, server);
      } catch (error) {
        const what = `ports.${config.name}.dhcp4.server.file: ${(error as Error).message}`;
        options.log('warn', `${what}; the port is not served until "sluice restart ipv4"`);
        server.file?.close();
      }
    }
  }

  step(now: number, event: Event): Action[] {
    const out: Action[] = [];
    if (!this.begun) this.restored(now, out);
    if (this.day.step(now) !== 0) this.store.writeAgain(out);
    if (((now - this.settledAt) | 0) >= SETTLE_TIME) {
      this.settledAt = now;
      for (const { pools } of this.servers.values()) for (const { pool } of pools) pool.settle(now);
    }
    if (event.kind === 'tick') out.push(...this.store.flush());
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
    else this.store.hold(answers, out);
  }

  next(now: number): number {
    if (this.store.waits) return 0;
    const settle = Math.max(0, SETTLE_TIME - ((now - this.settledAt) | 0));
    const probe = this.probes.next(now);
    return probe < 0 ? settle : Math.min(probe, settle);
  }

  /** Closes the lease files. */
  close(): void {
    this.store.close();
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
    const served = poolFor(server, message, own);
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
        const raw = rawOrder(address);
        // Asked for already, by an earlier one of the client's messages: the answer comes when that is done.
        if (this.probes.has(raw)) return false;
        const known = served.pool.find(client);
        const isKnown = known?.address === address && ((known.until - now) | 0) > 0;
        // §3.1 (2): what the client has, or was offered a moment ago, is not asked for again.
        if (isKnown || !server.config.probe || message.giaddr !== 0 || this.probes.full) this.offer(now, offer, out);
        else {
          served.pool.assign(client, address, 'offered', (now + OFFER_TIME) | 0, holderOf(message));
          this.counters.probed++;
          const source = subnetOf(this.addresses, server, served, own, raw).words[0];
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
        this.store.put(server, lease, out);
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
    this.store.put(server, pool.decline(lease.client, (now + DECLINE_TIME) | 0), out);
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
    const isHere = covers(subnetOf(this.addresses, server, served, own, wanted), wanted);
    if (wanted === 0 || !isHere || !this.isAllowed(now, pool, client, address)) {
      this.counters.naks++;
      this.reply(server, served, message, own, M.NAK, 0, out);
      return false;
    }
    const seconds = server.config.lease;
    const lease = pool.assign(client, address, 'bound', (now + seconds * 1000) | 0, holderOf(message));
    if (!this.store.put(server, lease, out)) return false;
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
    this.store.tellFiled(out);
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
    const holder = address === 0 ? message.ciaddr : rawOrder(address);
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
    const subnet = subnetOf(this.addresses, server, served, own, holder);
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

  private ownAddress(port: number): OwnAddress | null {
    return this.addresses.ofPort(port).find(({ family, state }) => family === 4 && state === 'preferred') ?? null;
  }
}
