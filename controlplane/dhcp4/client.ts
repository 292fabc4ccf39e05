/**
 * DHCP client: one port's IPv4 address (RFC 2131 §4.4, RFC 3442 routes, RFC 5227 §2.1 probe).
 *
 *   init → selecting → requesting → checking → bound → renewing → rebinding → (init)
 *
 * Until there is an address, messages leave as frames from 0.0.0.0 with the broadcast flag, since nothing can be sent to
 * an address that the router does not have yet; a renewal is unicast and takes the path. The address, the default route
 * (or the classless routes of option 121, which replace it) leave as actions; that the connections of an old address
 * end is Control's doing. Events:
 *
 *   dhcp4.bound   { port, address, prefixLength, router, servers, domain, ntp, mtu, lease, server }, at every new lease
 *   dhcp4.lost    { port }: the lease has ended, or was refused
 *
 * Not here: INIT-REBOOT (nothing is remembered over a restart), authentication (RFC 3118), the MTU option's effect.
 */
import { IF_MAC_HI, IF_MAC_LO, type InterfaceTable } from '../../dataplane/interfaces.ts';
import { formatIpv4, macBytes, maskWords, networkWords, type Words } from '../../dataplane/wire/address.ts';
import * as arp from '../../dataplane/wire/arp.ts';
import { be16 } from '../../dataplane/wire/bytes.ts';
import * as ethernet from '../../dataplane/wire/ethernet.ts';
import { framed, readUdp, udpPacket } from '../datagram.ts';
import { newFrame } from '../neighbour/link.ts';
import type { Action, Event, Protocol } from '../protocol.ts';
import { type RandomSource, uniform } from '../random.ts';
import * as M from './message.ts';

export interface Dhcp4ClientConfig {
  /** Name of the port in events. */
  name: string;
  hostName: string;
  /** Take the default route or the classless routes. */
  routes: boolean;
  /** Give the lease back when the router stops. */
  release: boolean;
  /** Option 61; null: none, servers go by the MAC. */
  clientId: Uint8Array | null;
}

type State = 'init' | 'selecting' | 'requesting' | 'checking' | 'bound' | 'renewing' | 'rebinding';

/** RFC 2131 §4.1: 4 s, doubled up to 64 s, a second of randomness. §4.4.5: while renewing never below a minute. */
const FIRST_RETRY = 4_000;
const LAST_RETRY = 64_000;
const RENEW_FLOOR = 60_000;
const REQUEST_TRIES = 4;
/** §3.1 5: after a DECLINE or a NAK at least ten seconds pass, so that nobody loops. */
const PENALTY = 10_000;
/** RFC 5227 §2.1.1: three probes, half a second apart here; a conflict shows up at once on a wired link. */
const PROBES = 2;
const PROBE_INTERVAL = 500;
/** Longest lease that the clock can count; what is longer is renewed as if it were this long. */
const LONGEST = 2_000_000;
/** A shorter one counts as this long: a server that says 0 or 1 must not make us ask without pause. */
const SHORTEST = 10;
const ANY: Words = [0, 0, 0, 0];
const BROADCAST: Words = [-1, 0, 0, 0];

interface Lease {
  address: number;
  prefixLength: number;
  server: number;
  routers: number[];
  /** Destination, length and gateway of every route. */
  routes: { words: Words; prefixLength: number; via: number }[];
  data: Record<string, unknown>;
  /** Seconds. */
  seconds: number;
  t1: number;
  t2: number;
}

interface Client {
  port: number;
  config: Dhcp4ClientConfig;
  state: State;
  xid: number;
  /** Clock of the first message of this exchange. */
  begun: number;
  /** Clock of the next thing to do; null: nothing. */
  at: number | null;
  tries: number;
  offer: Lease | null;
  lease: Lease | null;
  /** Clock at which the request of the lease in force was sent: what its times count from (§4.4.1). */
  leasedAt: number;
  probes: number;
}

export class Dhcp4Client implements Protocol {
  readonly name = 'dhcp4-client';
  readonly counters = { sent: 0, received: 0, malformed: 0, ignored: 0, naks: 0, declined: 0 };
  private readonly interfaces: InterfaceTable;
  private readonly random: RandomSource;
  private readonly clients = new Map<number, Client>();

  constructor(
    interfaces: InterfaceTable,
    ports: ReadonlyMap<number, Dhcp4ClientConfig>,
    options: { random: RandomSource },
  ) {
    this.interfaces = interfaces;
    this.random = options.random;
    for (const [port, config] of ports)
      this.clients.set(port, {
        port,
        config,
        state: 'init',
        xid: 0,
        begun: 0,
        at: null,
        tries: 0,
        offer: null,
        lease: null,
        leasedAt: 0,
        probes: 0,
      });
  }

