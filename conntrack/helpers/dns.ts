/**
 * DNS: a connection whose answers have come has nothing more to wait for (row A8).
 *
 * A resolver takes a new port for every question; the connections then stand for half a minute for nothing, which a small
 * table feels. So the identifiers of the questions under way are kept, and when the answer to the last of them passes, the
 * connection ends with it (FIND_DONE). Linux does nothing of the kind, and an answer that comes twice is then nobody's:
 * so it is off unless asked for (RFC 4787 REQ-5a allows the short life: port 53 is a well-known port).
 *
 *   header (RFC 1035 §4.1.1)   | ID 16 | QR 1 | opcode 4 | ...        QR 0: question, 1: answer
 *
 *   words: 0 how many questions wait (OVERFLOW and more: too many to keep)   1–6 their IDs, two in a word from bit 0
 *
 * A question that is sent again counts once: whichever answer comes first ends it. With more than twelve questions under
 * way, the connection lives as long as any other. Not here: TCP, what the messages say.
 */
import {
  FIND_DONE,
  type Finding,
  type Helper,
  type HelperContext,
  NOT_UNDERSTOOD,
  nextFinding,
  UNDERSTOOD,
} from './helper.ts';

export const DNS = 10;
/** A message has at least its header. */
const HEADER = 12;
const COUNT = 0;
const IDS = 1;
const MOST = 12;
const OVERFLOW = 13;

export const dns: Helper = {
  name: 'dns',
  number: DNS,
  ports: [53],
  protocols: [17],
  limits: [1],
  inspect,
  write,
};

function idAt(c: HelperContext, n: number): number {
  return (c.state[c.stateAt + IDS + (n >> 1)] >>> ((n & 1) << 4)) & 0xffff;
}

function setId(c: HelperContext, n: number, id: number): void {
  const at = c.stateAt + IDS + (n >> 1);
  const shift = (n & 1) << 4;
  c.state[at] = (c.state[at] & ~(0xffff << shift)) | (id << shift);
}

function inspect(c: HelperContext): number {
  if (c.to - c.from < HEADER) return NOT_UNDERSTOOD;
  const id = (c.u8[c.from] << 8) | c.u8[c.from + 1];
  const answer = c.u8[c.from + 2] >> 7;
  // A question from the server's side, or an answer from the client's, is something else.
  if (answer !== c.dir) return NOT_UNDERSTOOD;
  const count = c.state[c.stateAt + COUNT];
  if (count >= OVERFLOW) return UNDERSTOOD;
  let known = 0;
  while (known < count && idAt(c, known) !== id) known++;
  if (answer === 0) {
    if (known < count) return UNDERSTOOD;
    if (count < MOST) setId(c, count, id);
    c.state[c.stateAt + COUNT] = count < MOST ? count + 1 : OVERFLOW;
    return UNDERSTOOD;
  }
  if (known === count) return UNDERSTOOD; // nobody asked that
  setId(c, known, idAt(c, count - 1));
  c.state[c.stateAt + COUNT] = count - 1;
  if (count === 1) nextFinding(c, FIND_DONE, c.from, c.from);
  return UNDERSTOOD;
}

/** Never asked: nothing is rewritten. */
function write(
  _f: Finding,
  _family: number,
  _address: Int32Array,
  _port: number,
  _out: Uint8Array,
  _at: number,
): number {
  return 0;
}
