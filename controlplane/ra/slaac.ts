/**
 * Stateless addresses of one port, from the prefixes that routers announce (RFC 4862 §5.5; RFC 8981 for temporary ones).
 *
 * Every prefix with the A flag gives one address by the port's kind of identifier, and with `temporary` a second one that
 * is replaced every day. The book of addresses runs duplicate address detection on them; a stable or temporary identifier
 * that turns out to be taken is made anew (RFC 7217 §6, RFC 8981 §3.4), up to three times. A prefix with only the L flag
 * becomes a route to the link. Times are milliseconds that do not wrap.
 */
import { IF_MAC_HI, IF_MAC_LO, type InterfaceTable } from '../../dataplane/interfaces.ts';
import { formatIpv6, type Words } from '../../dataplane/wire/address.ts';
import type { Addresses } from '../neighbour/addresses.ts';
import type { Action } from '../protocol.ts';
import { type RandomSource, uniform } from '../random.ts';
import { compose, eui64, type Identifier, stable, temporary } from './identifiers.ts';
import { endOf, isUsablePrefix, type PrefixOption } from './message.ts';

export interface SlaacConfig {
  name: string;
  /** none: prefixes give no addresses. */
  identifier: 'eui64' | 'stable' | 'none';
  /** Secret of stable identifiers (RFC 7217 §5); kept, the addresses stay the same. */
  secret: string;
  temporary: boolean;
}

const MAX_PREFIXES = 16;
/** RFC 7217 §6 IDGEN_RETRIES, RFC 8981 §3.8 TEMP_IDGEN_RETRIES. */
const RETRIES = 3;
/** RFC 4862 §5.5.3 e: an unauthenticated advertisement cannot shorten a lifetime below two hours. */
const TWO_HOURS = 7_200_000;
/** RFC 8981 §3.8, milliseconds. */
const TEMP_PREFERRED_LIFETIME = 86_400_000;
const TEMP_VALID_LIFETIME = 2 * 86_400_000;
const MAX_DESYNC = 0.4 * TEMP_PREFERRED_LIFETIME;
const REGEN_ADVANCE = 5_000;
const NEVER = Number.POSITIVE_INFINITY;

interface Made {
  words: Words;
  /** 64, or 128 when its prefix is not on the link. */
  prefixLength: number;
  isTemporary: boolean;
  attempt: number;
  /** Ends; null: never. */
  preferred: number | null;
  valid: number | null;
  /** Temporary: when it was made, and whether its successor has been. */
  born: number;
  succeeded: boolean;
  deprecated: boolean;
}

interface Prefix {
  words: Words;
  prefixLength: number;
  onLink: boolean;
  /** End of the on-link route; null: never, undefined: there is none. */
  routeUntil: number | null | undefined;
  made: Made[];
  /** Latest lifetimes, for temporary addresses that are made later. */
  preferred: number | null;
  valid: number | null;
}

export class Slaac {
  private readonly port: number;
  private readonly config: SlaacConfig;
  private readonly interfaces: InterfaceTable;
  private readonly addresses: Addresses;
  private readonly random: RandomSource;
  private readonly counters: { full: number; ignored: number };
  private readonly prefixes: Prefix[] = [];
  /** RFC 8981 §3.4: fixed for the life of the port, so that hosts do not all change at the same moment. */
  private readonly desync: number;

  constructor(
    port: number,
    config: SlaacConfig,
    interfaces: InterfaceTable,
    addresses: Addresses,
    random: RandomSource,
    counters: { full: number; ignored: number },
  ) {
    this.port = port;
    this.config = config;
    this.interfaces = interfaces;
    this.addresses = addresses;
    this.random = random;
    this.counters = counters;
    this.desync = config.temporary ? uniform(random, 0, MAX_DESYNC) : 0;
  }

