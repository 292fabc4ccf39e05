/**
 * What a relay or an LDRA hears on its clients' side, and whether it is to be passed on: within the rate, whole, of a type
 * that clients send from their link-local address, or of a relay that may relay and has not been reached in a loop (RFC 8415
 * §19.1, RFC 6221 §6.1). What is not is counted by its reason.
 */
import { isLinkLocal } from '../../dataplane/wire/ipv6.ts';
import * as C from './constants.ts';
import type { Context } from './context.ts';
import type { RateLimit } from './counters.ts';
import type { Datagram } from './packet.ts';
import { parseRelay, type RelayMessage } from './relay-message.ts';

/** What clients may send (§19.1: a relay passes on what is for servers). */
const FROM_CLIENTS = new Set([
  C.SOLICIT,
  C.REQUEST,
  C.CONFIRM,
  C.RENEW,
  C.REBIND,
  C.RELEASE,
  C.DECLINE,
  C.INFORMATION_REQUEST,
]);

export interface Relayable {
  type: number;
  /** Hop count that it goes on with. */
  hops: number;
  /** What another relay has made of it; null: from a client. */
  relayed: RelayMessage | null;
}

/**
 * @param now milliseconds that do not wrap
 * @param relays whether others on this link may relay: whoever may, may also say who a client is
 * @returns null when it is not passed on
 */
export function relayable(
  { counters }: Context,
  limit: RateLimit,
  now: number,
  { payload, from }: Datagram,
  relays: boolean,
): Relayable | null {
  const type = payload[0] ?? 0;
  counters.gotMessage(type);
  if (!limit.allows(now)) {
    counters.fault('flood');
    return null;
  }
  if (payload.length < 4) {
    counters.fault('malformed');
    return null;
  }
  if (type !== C.RELAY_FORW) {
    if (FROM_CLIENTS.has(type) && isLinkLocal(from[0])) return { type, hops: 0, relayed: null };
    counters.fault('unexpected');
    return null;
  }
  if (!relays) {
    counters.fault('untrusted-relay');
    return null;
  }
  // §19.1.2: whatever goes round, ends.
  if (payload[1] >= C.HOP_COUNT_LIMIT) {
    counters.fault('hop-limit');
    return null;
  }
  const relayed = parseRelay(payload);
  if (relayed === null) counters.fault('malformed');
  return relayed === null ? null : { type, hops: payload[1] + 1, relayed };
}
