/**
 * What a DHCPv6 client has, and what messages give it: leases out of the IAs of an Advertise or Reply, as far as a client may
 * believe them (RFC 8415 §21.4, §21.6, §21.22). The state machine around it is client.ts.
 */
import type { Words } from '../../dataplane/wire/address.ts';
import { isLinkLocal } from '../../dataplane/wire/ipv6.ts';
import { INFINITY } from './constants.ts';
import { isMulticast, sameWords } from './context.ts';
import type { Ia, Message } from './message.ts';

const FOREVER = Number.POSITIVE_INFINITY;

/** An address or prefix that the client has; times are milliseconds that do not wrap. */
export interface Held {
  kind: 'na' | 'pd';
  iaid: number;
  words: Words;
  prefixLength: number;
  preferred: number;
  valid: number;
  deprecated: boolean;
}

/** An IA with nothing in it yet. */
export function newIa(kind: 'na' | 'pd', iaid: number): Ia {
  return { kind, iaid, t1: 0, t2: 0, addresses: [], prefixes: [], status: null };
}

/** True when both are of one IA and about the same addresses, whatever their times. */
export function isSame(a: Held, b: Held): boolean {
  return a.kind === b.kind && a.iaid === b.iaid && a.prefixLength === b.prefixLength && sameWords(a.words, b.words);
}

/** §21.4: an IA whose T1 is later than its T2 is ignored. */
export function isBelievable({ t1, t2 }: Ia): boolean {
  return t1 <= t2 || t1 === 0 || t2 === 0;
}

/** Nobody's provider has more: a prefix of ::/0 would refuse all that is beyond it. */
const SHORTEST_PREFIX = 16;

/** True for unicast that means something beyond the link: not ::/8 (unspecified, loopback, mapped), fe80::/10 and ff00::/8. */
function isGivable(words: Words, prefixLength: number): boolean {
  return (words[0] & 0xff) !== 0 && !isLinkLocal(words[0]) && !isMulticast(words) && prefixLength >= SHORTEST_PREFIX;
}

/**
 * The leases of a message that a client may believe: not from an IA whose T1 is later than its T2 (§21.4), not with a
 * preferred lifetime longer than the valid one (§21.6, §21.22). `ended`: those that a valid lifetime of 0 ends, too.
 */
export function heldOf(message: Message, now: number, ended = false): Held[] {
  const leases: Held[] = [];
  for (const ia of message.ias) {
    if (!isBelievable(ia)) continue;
    const { kind, iaid, addresses, prefixes } = ia;
    const add = (words: Words, prefixLength: number, preferred: number, valid: number) => {
      if (preferred > valid || (valid === 0 && !ended) || !isGivable(words, prefixLength)) return;
      const end = (seconds: number) => (seconds === INFINITY ? FOREVER : now + seconds * 1000);
      leases.push({
        kind,
        iaid,
        words,
        prefixLength,
        preferred: end(preferred),
        valid: end(valid),
        deprecated: false,
      });
    };
    for (const { words, preferred, valid } of addresses) add(words, 128, preferred, valid);
    for (const { words, prefixLength, preferred, valid } of prefixes) add(words, prefixLength, preferred, valid);
  }
  return leases;
}

/** What a Request after NoBinding refers to: the server and what it did renew. */
export function requestOf(message: Message): Message {
  return { ...message, ias: message.ias.filter((ia) => ia.status === null) };
}