  /** One prefix option of an advertisement. */
  prefix(now: number, option: PrefixOption, out: Action[]): void {
    // RFC 4862 §5.5.3 b, c.
    if (!isUsablePrefix(option.words) || option.preferred > option.valid) {
      this.counters.ignored++;
      return;
    }
    let known = this.prefixes.find((p) => p.prefixLength === option.prefixLength && same(p.words, option.words));
    if (known === undefined) {
      if (option.valid === 0) return;
      if (this.prefixes.length >= MAX_PREFIXES) {
        this.counters.full++;
        return;
      }
      const { words, prefixLength } = option;
      known = { words, prefixLength, onLink: false, routeUntil: undefined, made: [], preferred: null, valid: null };
      this.prefixes.push(known);
    }
    if (option.onLink) this.onLink(now, known, option.valid, out);
    const wantsAddress = option.autonomous && this.config.identifier !== 'none';
    // §5.5.3 d: prefix and identifier together have 128 bits.
    if (wantsAddress && option.prefixLength !== 64) this.counters.ignored++;
    else if (wantsAddress) this.autonomous(now, known, option, out);
  }

  private onLink(now: number, prefix: Prefix, valid: number, out: Action[]): void {
    const before = prefix.routeUntil;
    prefix.routeUntil = valid === 0 ? undefined : endOf(now, valid);
    prefix.onLink = valid !== 0;
    if ((before === undefined) === (prefix.routeUntil === undefined)) return;
    this.route(prefix, prefix.routeUntil === undefined ? 'remove' : 'add', out);
  }

  private route(prefix: Prefix, op: 'add' | 'remove', out: Action[]): void {
    const { words, prefixLength } = prefix;
    out.push({ kind: 'route', op, family: 6, words, prefixLength, port: this.port, source: 'ra' });
  }

  private autonomous(now: number, prefix: Prefix, option: PrefixOption, out: Action[]): void {
    prefix.preferred = endOf(now, option.preferred);
    prefix.valid = endOf(now, option.valid);
    const lasting = prefix.made.find((made) => !made.isTemporary);
    if (lasting === undefined) {
      if (option.valid > 0) this.make(now, prefix, false, 0, out);
    } else {
      lasting.preferred = prefix.preferred;
      // §5.5.3 e: 1. more than two hours, or longer than now: taken. 2. two hours or less are left: ignored. 3. two hours.
      const asked = prefix.valid;
      const leftNow = remaining(now, lasting.valid);
      if (asked === null || remaining(now, asked) > TWO_HOURS || remaining(now, asked) > leftNow) lasting.valid = asked;
      else if (leftNow > TWO_HOURS) lasting.valid = now + TWO_HOURS;
      this.tell(now, lasting, out);
    }
    if (!this.config.temporary) return;
    const young = prefix.made.filter((made) => made.isTemporary);
    if (young.length === 0 && option.preferred > 0) this.make(now, prefix, true, 0, out);
    for (const made of young) {
      // RFC 8981 §3.4 2: never longer than its own lifetimes from its birth.
      made.preferred = earlier(prefix.preferred, made.born + TEMP_PREFERRED_LIFETIME - this.desync);
      made.valid = earlier(prefix.valid, made.born + TEMP_VALID_LIFETIME);
      this.tell(now, made, out);
    }
  }

  private make(now: number, prefix: Prefix, isTemporary: boolean, attempt: number, out: Action[]): void {
    const made: Made = {
      words: compose(prefix.words, this.identifier(prefix.words, isTemporary, attempt)),
      prefixLength: prefix.onLink ? 64 : 128,
      isTemporary,
      attempt,
      preferred: isTemporary
        ? earlier(prefix.preferred, now + TEMP_PREFERRED_LIFETIME - this.desync)
        : prefix.preferred,
      valid: isTemporary ? earlier(prefix.valid, now + TEMP_VALID_LIFETIME) : prefix.valid,
      born: now,
      succeeded: false,
      deprecated: false,
    };
    prefix.made.push(made);
    this.tell(now, made, out);
    const data = {
      port: this.config.name,
      address: formatIpv6(...made.words),
      prefixLength: 64,
      temporary: isTemporary,
    };
    out.push({ kind: 'event', name: 'ra.slaac', data });
  }

