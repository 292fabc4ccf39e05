/**
 * The TCP state table against expectations in words: lives of a connection as RFC 9293 §3.3.2, §3.5 and §3.6 draw them,
 * seen from the middle, and general properties of all cells.
 */
import { describe, expect, it } from 'vitest';
import {
  isClosing,
  packetKind,
  STATE_IGNORE,
  STATE_INVALID,
  stateCell,
  TCP_KIND_NAMES,
  TCP_STATE_NAMES,
  TCP_STATES,
  TRANSITIONS,
  validFlags,
} from '../../conntrack/tcp-states.ts';
import { tcpFlags } from '../lib/build.ts';

/** Walks the table: `c SYN > SYN_SENT, s SYN/ACK > SYN_RECV …`; returns the states that were reached. */
function walk(start: string, steps: string): string[] {
  let state = TCP_STATE_NAMES.indexOf(start);
  return steps.split(', ').map((step) => {
    const [side, kind] = step.split(' ');
    const next = TRANSITIONS[stateCell(side === 's' ? 1 : 0, TCP_KIND_NAMES.indexOf(kind), state)];
    if (next < TCP_STATES) state = next;
    return next === STATE_INVALID ? 'INVALID' : next === STATE_IGNORE ? 'IGNORE' : TCP_STATE_NAMES[next];
  });
}

describe('lives of a connection', () => {
  it.each([
    [
      'RFC 9293 §3.5 figure 6: handshake, then §3.6 figure 12: the client closes first',
      'c SYN, s SYN/ACK, c ACK, s ACK, c FIN, s ACK, s FIN, c ACK',
      'SYN_SENT, SYN_RECV, ESTABLISHED, ESTABLISHED, FIN_WAIT, CLOSE_WAIT, LAST_ACK, TIME_WAIT',
    ],
    [
      'the server closes first',
      'c SYN, s SYN/ACK, c ACK, s FIN, c ACK, c FIN, s ACK',
      'SYN_SENT, SYN_RECV, ESTABLISHED, FIN_WAIT, CLOSE_WAIT, LAST_ACK, TIME_WAIT',
    ],
    [
      'half close: the other direction goes on with data for as long as it likes',
      'c SYN, s SYN/ACK, c ACK, c FIN, s ACK, s ACK, c ACK, s ACK',
      'SYN_SENT, SYN_RECV, ESTABLISHED, FIN_WAIT, CLOSE_WAIT, CLOSE_WAIT, CLOSE_WAIT, CLOSE_WAIT',
    ],
    [
      'RFC 9293 §3.6 figure 13: both close at once',
      'c SYN, s SYN/ACK, c ACK, c FIN, s FIN, c ACK, s ACK',
      'SYN_SENT, SYN_RECV, ESTABLISHED, FIN_WAIT, LAST_ACK, TIME_WAIT, TIME_WAIT',
    ],
    [
      'RFC 9293 §3.5 figure 7: simultaneous open, both SYN/ACKs',
      'c SYN, s SYN, c SYN/ACK, s SYN/ACK, c ACK',
      'SYN_SENT, SYN_SENT2, SYN_RECV, IGNORE, ESTABLISHED',
    ],
    ['a refused connection', 'c SYN, s RST', 'SYN_SENT, CLOSE'],
    ['the client goes away during the handshake', 'c SYN, s SYN/ACK, c RST', 'SYN_SENT, SYN_RECV, CLOSE'],
    [
      'SYN and SYN/ACK lost behind us and sent again',
      'c SYN, c SYN, s SYN/ACK, c SYN, s SYN/ACK, c ACK',
      'SYN_SENT, SYN_SENT, SYN_RECV, IGNORE, IGNORE, ESTABLISHED',
    ],
    ['a server that sends first', 'c SYN, s SYN/ACK, s ACK, c ACK', 'SYN_SENT, SYN_RECV, SYN_RECV, ESTABLISHED'],
    [
      'the last ACK lost: FIN again, ACK again',
      'c SYN, s SYN/ACK, c ACK, c FIN, s FIN, c ACK, s FIN, c ACK',
      'SYN_SENT, SYN_RECV, ESTABLISHED, FIN_WAIT, LAST_ACK, TIME_WAIT, TIME_WAIT, TIME_WAIT',
    ],
    [
      'RFC 9293 §3.5.1 figure 9: half-open connection discovered, the old end answers a SYN with an ACK',
      'c SYN, s ACK, c RST',
      'SYN_SENT, IGNORE, CLOSE',
    ],
  ])('%s', (_name, steps, states) => {
    expect(walk('NONE', steps)).toEqual(states.split(', '));
  });
});

