/**
 * PER: a small decoder of ASN.1's aligned packed encoding rules (ITU-T X.691), driven by type tables, that looks for
 * addresses and a few values and skips everything else.
 *
 * A type is made once, at load, by the constructors below (`sequence`, `choice`, `octets` …), which mirror the ASN.1.
 * A component may carry a *mark*; marks are inherited by what is inside the component, and what is found there is
 * noted with it: transport addresses (offset of the first byte, the port is the two bytes after the address), the index
 * of a reported choice, a reported integer. The caller reads these notes when the whole message has been decoded.
 *
 *   notes:  marks[n] | values[n]: absolute offset, index or integer | families[n]: 4, 6, or 0 for a value
 *
 * Bounds: every read is checked against the end of the innermost open type; nesting (MAX_DEPTH), the number of decoded
 * components (MAX_STEPS) and of notes (MAX_NOTES) are limited, so hostile input costs little and nothing is allocated.
 * A fault anywhere makes the whole message undecoded.
 *
 * What is not in a table is skipped when it is in an open type (extension additions and alternatives), and is a fault
 * otherwise. Not decoded at all: fragmented lengths (16384 and more), REAL, SET, unconstrained INTEGER.
 */

export const MAX_DEPTH = 40;
export const MAX_STEPS = 4096;
export const MAX_NOTES = 64;

const NULL = 0;
const BOOLEAN = 1;
const INTEGER = 2;
const OCTETS = 3;
const OBJECT = 4;
const STRING = 5;
const SEQUENCE = 6;
const SEQUENCE_OF = 7;
const CHOICE = 8;
const ADDRESS = 9;
const REST = 10;
const UNKNOWN = 11;

/** A node of a type table. */
export interface PerType {
  readonly op: number;
  /** INTEGER: bounds. OCTETS, STRING, SEQUENCE_OF: bounds of the size; `high` −1: none. ADDRESS: `low` is the family. */
  readonly low: number;
  readonly high: number;
  /** STRING: bits of a character in the aligned variant. */
  readonly bits: number;
  /** SEQUENCE, CHOICE: has an extension marker. */
  readonly extensible: boolean;
  /** SEQUENCE: root components; CHOICE: root alternatives; SEQUENCE_OF, OCTETS: the item or the contained type. */
  readonly root: readonly PerField[];
  /** Extension additions or alternatives that are wanted, by index; others are skipped. */
  readonly additions: readonly (PerField | null)[];
  /** SEQUENCE: nothing after the root matters and the type ends its open type (or message): go to the end. */
  readonly cut: boolean;
  /** CHOICE, INTEGER: note the index or value. */
  readonly report: boolean;
  /** SEQUENCE: number of OPTIONAL root components. */
  readonly optionals: number;
}

export interface PerField {
  readonly type: PerType;
  readonly optional: boolean;
  readonly mark: number;
}

function make(op: number, part: Partial<PerType> = {}): PerType {
  return {
    op,
    low: part.low ?? 0,
    high: part.high ?? -1,
    bits: part.bits ?? 0,
    extensible: part.extensible ?? false,
    root: part.root ?? [],
    additions: part.additions ?? [],
    cut: part.cut ?? false,
    report: part.report ?? false,
    optionals: part.optionals ?? 0,
  };
}

function asField(given: PerType | PerField): PerField {
  return 'type' in given ? given : { type: given, optional: false, mark: 0 };
}

