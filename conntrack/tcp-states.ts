/**
 * TCP's states as somebody in the middle sees them, and how a packet moves a connection from one to the next.
 *
 * This is the state of the *connection*, guessed from what passes, not of either end (RFC 9293 §3.3.2 has those). The
 * guess assumes that the sender is in order and that a packet may be lost behind us.
 *
 *   NONE         nothing seen             CLOSE_WAIT  that FIN was answered
 *   SYN_SENT     SYN seen                 LAST_ACK    a FIN in each direction
 *   SYN_RECV     SYN/ACK seen             TIME_WAIT   both answered
 *   ESTABLISHED  its ACK seen             CLOSE       RST seen
 *   FIN_WAIT     one FIN seen             SYN_SENT2   a SYN in each direction: simultaneous open
 *
 * IGNORE: the packet may be right while we are out of step; it passes, and the answer (RST, SYN/ACK, challenge ACK)
 * will tell. INVALID: it can be right for nobody.
 *
 * The table is written as rules, one a line, `direction kind: states > next  reason`, and read at module load; a state
 * without a rule is INVALID, and `*` stands for all states that have no rule yet.
 */
import {
  ORIGINAL,
  REPLY,
  TCP_CLOSE,
  TCP_CLOSE_WAIT,
  TCP_ESTABLISHED,
  TCP_FIN_WAIT,
  TCP_LAST_ACK,
  TCP_NONE,
  TCP_SYN_RECV,
  TCP_SYN_SENT,
  TCP_SYN_SENT2,
  TCP_TIME_WAIT,
} from './record.ts';

export const TCP_STATES = 10;
/** Verdicts in the table's cells, beside the states. */
export const STATE_INVALID = 10;
export const STATE_IGNORE = 11;

/** What kind of packet it is: RST wins over SYN, SYN over FIN, FIN over ACK. */
export const KIND_SYN = 0;
export const KIND_SYNACK = 1;
export const KIND_FIN = 2;
export const KIND_ACK = 3;
export const KIND_RST = 4;
export const KIND_NONE = 5;
const KINDS = 6;

/** Names by number, as the `conntrack` tool prints states. */
export const TCP_STATE_NAMES: readonly string[] = [
  'NONE',
  'SYN_SENT',
  'SYN_RECV',
  'ESTABLISHED',
  'FIN_WAIT',
  'CLOSE_WAIT',
  'LAST_ACK',
  'TIME_WAIT',
  'CLOSE',
  'SYN_SENT2',
];

export const TCP_KIND_NAMES: readonly string[] = ['SYN', 'SYN/ACK', 'FIN', 'ACK', 'RST', 'none'];

const RULES = `
ORIGINAL SYN:     NONE                          > SYN_SENT     opens a connection
ORIGINAL SYN:     SYN_SENT                      > SYN_SENT     sent again
ORIGINAL SYN:     SYN_SENT2                     > SYN_SENT2    sent again, late, in a simultaneous open
ORIGINAL SYN:     TIME_WAIT CLOSE               > SYN_SENT     reopened (RFC 9293 §3.6.1); tcp.ts makes it a new connection
ORIGINAL SYN:     *                             > IGNORE       in step, the other end resets or challenges (RFC 5961 §4); else its SYN/ACK tells

ORIGINAL SYN/ACK: SYN_SENT2                     > SYN_RECV     simultaneous open: answers the other end's SYN
ORIGINAL SYN/ACK: SYN_RECV                      > SYN_RECV     the same, sent again
ORIGINAL SYN/ACK: *                             > INVALID      who opened does not answer

ORIGINAL FIN:     SYN_RECV ESTABLISHED          > FIN_WAIT     starts to close
ORIGINAL FIN:     FIN_WAIT CLOSE_WAIT           > LAST_ACK     the second FIN (or the first again: then the other end's ACK leads on)
ORIGINAL FIN:     LAST_ACK                      > LAST_ACK     sent again
ORIGINAL FIN:     TIME_WAIT                     > TIME_WAIT    sent again
ORIGINAL FIN:     CLOSE                         > CLOSE        over already
ORIGINAL FIN:     *                             > INVALID      nothing to close before there was a SYN/ACK

ORIGINAL ACK:     NONE                          > ESTABLISHED  picked up in the middle (tcp_loose)
ORIGINAL ACK:     SYN_RECV                      > ESTABLISHED  completes the handshake
ORIGINAL ACK:     ESTABLISHED                   > ESTABLISHED  data, ACKs, keepalives
ORIGINAL ACK:     FIN_WAIT                      > CLOSE_WAIT   answers the FIN
ORIGINAL ACK:     CLOSE_WAIT                    > CLOSE_WAIT   half closed: the other direction goes on
ORIGINAL ACK:     LAST_ACK                      > TIME_WAIT    answers the second FIN (unless it is a challenge, see tcp.ts)
ORIGINAL ACK:     TIME_WAIT                     > TIME_WAIT    sent again
ORIGINAL ACK:     CLOSE                         > CLOSE        over already
ORIGINAL ACK:     SYN_SENT SYN_SENT2            > INVALID      there was nothing to acknowledge yet

ORIGINAL RST:     NONE                          > INVALID      nothing to reset
ORIGINAL RST:     *                             > CLOSE        reset, if tcp.ts finds it exact

REPLY    SYN:     SYN_SENT                      > SYN_SENT2    simultaneous open (RFC 9293 §3.5)
REPLY    SYN:     SYN_SENT2                     > SYN_SENT2    sent again
REPLY    SYN:     TIME_WAIT                     > SYN_SENT     reopened with the roles exchanged
REPLY    SYN:     *                             > INVALID      who answers does not open

REPLY    SYN/ACK: SYN_SENT                      > SYN_RECV     the usual answer
REPLY    SYN/ACK: SYN_SENT2                     > SYN_RECV     simultaneous open
REPLY    SYN/ACK: NONE                          > INVALID      cannot be: NONE has no reply
REPLY    SYN/ACK: *                             > IGNORE       sent again, or the answer to a SYN that we ignored

REPLY    FIN:     SYN_RECV ESTABLISHED          > FIN_WAIT     starts to close
REPLY    FIN:     FIN_WAIT CLOSE_WAIT           > LAST_ACK     the second FIN
REPLY    FIN:     LAST_ACK                      > LAST_ACK     sent again
REPLY    FIN:     TIME_WAIT                     > TIME_WAIT    sent again
REPLY    FIN:     CLOSE                         > CLOSE        over already
REPLY    FIN:     *                             > INVALID      nothing to close before the SYN/ACK

REPLY    ACK:     SYN_SENT SYN_SENT2            > IGNORE       the other end holds an old, half-open connection; a RST will follow
REPLY    ACK:     SYN_RECV                      > SYN_RECV     answers a SYN that was sent again
REPLY    ACK:     ESTABLISHED                   > ESTABLISHED  data, ACKs, keepalives
REPLY    ACK:     FIN_WAIT                      > CLOSE_WAIT   answers the FIN
REPLY    ACK:     CLOSE_WAIT                    > CLOSE_WAIT   half closed: the other direction goes on
REPLY    ACK:     LAST_ACK                      > TIME_WAIT    answers the second FIN (unless it is a challenge)
REPLY    ACK:     TIME_WAIT                     > TIME_WAIT    sent again
REPLY    ACK:     CLOSE                         > CLOSE        over already
REPLY    ACK:     NONE                          > INVALID      cannot be

REPLY    RST:     NONE                          > INVALID      nothing to reset
REPLY    RST:     *                             > CLOSE        reset, if tcp.ts finds it exact
`;

