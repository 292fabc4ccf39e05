/**
 * DHCPv6 relay of one port (RFC 8415 §19; RFC 4649 remote-id, RFC 4580 subscriber-id, RFC 8987 as delegating relay).
 *
 *   client ── ff02::1:2, port 547 ──→ relay ── Relay-forward { link, peer, interface-id, remote-id } ──→ servers
 *   client ←── port 546 ─────────────── relay ←─────────────────────────────── Relay-reply ──────────────── server
 *
 * It keeps nothing of a conversation: a Relay-reply says itself where it goes. What it does keep are the prefixes that
 * Replies delegate: each is a route by the client's link-local address, until its lifetime ends, a Reply takes it away,
 * or the client releases it (RFC 8987 §4.2 and §4.3). The messages themselves pass unchanged.
 *
 * They are found again when the IPv6 domain is restarted (action `keep`), not when the router is.
 *
 * Not here: bulk leasequery (RFC 5460), with which a relay could learn its routes again after a restart of the router.
 */
import { formatAddress, type Words } from '../../dataplane/wire/address.ts';
import { isLinkLocal } from '../../dataplane/wire/ipv6.ts';
import type { Dhcp6RelayConfig } from '../config/index.ts';
import type { Action, KeptValues } from '../protocol.ts';
import * as C from './constants.ts';
import { type Context, isUnspecified, sameWords, told } from './context.ts';
import { RateLimit } from './counters.ts';
import { Deadlines } from './deadlines.ts';
import { hexText, macBytes, sameBytes } from './duid.ts';
import { prefixText } from './leases.ts';
import { type Ia, type IaPrefix, type Message, parseMessage } from './message.ts';
import { type Datagram, output, sendToGroup } from './packet.ts';
import { emitRelay, newRelayMessage, type RelayMessage } from './relay-message.ts';
import { relayable } from './relayable.ts';

interface Routed {
  kind: Ia['kind'];
  words: Words;
  prefixLength: number;
  via: Words;
  client: string;
}

/** As it is kept: with its lifetime in seconds; null: for ever. */
type KeptRoute = Routed & { valid: number | null };

export class Relay {
  readonly port: number;
  private readonly context: Context;
  private readonly config: Dhcp6RelayConfig;
  private readonly limit: RateLimit;
  /** Prefixes behind clients of the port, by their text. */
  private readonly routed = new Map<string, Routed>();
  private readonly byClient = new Map<string, number>();
  private readonly ends = new Deadlines();

  constructor(context: Context, port: number, config: Dhcp6RelayConfig) {
    this.context = context;
    this.port = port;
    this.config = config;
    this.limit = new RateLimit(config.rate);
  }

  /** A datagram to port 547 that a client, or a relay nearer to it, sent on this port. */
  receive(now: number, datagram: Datagram): Action[] {
    const heard = relayable(this.context, this.limit, now, datagram, this.config.relays);
    if (heard === null) return [];
    const { payload, from } = datagram;
    const { type, hops, relayed } = heard;
    // §19.1.1: an address of the client's link; none is left to the interface-id. §19.1.2: a global source says itself where
    // it is, unless the relay before left the link to us (RFC 6221 §5.1).
    const says = relayed !== null && !isLinkLocal(from[0]) && !isUnspecified(relayed.link);
    const link = says ? C.UNSPECIFIED : (this.context.global(this.port) ?? C.UNSPECIFIED);
    const forward = newRelayMessage(C.RELAY_FORW, hops, link, from, payload.slice());
    forward.interfaceId = this.config.interfaceId;
    this.describe(forward, datagram, relayed !== null);
    const actions = type === C.RELEASE ? this.released(payload, from) : [];
    return [...actions, ...this.toServers(emitRelay(forward))];
  }

  private describe(forward: RelayMessage, datagram: Datagram, relayed: boolean): void {
    const { remoteId, enterprise, subscriberId } = this.config;
    // The MAC of a relay says nothing about the client behind it.
    if (remoteId !== 'none' && !(relayed && remoteId === 'mac')) {
      const id = remoteId === 'mac' ? macBytes({ lo: datagram.macLo, hi: datagram.macHi }) : remoteId;
      forward.remoteId = { enterprise, id };
    }
    forward.subscriberId = subscriberId;
  }