  step(now: number, event: Event): Action[] {
    const out: Action[] = [];
    if (event.kind === 'frame') {
      const client = this.clients.get(event.port);
      if (client !== undefined) this.receive(now, client, event, out);
    } else if (event.kind === 'link') {
      const client = this.clients.get(event.port);
      if (client !== undefined && !event.up) this.lose(now, client, out, null);
    } else if (event.kind === 'event' && event.name === 'router.stop') {
      for (const client of this.clients.values()) if (client.config.release) this.release(client, out);
      // Said more than once, as final advertisements go out more than once.
      this.clients.clear();
    }
    for (const client of this.clients.values()) this.turn(now, client, out);
    return out;
  }

  next(now: number): number {
    let next = -1;
    for (const client of this.clients.values()) {
      if (client.at === null) continue;
      const wait = Math.max(0, (client.at - now) | 0);
      if (next < 0 || wait < next) next = wait;
    }
    return next;
  }

  /** State of a port's client, and its address as text ('' for none): for show and tests. */
  stateOf(port: number): { state: string; address: string } | null {
    const client = this.clients.get(port);
    if (client === undefined) return null;
    return { state: client.state, address: client.lease === null ? '' : formatIpv4(client.lease.address) };
  }

  // --- time --------------------------------------------------------------------------------------------------------------

  private turn(now: number, client: Client, out: Action[]): void {
    if (!this.interfaces.isUp(client.port)) {
      client.at = null;
      return;
    }
    if (client.state === 'init' && client.at === null) {
      // §4.4.1: one to ten seconds at start is for networks that all switch on at once; a second is enough behind a modem.
      client.at = (now + uniform(this.random, 0, 1000)) | 0;
    }
    if (client.at === null || ((client.at - now) | 0) > 0) return;
    switch (client.state) {
      case 'init':
      case 'selecting':
        this.discover(now, client, out);
        break;
      case 'requesting':
        if (client.tries >= REQUEST_TRIES) this.restart(now, client, 0);
        else this.request(now, client, out);
        break;
      case 'checking':
        if (client.probes < PROBES) this.probe(now, client, out);
        else this.bind(client, out);
        break;
      default:
        this.renew(now, client, out);
    }
  }

  private retry(now: number, client: Client): void {
    const pause = Math.min(FIRST_RETRY << Math.min(client.tries, 8), LAST_RETRY);
    client.tries++;
    client.at = (now + pause + uniform(this.random, -1000, 1000)) | 0;
  }

  private restart(now: number, client: Client, wait: number): void {
    client.state = 'init';
    client.tries = 0;
    client.offer = null;
    client.at = (now + wait) | 0;
  }

  private discover(now: number, client: Client, out: Action[]): void {
    if (client.state === 'init') {
      client.state = 'selecting';
      client.xid = this.random();
      client.begun = now;
      client.tries = 0;
    }
    this.broadcast(client, this.message(now, client, M.DISCOVER), out);
    this.retry(now, client);
  }

  private request(now: number, client: Client, out: Action[]): void {
    const offer = client.offer;
    if (offer === null) return;
    const message = this.message(now, client, M.REQUEST);
    message.options.set(M.OPT_REQUESTED, M.addressBytes4(offer.address));
    message.options.set(M.OPT_SERVER, M.addressBytes4(offer.server));
    if (client.tries === 0) client.leasedAt = now;
    this.broadcast(client, message, out);
    this.retry(now, client);
  }

  /** §4.4.5: T1: unicast to the server; T2: broadcast to any; at the end of the lease all is over. */
  private renew(now: number, client: Client, out: Action[]): void {
    const lease = client.lease;
    if (lease === null) return;
    const age = (now - client.leasedAt) | 0;
    const [t1, t2, end] = [lease.t1 * 1000, lease.t2 * 1000, lease.seconds * 1000];
    if (age >= end) {
      this.lose(now, client, out, 0);
      return;
    }
    if (age < t1) {
      client.at = (client.leasedAt + t1) | 0;
      return;
    }
    if (client.state === 'bound') client.begun = now;
    const state = age >= t2 ? 'rebinding' : 'renewing';
    if (state !== client.state) {
      client.state = state;
      client.xid = this.random();
    }
    const message = this.message(now, client, M.REQUEST);
    message.flags = 0;
    message.ciaddr = lease.address;
    const payload = M.writeMessage(message);
    this.counters.sent++;
    if (state === 'renewing') {
      const from: Words = [lease.address, 0, 0, 0];
      const packet = udpPacket(4, from, [lease.server, 0, 0, 0], M.CLIENT_PORT, M.SERVER_PORT, payload);
      out.push({ kind: 'output', packet, port: client.port });
    } else this.sendFrame(client, lease.address, payload, out);
    // Half of what is left until the next stage, but no more often than once a minute.
    const stage = state === 'renewing' ? t2 : end;
    const left = stage - age;
    client.at = (now + Math.min(left, Math.max(RENEW_FLOOR, left >> 1))) | 0;
  }

