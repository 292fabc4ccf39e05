/**
 * Lightweight DHCPv6 relay agent (RFC 6221) between one port with clients and one toward the network.
 *
 *   client ──→ LDRA ── Relay-forward: link ::, peer and IP source = the client's ──→ ff02::1:2 on the network's side
 *   client ←── LDRA ←── Relay-reply to the client's address, port 547 ─────────────── relay or server there
 *
 * It has no address of its own in the exchange. A bridge would see the answer pass by; a router has to be found: the
 * LDRA answers neighbour solicitations for its clients' link-local addresses on the network's side (IFF_LDRA lets their
 * answers through to here). It remembers the MACs of the clients that have asked, some thousands at most.
 *
 * Not here: the client's other traffic, which is routed or not, as the configuration says.
 */
import { formatAddress, type Words } from '../../dataplane/wire/address.ts';
import { isLinkLocal } from '../../dataplane/wire/ipv6.ts';
import type { Dhcp6LdraConfig } from '../config/index.ts';
import type { Action } from '../protocol.ts';
import * as C from './constants.ts';
import { type Context, sameWords } from './context.ts';
import { RateLimit } from './counters.ts';
import { macBytes, sameBytes } from './duid.ts';
import { type Datagram, sendTo, sendToGroup } from './packet.ts';
import { emitRelay, newRelayMessage, type RelayMessage } from './relay-message.ts';
import { relayable } from './relayable.ts';

/** Clients remembered: the one that asked longest ago makes room. */
const MAX_CLIENTS = 4096;

export class Ldra {
  /** The port with the clients, and the one toward the network. */
  readonly port: number;
  readonly network: number;
  private readonly context: Context;
  private readonly config: Dhcp6LdraConfig;
  private readonly limit: RateLimit;
  private readonly clients = new Map<string, { words: Words; lo: number; hi: number }>();

  constructor(context: Context, port: number, config: Dhcp6LdraConfig) {
    this.context = context;
    this.port = port;
    this.network = config.to;
    this.config = config;
    this.limit = new RateLimit(config.rate);
  }

  /** A datagram to port 547 from the clients' side. */
  receive(now: number, datagram: Datagram): Action[] {
    const { counters } = this.context;
    // RFC 6221 §6.1: from an untrusted port no message of servers or relays.
    const heard = relayable(this.context, this.limit, now, datagram, this.config.trusted);
    if (heard === null) return [];
    const { payload, from } = datagram;
    if (!isLinkLocal(from[0])) {
      counters.fault('unexpected');
      return [];
    }
    this.remember(datagram);
    // §5.3.1: hop count 0 for a client's, one more for a relay's; the link is left to the next relay.
    const forward = newRelayMessage(C.RELAY_FORW, heard.hops, C.UNSPECIFIED, from, payload.slice());
    forward.interfaceId = this.config.interfaceId;
    const { remoteId, enterprise } = this.config;
    if (remoteId !== 'none') {
      const id = remoteId === 'mac' ? macBytes({ lo: datagram.macLo, hi: datagram.macHi }) : remoteId;
      forward.remoteId = { enterprise, id };
    }
    const sent = sendToGroup(this.context.interfaces, {
      port: this.network,
      from,
      to: C.ALL_RELAYS_AND_SERVERS,
      fromPort: C.SERVER_PORT,
      toPort: C.SERVER_PORT,
      payload: emitRelay(forward),
    });
    if (sent === undefined) {
      counters.fault('too-long');
      return [];
    }
    counters.sentMessage(C.RELAY_FORW);
    return [sent];
  }

  private remember(datagram: Datagram): void {
    const { addresses } = this.context;
    const text = formatAddress(6, ...datagram.from);
    if (!this.clients.delete(text)) {
      if (this.clients.size >= MAX_CLIENTS) {
        const [oldest] = this.clients;
        this.clients.delete(oldest[0]);
        addresses.removeProxy(this.network, 6, oldest[1].words, 128);
      }
      addresses.addProxy(this.network, 6, datagram.from, 128);
    }
    this.clients.set(text, { words: datagram.from, lo: datagram.macLo, hi: datagram.macHi });
  }

  isMine(reply: RelayMessage, datagram: Datagram): boolean {
    // §5.3.2: it is to the client's address, and with our interface-id.
    return (
      datagram.port === this.network &&
      sameBytes(reply.interfaceId, this.config.interfaceId) &&
      sameWords(reply.peer, datagram.to)
    );
  }

  /** §5.3.2: the content of the Relay-reply goes to the client as it came: from the sender's address. */
  deliver(reply: RelayMessage, datagram: Datagram): Action[] {
    const { counters } = this.context;
    const client = this.clients.get(formatAddress(6, ...reply.peer));
    const type = reply.message[0];
    if (client === undefined || !isLinkLocal(datagram.from[0])) {
      counters.fault('wrong-transaction');
      return [];
    }
    const sent = sendTo(
      this.context.interfaces,
      {
        port: this.port,
        from: datagram.from,
        to: reply.peer,
        fromPort: C.SERVER_PORT,
        toPort: type === C.RELAY_REPL ? C.SERVER_PORT : C.CLIENT_PORT,
        payload: reply.message,
      },
      client.lo,
      client.hi,
    );
    if (sent === undefined) counters.fault('too-long');
    else counters.sentMessage(type);
    return sent === undefined ? [] : [sent];
  }
}
