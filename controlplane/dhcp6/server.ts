/**
 * DHCPv6 server of one port (RFC 8415 §18.3, RFC 9915): stateless, stateful, and delegating router.
 *
 *   Solicit ──────────→ Advertise, or Reply with rapid commit      Renew, Rebind ──→ Reply, lifetimes anew
 *   Request ──────────→ Reply, leases are written first            Release, Decline → Reply
 *   Information-request → Reply without leases                     Confirm ────────→ Reply: on link or not
 *
 * Clients of the link are answered from the port's link-local address; relays in `relays` through the same chain that
 * they came by. A client is who its DUID says, or, with `identify: remote-id`, who the relay next to it says (option 37
 * without the enterprise number, RFC 4649); on the link itself the router is that relay, and the name is the client's
 * MAC. Whoever may have nothing gets no answer at all: not even that there is a server here.
 *
 * A Solicit takes nothing, however many come: an offer is only what a Request would get at that moment.
 *
 * Not here: IA_TA, server unicast (RFC 9915 drops both), sending Reconfigure, DNS updates, failover.
 */
import { inPrefix, networkWords, type Words } from '../../dataplane/wire/address.ts';
import { isLinkLocal } from '../../dataplane/wire/ipv6.ts';
import type { Dhcp6ServerConfig } from '../config/index.ts';
import type { Action } from '../protocol.ts';
import * as C from './constants.ts';
import { type Context, isMulticast, isUnspecified, sameWords } from './context.ts';
import { RateLimit } from './counters.ts';
import { clientName, Delegation } from './delegation.ts';
import { macBytes, sameBytes } from './duid.ts';
import type { Lease } from './leases.ts';
import { emitMessage, type Ia, type IaPrefix, type Message, newMessage, parseMessage, type Status } from './message.ts';
import { type Datagram, output, sendTo } from './packet.ts';
import type { Item, Pool } from './pool.ts';
import { emitRelay, newRelayMessage, type RelayMessage, unwrap } from './relay-message.ts';

/** Who asks, and from where. */
interface Asker {
  name: string;
  /** Pools of addresses on its link. */
  addressPools: Pool[];
  /** Prefixes of the link, for Confirm; empty: the server cannot tell. */
  networks: Words[];
  /** Its address when it is on the port's own link: link-local with all but odd clients. */
  via: Words | null;
}

export class Server {
  readonly port: number;
  private readonly context: Context;
  private readonly config: Dhcp6ServerConfig;
  private readonly delegation: Delegation;
  private readonly limit: RateLimit;
  private readonly prefixPools: Pool[];
  private readonly addressPools: { pool: Pool; network: Words }[];

  constructor(context: Context, port: number, config: Dhcp6ServerConfig, delegation: Delegation) {
    this.context = context;
    this.port = port;
    this.config = config;
    this.delegation = delegation;
    this.limit = new RateLimit(config.rate);
    this.prefixPools = delegation.prefixPools(config);
    this.addressPools = Delegation.addressPools(config);
  }

  /**
   * Answers one datagram to port 547.
   *
   * @param now milliseconds that do not wrap
   * @param wall milliseconds since 1970
   */
  receive(now: number, wall: number, datagram: Datagram): Action[] {
    const { counters } = this.context;
    const { payload } = datagram;
    if (payload.length > 0) counters.gotMessage(payload[0]);
    if (!this.limit.allows(now)) {
      counters.fault('flood');
      return [];
    }
    if (payload[0] === C.RELAY_FORW) return this.receiveRelayed(wall, datagram);
    const message = parseMessage(payload);
    if (message === null) {
      counters.fault('malformed');
      return [];
    }
    // §18.3: what is sent to an address of the server has no business there since RFC 9915 dropped server unicast.
    if (!sameWords(datagram.to, C.ALL_RELAYS_AND_SERVERS)) {
      counters.fault('unicast');
      return [];
    }
    // §13.1: clients speak from their link-local address, or another of the link: a route may lead there.
    if (isMulticast(datagram.from) || !this.context.addresses.isOnLink(this.port, 6, datagram.from)) {
      counters.fault('unexpected');
      return [];
    }
    const mac = macBytes({ lo: datagram.macLo, hi: datagram.macHi });
    const asker = this.asker(message, mac, this.ownNetworks(), datagram.from);
    const { reply, actions } = this.answer(wall, message, asker);
    const near = isLinkLocal(datagram.from[0]);
    const from = near ? this.context.linkLocal(this.port) : this.context.global(this.port);
    if (reply === null || from === undefined) return actions;
    counters.sentMessage(reply.type);
    const sent = sendTo(
      this.context.interfaces,
      {
        port: this.port,
        from,
        to: datagram.from,
        fromPort: C.SERVER_PORT,
        toPort: C.CLIENT_PORT,
        payload: emitMessage(reply),
      },
      datagram.macLo,
      datagram.macHi,
    );
    if (sent === undefined) counters.fault('too-long');
    return sent === undefined ? actions : [...actions, sent];
  }

