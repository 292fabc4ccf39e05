/**
 * Policy: which routing table a packet asks first, by where it comes from and what it is (`routing-rules`); in shared memory.
 *
 * As Linux's rules do, the first that matches and whose table has a route decides; where none does, the main table. The
 * router's own addresses come before all rules. Table 0 is the main one; the others are RouteTables of their own.
 *
 *   buffer:  | 0 ROOT: which copy is read | copy 0 | copy 1 |
 *   copy:    | 0 COUNT, 1 DSCP: a rule asks for it, 16 words | rules, 32 words each |
 *   rule:     0 TABLE    1 ZONE −1 any   2 PORT −1 any   3 FAMILY 0 any   4 PROTO −1 any   5 DSCP −1 any
 *             6 SPORT    7 DPORT      8 RULE  number of the rule that the line is of
 *            16–19 SRC  20–23 SRC_MASK  24–27 DST  28–31 DST_MASK   these and the ports: endpoints.ts
 *
 * One writer fills the copy that is not read and then stores ROOT. A reader goes through a list in microseconds; lists
 * change when a person applies a configuration. Without rules the path reads two words.
 */
import { ANY_PORT, type Endpoints, writeEndpoints } from './endpoints.ts';
import type { Packet } from './wire/packet.ts';

/** Tables beside the main one, and lines of rules. */
export const MAX_TABLES = 8;
export const MAX_LINES = 256;

const HEAD = 16;
const COUNT = 0;
const ASKS_DSCP = 1;
const LINE_WORDS = 32;
const COPY_WORDS = HEAD + MAX_LINES * LINE_WORDS;
const TABLE = 0;
const ZONE = 1;
const PORT = 2;
const FAMILY = 3;
const PROTO = 4;
const DSCP = 5;
const SPORT = 6;
const DPORT = 7;
const RULE = 8;
const SRC = 16;
const SRC_MASK = 20;
const DST = 24;
const DST_MASK = 28;

/** One line. */
export interface PolicyLine extends Endpoints {
  table: number;
  /** Zone and number of the port that the packet enters by, −1 any. */
  zone: number;
  port: number;
  family: 0 | 4 | 6;
  proto: number;
  dscp: number;
  rule: number;
}

export class PolicyTable {
  readonly words: Int32Array;
  /** Number of the rule that chose the last table of this view; −1: none, the main table has it. */
  rule = -1;

  /** @param buffer PolicyTable.bytes(…) bytes, zeroed */
  constructor(buffer: SharedArrayBuffer) {
    this.words = new Int32Array(buffer);
  }

  /** Bytes; a table without room for rules is one word that says so. */
  static bytes(tables: number): number {
    return tables === 0 ? 64 * 4 : (HEAD + 2 * COPY_WORDS) * 4;
  }

  private copyAt(copy: number): number {
    return HEAD + copy * COPY_WORDS;
  }

  /** Lines in force; 0: nobody need ask. */
  count(): number {
    return this.words[HEAD + this.words[0] * COPY_WORDS + COUNT];
  }

  /** True when packets of one flow may go different ways by their DSCP: then no engine entry can stand for the flow. */
  asksDscp(): boolean {
    return this.words[HEAD + this.words[0] * COPY_WORDS + ASKS_DSCP] !== 0;
  }

  /** The first line from `line` on that matches the packet, −1: none. @param zone of its ingress port; −1: it has none */
  match(p: Packet, dscp: number, zone: number, line: number): number {
    const w = this.words;
    const at = HEAD + w[0] * COPY_WORDS;
    const count = w[at + COUNT];
    const { ports } = p;
    const sport = ((ports & 0xff) << 8) | ((ports >>> 8) & 0xff);
    const dport = ((ports >>> 8) & 0xff00) | (ports >>> 24);
    for (let n = line; n < count; n++) {
      const r = at + HEAD + n * LINE_WORDS;
      let want = w[r + FAMILY];
      if (want !== 0 && want !== p.family) continue;
      want = w[r + ZONE];
      if (want !== -1 && want !== zone) continue;
      want = w[r + PORT];
      if (want !== -1 && (want !== p.port || zone === -1)) continue;
      want = w[r + PROTO];
      if (want !== -1 && want !== p.proto) continue;
      want = w[r + DSCP];
      if (want !== -1 && want !== dscp) continue;
      want = w[r + DPORT];
      if (want !== ANY_PORT && (dport < want >>> 16 || dport > (want & 0xffff))) continue;
      want = w[r + SPORT];
      if (want !== ANY_PORT && (sport < want >>> 16 || sport > (want & 0xffff))) continue;
      const differs =
        ((p.s0 ^ w[r + SRC]) & w[r + SRC_MASK]) |
        ((p.s1 ^ w[r + SRC + 1]) & w[r + SRC_MASK + 1]) |
        ((p.s2 ^ w[r + SRC + 2]) & w[r + SRC_MASK + 2]) |
        ((p.s3 ^ w[r + SRC + 3]) & w[r + SRC_MASK + 3]) |
        ((p.d0 ^ w[r + DST]) & w[r + DST_MASK]) |
        ((p.d1 ^ w[r + DST + 1]) & w[r + DST_MASK + 1]) |
        ((p.d2 ^ w[r + DST + 2]) & w[r + DST_MASK + 2]) |
        ((p.d3 ^ w[r + DST + 3]) & w[r + DST_MASK + 3]);
      if (differs === 0) return n;
    }
    return -1;
  }

  /** Table of a line, and the rule that it is of. */
  tableOf(line: number): number {
    return this.words[HEAD + this.words[0] * COPY_WORDS + HEAD + line * LINE_WORDS + TABLE];
  }

  ruleOf(line: number): number {
    return this.words[HEAD + this.words[0] * COPY_WORDS + HEAD + line * LINE_WORDS + RULE];
  }

  /** Makes a list the one in force. False when it is longer than MAX_LINES, or the table has no room for rules at all. */
  load(lines: readonly PolicyLine[]): boolean {
    const w = this.words;
    if (lines.length === 0 && this.count() === 0) return true;
    if (w.length < HEAD + 2 * COPY_WORDS || lines.length > MAX_LINES) return false;
    const next = w[0] ^ 1;
    const at = this.copyAt(next);
    w.fill(0, at, at + COPY_WORDS);
    lines.forEach((line, n) => {
      const r = at + HEAD + n * LINE_WORDS;
      w[r + TABLE] = line.table;
      w[r + ZONE] = line.zone;
      w[r + PORT] = line.port;
      w[r + FAMILY] = line.family;
      w[r + PROTO] = line.proto;
      w[r + DSCP] = line.dscp;
      w[r + RULE] = line.rule;
      writeEndpoints(w, r + SPORT, r + SRC, line);
    });
    w[at + COUNT] = lines.length;
    w[at + ASKS_DSCP] = lines.some(({ dscp }) => dscp !== -1) ? 1 : 0;
    Atomics.store(w, 0, next);
    return true;
  }
}
