/** ICMP and ICMPv6: which messages open a connection, which are errors, which are never tracked. */
import { describe, expect, it } from 'vitest';
import { TRACK_ACCEPT, TRACK_INVALID, TRACK_UNTRACKED, WHY_TEXT } from '../../conntrack/generic.ts';
import {
  ICMP_ERROR,
  ICMP_INVALID,
  ICMP_QUERY,
  ICMP_REDIRECT6,
  ICMP_UNTRACKED,
  icmpKind,
} from '../../conntrack/icmp.ts';
import { invertPorts, portsOf } from '../../conntrack/protocols.ts';
import { Packet } from '../../dataplane/wire/packet.ts';
import { icmp, icmpv6 } from '../lib/build.ts';
import { Conversation } from './conversation.ts';

/** Kind of every type from 0 to 255, as runs: `0-2 query, 3-5 error …`. */
function kinds(proto: number, family: number): string {
  const names: Record<number, string> = {
    [ICMP_QUERY]: 'query',
    [ICMP_ERROR]: 'error',
    [ICMP_UNTRACKED]: 'untracked',
    [ICMP_INVALID]: 'invalid',
    [ICMP_REDIRECT6]: 'redirect',
  };
  const p = new Packet();
  p.proto = proto;
  p.family = family;
  p.end = 8;
  const runs: { from: number; to: number; name: string }[] = [];
  for (let type = 0; type < 256; type++) {
    const name = names[icmpKind(p, Uint8Array.of(type, 0, 0, 0, 0, 0, 0, 0))];
    const last = runs.at(-1);
    if (last && last.name === name) last.to = type;
    else runs.push({ from: type, to: type, name });
  }
  return runs.map((run) => `${run.from === run.to ? run.from : `${run.from}-${run.to}`} ${run.name}`).join(', ');
}

describe('what a message is', () => {
  it('ICMP (RFC 792, RFC 950)', () => {
    expect(kinds(1, 4)).toBe('0-2 query, 3-5 error, 6-10 query, 11-12 error, 13-18 query, 19-255 invalid');
  });

  it('ICMPv6: errors below 128 (RFC 4443 §2.1); discovery and MLD stay on their link', () => {
    expect(kinds(58, 6)).toBe(
      '0-127 error, 128-129 query, 130-136 untracked, 137 redirect, 138-142 query, 143 untracked, 144-255 query',
    );
  });

  it('one in the other IP version is INVALID', () => {
    expect(kinds(1, 6)).toBe('0-255 invalid');
    expect(kinds(58, 4)).toBe('0-255 invalid');
  });

  it('a header of fewer than 8 bytes is INVALID', () => {
    const p = new Packet();
    p.proto = 1;
    p.family = 4;
    p.end = 7;
    expect(icmpKind(p, new Uint8Array(16))).toBe(ICMP_INVALID);
    expect(WHY_TEXT[p.detail]).toContain('truncated');
  });
});

describe('opening', () => {
  const opens = (proto: number, family: number) => {
    const types: number[] = [];
    for (let type = 0; type < 256; type++) {
      const bytes = (proto === 1 ? icmp : icmpv6)({ type, id: 7, seq: 1 }, 'ping').bytes;
      if (new Conversation().packet('c', proto, bytes, family) === TRACK_ACCEPT) types.push(type);
    }
    return types;
  };

  it('only queries do: echo, timestamp, information, address mask', () => {
    expect(opens(1, 4)).toEqual([8, 13, 15, 17]);
  });

  it('and echo, node information and the two questions of Mobile IPv6', () => {
    expect(opens(58, 6)).toEqual([128, 139, 144, 146]);
  });

  it('neighbour solicitation is UNTRACKED, a lone answer INVALID', () => {
    const solicitation = icmpv6({ type: 135 }, new Uint8Array(16)).bytes;
    expect(new Conversation().packet('c', 58, solicitation, 6)).toBe(TRACK_UNTRACKED);
    const k = new Conversation();
    expect(k.packet('c', 1, icmp({ type: 0, id: 7 }).bytes)).toBe(TRACK_INVALID);
    expect(k.why).toContain('cannot open');
  });

  it('30 s from every packet of either direction; duplicates of the answer pass; never ASSURED', () => {
    const k = new Conversation();
    k.packet('c', 1, icmp({ type: 8, id: 7, seq: 1 }).bytes);
    for (let n = 0; n < 3; n++) {
      k.now += 10_000;
      expect(k.packet('s', 1, icmp({ type: 0, id: 7, seq: 1 }).bytes)).toBe(TRACK_ACCEPT);
      expect([k.left, k.assured]).toEqual([30, false]);
    }
  });
});

describe('port words', () => {
  it('identifier, type and code, raw', () => {
    const bytes = icmp({ type: 8, code: 3, id: 0x1234, seq: 9 }, 'x').bytes;
    expect(portsOf(1, bytes, 0, bytes.length) >>> 0).toBe(0x03083412);
    expect(portsOf(1, bytes, 0, 7)).toBe(0);
  });

  it('the answer keeps identifier and code', () => {
    for (const [proto, family, query, answer] of [
      [1, 4, 8, 0],
      [1, 4, 13, 14],
      [1, 4, 15, 16],
      [1, 4, 17, 18],
      [58, 6, 128, 129],
      [58, 6, 139, 140],
    ]) {
      const ports = 0x3412 | (query << 16) | (0xf0 << 24) | 0;
      const inverse = invertPorts(proto, family, ports);
      expect([inverse & 0xffff, (inverse >>> 16) & 0xff, inverse >>> 24]).toEqual([0x3412, answer, 0xf0]);
      expect(invertPorts(proto, family, inverse)).toBe(ports);
    }
    const error = 0x3412 | (3 << 16);
    expect(invertPorts(1, 4, error)).toBe(error);
  });
});