  private toServers(payload: Uint8Array): Action[] {
    const { context, config } = this;
    const actions: Action[] = [];
    const ports = { fromPort: C.SERVER_PORT, toPort: C.SERVER_PORT, payload };
    const own = context.global(this.port);
    for (const to of config.to) {
      const from = own ?? this.anyGlobal();
      if (from !== undefined) actions.push(output({ port: this.port, from, to, ...ports }));
    }
    if (config.out >= 0) {
      const from = context.global(config.out) ?? own;
      const out = from && sendToGroup(context.interfaces, { port: config.out, from, to: C.ALL_SERVERS, ...ports });
      if (out !== undefined) actions.push(out);
    }
    for (const _ of actions) context.counters.sentMessage(C.RELAY_FORW);
    if (actions.length === 0) context.counters.fault('not-relayed');
    return actions;
  }

  /** A port with link-local addresses alone relays with another port's address (§19.1.1). */
  private anyGlobal(): Words | undefined {
    for (let port = 0; port < this.context.names.length; port++) {
      const own = this.context.global(port);
      if (own !== undefined) return own;
    }
    return undefined;
  }

  /** True when the Relay-reply answers what this relay forwarded, and comes from whom it asked. */
  isMine(reply: RelayMessage, from: Words): boolean {
    if (!sameBytes(reply.interfaceId, this.config.interfaceId)) return false;
    return this.config.out >= 0 || this.config.to.some((server) => sameWords(server, from));
  }

  /** §19.2: the content of a Relay-reply goes to the peer that it names, on this port. */
  deliver(now: number, reply: RelayMessage): Action[] {
    const { context } = this;
    const inner = reply.message[0];
    const toRelay = inner === C.RELAY_REPL;
    if (!toRelay && inner !== C.REPLY && inner !== C.ADVERTISE && inner !== C.RECONFIGURE) {
      context.counters.fault('unexpected');
      return [];
    }
    const from = isLinkLocal(reply.peer[0]) ? context.linkLocal(this.port) : context.global(this.port);
    if (from === undefined) {
      context.counters.fault('not-relayed');
      return [];
    }
    context.counters.sentMessage(inner);
    const sent = output({
      port: this.port,
      from,
      to: reply.peer,
      fromPort: C.SERVER_PORT,
      toPort: toRelay ? C.SERVER_PORT : C.CLIENT_PORT,
      payload: reply.message,
    });
    const message = inner === C.REPLY ? parseMessage(reply.message) : null;
    const routes = message !== null && this.config.routes ? this.learn(now, message, reply.peer) : [];
    return [...routes, sent];
  }

  // --- routes to delegated prefixes ----------------------------------------------------------------------------------

  /** RFC 8987 R-1, G-8: what a Reply delegates is routed for as long as it says; addresses are remembered, not routed. */
  private learn(now: number, message: Message, via: Words): Action[] {
    if (!isLinkLocal(via[0])) return [];
    const client = hexText(message.clientId ?? new Uint8Array(0));
    const actions: Action[] = [];
    for (const { kind, words, prefixLength, preferred, valid } of message.ias.flatMap(itemsOf)) {
      const text = prefixText(words, prefixLength);
      const counted = `${kind} ${client}`;
      const known = this.routed.get(text);
      const same = known !== undefined && known.client === client && sameWords(known.via, via);
      if (valid === 0 || preferred > valid) {
        if (same && valid === 0) actions.push(...this.withdraw(text));
        continue;
      }
      // RFC 8987 G-6: one client cannot fill the table.
      if (!same && (this.byClient.get(counted) ?? 0) >= this.config.maxLeases) {
        this.context.counters.fault('lease-limit');
        continue;
      }
      this.ends.set(text, valid === C.INFINITY ? Number.POSITIVE_INFINITY : now + valid * 1000);
      const routed = { kind, words, prefixLength, via, client };
      actions.push(this.keep(text, { ...routed, valid: valid === C.INFINITY ? null : valid }));
      if (same) continue;
      if (known !== undefined) {
        const end = valid === C.INFINITY ? Number.POSITIVE_INFINITY : now + valid * 1000;
        actions.push(...this.withdraw(text));
        this.ends.set(text, end);
      }
      actions.push(
        ...this.install(text, routed),
        told('dhcp6.delegated', this.dataOf(text, valid === C.INFINITY ? null : valid)),
      );
    }
    return actions;
  }