/** TRANSITIONS[stateCell(dir, kind, state)]: the next state, STATE_INVALID or STATE_IGNORE. */
export const TRANSITIONS = parseRules(RULES);

/** Index of a cell in TRANSITIONS. */
export function stateCell(dir: number, kind: number, state: number): number {
  return (dir * KINDS + kind) * TCP_STATES + state;
}

/** KIND_* of a TCP flags byte, whatever combination it is. */
export function packetKind(flags: number): number {
  if ((flags & 4) !== 0) return KIND_RST;
  if ((flags & 2) !== 0) return (flags & 16) !== 0 ? KIND_SYNACK : KIND_SYN;
  if ((flags & 1) !== 0) return KIND_FIN;
  return (flags & 16) !== 0 ? KIND_ACK : KIND_NONE;
}

/** True for the states in which a connection is on its way out and may be given up for a new one. */
export function isClosing(state: number): boolean {
  return state >= TCP_FIN_WAIT && state <= TCP_CLOSE;
}

/**
 * Flag combinations that a TCP may send; PSH, ECE and CWR may be with any of them. Everything else (SYN with FIN or
 * RST, FIN without ACK, none at all ...) is somebody probing.
 */
const FIN = 1;
const SYN = 2;
const RST = 4;
const ACK = 16;
const URG = 32;
const VALID_FLAGS = new Uint8Array(64);
for (const flags of [SYN, SYN | URG, SYN | ACK, RST, RST | ACK, FIN | ACK, FIN | ACK | URG, ACK, ACK | URG]) {
  VALID_FLAGS[flags] = 1;
}

/** False for combinations of flags that no TCP sends. `flags` is the header's flags byte. */
export function validFlags(flags: number): boolean {
  return VALID_FLAGS[flags & (FIN | SYN | RST | ACK | URG)] === 1;
}

function parseRules(text: string): Uint8Array {
  const names: Record<string, number> = {
    NONE: TCP_NONE,
    SYN_SENT: TCP_SYN_SENT,
    SYN_RECV: TCP_SYN_RECV,
    ESTABLISHED: TCP_ESTABLISHED,
    FIN_WAIT: TCP_FIN_WAIT,
    CLOSE_WAIT: TCP_CLOSE_WAIT,
    LAST_ACK: TCP_LAST_ACK,
    TIME_WAIT: TCP_TIME_WAIT,
    CLOSE: TCP_CLOSE,
    SYN_SENT2: TCP_SYN_SENT2,
    INVALID: STATE_INVALID,
    IGNORE: STATE_IGNORE,
  };
  const UNSET = 255;
  const cells = new Uint8Array(2 * KINDS * TCP_STATES).fill(UNSET);
  for (const line of text.split('\n')) {
    if (line === '') continue;
    const match = /^(ORIGINAL|REPLY) +([A-Z/]+): +([A-Z0-9_* ]+?) +> ([A-Z0-9_]+) /.exec(line);
    const kind = TCP_KIND_NAMES.indexOf(match?.[2] ?? '');
    const next = names[match?.[4] ?? ''];
    if (!match || kind < 0 || next === undefined) throw new Error(`tcp-states.ts: cannot read the rule "${line}"`);
    const dir = match[1] === 'REPLY' ? REPLY : ORIGINAL;
    for (let state = 0; state < TCP_STATES; state++) {
      const cell = stateCell(dir, kind, state);
      if (match[3] === '*') {
        if (cells[cell] === UNSET) cells[cell] = next;
      } else if (match[3].split(' ').includes(TCP_STATE_NAMES[state])) {
        if (cells[cell] !== UNSET) throw new Error(`tcp-states.ts: two rules for one state: "${line}"`);
        cells[cell] = next;
      }
    }
  }
  return cells.map((cell) => (cell === UNSET ? STATE_INVALID : cell));
}
