/**
 * Servers that do not speak EDNS0: they refuse a question for its OPT record (RFC 6891 §7: FORMERR; older ones NOTIMP), and
 * are asked without one for a while (§6.2.2). Bounded; times are the router's clock, which wraps: `sweep` is to be called
 * once a day.
 */
import { type Address, formatAddress } from '../../dataplane/wire/address.ts';

/** Then they are tried again: they may have learned it. */
const PLAIN_TIME = 900_000;
const MAX_SERVERS = 64;

export class PlainServers {
  private readonly until = new Map<string, number>();

  add(now: number, server: Address): void {
    const [first] = this.until.keys();
    if (this.until.size >= MAX_SERVERS) this.until.delete(first);
    this.until.set(keyOf(server), (now + PLAIN_TIME) | 0);
  }

  has(now: number, server: Address): boolean {
    const until = this.until.get(keyOf(server));
    return until !== undefined && ((until - now) | 0) > 0;
  }

  /** Forgets what is over, before the clock calls it fresh again. */
  sweep(now: number): void {
    for (const [key, until] of this.until) if (((until - now) | 0) <= 0) this.until.delete(key);
  }
}

function keyOf({ family, words }: Address): string {
  return formatAddress(family, ...words);
}