  // --- messages ----------------------------------------------------------------------------------------------------------

  private message(now: number, client: Client, type: number): M.Dhcp4Message {
    const at = this.interfaces.at(client.port);
    const w = this.interfaces.words;
    const { config } = client;
    const options = new Map<number, Uint8Array>();
    if (config.clientId !== null) options.set(M.OPT_CLIENT, config.clientId);
    if (config.hostName !== '') options.set(M.OPT_HOST_NAME, new TextEncoder().encode(config.hostName));
    if (type === M.DISCOVER || type === M.REQUEST) {
      options.set(M.OPT_MAX_SIZE, Uint8Array.of(1500 >> 8, 1500 & 255));
      const wanted = [M.OPT_MASK, M.OPT_ROUTES, M.OPT_ROUTER, M.OPT_DNS, M.OPT_DOMAIN, M.OPT_MTU, M.OPT_NTP];
      options.set(M.OPT_PARAMETERS, Uint8Array.from([...wanted, M.OPT_LEASE, M.OPT_T1, M.OPT_T2]));
    }
    return {
      op: M.REQUEST_OP,
      htype: 1,
      hops: 0,
      xid: client.xid,
      secs: Math.min(65535, Math.max(0, Math.floor(((now - client.begun) | 0) / 1000))),
      flags: M.BROADCAST_FLAG,
      ciaddr: 0,
      yiaddr: 0,
      siaddr: 0,
      giaddr: 0,
      chaddr: macBytes(w[at + IF_MAC_LO], w[at + IF_MAC_HI]),
      type,
      options,
    };
  }

  private broadcast(client: Client, message: M.Dhcp4Message, out: Action[]): void {
    this.counters.sent++;
    this.sendFrame(client, 0, M.writeMessage(message), out);
  }

  private sendFrame(client: Client, source: number, payload: Uint8Array, out: Action[]): void {
    const from: Words = source === 0 ? ANY : [source, 0, 0, 0];
    const packet = udpPacket(4, from, BROADCAST, M.CLIENT_PORT, M.SERVER_PORT, payload);
    out.push({ kind: 'send', port: client.port, frame: framed(this.interfaces, client.port, -1, 0xffff, packet) });
  }

  /** §4.4.6, on the router's way out. */
  private release(client: Client, out: Action[]): void {
    const lease = client.lease;
    if (lease === null || !this.interfaces.isUp(client.port)) return;
    const message = this.message(client.begun, client, M.RELEASE);
    message.xid = this.random();
    message.flags = 0;
    message.ciaddr = lease.address;
    message.options.set(M.OPT_SERVER, M.addressBytes4(lease.server));
    const from: Words = [lease.address, 0, 0, 0];
    const payload = M.writeMessage(message);
    this.counters.sent++;
    const packet = udpPacket(4, from, [lease.server, 0, 0, 0], M.CLIENT_PORT, M.SERVER_PORT, payload);
    out.push({ kind: 'output', packet, port: client.port });
  }

  private receive(now: number, client: Client, event: Extract<Event, { kind: 'frame' }>, out: Action[]): void {
    if (client.state === 'checking' && event.etherType === ethernet.TYPE_ARP) this.conflict(now, client, event, out);
    if (event.etherType !== ethernet.TYPE_IPV4) return;
    const datagram = readUdp(event.frame, event.etherType, event.l3);
    if (datagram === null || datagram.dport !== M.CLIENT_PORT || datagram.sport !== M.SERVER_PORT) return;
    const message = M.readMessage(datagram.payload);
    if (message === null) {
      this.counters.malformed++;
      return;
    }
    const at = this.interfaces.at(client.port);
    const mac = macBytes(this.interfaces.words[at + IF_MAC_LO], this.interfaces.words[at + IF_MAC_HI]);
    const isOurs =
      message.op === M.REPLY_OP && message.xid === client.xid && mac.every((b, n) => b === message.chaddr[n]);
    if (!isOurs) {
      this.counters.ignored++;
      return;
    }
    this.counters.received++;
    if (message.type === M.OFFER && client.state === 'selecting') {
      const offer = leaseOf(message, client.config);
      if (offer === null) {
        this.counters.malformed++;
        return;
      }
      // The first good offer is taken: a home has one provider.
      client.state = 'requesting';
      client.offer = offer;
      client.tries = 0;
      this.request(now, client, out);
      return;
    }
    const asked = client.state === 'requesting' || client.state === 'renewing' || client.state === 'rebinding';
    if (!asked) return;
    if (message.type === M.NAK) {
      this.counters.naks++;
      out.push({ kind: 'log', level: 'warn', message: `dhcp4: ${client.config.name}: the server refuses the address` });
      this.lose(now, client, out, PENALTY);
      return;
    }
    if (message.type !== M.ACK) return;
    const lease = leaseOf(message, client.config);
    if (lease === null) {
      this.counters.malformed++;
      return;
    }
    if (client.state === 'requesting') {
      client.offer = lease;
      client.state = 'checking';
      client.probes = 0;
      this.probe(now, client, out);
      return;
    }
    client.offer = lease;
    client.leasedAt = now;
    this.bind(client, out);
  }

