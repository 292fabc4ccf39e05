/**
 * What DHCPv6 counts: each message received and sent by its type, and each thing that went wrong by one word.
 */
import { MESSAGE_NAMES } from './constants.ts';

/** Why a message got no answer, or a wrong one was noticed; a sentence each for people. */
export const FAULTS = {
  malformed: 'the message or one of its options breaks its format',
  unexpected: 'a type, or options, that the receiver must not get in that role (RFC 8415 §16)',
  'wrong-transaction': 'an answer to nothing that was asked, or to another client',
  'unknown-client': 'a client that is not configured, or that no trusted relay vouches for',
  'untrusted-relay': 'a relayed message from somebody who is not a relay of ours',
  'hop-limit': 'relayed more often than allowed: a loop of relays',
  flood: 'more messages than the limit of the port',
  'no-addresses': 'no address was free',
  'no-prefixes': 'no prefix was free',
  'lease-limit': 'a client that has as many leases as it may',
  'wrong-server': 'a message for another server',
  unicast: 'a message sent to an address instead of the group',
  'not-authentic': 'a Reconfigure without a right authentication',
  'not-stored': 'the lease file could not be written: nothing was promised',
  'file-damaged': 'the lease file was cut or changed: read up to the last whole record, the rest kept aside',
  'too-long': 'an answer that does not fit the link',
  'not-relayed': 'no usable address to relay from, or nobody to relay to',
} as const;

export type Fault = keyof typeof FAULTS;

export class Counters {
  readonly received: Record<string, number> = {};
  readonly sent: Record<string, number> = {};
  readonly faults: Partial<Record<Fault, number>> = {};

  gotMessage(type: number): void {
    const name = MESSAGE_NAMES[type] ?? 'unknown';
    this.received[name] = (this.received[name] ?? 0) + 1;
  }

  sentMessage(type: number): void {
    const name = MESSAGE_NAMES[type] ?? 'unknown';
    this.sent[name] = (this.sent[name] ?? 0) + 1;
  }

  fault(fault: Fault): void {
    this.faults[fault] = (this.faults[fault] ?? 0) + 1;
  }
}

/** At most `rate` a second on average, and as many at once. */
export class RateLimit {
  private tokens: number;
  private last = 0;
  private readonly rate: number;

  constructor(rate: number) {
    this.rate = rate;
    this.tokens = rate;
  }

  /** @param now milliseconds that do not wrap */
  allows(now: number): boolean {
    this.tokens = Math.min(this.rate, this.tokens + ((now - this.last) * this.rate) / 1000);
    this.last = now;
    if (this.tokens < 1) return false;
    this.tokens--;
    return true;
  }
}
