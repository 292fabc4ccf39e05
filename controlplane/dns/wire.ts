/**
 * DNS messages as bytes (RFC 1035 §4, EDNS0 RFC 6891): what a forwarder must find in a message that it passes on unread.
 *
 *   0: id   2: flags   4: QDCOUNT   6: ANCOUNT   8: NSCOUNT   10: ARCOUNT   12: question, records
 *
 * Answers are kept as they came and only their identifier, question and TTLs are written anew: so records of types that
 * nobody here has heard of pass unharmed. Nothing throws; a message that cannot be walked gives null.
 */
import { be16, be32, setBe16, setBe32 } from '../../dataplane/wire/bytes.ts';

/** Of UDP and TCP. */
export const DNS_PORT = 53;
/** Ports that questions are asked from: the dynamic range (RFC 6335 §6). */
export const FIRST_PORT = 49152;
export const LAST_PORT = 65535;

export const HEADER = 12;
export const QR = 0x8000;
export const TC = 0x0200;
export const RD = 0x0100;
export const RA = 0x0080;
export const AD = 0x0020;
export const CD = 0x0010;
export const OPCODE = 0x7800;

export const NOERROR = 0;
export const FORMERR = 1;
export const SERVFAIL = 2;
export const NXDOMAIN = 3;
export const NOTIMP = 4;
export const REFUSED = 5;

export const TYPE_A = 1;
export const TYPE_SOA = 6;
export const TYPE_PTR = 12;
export const TYPE_AAAA = 28;
export const TYPE_OPT = 41;
export const CLASS_IN = 1;

/** RFC 9715: what passes everywhere without fragments. */
export const UDP_SIZE = 1232;

export interface Question {
  /** Lower case, without the last dot; labels as they are, `.` in a label escaped. */
  name: string;
  type: number;
  class: number;
  /** One past the question. */
  end: number;
}

export interface Query {
  id: number;
  flags: number;
  question: Question;
  /** EDNS0: 0 when the asker did not speak it. */
  size: number;
  dnssecOk: boolean;
}

/** The end of the name at `at`, or −1; compression pointers end it (§4.1.4). */
function skipName(u8: Uint8Array, at: number): number {
  let n = at;
  while (n < u8.length) {
    const length = u8[n];
    if (length === 0) return n + 1;
    if ((length & 0xc0) === 0xc0) return n + 2 <= u8.length ? n + 2 : -1;
    if ((length & 0xc0) !== 0) return -1;
    n += 1 + length;
    if (n - at > 255) return -1;
  }
  return -1;
}

/** The one question of a message; null: there is none, more than one, or it is compressed or cut. */
export function readQuestion(u8: Uint8Array): Question | null {
  if (u8.length < HEADER || be16(u8, 4) !== 1) return null;
  const labels: string[] = [];
  let at = HEADER;
  while (at < u8.length && u8[at] !== 0) {
    const length = u8[at];
    // RFC 1035 §2.3.4: 63 bytes a label, 255 the name with its last zero.
    if (length > 63 || at + 1 + length >= u8.length || at + 2 + length - HEADER > 255) return null;
    let label = '';
    for (let n = at + 1; n <= at + length; n++) {
      const c = u8[n] >= 65 && u8[n] <= 90 ? u8[n] + 32 : u8[n];
      label += c === 46 || c < 33 || c > 126 ? `\\${String(c).padStart(3, '0')}` : String.fromCharCode(c);
    }
    labels.push(label);
    at += 1 + length;
  }
  if (at + 5 > u8.length) return null;
  return { name: labels.join('.'), type: be16(u8, at + 1), class: be16(u8, at + 3), end: at + 5 };
}

/** A query, as far as a forwarder must understand it; null when it is none that can be answered by its question. */
export function readQuery(u8: Uint8Array): Query | null {
  const question = readQuestion(u8);
  if (question === null || (be16(u8, 2) & QR) !== 0) return null;
  const query: Query = { id: be16(u8, 0), flags: be16(u8, 2), question, size: 0, dnssecOk: false };
  const walked = records(u8, question.end, (record) => {
    if (record.type !== TYPE_OPT) return;
    query.size = Math.max(512, record.class);
    query.dnssecOk = (record.ttl & 0x8000) !== 0;
  });
  return walked ? query : null;
}

export interface Rr {
  /** First byte of the record, and one past it. */
  at: number;
  end: number;
  section: 'answer' | 'authority' | 'additional';
  type: number;
  class: number;
  ttl: number;
  ttlAt: number;
  data: number;
}

/** Walks all records behind the question; false when the message is cut or malformed. */
export function records(u8: Uint8Array, from: number, visit: (record: Rr) => void): boolean {
  let at = from;
  const sections = [
    ['answer', be16(u8, 6)],
    ['authority', be16(u8, 8)],
    ['additional', be16(u8, 10)],
  ] as const;
  for (const [section, count] of sections)
    for (let n = 0; n < count; n++) {
      const name = skipName(u8, at);
      if (name < 0 || name + 10 > u8.length) return false;
      const end = name + 10 + be16(u8, name + 8);
      if (end > u8.length) return false;
      const ttl = be32(u8, name + 4) >>> 0;
      visit({
        at,
        end,
        section,
        type: be16(u8, name),
        class: be16(u8, name + 2),
        ttl,
        ttlAt: name + 4,
        data: name + 10,
      });
      at = end;
    }
  return true;
}