/** OPTIONAL component. */
export function opt(type: PerType, mark = 0): PerField {
  return { type, optional: true, mark };
}
/** Component (or alternative) with a mark. */
export function mark(type: PerType, number: number): PerField {
  return { type, optional: false, mark: number };
}
export const nothing: PerType = make(NULL);
export const boolean: PerType = make(BOOLEAN);
export const objectIdentifier: PerType = make(OBJECT);
/** Ends the decoding of the innermost open type (or of the message): what follows is of no interest. */
export const rest: PerType = make(REST);
/** A type that this project does not know how to skip: a fault. */
export const unknown: PerType = make(UNKNOWN);
/** The two components address and port of a transport address, 6 or 18 bytes in one piece. */
export const address4: PerType = make(ADDRESS, { low: 4 });
export const address6: PerType = make(ADDRESS, { low: 6 });
/** INTEGER (low..high). */
export function integer(low: number, high: number, report = false): PerType {
  return make(INTEGER, { low, high, report });
}
/** OCTET STRING (SIZE (low..high)); no bounds: unconstrained; `inside`: the type that the string contains. */
export function octets(low = 0, high = -1, inside?: PerType): PerType {
  return make(OCTETS, { low, high, root: inside === undefined ? [] : [asField(inside)] });
}
/** Character string of known multiplier: bits per character in the aligned variant (BMPString 16, IA5String 8). */
export function text(bits: number, low: number, high: number): PerType {
  return make(STRING, { bits, low, high });
}
export function sequenceOf(item: PerType, low = 0, high = -1): PerType {
  return make(SEQUENCE_OF, { low, high, root: [asField(item)] });
}
/** SEQUENCE without extension marker. */
export function sequence(...root: (PerType | PerField)[]): PerType {
  const fields = root.map(asField);
  return make(SEQUENCE, { root: fields, optionals: fields.filter((f) => f.optional).length });
}
/** SEQUENCE with extension marker; `additions` by index, null: of no interest. */
export function extensible(root: (PerType | PerField)[], additions: (PerType | PerField | null)[] = []): PerType {
  const wanted = additions.map((a) => (a === null ? null : asField(a)));
  return make(SEQUENCE, { ...sequence(...root), extensible: true, additions: wanted });
}
/** The same, whose end nobody needs (see `cut`). */
export function cutSequence(...root: (PerType | PerField)[]): PerType {
  return make(SEQUENCE, { ...sequence(...root), extensible: true, cut: true });
}
/** CHOICE without extension marker. */
export function choice(...root: (PerType | PerField)[]): PerType {
  return make(CHOICE, { root: root.map(asField) });
}
/** CHOICE with extension marker; `report`: note the index (root first, then additions). */
export function openChoice(
  root: (PerType | PerField)[],
  additions: (PerType | PerField | null)[] = [],
  report = false,
): PerType {
  const wanted = additions.map((a) => (a === null ? null : asField(a)));
  return make(CHOICE, { root: root.map(asField), additions: wanted, extensible: true, report });
}

/** Bits that a constrained whole number below `range` takes when it is a bit-field (X.691 §10.5.7.1). */
function bitsFor(range: number): number {
  return range <= 1 ? 0 : 32 - Math.clz32(range - 1);
}

/** A decoder with its notes; made once, reused for each message. */
export class PerReader {
  count = 0;
  readonly marks = new Int32Array(MAX_NOTES);
  readonly values = new Int32Array(MAX_NOTES);
  readonly families = new Int32Array(MAX_NOTES);
  private u8: Uint8Array = new Uint8Array(0);
  /** First byte, and position and end in bits from there. */
  private base = 0;
  private bit = 0;
  private end = 0;
  private bad = false;
  private steps = 0;
  private mark = 0;

  /** Decodes bytes [from, to) as `type`. True when they were sound as far as the type was followed; notes are in place. */
  decode(type: PerType, u8: Uint8Array, from: number, to: number): boolean {
    this.u8 = u8;
    this.base = from;
    this.bit = 0;
    this.end = (to - from) * 8;
    this.bad = false;
    this.steps = MAX_STEPS;
    this.mark = 0;
    this.count = 0;
    this.node(type, 0);
    if (this.bad) this.count = 0;
    return !this.bad;
  }

  private note(value: number, family: number): void {
    if (this.mark === 0 || this.count === MAX_NOTES) return;
    this.marks[this.count] = this.mark;
    this.values[this.count] = value;
    this.families[this.count++] = family;
  }

  /** Up to 32 bits; 0 and `bad` past the end. */
  private take(n: number): number {
    if (n > this.end - this.bit) {
      this.bad = true;
      return 0;
    }
    let value = 0;
    for (let k = 0; k < n; k++, this.bit++)
      value = (value << 1) | ((this.u8[this.base + (this.bit >> 3)] >> (7 - (this.bit & 7))) & 1);
    return value;
  }

  private skip(n: number): void {
    if (n > this.end - this.bit) this.bad = true;
    else this.bit += n;
  }

  private align(): void {
    this.bit = (this.bit + 7) & ~7;
    if (this.bit > this.end) this.bad = true;
  }

  /** A number from 0 to range − 1 (X.691 §10.5.7). */
  private constrained(range: number): number {
    if (range <= 255) return this.take(bitsFor(range));
    if (range <= 65536) {
      this.align();
      return this.take(range === 256 ? 8 : 16);
    }
    // Indefinite length case: the number of octets first, itself a constrained number from 1.
    const most = range > 0x1000000 ? 4 : 3;
    const length = this.take(bitsFor(most)) + 1;
    if (length > most) this.bad = true;
    this.align();
    return this.take(length * 8);
  }

  /** A length without upper bound (§10.9.3.5 – §10.9.3.7); fragments are not decoded. */
  private length(): number {
    this.align();
    const first = this.take(8);
    if (first < 0x80) return first;
    if (first >= 0xc0) this.bad = true;
    return ((first & 0x3f) << 8) | this.take(8);
  }

