/**
 * Names of the house: hosts of the configuration and hosts that told the DHCP server how they are called; forward and
 * reverse. And the reverse zones of addresses that mean nothing outside (RFC 6303 §4): they are answered here or not at
 * all.
 */
import { type Address, addressBytes, formatAddress, parseAddress } from '../../dataplane/wire/address.ts';
import { TYPE_A, TYPE_AAAA, TYPE_PTR } from './wire.ts';

export type LocalAnswer =
  | { type: 'A'; ttl: number; data: string }
  | { type: 'AAAA'; ttl: number; data: string }
  | { type: 'PTR'; ttl: number; data: string };

/** Seconds that a host may keep what can change with the next configuration. */
const TTL = 60;
const MAX_LEASES = 4096;

interface Known {
  address: Address;
  /** Clock; null: for ever. */
  until: number | null;
}

export class LocalNames {
  private readonly domain: string;
  private readonly forward = new Map<string, Known[]>();
  /** Host names by the address (text) that was leased to them: each address has one name. */
  private readonly leased = new Map<string, string>();
  private readonly reverse = new Map<string, { name: string; until: number | null }>();

  constructor(domain: string, hosts: ReadonlyMap<string, readonly Address[]>) {
    this.domain = domain;
    for (const [name, addresses] of hosts) for (const address of addresses) this.add(name.toLowerCase(), address, null);
  }

  private add(name: string, address: Address, until: number | null): void {
    const known = (this.forward.get(name) ?? []).filter((one) => until === null || one.until === null);
    known.push({ address, until });
    this.forward.set(name, known);
    const reverse = reverseName(address);
    // A configured name wins here, too.
    if (until === null || this.reverse.get(reverse)?.until !== null) this.reverse.set(reverse, { name, until });
  }

  /**
   * A lease of the DHCP server: its host is found by name as long as the lease lives. A name that the host had before is its own
   * no more; a configured name wins.
   *
   * @returns host names (without the domain, lower case) to be remembered with this lease, and not any more; '': none
   */
  lease(now: number, hostName: string, address: string, seconds: number): { taken: string; gone: string } {
    const parsed = parseAddress(address);
    const label = hostName.toLowerCase();
    const before = this.leased.get(address) ?? '';
    if (parsed === null || this.domain === '' || !/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/.test(label))
      return { taken: '', gone: '' };
    const gone = before === '' || before === label ? '' : this.release(address);
    const name = this.nameOf(label);
    if (this.forward.get(name)?.some(({ until }) => until === null)) return { taken: '', gone };
    if (this.forward.size >= MAX_LEASES && !this.forward.has(name)) return { taken: '', gone };
    // Who has told this name last has it.
    for (const known of this.forward.get(name) ?? [])
      this.release(formatAddress(known.address.family, ...known.address.words));
    this.add(name, parsed, (now + seconds * 1000) | 0);
    this.leased.set(address, label);
    return { taken: label, gone };
  }

  /** The lease of an address is over: so is its name, which is returned ('': it had none). */
  release(address: string): string {
    const label = this.leased.get(address) ?? '';
    const parsed = parseAddress(address);
    this.leased.delete(address);
    if (label === '' || parsed === null) return '';
    this.forward.delete(this.nameOf(label));
    const reverse = reverseName(parsed);
    if (this.reverse.get(reverse)?.until !== null) this.reverse.delete(reverse);
    return label;
  }

  /** Forgets names whose leases are over, before the clock (which wraps) calls them fresh again; returns them. */
  sweep(now: number): string[] {
    const isOver = (label: string) =>
      this.forward.get(this.nameOf(label))?.every(({ until }) => until !== null && ((until - now) | 0) <= 0) ?? true;
    return [...this.leased].filter(([, label]) => isOver(label)).map(([address]) => this.release(address));
  }

  private nameOf(label: string): string {
    return `${label}.${this.domain.toLowerCase()}`;
  }

  /** Records for a question; empty: the name is ours but has none of this type; null: not ours. */
  find(now: number, name: string, type: number): LocalAnswer[] | null {
    const isAlive = (until: number | null) => until === null || ((until - now) | 0) > 0;
    const reverse = this.reverse.get(name);
    if (reverse !== undefined && isAlive(reverse.until))
      return type === TYPE_PTR ? [{ type: 'PTR', ttl: TTL, data: reverse.name }] : [];
    const known = this.forward.get(name)?.filter(({ until }) => isAlive(until)) ?? [];
    if (known.length === 0) return null;
    const answers: LocalAnswer[] = [];
    for (const { address } of known) {
      const data = formatAddress(address.family, ...address.words);
      if (address.family === 4 && type === TYPE_A) answers.push({ type: 'A', ttl: TTL, data });
      else if (address.family === 6 && type === TYPE_AAAA) answers.push({ type: 'AAAA', ttl: TTL, data });
    }
    return answers;
  }
}

/** `1.1.168.192.in-addr.arpa`, or the 32 nibbles of ip6.arpa (RFC 3596 §2.5). */
export function reverseName(address: Address): string {
  const bytes = Array.from(addressBytes(address.family, address.words)).reverse();
  if (address.family === 4) return `${bytes.join('.')}.in-addr.arpa`;
  return `${bytes.flatMap((b) => [(b & 15).toString(16), (b >> 4).toString(16)]).join('.')}.ip6.arpa`;
}

/** RFC 6303 §4 and RFC 4193 §4.4: private, link-local and loopback addresses, and the zeros. */
export function isPrivateReverse(name: string): boolean {
  if (name.endsWith('.in-addr.arpa')) {
    const parts = name.slice(0, -'.in-addr.arpa'.length).split('.').reverse();
    const [a, b] = parts;
    if (a === '10' || a === '127' || a === '0') return true;
    if (a === '192' && b === '168') return true;
    if (a === '169' && b === '254') return true;
    return a === '172' && Number(b) >= 16 && Number(b) <= 31;
  }
  if (!name.endsWith('.ip6.arpa')) return false;
  const nibbles = name.slice(0, -'.ip6.arpa'.length).split('.').reverse().join('');
  return /^f[cd]/.test(nibbles) || /^fe[89ab]/.test(nibbles) || /^0{31}[01]$/.test(nibbles);
}