/** A query to a server: the same question, with `edns` our own EDNS0 record. `id` is the transaction's. */
export function writeQuery(id: number, query: Query, original: Uint8Array, edns: boolean): Uint8Array {
  const { end } = query.question;
  const u8 = new Uint8Array(edns ? end + 11 : end);
  u8.set(original.subarray(0, end));
  setBe16(u8, 0, id);
  setBe16(u8, 2, RD | (query.flags & (AD | CD)));
  for (const at of [6, 8]) setBe16(u8, at, 0);
  setBe16(u8, 10, edns ? 1 : 0);
  if (!edns) return u8;
  setBe16(u8, end + 1, TYPE_OPT);
  setBe16(u8, end + 3, UDP_SIZE);
  setBe32(u8, end + 5, query.dnssecOk ? 0x8000 : 0);
  return u8;
}

/** An answer as it came; a refusal that is a header alone, of who has not read on, gets the question of its query. */
export function withQuestion(u8: Uint8Array, query: Query, original: Uint8Array): Uint8Array {
  const rcode = be16(u8, 2) & 15;
  const isBare = u8.length === HEADER && be16(u8, 4) === 0 && isRefusal(rcode);
  return isBare ? writeEmpty({ ...query, size: 0 }, original, rcode) : u8;
}

/** True for an answer of who speaks EDNS0: it has an OPT record (RFC 6891 §6.1.1). `from`: one past its question. */
export function hasOpt(u8: Uint8Array, from: number): boolean {
  let found = false;
  records(u8, from, ({ type }) => {
    found ||= type === TYPE_OPT;
  });
  return found;
}

/** True for a code that says "I do not understand the question": also of who does not know EDNS0 (RFC 6891 §7). */
export function isRefusal(rcode: number): boolean {
  return rcode === FORMERR || rcode === NOTIMP;
}

/** An answer without records: header and question of the query, and this code. `flags`: more of them, such as TC. */
export function writeEmpty(query: Query, original: Uint8Array, rcode: number, flags = 0): Uint8Array {
  const { end } = query.question;
  const withOpt = query.size > 0;
  const u8 = new Uint8Array(end + (withOpt ? 11 : 0));
  u8.set(original.subarray(0, end));
  setBe16(u8, 2, QR | RA | (query.flags & (RD | CD)) | flags | rcode);
  for (const at of [6, 8]) setBe16(u8, at, 0);
  setBe16(u8, 10, withOpt ? 1 : 0);
  if (withOpt) writeOpt(u8, end);
  return u8;
}

function writeOpt(u8: Uint8Array, at: number): void {
  setBe16(u8, at + 1, TYPE_OPT);
  setBe16(u8, at + 3, UDP_SIZE);
}

/**
 * A stored answer for this asker: its identifier, its spelling of the question, TTLs less `age` seconds, no OPT record
 * for who does not speak EDNS0, and no longer than `limit`: then only header and question, truncated.
 */
export function adapt(stored: Uint8Array, query: Query, original: Uint8Array, age: number, limit: number): Uint8Array {
  const { end } = query.question;
  let u8 = stored.slice();
  let opt: Rr | null = null;
  records(u8, end, (record) => {
    if (record.type === TYPE_OPT) opt = record;
    else setBe32(u8, record.ttlAt, Math.max(0, record.ttl - age));
  });
  const found = opt as Rr | null;
  if (found !== null && query.size === 0 && found.end === u8.length) {
    u8 = u8.slice(0, found.at);
    setBe16(u8, 10, be16(u8, 10) - 1);
  }
  const flags = (be16(u8, 2) & ~(RD | CD)) | RA | (query.flags & (RD | CD));
  if (u8.length > limit) return writeEmpty(query, original, be16(u8, 2) & 15, TC);
  u8.set(original.subarray(HEADER, end), HEADER);
  setBe16(u8, 0, query.id);
  setBe16(u8, 2, flags);
  return u8;
}

/**
 * How long an answer may be kept, seconds (RFC 2181 §8); 0: not at all. What says "there is none", also at the end of a chain of
 * aliases (RFC 2308 §2.1, §2.2), is kept as long as its SOA says (§5).
 */
export function lifetime(u8: Uint8Array, from: number): number {
  const rcode = be16(u8, 2) & 15;
  if (rcode !== NOERROR && rcode !== NXDOMAIN) return 0;
  let least = Number.POSITIVE_INFINITY;
  let negative = Number.POSITIVE_INFINITY;
  let answers = 0;
  const walked = records(u8, from, (record) => {
    if (record.type === TYPE_OPT) return;
    // A TTL with the highest bit set counts as zero.
    const ttl = record.ttl > 0x7fffffff ? 0 : record.ttl;
    if (record.section === 'answer') answers++;
    least = Math.min(least, ttl);
    if (record.type === TYPE_SOA && record.section === 'authority' && record.end - record.data >= 22)
      negative = Math.min(ttl, be32(u8, record.end - 4) >>> 0);
  });
  if (!walked) return 0;
  const seconds = answers > 0 ? Math.min(least, negative) : negative;
  return seconds === Number.POSITIVE_INFINITY ? 0 : seconds;
}