  /** §18.3.10 and §19.3: the reply goes back through the relays that the message came by. */
  private receiveRelayed(wall: number, datagram: Datagram): Action[] {
    const { counters } = this.context;
    if (
      !this.config.relays.some((prefix) => prefix.family === 6 && inPrefix(datagram.from, { ...prefix, family: 6 }))
    ) {
      counters.fault('untrusted-relay');
      return [];
    }
    if (datagram.payload[1] >= C.HOP_COUNT_LIMIT) {
      counters.fault('hop-limit');
      return [];
    }
    const found = unwrap(datagram.payload, C.HOP_COUNT_LIMIT + 1);
    const message = found === null ? null : parseMessage(found.message);
    if (found === null || message === null) {
      counters.fault('malformed');
      return [];
    }
    const { relays } = found;
    // The relay next to the client names it, and knows its link; an LDRA leaves the link to the next one (RFC 6221 §5.1).
    const remoteId = relays.findLast((relay) => relay.remoteId !== null)?.remoteId?.id ?? null;
    const link = relays.findLast((relay) => !isUnspecified(relay.link))?.link;
    const networks = link === undefined ? this.ownNetworks() : [networkWords(6, link, 64)];
    const { reply, actions } = this.answer(wall, message, this.asker(message, remoteId, networks, null));
    if (reply === null) return actions;
    counters.sentMessage(reply.type);
    const payload = relays.reduceRight((inner, relay) => emitRelay(replyTo(relay, inner)), emitMessage(reply));
    const linkLocal = isLinkLocal(datagram.from[0]);
    const from = linkLocal ? this.context.linkLocal(this.port) : this.ownAddress(datagram.to);
    if (from === undefined) {
      counters.fault('not-relayed');
      return actions;
    }
    counters.sentMessage(C.RELAY_REPL);
    const { port, from: to } = datagram;
    return [...actions, output({ port, from, to, fromPort: C.SERVER_PORT, toPort: C.SERVER_PORT, payload })];
  }

  /** The address that the relay asked, or for a group one of the port's. */
  private ownAddress(asked: Words): Words | undefined {
    return (asked[0] & 0xff) === 0xff ? this.context.global(this.port) : asked;
  }

  private ownNetworks(): Words[] {
    const own = this.context.addresses.ofPort(this.port);
    return own
      .filter((a) => a.family === 6 && a.prefixLength <= 64 && !isLinkLocal(a.words[0]))
      .map((a) => networkWords(6, a.words, 64));
  }

  private asker(message: Message, remoteId: Uint8Array | null, networks: Words[], via: Words | null): Asker | null {
    const byRemote = this.config.identify === 'remote-id';
    if (byRemote ? remoteId === null : message.clientId === null) {
      // An Information-request may come without a name (§18.2.6), but not where the names are the relays'.
      if (byRemote || message.type !== C.INFORMATION_REQUEST) return null;
    }
    const name = clientName(message.clientId, byRemote ? remoteId : null);
    if (this.config.clients === 'known' && this.delegation.knownClient(name) === undefined) return null;
    const here = this.addressPools.filter(({ network }) => networks.some((one) => sameWords(one, network)));
    // A server that has no address of the link itself gives from all that it has.
    const addressPools = (here.length > 0 || networks.length > 0 ? here : this.addressPools).map(({ pool }) => pool);
    return { name, addressPools, networks, via };
  }