  private size(t: PerType): number {
    if (t.high < 0) return this.length();
    const size = t.low + (t.high === t.low ? 0 : this.constrained(t.high - t.low + 1));
    if (size > t.high) this.bad = true;
    return size;
  }

  /** Normally small non-negative whole number (§10.6): 6 bits, or a length and octets. */
  private small(): number {
    if (this.take(1) === 0) return this.take(6);
    const length = this.length();
    if (length > 2) this.bad = true;
    return this.bad ? 0 : this.take(length * 8);
  }

  /** An open type of `length` octets: decodes `field` in it (null: skips it), and goes to its end in any case. */
  private open(length: number, field: PerField | null, depth: number): void {
    const outer = this.end;
    const next = this.bit + length * 8;
    if (this.bad || next > outer) {
      this.bad = true;
      return;
    }
    this.end = next;
    if (field !== null) this.field(field, depth);
    this.end = outer;
    this.bit = next;
  }

  private field(field: PerField, depth: number): void {
    const outer = this.mark;
    if (field.mark !== 0) this.mark = field.mark;
    this.node(field.type, depth);
    this.mark = outer;
  }

  private node(t: PerType, depth: number): void {
    if (depth > MAX_DEPTH || --this.steps < 0) this.bad = true;
    if (this.bad) return;
    switch (t.op) {
      case NULL:
        return;
      case BOOLEAN:
        this.take(1);
        return;
      case INTEGER: {
        const value = this.constrained(t.high - t.low + 1);
        if (t.report && !this.bad) this.note((value + t.low) | 0, 0);
        return;
      }
      case OCTETS:
        this.octetString(t, depth);
        return;
      case OBJECT:
        this.skip(this.length() * 8);
        return;
      case STRING: {
        const size = this.size(t);
        // §27.5.6: strings that may be longer than 16 bits are aligned; none here is shorter.
        this.align();
        this.skip(size * t.bits);
        return;
      }
      case SEQUENCE:
        this.sequence(t, depth);
        return;
      case SEQUENCE_OF:
        for (let n = this.size(t); n > 0 && !this.bad; n--) this.field(t.root[0], depth + 1);
        return;
      case CHOICE:
        this.choice(t, depth);
        return;
      case ADDRESS: {
        this.align();
        const at = this.base + (this.bit >> 3);
        this.skip(t.low === 4 ? 48 : 144);
        if (!this.bad) this.note(at, t.low);
        return;
      }
      case REST:
        this.bit = this.end;
        return;
      default:
        this.bad = true;
    }
  }

  private octetString(t: PerType, depth: number): void {
    const size = this.size(t);
    // §16.6: a fixed size of one or two octets is a plain bit-field.
    if (t.high < 0 || t.high > 2) this.align();
    if (t.root.length !== 0) this.open(size, t.root[0], depth + 1);
    else this.skip(size * 8);
  }

  private sequence(t: PerType, depth: number): void {
    const extended = t.extensible && this.take(1) === 1;
    const present = this.take(t.optionals);
    let bit = t.optionals;
    for (let n = 0; n < t.root.length && !this.bad; n++) {
      const field = t.root[n];
      if (field.optional && ((present >> --bit) & 1) === 0) continue;
      this.field(field, depth + 1);
    }
    if (t.cut && !this.bad) this.bit = this.end;
    else if (extended && !this.bad) this.additions(t, depth);
  }

  /** Extension additions (§18.7, §18.8): how many, which are there, and each in an open type. */
  private additions(t: PerType, depth: number): void {
    const count = this.small() + 1;
    let at = this.bit;
    this.skip(count);
    for (let n = 0; n < count && !this.bad; n++, at++) {
      if (((this.u8[this.base + (at >> 3)] >> (7 - (at & 7))) & 1) === 0) continue;
      if (--this.steps < 0) this.bad = true;
      const length = this.length();
      this.open(length, n < t.additions.length ? t.additions[n] : null, depth + 1);
    }
  }

  private choice(t: PerType, depth: number): void {
    if (t.extensible && this.take(1) === 1) {
      const index = this.small();
      if (t.report && !this.bad) this.note(t.root.length + index, 0);
      const length = this.length();
      this.open(length, index < t.additions.length ? t.additions[index] : null, depth + 1);
      return;
    }
    const index = this.constrained(t.root.length);
    if (index >= t.root.length) this.bad = true;
    if (this.bad) return;
    if (t.report) this.note(index, 0);
    this.field(t.root[index], depth + 1);
  }
}