describe('every cell', () => {
  const cells = [0, 1].flatMap((dir) =>
    TCP_KIND_NAMES.flatMap((kind, k) =>
      TCP_STATE_NAMES.map((state, s) => ({ dir, kind, state, next: TRANSITIONS[stateCell(dir, k, s)] })),
    ),
  );
  const names = (list: typeof cells) => [...new Set(list.map((cell) => cell.state))];

  it('is a state or a verdict, and never NONE', () => {
    expect(cells).toHaveLength(120);
    for (const cell of cells) {
      expect(cell.next).toBeGreaterThan(0);
      expect(cell.next).toBeLessThanOrEqual(STATE_IGNORE);
    }
  });

  it('opens a connection with a SYN or, in the middle, an ACK; nothing else, and nobody who answers', () => {
    const opens = cells.filter((cell) => cell.state === 'NONE' && cell.next < TCP_STATES);
    expect(opens.map((cell) => `${cell.dir} ${cell.kind}`)).toEqual(['0 SYN', '0 ACK']);
  });

  it('a segment without SYN, ACK, FIN and RST is always INVALID', () => {
    expect(cells.filter((cell) => cell.kind === 'none').every((cell) => cell.next === STATE_INVALID)).toBe(true);
  });

  it('a RST closes every state that there is', () => {
    const closes = cells.filter((cell) => cell.kind === 'RST' && TCP_STATE_NAMES[cell.next] === 'CLOSE');
    expect(names(closes)).toEqual(TCP_STATE_NAMES.slice(1));
  });

  it('data and FINs never make a closing connection ESTABLISHED again', () => {
    for (const cell of cells.filter((c) => c.next < TCP_STATES && !c.kind.startsWith('SYN'))) {
      if (isClosing(TCP_STATE_NAMES.indexOf(cell.state)))
        expect(isClosing(cell.next), `${cell.state} ${cell.kind}`).toBe(true);
    }
  });

  it('ESTABLISHED is reached by ACKs only', () => {
    const ways = cells.filter((cell) => TCP_STATE_NAMES[cell.next] === 'ESTABLISHED');
    expect(ways.every((cell) => cell.kind === 'ACK')).toBe(true);
    expect(names(ways).sort()).toEqual(['ESTABLISHED', 'NONE', 'SYN_RECV']);
  });

  it('only a SYN leaves CLOSE and TIME_WAIT, and a new SYN is never INVALID for who opened', () => {
    const leaves = cells.filter(
      (cell) => (cell.state === 'CLOSE' || cell.state === 'TIME_WAIT') && cell.next < 7 && cell.next > 0,
    );
    expect(leaves.every((cell) => cell.kind === 'SYN')).toBe(true);
    const syns = cells.filter((cell) => cell.dir === 0 && cell.kind === 'SYN');
    expect(syns.every((cell) => cell.next !== STATE_INVALID)).toBe(true);
  });
});

describe('flags', () => {
  it('name the kind: RST before SYN before FIN before ACK', () => {
    const kinds = {
      S: 'SYN',
      SA: 'SYN/ACK',
      A: 'ACK',
      PA: 'ACK',
      FA: 'FIN',
      FPUA: 'FIN',
      R: 'RST',
      RA: 'RST',
      P: 'none',
    };
    for (const [letters, kind] of Object.entries(kinds))
      expect(TCP_KIND_NAMES[packetKind(tcpFlags(letters))]).toBe(kind);
  });

  it('of 256 combinations, nine are valid with any of PSH, ECE, CWR', () => {
    const valid = ['S', 'SU', 'SA', 'R', 'RA', 'FA', 'FUA', 'A', 'UA'].map(tcpFlags);
    for (let flags = 0; flags < 256; flags++) {
      const bare = flags & ~tcpFlags('PEC');
      expect(validFlags(flags), `flags ${flags.toString(2)}`).toBe(valid.includes(bare));
    }
  });
});
