/**
 * TCP tracking of real traffic: captures that others made, read with a reader of this file's own. Between well-behaved
 * hosts no segment may be INVALID.
 */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { TRACK_INVALID } from '../../conntrack/generic.ts';
import { TCP_CLOSE, TCP_ESTABLISHED, TCP_FIN_WAIT, TCP_TIME_WAIT } from '../../conntrack/record.ts';
import { ipText } from '../lib/build.ts';
import { CAPTURES } from '../lib/captures.ts';
import { Conversation } from './conversation.ts';

/** TCP segments over IPv4 and Ethernet in a pcap file, in order: end points, time (ms) and the segment's bytes. */
function segments(file: string): { from: string; to: string; ms: number; bytes: Uint8Array }[] {
  const all = new Uint8Array(readFileSync(join(CAPTURES, file)));
  const view = new DataView(all.buffer, all.byteOffset, all.length);
  const little = view.getUint8(0) !== 0xa1;
  const nano = view.getUint32(0, little) === 0xa1b23c4d;
  const found: ReturnType<typeof segments> = [];
  for (let at = 24; at + 16 <= all.length; ) {
    const length = view.getUint32(at + 8, little);
    const ms = view.getUint32(at, little) * 1000 + view.getUint32(at + 4, little) / (nano ? 1e6 : 1e3);
    const l3 = at + 16 + 14;
    at += 16 + length;
    if (view.getUint16(l3 - 2) !== 0x0800 || view.getUint8(l3 + 9) !== 6) continue;
    const l4 = l3 + ((view.getUint8(l3) & 15) << 2);
    const end = l3 + view.getUint16(l3 + 2);
    const header = (view.getUint8(l4 + 12) >> 4) << 2;
    // The path sorts out headers that do not fit before a tracker sees them.
    if (end > at || l4 + 20 > end || header < 20 || l4 + header > end) continue;
    found.push({
      from: `${ipText(all.subarray(l3 + 12, l3 + 16))}:${view.getUint16(l4)}`,
      to: `${ipText(all.subarray(l3 + 16, l3 + 20))}:${view.getUint16(l4 + 2)}`,
      ms,
      bytes: all.slice(l4, end),
    });
  }
  return found;
}

/** Plays a capture; returns every connection with what was said of its segments. */
function play(file: string): { k: Conversation; client: string; invalid: string[]; count: number }[] {
  const connections: ReturnType<typeof play> = [];
  const start = segments(file)[0]?.ms ?? 0;
  const open = new Map<string, ReturnType<typeof play>[number]>();
  for (const { from, to, ms, bytes } of segments(file)) {
    const key = [from, to].sort().join(' ');
    let entry = open.get(key);
    if (!entry) {
      entry = { k: new Conversation(), client: from, invalid: [], count: 0 };
      open.set(key, entry);
      connections.push(entry);
    }
    entry.k.now = Math.round(ms - start) | 0;
    entry.count++;
    if (entry.k.packet(from === entry.client ? 'c' : 's', 6, bytes) === TRACK_INVALID) {
      entry.invalid.push(`segment ${entry.count} from ${from}: ${entry.k.why}`);
    }
  }
  return connections;
}

const present = existsSync(CAPTURES);
if (!present) console.warn(`captures: none in ${CAPTURES} (SLUICE_CAPTURES); tests with real traffic do not run`);

describe.runIf(present)('real traffic', () => {
  it.each([
    'tcp-window-scale.pcap',
    'tcp-fast-open.pcap',
    'http-get.pcap',
    'tls12.pcap',
    'ftp-ipv4.pcap',
    'ftp-retr.pcap',
  ])('%s: no segment is INVALID', (file) => {
    const connections = play(file);
    expect(connections.length).toBeGreaterThan(0);
    expect(connections.flatMap((connection) => connection.invalid)).toEqual([]);
    for (const { k, count } of connections.filter((connection) => connection.count > 3)) {
      expect(k.replied, `${count} segments`).toBe(true);
    }
  });

  it('http-get.pcap: opened, assured, closed', () => {
    const [{ k }] = play('http-get.pcap');
    expect(k.assured).toBe(true);
    expect([TCP_FIN_WAIT, TCP_TIME_WAIT, TCP_CLOSE, TCP_ESTABLISHED]).toContain(k.state);
  });

  it('tcp-option-sack.pcap: SYNs with SACK blocks, never answered, stay one connection of two minutes', () => {
    const [{ k, count, invalid }, ...others] = play('tcp-option-sack.pcap');
    expect([others.length, count, invalid, k.replied]).toEqual([0, 4, [], false]);
    // The time runs from the first SYN, 12.1 s before the last.
    expect(Math.round(k.left)).toBe(108);
  });

  it('ftp-bigtransfer.pcap: four gigabytes of which a few segments are left; the holes are INVALID, the rest is not', () => {
    const connections = play('ftp-bigtransfer.pcap');
    const [data, ...more] = connections.filter((connection) => connection.invalid.length > 0);
    expect(more).toEqual([]);
    expect(connections.length).toBeGreaterThan(1);
    expect(data.invalid.length).toBeGreaterThan(10);
    for (const text of data.invalid) expect(text).toMatch(/SEQ is over the upper bound|ACK is over the upper bound/);
  });

  it('tcp-rst-inject.pcap: a RST forged before the SYN/ACK ends the connection, as it does for Linux', () => {
    const [{ k, invalid }] = play('tcp-rst-inject.pcap');
    expect(invalid).toHaveLength(1);
    expect(invalid[0]).toContain('segment 3 from 1.2.0.3:6649: this segment cannot open a connection');
    // The client's ACK picks it up again; the RSTs that follow are the exact next number.
    expect([k.live, k.state]).toEqual([true, TCP_CLOSE]);
  });
});
