/**
 * Addresses: the address book of the router, who it is on which port.
 *
 * ARP and ND answer from it and choose their source addresses from it; the echo responder asks it whether a packet was
 * meant for the router itself. An address is `tentative` until duplicate address detection has let it pass (RFC 4862
 * §5.4), then `preferred`, later perhaps `deprecated`; one that somebody else has is `duplicate` and never used.
 * Addresses are raw words (dataplane/wire/address.ts), prefix lengths in bits.
 *
 * Beside it: prefixes that the router answers for on behalf of others (proxy ARP, RFC 1027; proxy ND, RFC 4861 §7.2.8).
 *
 * A domain in a thread of its own has a copy of the book (controlplane/remote-domain.ts): `changed` says what happens to
 * this one, `follow` does the same to that.
 *
 * Not here: the local routes of the data path (whoever adds an address here adds its route too), lifetimes, and the
 * full source selection of RFC 6724.
 */

import { type Family, inPrefix, type Words } from '../../dataplane/wire/address.ts';
import { isLinkLocal } from '../../dataplane/wire/ipv6.ts';

export type AddressState = 'tentative' | 'preferred' | 'deprecated' | 'duplicate';

export interface OwnAddress {
  readonly port: number;
  readonly family: Family;
  readonly words: Words;
  readonly prefixLength: number;
  state: AddressState;
  /** Ends of an address that a protocol gave, on the router's clock; null: never. Absent: it was configured. */
  lifetimes?: { preferred: number | null; valid: number | null };
}

export interface ProxyPrefix {
  readonly port: number;
  readonly family: Family;
  readonly words: Words;
  readonly prefixLength: number;
  /** Value of the router flag in proxied advertisements. */
  readonly router: boolean;
}

interface Place {
  port: number;
  family: Family;
  words: Words;
}

/** One change of a book, as plain data. */
export type BookChange = { port: number; family: Family } & (
  | ({ op: 'add'; prefixLength: number; state: AddressState } & Place)
  | ({ op: 'remove' } & Place)
  | ({ op: 'state'; state: AddressState } & Place)
  | ({ op: 'lifetimes'; lifetimes: OwnAddress['lifetimes'] } & Place)
  | { op: 'order'; order: Words[] }
  | { op: 'proxy' | 'unproxy'; proxy: ProxyPrefix }
);

export class Addresses {
  private readonly byKey = new Map<string, OwnAddress>();
  private readonly byPort = new Map<number, OwnAddress[]>();
  private readonly proxies: ProxyPrefix[] = [];
  /** Grows with every change of the book, so that whoever keeps something derived from it knows when to look again. */
  version = 0;
  /** Hears of every change that is made here. */
  changed: (change: BookChange) => void = () => {};

  /** Adds an address, or replaces the prefix length and state of one that is there. IPv4: words 1–3 are 0. */
  add(port: number, family: Family, words: Words, prefixLength: number, state: AddressState = 'preferred'): OwnAddress {
    this.remove(port, family, words);
    const entry: OwnAddress = { port, family, words: [words[0], words[1], words[2], words[3]], prefixLength, state };
    this.byKey.set(keyOf(port, family, words), entry);
    const list = this.byPort.get(port);
    if (list === undefined) this.byPort.set(port, [entry]);
    else list.push(entry);
    this.version++;
    this.changed({ op: 'add', port, family, words: entry.words, prefixLength, state });
    return entry;
  }

  /** Forgets an address; false when it was not there. */
  remove(port: number, family: Family, words: Words): boolean {
    const key = keyOf(port, family, words);
    const entry = this.byKey.get(key);
    if (entry === undefined) return false;
    this.byKey.delete(key);
    const list = this.byPort.get(port)!;
    list.splice(list.indexOf(entry), 1);
    this.version++;
    this.changed({ op: 'remove', port, family, words: entry.words });
    return true;
  }

  /** Puts the addresses of a port in this order (the first is the source that is chosen); others stay behind them. */
  arrange(port: number, order: readonly { family: Family; words: Words }[]): void {
    const list = this.byPort.get(port);
    if (list === undefined) return;
    const place = (entry: OwnAddress) => {
      const at = order.findIndex(({ family, words }) => entry === this.find(port, family, words));
      return at < 0 ? order.length : at;
    };
    list.sort((a, b) => place(a) - place(b));
    this.version++;
    for (const family of [4, 6] as const)
      this.changed({ op: 'order', port, family, order: this.orderOf(port, family) });
  }

  /** Changes the state of an address of this book. */
  setState(entry: OwnAddress, state: AddressState): void {
    entry.state = state;
    this.version++;
    this.changed({ op: 'state', port: entry.port, family: entry.family, words: entry.words, state });
  }

  /** Sets the ends of an address that a protocol gave. */
  setLifetimes(entry: OwnAddress, lifetimes: OwnAddress['lifetimes']): void {
    entry.lifetimes = lifetimes;
    this.changed({ op: 'lifetimes', port: entry.port, family: entry.family, words: entry.words, lifetimes });
  }

  private orderOf(port: number, family: Family): Words[] {
    return this.ofPort(port)
      .filter((entry) => entry.family === family)
      .map((entry) => entry.words);
  }

  /** All that makes a copy of one family's part of the book, for `follow`. */
  snapshot(family: Family): BookChange[] {
    const changes: BookChange[] = [];
    for (const entry of this) {
      if (entry.family !== family) continue;
      const { port, words, prefixLength, state, lifetimes } = entry;
      changes.push({ op: 'add', port, family, words, prefixLength, state });
      if (lifetimes !== undefined) changes.push({ op: 'lifetimes', port, family, words, lifetimes });
    }
    for (const proxy of this.proxies)
      if (proxy.family === family) changes.push({ op: 'proxy', port: proxy.port, family, proxy });
    return changes;
  }

