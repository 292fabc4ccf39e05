/**
 * Pools: a prefix cut into prefixes of one length, or a range of addresses, counted with arithmetic of 128 bits (bn.js).
 *
 *   item(n) = first + n × 2^(128 − length)          a /40 of /60s has 2^20 items, a range of addresses has length 128
 *
 * A pool does not remember what is taken: it is asked with a function that knows. A client is first offered the item that
 * a hash of its name points to, so that it finds the same one again after the lease file is lost, and a Solicit that is
 * never followed by a Request takes nothing. When that and its neighbours are taken, a cursor walks on; both walks are
 * bounded, so that a pool that is nearly full costs the same as an empty one.
 */
import BN from 'bn.js';
import { addressBytes, type Words } from '../../dataplane/wire/address.ts';
import { addressAt } from './reader.ts';

/** Items looked at from where the hash points, and then from the cursor on, for one request. */
const NEAR = 16;
const FAR = 256;

export interface Item {
  words: Words;
  prefixLength: number;
}

export class Pool {
  readonly name: string;
  readonly prefixLength: number;
  /** Number of items. */
  readonly size: BN;
  private readonly first: BN;
  private readonly shift: number;
  private cursor = new BN(0);

  /** @param last the last address that belongs to the pool */
  constructor(name: string, first: Words, last: Words, prefixLength: number) {
    this.name = name;
    this.prefixLength = prefixLength;
    this.shift = 128 - prefixLength;
    this.first = toNumber(first);
    this.size = toNumber(last).sub(this.first).shrn(this.shift).addn(1);
  }

  /** All of a prefix. */
  static ofPrefix(name: string, words: Words, prefixLength: number, length: number): Pool {
    const first = toNumber(words);
    return new Pool(name, words, toWords(first.add(new BN(1).shln(128 - prefixLength)).subn(1)), length);
  }

  /** Item n, from 0. */
  at(n: BN): Item {
    return { words: toWords(this.first.add(n.shln(this.shift))), prefixLength: this.prefixLength };
  }

  /** Which item this is; null when it is none of the pool: outside of it, of another length, or not on a boundary. */
  indexOf(words: Words, prefixLength: number): BN | null {
    if (prefixLength !== this.prefixLength) return null;
    const distance = toNumber(words).sub(this.first);
    if (distance.isNeg() || !distance.maskn(this.shift).isZero()) return null;
    const n = distance.shrn(this.shift);
    return n.lt(this.size) ? n : null;
  }

  contains(words: Words, prefixLength: number): boolean {
    return this.indexOf(words, prefixLength) !== null;
  }

  /** A free item for the client of this name; null when none was found. */
  choose(client: string, isFree: (item: Item) => boolean): Item | null {
    let n = hashOf(client).mod(this.size);
    const near = BN.min(new BN(NEAR), this.size).toNumber();
    for (let tries = 0; tries < near; tries++) {
      const item = this.at(n);
      if (isFree(item)) return item;
      n = this.after(n);
    }
    const far = BN.min(new BN(FAR), this.size).toNumber();
    for (let tries = 0; tries < far; tries++) {
      const item = this.at(this.cursor);
      if (isFree(item)) return item;
      this.cursor = this.after(this.cursor);
    }
    return null;
  }

  private after(n: BN): BN {
    const next = n.addn(1);
    return next.lt(this.size) ? next : new BN(0);
  }
}

export function toNumber(words: Words): BN {
  return new BN(addressBytes(6, words), 16, 'be');
}

function toWords(number: BN): Words {
  return addressAt(Uint8Array.from(number.toArray('be', 16)), 0);
}

/** 64 bits of FNV-1a in two halves with different seeds: even enough to spread clients over a pool. */
function hashOf(text: string): BN {
  let low = 0x811c9dc5;
  let high = 0x9dc5811c;
  for (let n = 0; n < text.length; n++) {
    low = Math.imul(low ^ text.charCodeAt(n), 0x01000193);
    high = Math.imul(high ^ text.charCodeAt(n), 0x0100018d);
  }
  low ^= low >>> 15;
  low = Math.imul(low, 0x85ebca6b);
  high ^= high >>> 13;
  high = Math.imul(high, 0xc2b2ae35);
  return new BN(high >>> 0).shln(32).or(new BN((low ^ (low >>> 16)) >>> 0));
}
