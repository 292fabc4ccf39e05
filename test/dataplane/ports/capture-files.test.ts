/** Real captures: every file of SLUICE_CAPTURES is read without error, and Wireshark's tools count and see the same frames. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { ETHERNET_HEADER, ethernetFrame, openCapture } from '../../../dataplane/ports/capture-reader.ts';
import { CaptureWriter } from '../../../dataplane/ports/capture-writer.ts';
import { CAPTURES } from '../../lib/captures.ts';

function capturesBelow(folder: string): string[] {
  try {
    return readdirSync(folder, { withFileTypes: true })
      .flatMap((entry) => {
        const path = join(folder, entry.name);
        if (entry.isDirectory()) return capturesBelow(path);
        return /\.(pcap|pcapng|cap)(\.gz)?$/.test(entry.name) ? [path] : [];
      })
      .sort();
  } catch {
    return [];
  }
}

const files = capturesBelow(CAPTURES);
const has = (tool: string) => spawnSync(tool, ['--version']).status === 0;
const folder = mkdtempSync(join(tmpdir(), 'sluice-captures-'));
afterAll(() => rmSync(folder, { recursive: true }));
if (files.length === 0) console.log(`skipped: no captures in ${CAPTURES} (SLUICE_CAPTURES names another folder)`);

interface Seen {
  frame: string;
  original: number;
  seconds: number;
  nanoseconds: number;
}

function frames(file: string): Seen[] {
  const reader = openCapture(file);
  const seen: Seen[] = [];
  while (reader.next()) {
    const { offset, capturedLength, originalLength: original, seconds, nanoseconds } = reader;
    const frame = Buffer.from(reader.data.subarray(offset, offset + capturedLength)).toString('hex');
    seen.push({ frame, original, seconds, nanoseconds });
  }
  expect(reader.error).toBeNull();
  return seen;
}

describe.skipIf(files.length === 0)('real captures', () => {
  test('every file is read to its end, and every frame becomes an Ethernet frame', () => {
    for (const file of files) {
      const reader = openCapture(file);
      while (reader.next()) {
        const out = new Uint8Array(reader.capturedLength + ETHERNET_HEADER);
        expect(ethernetFrame(reader, out, 0), `${file}, frame ${reader.frames}`).toBeGreaterThan(0);
      }
      expect(reader.error, file).toBeNull();
      expect(reader.frames, file).toBeGreaterThan(0);
    }
  });

  test('capinfos counts the same frames', (context) => {
    if (!has('capinfos')) return context.skip('capinfos is not installed');
    const told = spawnSync('capinfos', ['-c', '-M', '-T', '-r', '-m', ...files], { encoding: 'utf8' });
    const counts = told.stdout
      .trim()
      .split('\n')
      .map((line) => line.split(','));
    expect(counts).toHaveLength(files.length);
    for (const [file, count] of counts) expect(`${file} ${frames(file).length}`).toBe(`${file} ${count}`);
  });

  test('converted by editcap to every format, they hold the same frames', (context) => {
    if (!has('editcap')) return context.skip('editcap is not installed');
    for (const format of ['pcapng', 'nsecpcap', 'modpcap', 'pcap'])
      for (const file of files.slice(0, 12)) {
        const converted = join(folder, `${format}.out`);
        expect(spawnSync('editcap', ['-F', format, file, converted]).status, file).toBe(0);
        expect(frames(converted), `${relative(CAPTURES, file)} as ${format}`).toEqual(frames(file));
      }
  });

  test('written again in either format, tshark sees what it saw before', (context) => {
    if (!has('tshark')) return context.skip('tshark is not installed');
    const file = files.find((one) => one.endsWith('/ftp-ipv4.pcap')) ?? files[0];
    const look = (path: string) =>
      spawnSync('tshark', ['-r', path, '-t', 'e', '-x'], { encoding: 'utf8', maxBuffer: 1 << 28 }).stdout;
    const before = look(file);
    expect(before.length).toBeGreaterThan(100);
    for (const format of ['pcap', 'pcapng'] as const) {
      const path = join(folder, `again.${format}`);
      const reader = openCapture(file);
      const resolution = 'micro';
      const linkType = reader.interfaces[0].linkType;
      const writer = new CaptureWriter(path, { format, resolution, linkType, interfaces: ['one'] });
      while (reader.next())
        writer.write(
          reader.data,
          reader.offset,
          reader.capturedLength,
          reader.originalLength,
          reader.seconds,
          reader.nanoseconds,
        );
      writer.close();
      // The number of decimals follows the file's resolution.
      expect(look(path).replace(/(\.\d{6})000 /g, '$1 ')).toBe(before);
      expect(frames(path)).toEqual(frames(file));
    }
    expect(readFileSync(join(folder, 'again.pcap')).length).toBeGreaterThan(24);
  });
});
