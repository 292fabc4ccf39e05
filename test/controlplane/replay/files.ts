/**
 * Files for the tests of replay: captures written and read by a few naive lines that share no code with the router, and
 * the command run in this process with its output kept.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, vi } from 'vitest';
import { main } from '../../../controlplane/cli/main.ts';
import { concat, get16, get32, ip, ipText } from '../../lib/build.ts';
import { CAPTURES } from '../../lib/captures.ts';

const root = fileURLToPath(new URL('../../../', import.meta.url));
export const example = (name: string) => join(root, 'examples', name);
export const captureFile = (name: string) => join(CAPTURES, name);
export const haveCaptures = existsSync(captureFile('http-get.pcap'));
if (!haveCaptures) console.warn(`captures: none in ${CAPTURES} (SLUICE_CAPTURES); tests with real traffic do not run`);

const made: string[] = [];
/** A fresh directory, removed after the file's tests. */
export function directory(): string {
  const path = mkdtempSync(join(tmpdir(), 'sluice-replay-'));
  made.push(path);
  return path;
}
afterAll(() => {
  for (const path of made) rmSync(path, { recursive: true, force: true });
});

export interface Frame {
  /** Microseconds since 1970. */
  time: number;
  frame: Uint8Array;
}

function le32(value: number): Uint8Array {
  return Uint8Array.of(value, value >> 8, value >> 16, value >> 24);
}

/** The bytes of a pcap file with microseconds, little-endian. */
export function pcapBytes(frames: readonly Frame[], linkType = 1): Uint8Array {
  const records = frames.map(({ time, frame }) =>
    concat(le32(Math.floor(time / 1e6)), le32(time % 1e6), le32(frame.length), le32(frame.length), frame),
  );
  return concat(le32(0xa1b2c3d4), le32(0x00040002), le32(0), le32(0), le32(262144), le32(linkType), ...records);
}

export function writePcap(path: string, frames: readonly Frame[], linkType = 1): string {
  writeFileSync(path, pcapBytes(frames, linkType));
  return path;
}

/** Frames of a pcap file, either byte order, with microseconds or nanoseconds. */
export function readPcap(path: string): Frame[] {
  const bytes = readFileSync(path);
  const little = bytes.readUInt32LE(0) === 0xa1b2c3d4 || bytes.readUInt32LE(0) === 0xa1b23c4d;
  const word = (at: number) => (little ? bytes.readUInt32LE(at) : bytes.readUInt32BE(at));
  const nano = word(0) === 0xa1b23c4d;
  if (!nano && word(0) !== 0xa1b2c3d4) throw new Error(`${path}: no pcap`);
  const frames: Frame[] = [];
  for (let at = 24; at < bytes.length; ) {
    const length = word(at + 8);
    frames.push({
      time: word(at) * 1e6 + word(at + 4) / (nano ? 1000 : 1),
      frame: new Uint8Array(bytes.subarray(at + 16, at + 16 + length)),
    });
    at += 16 + length;
  }
  return frames;
}

export interface Outcome {
  code: number;
  stdout: string;
  stderr: string;
}

/** Runs `sluice` with these arguments. */
export async function sluice(...argv: string[]): Promise<Outcome> {
  const written = { stdout: '', stderr: '' };
  const spies = (['stdout', 'stderr'] as const).map((name) =>
    vi.spyOn(process[name], 'write').mockImplementation((text) => {
      written[name] += String(text);
      return true;
    }),
  );
  try {
    return { code: await main(argv), ...written };
  } finally {
    for (const spy of spies) spy.mockRestore();
  }
}

/** What matters of an IPv4 or IPv6 TCP or UDP frame (no VLAN, no extension headers). */
export interface Seen {
  src: string;
  dst: string;
  sport: number;
  dport: number;
  proto: number;
  seq: number;
  ack: number;
  flags: number;
  payload: Uint8Array;
}

export function see(frame: Uint8Array): Seen {
  const four = frame[14] >> 4 === 4;
  const l4 = four ? 14 + (frame[14] & 15) * 4 : 54;
  const end = four ? 14 + get16(frame, 16) : 54 + get16(frame, 18);
  const proto = frame[four ? 23 : 20];
  const size = four ? 4 : 16;
  const from = four ? 26 : 22;
  const body = proto === 6 ? l4 + (frame[l4 + 12] >> 4) * 4 : l4 + 8;
  return {
    src: ipText(frame.slice(from, from + size)),
    dst: ipText(frame.slice(from + size, from + 2 * size)),
    sport: get16(frame, l4),
    dport: get16(frame, l4 + 2),
    proto,
    seq: proto === 6 ? get32(frame, l4 + 4) : 0,
    ack: proto === 6 ? get32(frame, l4 + 8) : 0,
    flags: proto === 6 ? frame[l4 + 13] : 0,
    payload: frame.slice(body, end),
  };
}

/** True when the frame's IP source (from true) or destination is this address. */
export function isFrom(frame: Uint8Array, address: string): boolean {
  const four = get16(frame, 12) === 0x0800;
  const bytes = ip(address);
  return bytes.every((byte, n) => frame[(four ? 26 : 22) + n] === byte);
}