  private answer(wall: number, message: Message, asker: Asker | null): { reply: Message | null; actions: Action[] } {
    const { counters } = this.context;
    const nothing = { reply: null, actions: [] };
    if (asker === null) {
      counters.fault('unknown-client');
      return nothing;
    }
    if (!this.isInOrder(message)) return nothing;
    const type =
      message.type === C.SOLICIT && !(message.rapidCommit && this.config.rapidCommit) ? C.ADVERTISE : C.REPLY;
    const reply = newMessage(type, message.xid);
    reply.clientId = message.clientId;
    reply.serverId = this.context.duid(this.config.duid, this.port);
    const actions: Action[] = [];
    try {
      if (!this.fill(wall, message, asker, reply, actions)) return { reply: null, actions };
    } catch {
      // The lease file: nothing may be promised that is not written. What was given before it failed stays given.
      counters.fault('not-stored');
      return { reply: null, actions };
    }
    return { reply, actions };
  }

  /** §16: which messages must be discarded, whatever else they say. */
  private isInOrder(message: Message): boolean {
    const { counters } = this.context;
    const mine = sameBytes(message.serverId, this.context.duid(this.config.duid, this.port));
    switch (message.type) {
      case C.SOLICIT:
      case C.CONFIRM:
      case C.REBIND:
        // §16.2, §16.5, §16.7: with a server identifier they are wrong.
        if (message.clientId !== null && message.serverId === null) return true;
        break;
      case C.REQUEST:
      case C.RENEW:
      case C.RELEASE:
      case C.DECLINE:
        if (message.clientId !== null && message.serverId !== null) {
          if (mine) return true;
          counters.fault('wrong-server');
          return false;
        }
        break;
      case C.INFORMATION_REQUEST:
        // §16.12.
        if (message.ias.length === 0 && (message.serverId === null || mine)) return true;
        break;
    }
    counters.fault('unexpected');
    return false;
  }

  /** Writes the answer; false: there is none. */
  private fill(wall: number, message: Message, asker: Asker, reply: Message, actions: Action[]): boolean {
    switch (message.type) {
      case C.SOLICIT: {
        const commit = reply.type === C.REPLY;
        reply.rapidCommit = commit;
        if (!commit) reply.preference = this.config.preference;
        const offered = new Set<Lease>();
        for (const ia of message.ias) reply.ias.push(this.grant(wall, ia, asker, commit, actions, offered));
        break;
      }
      case C.REQUEST:
        for (const ia of message.ias) reply.ias.push(this.grant(wall, ia, asker, true, actions, new Set()));
        break;
      case C.RENEW:
      case C.REBIND:
        for (const ia of message.ias) {
          const renewed = this.renew(wall, ia, asker, message.type === C.REBIND, actions);
          if (renewed !== null) reply.ias.push(renewed);
        }
        if (reply.ias.length === 0 && message.ias.length > 0) return false;
        break;
      case C.CONFIRM: {
        const asked = message.ias.flatMap((ia) => ia.addresses);
        // §18.3.3: nothing to judge, or no way to judge it.
        if (asked.length === 0 || asker.networks.length === 0) return false;
        const onLink = asked.every((a) => asker.networks.some((one) => sameWords(one, networkWords(6, a.words, 64))));
        reply.status = onLink
          ? status(C.SUCCESS, 'all addresses are on the link')
          : status(C.NOT_ON_LINK, 'not on this link');
        break;
      }
      case C.RELEASE:
      case C.DECLINE:
        for (const ia of message.ias) this.giveBack(wall, ia, asker, message.type === C.DECLINE, reply, actions);
        reply.status = status(C.SUCCESS, message.type === C.DECLINE ? 'declined' : 'released');
        break;
    }
    this.tell(message, reply);
    return true;
  }