  /** Does what another book has done; nobody is told. */
  follow(change: BookChange): void {
    const { changed } = this;
    this.changed = () => {};
    const { port, family } = change;
    const entry = 'words' in change ? this.find(port, family, change.words) : undefined;
    if (change.op === 'add') this.add(port, family, change.words, change.prefixLength, change.state);
    else if (change.op === 'remove') this.remove(port, family, change.words);
    else if (change.op === 'order')
      this.arrange(
        port,
        change.order.map((words) => ({ family, words })),
      );
    else if (change.op === 'proxy')
      this.addProxy(port, family, change.proxy.words, change.proxy.prefixLength, change.proxy.router);
    else if (change.op === 'unproxy') this.removeProxy(port, family, change.proxy.words, change.proxy.prefixLength);
    else if (entry !== undefined && change.op === 'state') this.setState(entry, change.state);
    else if (entry !== undefined && change.op === 'lifetimes') this.setLifetimes(entry, change.lifetimes);
    this.changed = changed;
  }

  /** The router's own address on this port, in any state. */
  find(port: number, family: Family, words: Words): OwnAddress | undefined {
    return this.byKey.get(keyOf(port, family, words));
  }

  /** The router's own usable address, on this port or any other (the weak host model of RFC 1122 §3.3.4.2). */
  findAnywhere(port: number, family: Family, words: Words): OwnAddress | undefined {
    const here = this.find(port, family, words);
    if (here !== undefined) return isUsable(here) ? here : undefined;
    // RFC 4007 §6: a link-local address means something on its own link only.
    if (family === 6 && isLinkLocal(words[0])) return undefined;
    for (const other of this.byPort.keys()) {
      const entry = this.find(other, family, words);
      if (entry !== undefined && isUsable(entry)) return entry;
    }
    return undefined;
  }

  /** All addresses of a port, in the order in which they were added. */
  ofPort(port: number): readonly OwnAddress[] {
    return this.byPort.get(port) ?? [];
  }

  *[Symbol.iterator](): IterableIterator<OwnAddress> {
    for (const list of this.byPort.values()) yield* list;
  }

  /** True when the address is on the port's link: in the prefix of an own address there, or link-local. */
  isOnLink(port: number, family: Family, words: Words): boolean {
    if (family === 6 && isLinkLocal(words[0])) return true;
    for (const entry of this.ofPort(port)) if (entry.family === family && covers(entry, words)) return true;
    return false;
  }

  /**
   * Which own address to use on this port toward `words`: one of the same subnet (link-local for link-local), else the
   * port's link-local (IPv6) or first address (IPv4), else undefined. Preferred before deprecated; never a tentative.
   */
  sourceFor(port: number, family: Family, words: Words): OwnAddress | undefined {
    let best: OwnAddress | undefined;
    let bestRank = 0;
    for (const entry of this.ofPort(port)) {
      if (entry.family !== family || !isUsable(entry)) continue;
      const linkLocal = family === 6 && isLinkLocal(entry.words[0]);
      let rank = 1;
      if (family === 6 && isLinkLocal(words[0])) rank = linkLocal ? 8 : 0;
      else if (covers(entry, words)) rank = 4;
      else if (linkLocal) rank = 2;
      if (rank === 0) continue;
      rank = rank * 2 + (entry.state === 'preferred' ? 1 : 0);
      if (rank > bestRank) {
        best = entry;
        bestRank = rank;
      }
    }
    return best;
  }

  /** Answers for a whole prefix on this port from now on. */
  addProxy(port: number, family: Family, words: Words, prefixLength: number, router = false): void {
    const proxy = { port, family, words, prefixLength, router };
    this.proxies.push(proxy);
    this.version++;
    this.changed({ op: 'proxy', port, family, proxy });
  }

  removeProxy(port: number, family: Family, words: Words, prefixLength: number): void {
    const at = this.proxies.findIndex(
      (p) =>
        p.port === port &&
        p.family === family &&
        p.prefixLength === prefixLength &&
        p.words.every((w, n) => w === words[n]),
    );
    const [proxy] = at >= 0 ? this.proxies.splice(at, 1) : [];
    this.version++;
    if (proxy !== undefined) this.changed({ op: 'unproxy', port, family, proxy });
  }

  /** The proxied prefix of this port that contains the address; the longest one. */
  proxyFor(port: number, family: Family, words: Words): ProxyPrefix | undefined {
    let best: ProxyPrefix | undefined;
    for (const proxy of this.proxies) {
      if (proxy.port !== port || proxy.family !== family || !covers(proxy, words)) continue;
      if (best === undefined || proxy.prefixLength > best.prefixLength) best = proxy;
    }
    return best;
  }
}

/** True for an address that may be answered for and sent from (RFC 4862 §2: not tentative, not duplicate). */
export function isUsable(entry: OwnAddress): boolean {
  return entry.state === 'preferred' || entry.state === 'deprecated';
}

function covers(entry: OwnAddress | ProxyPrefix, words: Words): boolean {
  return inPrefix(words, entry);
}

function keyOf(port: number, family: Family, words: Words): string {
  return `${port}/${family}/${words[0]}/${words[1]}/${words[2]}/${words[3]}`;
}