  private install(text: string, routed: Routed): Action[] {
    const counted = `${routed.kind} ${routed.client}`;
    this.routed.set(text, routed);
    this.byClient.set(counted, (this.byClient.get(counted) ?? 0) + 1);
    return this.route('add', routed);
  }

  /** Addresses are on the link: they have no route of their own. */
  private route(op: 'add' | 'remove', { kind, words, prefixLength, via }: Routed): Action[] {
    if (kind === 'na') return [];
    return [{ kind: 'route', op, family: 6, words, prefixLength, via, port: this.port, source: 'pd' }];
  }

  private keep(text: string, value: KeptRoute | null): Action {
    return { kind: 'keep', key: `${this.keyPrefix}${text}`, value };
  }

  private get keyPrefix(): string {
    return `dhcp6-relay ${this.context.names[this.port]} `;
  }

  /** Takes up the routes of this port's relay in the domain before. */
  resume(now: number, kept: KeptValues): Action[] {
    const actions: Action[] = [];
    for (const [key, { value, age }] of kept) {
      if (!key.startsWith(this.keyPrefix)) continue;
      const { valid, ...routed } = value as KeptRoute;
      const end = valid === null ? Number.POSITIVE_INFINITY : now - age + valid * 1000;
      const text = prefixText(routed.words, routed.prefixLength);
      this.ends.set(text, end);
      actions.push(...this.install(text, routed));
    }
    return actions;
  }

  /** RFC 8987 G-9: a Release ends what it names, when it comes from where the prefix is routed to. */
  private released(payload: Uint8Array, from: Words): Action[] {
    const message = parseMessage(payload);
    if (message === null) return [];
    const client = hexText(message.clientId ?? new Uint8Array(0));
    return message.ias
      .flatMap(itemsOf)
      .map(({ words, prefixLength }) => prefixText(words, prefixLength))
      .filter((text) => {
        const known = this.routed.get(text);
        return known !== undefined && known.client === client && sameWords(known.via, from);
      })
      .flatMap((text) => this.withdraw(text));
  }

  private withdraw(text: string): Action[] {
    const known = this.routed.get(text);
    if (known === undefined) return [];
    const { kind, client } = known;
    const event = told('dhcp6.withdrawn', this.dataOf(text, null));
    this.routed.delete(text);
    this.ends.delete(text);
    const counted = `${kind} ${client}`;
    const left = (this.byClient.get(counted) ?? 1) - 1;
    if (left > 0) this.byClient.set(counted, left);
    else this.byClient.delete(counted);
    return [...this.route('remove', known), this.keep(text, null), event];
  }

  private dataOf(prefix: string, valid: number | null) {
    const { via, client } = this.routed.get(prefix)!;
    const port = this.context.names[this.port];
    return { port, prefix, via: formatAddress(6, ...via), client: `duid:${client}`, valid };
  }

  /** Ends the routes whose lifetime is over. */
  expire(now: number): Action[] {
    const actions: Action[] = [];
    for (let text = this.ends.take(now); text !== undefined; text = this.ends.take(now))
      actions.push(...this.withdraw(text));
    return actions;
  }

  /** When the next lifetime ends. */
  next(): number {
    return this.ends.next();
  }

  /** Prefixes routed now, with the link-local addresses that they are behind. */
  get routes(): ReadonlyMap<string, { via: Words }> {
    return new Map([...this.routed].filter(([, { kind }]) => kind === 'pd'));
  }
}

function itemsOf(ia: Ia): (IaPrefix & { kind: Ia['kind'] })[] {
  if (ia.kind === 'pd') return ia.prefixes.map((prefix) => ({ ...prefix, kind: 'pd' }));
  return ia.addresses.map((address) => ({ ...address, prefixLength: 128, kind: 'na' }));
}