  /** Other configuration, as far as the client asked for it (§18.3.2). */
  private tell(message: Message, reply: Message): void {
    const asked = new Set(message.request);
    if (asked.has(C.OPT_DNS_SERVERS)) reply.dns = this.config.dns;
    if (asked.has(C.OPT_DOMAIN_LIST)) reply.domains = this.config.domains;
    if (message.type === C.INFORMATION_REQUEST && asked.has(C.OPT_INFORMATION_REFRESH_TIME))
      reply.informationRefresh = this.config.refresh;
  }

  private poolsOf(kind: Lease['kind'], asker: Asker): Pool[] {
    return kind === 'pd' ? this.prefixPools : asker.addressPools;
  }

  /**
   * What an IA gets. With `commit` it is written and belongs to the client from now on; without it, it is what it would
   * get (`offered`: to the IAs before it in the same message).
   */
  private grant(wall: number, ia: Ia, asker: Asker, commit: boolean, actions: Action[], offered: Set<Lease>): Ia {
    const answer = newIa(ia);
    const pools = this.poolsOf(ia.kind, asker);
    const { leases } = this.delegation;
    const held = leases
      .of(asker.name, ia.kind, ia.iaid)
      .filter((lease) => this.delegation.allows(asker.name, lease, pools));
    const hints = itemsOf(ia);
    const wanted = Math.max(1, held.length, ia.kind === 'pd' ? hints.length : 1);
    const chosen: Item[] = held.slice(0, wanted);
    let room = this.config.maxLeases - leases.of(asker.name).length - offered.size;
    let limited = false;
    if (chosen.length < wanted)
      for (const item of this.delegation.candidates(asker.name, ia.kind, hints, pools)) {
        if ([...offered, ...chosen].some((one) => isSame(one, item))) continue;
        limited = room <= 0;
        if (limited) break;
        room--;
        chosen.push(item);
        if (chosen.length === wanted) break;
      }
    for (const item of chosen) {
      const lease = this.lease(wall, asker, ia, item);
      if (commit) actions.push(...this.delegation.give(lease, wall));
      offered.add(lease);
      this.append(answer, item, this.config.preferred, this.config.valid);
    }
    if (chosen.length > 0) return answer;
    this.context.counters.fault(limited ? 'lease-limit' : ia.kind === 'pd' ? 'no-prefixes' : 'no-addresses');
    answer.t1 = answer.t2 = 0;
    answer.status =
      ia.kind === 'pd'
        ? status(C.NO_PREFIX_AVAIL, 'no prefix is free')
        : status(C.NO_ADDRS_AVAIL, 'no address is free');
    return answer;
  }

  /** Renew (§18.3.4) and Rebind (§18.3.5) of one IA; null: nothing to say about it. */
  private renew(wall: number, ia: Ia, asker: Asker, rebind: boolean, actions: Action[]): Ia | null {
    const answer = newIa(ia);
    const pools = this.poolsOf(ia.kind, asker);
    const held = this.delegation.leases.of(asker.name, ia.kind, ia.iaid);
    const asked = itemsOf(ia);
    if (held.length === 0) {
      if (!rebind) {
        answer.t1 = answer.t2 = 0;
        answer.status = status(C.NO_BINDING, 'no such binding');
        return answer;
      }
      // §18.3.5: another server's client. What is ours and free it may keep; what cannot be on this link it must not.
      const free = asked.filter(
        (item) =>
          this.delegation.leases.get(item.words, item.prefixLength) === undefined &&
          this.delegation.allows(asker.name, item, pools),
      );
      const room = this.delegation.hasRoom(ia.kind)
        ? Math.max(0, this.config.maxLeases - this.delegation.leases.of(asker.name).length)
        : 0;
      if (free.length > 0 && room > 0) {
        for (const item of free.slice(0, room)) {
          actions.push(...this.delegation.give(this.lease(wall, asker, ia, item), wall));
          this.append(answer, item, this.config.preferred, this.config.valid);
        }
        return answer;
      }
      if (asked.length === 0 || pools.length === 0) return null;
      for (const item of asked) this.append(answer, item, 0, 0);
      return answer;
    }
    let kept = 0;
    for (const lease of held) {
      if (this.delegation.allows(asker.name, lease, pools)) {
        actions.push(...this.delegation.give(this.lease(wall, asker, ia, lease), wall));
        this.append(answer, lease, this.config.preferred, this.config.valid);
        kept++;
      } else {
        // The pool has become another: the old lease ends now, and a new one comes with the same message (RFC 9096).
        actions.push(...this.delegation.end(lease));
        this.append(answer, lease, 0, 0);
      }
    }
    for (const item of asked) if (!held.some((lease) => isSame(lease, item))) this.append(answer, item, 0, 0);
    if (kept === 0) {
      const fresh = this.grant(wall, { ...ia, addresses: [], prefixes: [] }, asker, true, actions, new Set());
      answer.addresses.push(...fresh.addresses);
      answer.prefixes.push(...fresh.prefixes);
    }
    return answer;
  }

