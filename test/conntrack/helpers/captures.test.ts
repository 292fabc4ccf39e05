/** Helpers on real captures: what the control connections announce is what the captured data connections use. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { ftp } from '../../../conntrack/helpers/ftp.ts';
import { FIND_CLOSE, FIND_EXPECT, type Helper, UNDERSTOOD } from '../../../conntrack/helpers/helper.ts';
import { sip } from '../../../conntrack/helpers/sip.ts';
import { tftp } from '../../../conntrack/helpers/tftp.ts';
import { ETHERNET_HEADER, ethernetFrame, openCapture } from '../../../dataplane/ports/capture-reader.ts';
import { addressFromBytes, formatAddress } from '../../../dataplane/wire/address.ts';
import { CAPTURES } from '../../lib/captures.ts';
import { Conversation, type Found } from './conversation.ts';

const there = existsSync(join(CAPTURES, 'ftp-ipv4.pcap'));
if (!there) console.log(`skipped: no captures in ${CAPTURES} (SLUICE_CAPTURES names another folder)`);

interface Segment {
  src: string;
  dst: string;
  sport: number;
  dport: number;
  proto: number;
  seq: number;
  syn: boolean;
  payload: Uint8Array;
}

/** TCP and UDP packets of a capture, read naively: no fragments, no extension headers. */
function segments(file: string): Segment[] {
  const reader = openCapture(join(CAPTURES, file));
  const all: Segment[] = [];
  while (reader.next()) {
    const f = new Uint8Array(reader.capturedLength + ETHERNET_HEADER);
    const view = new DataView(f.buffer);
    ethernetFrame(reader, f, 0);
    const type = view.getUint16(12);
    const v4 = type === 0x0800;
    if (!v4 && type !== 0x86dd) continue;
    const l4 = v4 ? 14 + (f[14] & 15) * 4 : 54;
    const end = v4 ? 14 + view.getUint16(16) : 54 + view.getUint16(18);
    const proto = v4 ? f[23] : f[20];
    if (proto !== 6 && proto !== 17) continue;
    const address = (at: number) => formatAddress(v4 ? 4 : 6, ...addressFromBytes(v4 ? 4 : 6, f, at));
    all.push({
      src: address(v4 ? 26 : 22),
      dst: address(v4 ? 30 : 38),
      sport: view.getUint16(l4),
      dport: view.getUint16(l4 + 2),
      proto,
      seq: proto === 6 ? view.getInt32(l4 + 4) : 0,
      syn: proto === 6 && (f[l4 + 13] & 0x12) === 2,
      payload: f.slice(proto === 6 ? l4 + (f[l4 + 12] >> 4) * 4 : l4 + 8, end),
    });
  }
  expect(reader.error).toBeNull();
  return all;
}

interface Played {
  found: Found[];
  results: number[];
  /** Data connections of TCP: `endpoint from peer`, in the order of their SYNs, and those that were announced before. */
  data: string[];
  expected: string[];
}

/** Feeds every control connection of the capture to the helper. */
function play(file: string, helper: Helper): Played {
  const talks = new Map<string, Conversation>();
  const played: Played = { found: [], results: [], data: [], expected: [] };
  const open = new Set<string>();
  for (const s of segments(file)) {
    const dir = helper.ports.includes(s.dport) ? 0 : helper.ports.includes(s.sport) ? 1 : -1;
    if (dir < 0) {
      if (!s.syn) continue;
      const connection = `${s.dst} ${s.dport} from ${s.src}`;
      if (played.data.includes(connection)) continue; // sent again
      played.data.push(connection);
      if (open.has(connection)) played.expected.push(connection);
      continue;
    }
    if (s.payload.length === 0) continue;
    const client: [string, number] = dir === 0 ? [s.src, s.sport] : [s.dst, s.dport];
    const server: [string, number] = dir === 0 ? [s.dst, s.dport] : [s.src, s.sport];
    const key = `${client} ${server}`;
    const talk = talks.get(key) ?? new Conversation(helper, { client, server }, s.proto);
    talks.set(key, talk);
    for (const f of talk.send(dir as 0 | 1, s.payload, s.seq)) {
      played.found.push(f);
      if (f.kind === FIND_EXPECT) open.add(`${f.endpoint} from ${dir === 0 ? server[0] : client[0]}`);
    }
    played.results.push(talk.result);
  }
  return played;
}

describe.skipIf(!there)('captures', () => {
  test.each([
    ['ftp-ipv4.pcap', 4],
    ['ftp-ipv6.pcap', 4],
    ['ftp-retr.pcap', 1],
    ['ftp-bigtransfer.pcap', 2],
  ])('%s: every data connection was announced', (file, least) => {
    const { data, expected } = play(file, ftp);
    expect(expected.length).toBeGreaterThanOrEqual(least);
    expect(expected).toEqual(data);
  });

  test.each(['ftp-auth-tls.pcap', 'ftp-fake-long-commands.pcap', 'ftp-ipv6-violation.pcap'])(
    '%s: nothing is opened',
    (file) => {
      expect(play(file, ftp).found).toEqual([]);
    },
  );

  test('tftp.pcap: the transfer’s own ports', () => {
    const { found } = play('tftp.pcap', tftp);
    const all = segments('tftp.pcap');
    const answers = all.filter((s) => s.sport !== 69 && s.dport !== 69);
    expect(found.length).toBeGreaterThan(0);
    for (const s of answers)
      expect(found.some((f) => f.endpoint === `${s.dst} ${s.dport}` || f.endpoint === `${s.src} ${s.sport}`)).toBe(
        true,
      );
  });

  test('sip.pcap: registrations, calls and their ends are all understood', () => {
    const { found, results } = play('sip.pcap', sip);
    expect(results.every((r) => r === UNDERSTOOD)).toBe(true);
    const expects = found.filter((f) => f.kind === FIND_EXPECT);
    expect(expects.filter((f) => f.permanent === 1).map((f) => f.timeout)).toContain(1200);
    expect(expects.filter((f) => f.class === 1).map((f) => f.endpoint)).toContain('192.168.1.2 30000');
    expect(found.some((f) => f.kind === FIND_CLOSE)).toBe(true);
  });
});