  // --- the address -------------------------------------------------------------------------------------------------------

  /** RFC 5227 §2.1: who has this address? Asked from 0.0.0.0, so that no cache learns of us. */
  private probe(now: number, client: Client, out: Action[]): void {
    if (client.offer === null) return;
    const w = this.interfaces.words;
    const at = this.interfaces.at(client.port);
    const frame = newFrame(this.interfaces, client.port, -1, 0xffff, ethernet.TYPE_ARP, arp.LENGTH);
    const body = frame.length - arp.LENGTH;
    arp.emit(frame, body, arp.REQUEST, w[at + IF_MAC_LO], w[at + IF_MAC_HI], 0, 0, 0, client.offer.address);
    out.push({ kind: 'send', port: client.port, frame });
    client.probes++;
    client.at = (now + PROBE_INTERVAL) | 0;
  }

  /** Somebody answers for the address, or probes for it too: it is declined (§3.1 5, RFC 5227 §2.1.1). */
  private conflict(now: number, client: Client, event: Extract<Event, { kind: 'frame' }>, out: Action[]): void {
    const { frame, l3 } = event;
    const offer = client.offer;
    if (offer === null || !arp.check(frame, l3, frame.length - l3)) return;
    const isProbe = arp.senderIp(frame, l3) === 0 && arp.targetIp(frame, l3) === offer.address;
    if (arp.senderIp(frame, l3) !== offer.address && !isProbe) return;
    const w = this.interfaces.words;
    const at = this.interfaces.at(client.port);
    if (arp.senderLo(frame, l3) === w[at + IF_MAC_LO] && arp.senderHi(frame, l3) === w[at + IF_MAC_HI]) return;
    const message = this.message(now, client, M.DECLINE);
    message.options.set(M.OPT_REQUESTED, M.addressBytes4(offer.address));
    message.options.set(M.OPT_SERVER, M.addressBytes4(offer.server));
    this.broadcast(client, message, out);
    this.counters.declined++;
    const text = `dhcp4: ${client.config.name}: ${formatIpv4(offer.address)} is in use by somebody else; declined`;
    out.push({ kind: 'log', level: 'warn', message: text });
    this.restart(now, client, PENALTY);
  }

  private bind(client: Client, out: Action[]): void {
    const next = client.offer;
    if (next === null) return;
    const old = client.lease;
    const moved = old !== null && (old.address !== next.address || old.prefixLength !== next.prefixLength);
    // Old routes first: their gateway may be on no link of ours any more.
    if (old !== null) this.routes('remove', client, old, next, out);
    if (moved) out.push(addressAction('remove', client.port, old));
    out.push({ ...addressAction('add', client.port, next), valid: next.seconds * 1000 });
    this.routes('add', client, next, old, out);
    client.lease = next;
    client.offer = null;
    client.state = 'bound';
    client.tries = 0;
    client.at = (client.leasedAt + next.t1 * 1000) | 0;
    out.push({ kind: 'event', name: 'dhcp4.bound', data: { port: client.config.name, ...next.data } });
    if (old === null || moved) {
      const text = `dhcp4: ${client.config.name}: ${formatIpv4(next.address)}/${next.prefixLength} for ${next.seconds} s`;
      out.push({ kind: 'log', level: 'info', message: text });
    }
  }