  /** Release (§18.3.7) and Decline (§18.3.8) of one IA. */
  private giveBack(wall: number, ia: Ia, asker: Asker, decline: boolean, reply: Message, actions: Action[]): void {
    const held = this.delegation.leases.of(asker.name, ia.kind, ia.iaid);
    if (held.length === 0) {
      const answer = newIa(ia);
      answer.t1 = answer.t2 = 0;
      answer.status = status(C.NO_BINDING, 'no such binding');
      reply.ias.push(answer);
      return;
    }
    for (const item of itemsOf(ia)) {
      const lease = held.find((one) => isSame(one, item));
      if (lease === undefined) continue;
      // Prefixes cannot be declined: nobody else can have one by accident.
      if (decline && ia.kind === 'na') actions.push(...this.delegation.decline(lease, wall));
      else if (!decline) actions.push(...this.delegation.end(lease));
    }
  }

  private lease(wall: number, asker: Asker, ia: Ia, item: Item): Lease {
    return {
      client: asker.name,
      kind: ia.kind,
      iaid: ia.iaid,
      words: item.words,
      prefixLength: item.prefixLength,
      preferred: wall + this.config.preferred * 1000,
      valid: wall + this.config.valid * 1000,
      port: asker.via === null ? '' : this.context.names[this.port],
      via: asker.via,
    };
  }

  private append(answer: Ia, item: Item, preferred: number, valid: number): void {
    const lifetimes = { words: item.words, preferred, valid, status: null };
    if (answer.kind === 'na') answer.addresses.push(lifetimes);
    else answer.prefixes.push({ ...lifetimes, prefixLength: item.prefixLength });
    if (valid === 0) return;
    // §14.2: 0.5 and 0.8 of the shortest preferred lifetime.
    answer.t1 = Math.floor(preferred * 0.5);
    answer.t2 = Math.floor(preferred * 0.8);
  }
}

function newIa(ia: Ia): Ia {
  return { kind: ia.kind, iaid: ia.iaid, t1: 0, t2: 0, addresses: [], prefixes: [], status: null };
}

function itemsOf(ia: Ia): Item[] {
  if (ia.kind === 'na') return ia.addresses.map(({ words }) => ({ words, prefixLength: 128 }));
  return ia.prefixes.map(({ words, prefixLength }: IaPrefix) => ({ words, prefixLength }));
}

function isSame(a: Item, b: Item): boolean {
  return a.prefixLength === b.prefixLength && sameWords(a.words, b.words);
}

function status(code: number, text: string): Status {
  return { code, text };
}

/** §19.3: the header comes back, the interface-id too; options that the relay asked back for (RFC 4994) as well. */
function replyTo(relay: RelayMessage, message: Uint8Array): RelayMessage {
  const reply = newRelayMessage(C.RELAY_REPL, relay.hops, relay.link, relay.peer, message);
  reply.interfaceId = relay.interfaceId;
  const echo = new Set(relay.echo);
  if (echo.has(C.OPT_REMOTE_ID)) reply.remoteId = relay.remoteId;
  if (echo.has(C.OPT_SUBSCRIBER_ID)) reply.subscriberId = relay.subscriberId;
  if (echo.has(C.OPT_CLIENT_LINKLAYER_ADDR)) reply.linkLayer = relay.linkLayer;
  reply.others = relay.others.filter(({ code }) => echo.has(code));
  return reply;
}