  private identifier(prefix: Words, isTemporary: boolean, attempt: number): Identifier {
    if (isTemporary) return temporary(this.random);
    if (this.config.identifier === 'stable') return stable(prefix, this.config.name, attempt, this.config.secret);
    const w = this.interfaces.words;
    const at = this.interfaces.at(this.port);
    return eui64(w[at + IF_MAC_LO], w[at + IF_MAC_HI]);
  }

  /** Puts the address into the book, or refreshes what is there.  */
  private tell(now: number, made: Made, out: Action[]): void {
    const preferred = remaining(now, made.preferred);
    const valid = remaining(now, made.valid);
    const times = { ...(preferred === NEVER ? {} : { preferred }), ...(valid === NEVER ? {} : { valid }) };
    const { words, prefixLength } = made;
    out.push({ kind: 'address', op: 'add', port: this.port, family: 6, words, prefixLength, ...times });
    made.deprecated = preferred <= 0;
    if (made.deprecated) this.say('deprecate', made, out);
  }

  private say(op: 'deprecate' | 'remove', made: Made, out: Action[]): void {
    const { words, prefixLength } = made;
    out.push({ kind: 'address', op, port: this.port, family: 6, words, prefixLength });
  }

  /** Ends of lifetimes, duplicates, and temporary addresses whose successor is due. */
  turn(now: number, out: Action[]): void {
    for (let n = this.prefixes.length - 1; n >= 0; n--) {
      const prefix = this.prefixes[n];
      if (prefix.routeUntil !== undefined && prefix.routeUntil !== null && remaining(now, prefix.routeUntil) <= 0) {
        prefix.routeUntil = undefined;
        this.route(prefix, 'remove', out);
      }
      for (const made of [...prefix.made]) this.look(now, prefix, made, out);
      if (prefix.made.length === 0 && prefix.routeUntil === undefined) this.prefixes.splice(n, 1);
    }
  }

  private look(now: number, prefix: Prefix, made: Made, out: Action[]): void {
    const own = this.addresses.find(this.port, 6, made.words);
    const isOver = remaining(now, made.valid) <= 0;
    const canRetry = (made.isTemporary || this.config.identifier === 'stable') && made.attempt < RETRIES;
    // An identifier that cannot become another one stays in the book as a duplicate: no new attempt with every message.
    if (isOver || (own?.state === 'duplicate' && canRetry)) {
      this.say('remove', made, out);
      prefix.made.splice(prefix.made.indexOf(made), 1);
      if (!isOver) this.make(now, prefix, made.isTemporary, made.attempt + 1, out);
      return;
    }
    if (!made.deprecated && remaining(now, made.preferred) <= 0) {
      made.deprecated = true;
      this.say('deprecate', made, out);
    }
    if (made.isTemporary && !made.succeeded && remaining(now, made.preferred) <= REGEN_ADVANCE) {
      made.succeeded = true;
      if (remaining(now, prefix.preferred) > REGEN_ADVANCE) this.make(now, prefix, true, 0, out);
    }
  }

  /** Time of the next thing to do; null: nothing. */
  next(): number | null {
    let next: number | null = null;
    const consider = (at: number | null | undefined): void => {
      if (at === null || at === undefined) return;
      if (next === null || at < next) next = at;
    };
    for (const prefix of this.prefixes) {
      consider(prefix.routeUntil);
      for (const made of prefix.made) {
        consider(made.valid);
        if (!made.deprecated) consider(made.preferred);
        if (made.isTemporary && !made.succeeded && made.preferred !== null) consider(made.preferred - REGEN_ADVANCE);
      }
    }
    return next;
  }

  /** The link has gone: everything is taken back. */
  forget(out: Action[]): void {
    for (const prefix of this.prefixes) {
      if (prefix.routeUntil !== undefined) this.route(prefix, 'remove', out);
      for (const made of prefix.made) this.say('remove', made, out);
    }
    this.prefixes.length = 0;
  }
}

/** Milliseconds until a time. */
function remaining(now: number, at: number | null): number {
  return at === null ? NEVER : at - now;
}

function earlier(a: number | null, b: number): number {
  return a === null ? b : Math.min(a, b);
}

function same(a: Words, b: Words): boolean {
  return a[0] === b[0] && a[1] === b[1] && a[2] === b[2] && a[3] === b[3];
}