  /** Adds, or takes away, the routes of one lease that the other does not have too. */
  private routes(op: 'add' | 'remove', client: Client, lease: Lease, other: Lease | null, out: Action[]): void {
    const text = (route: Lease['routes'][number]) => `${route.words[0]}/${route.prefixLength} ${route.via}`;
    const kept = new Set(other?.routes.map(text) ?? []);
    for (const route of lease.routes) {
      if (kept.has(text(route))) continue;
      out.push({
        kind: 'route',
        op,
        family: 4,
        words: route.words,
        prefixLength: route.prefixLength,
        ...(route.via === 0 ? {} : { via: [route.via, 0, 0, 0] as Words }),
        port: client.port,
        source: 'dhcp4',
      });
    }
  }

  /** The lease is over. `wait`: milliseconds until it is tried again; null: when the link comes back. */
  private lose(now: number, client: Client, out: Action[], wait: number | null): void {
    if (client.lease !== null) {
      this.routes('remove', client, client.lease, null, out);
      out.push(addressAction('remove', client.port, client.lease));
      out.push({ kind: 'event', name: 'dhcp4.lost', data: { port: client.config.name } });
      client.lease = null;
    }
    this.restart(now, client, wait ?? 0);
    if (wait === null) client.at = null;
  }
}

function addressAction(op: 'add' | 'remove', port: number, lease: Lease) {
  const words: Words = [lease.address, 0, 0, 0];
  return { kind: 'address' as const, op, port, family: 4 as const, words, prefixLength: lease.prefixLength };
}

/** What an OFFER or ACK gives; null when it gives nothing usable. */
function leaseOf(message: M.Dhcp4Message, config: Dhcp4ClientConfig): Lease | null {
  const address = message.yiaddr;
  const first = address & 0xff;
  const server = M.addressOption(message, M.OPT_SERVER);
  const given = M.numberOption(message, M.OPT_LEASE);
  if (address === 0 || first === 127 || first >= 224 || server === 0 || given === undefined || given === 0) return null;
  const prefixLength = lengthOf(M.addressOption(message, M.OPT_MASK), address);
  if (prefixLength < 0) return null;
  const seconds = Math.max(SHORTEST, Math.min(given, LONGEST));
  // §4.4.5: half, and seven eighths, unless the server says otherwise in a way that makes sense.
  let t1 = M.numberOption(message, M.OPT_T1) ?? Math.floor(seconds / 2);
  let t2 = M.numberOption(message, M.OPT_T2) ?? Math.floor(seconds * 0.875);
  if (!(t1 > 0 && t1 < t2 && t2 < seconds)) [t1, t2] = [Math.floor(seconds / 2), Math.floor(seconds * 0.875)];
  const routers = M.addressesOption(message, M.OPT_ROUTER);
  const classless = classlessRoutes(message.options.get(M.OPT_ROUTES));
  const routes = classless ?? routers.slice(0, 1).map((via) => ({ words: ANY, prefixLength: 0, via }));
  const mtu = message.options.get(M.OPT_MTU);
  const data = {
    address: formatIpv4(address),
    prefixLength,
    router: routers.length > 0 ? formatIpv4(routers[0]) : '',
    servers: M.addressesOption(message, M.OPT_DNS).map(formatIpv4),
    domain: M.textOption(message, M.OPT_DOMAIN),
    ntp: M.addressesOption(message, M.OPT_NTP).map(formatIpv4),
    mtu: mtu?.length === 2 ? be16(mtu, 0) : 0,
    lease: seconds,
    server: formatIpv4(server),
  };
  return { address, prefixLength, server, routers, routes: config.routes ? routes : [], data, seconds, t1, t2 };
}

/** Length of a mask; the class's when there is none; −1: ones behind zeros. */
function lengthOf(mask: number, address: number): number {
  if (mask === 0) return (address & 0x80) === 0 ? 8 : (address & 0x40) === 0 ? 16 : 24;
  for (let length = 1; length <= 32; length++) if (maskWords(4, length)[0] === mask) return length;
  return -1;
}

/** RFC 3442: width, significant bytes of the destination, router; null when the option is not there or malformed. */
function classlessRoutes(data: Uint8Array | undefined): Lease['routes'] | null {
  if (data === undefined) return null;
  const routes: Lease['routes'] = [];
  for (let at = 0; at < data.length; ) {
    const width = data[at];
    const bytes = (width + 7) >> 3;
    if (width > 32 || at + 1 + bytes + 4 > data.length) return null;
    let word = 0;
    for (let n = 0; n < bytes; n++) word |= data[at + 1 + n] << (8 * n);
    const gate = at + 1 + bytes;
    const via = data[gate] | (data[gate + 1] << 8) | (data[gate + 2] << 16) | (data[gate + 3] << 24);
    routes.push({ words: networkWords(4, [word, 0, 0, 0], width), prefixLength: width, via });
    at = gate + 4;
  }
  return routes.slice(0, 32);
}
