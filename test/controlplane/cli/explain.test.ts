/** `sluice explain --config`: what stands behind --frame, and what is said when it is none. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { describe, expect, test } from 'vitest';
import { ethernet, ipv4, udp } from '../../lib/build.ts';
import { directory, example, type Frame, pcapBytes, sluice } from '../replay/files.ts';

const HOME = example('home.yaml');
const packet = ipv4({ src: '192.168.1.50', dst: '198.51.100.7' }, udp({ sport: 4000, dport: 53 }, 'x'));
const frame = ethernet({ src: '02:aa:00:00:00:10', dst: '02:00:00:00:01:01' }, packet);
const captured = (count: number): Frame[] => Array.from({ length: count }, (_, n) => ({ time: n, frame }));
const explain = (...rest: string[]) => sluice('explain', '--config', HOME, '--port', 'lan', '-j', ...rest);

/** A file of these bytes. */
function file(name: string, bytes: Uint8Array): string {
  const path = join(directory(), name);
  writeFileSync(path, bytes);
  return path;
}

describe('--frame', () => {
  const hex = Buffer.from(frame).toString('hex');
  test.each([
    ['digits', () => hex, 1],
    ['a file of digits', () => file('a.txt', Buffer.from(hex.replace(/(..)/g, '$1 '))), 1],
    ['a capture', () => file('a.pcap', pcapBytes(captured(2))), 2],
    ['a capture that gzip made smaller', () => file('a.pcap.gz', gzipSync(pcapBytes(captured(2)))), 2],
  ])('%s', async (_, made, count) => {
    const { code, stdout, stderr } = await explain('--frame', made());
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    const { packets } = JSON.parse(stdout);
    expect(packets.map((one: { verdict: string }) => one.verdict)).toEqual(Array(count).fill('forwarded'));
  });

  const raw = () => file('raw.pcap', pcapBytes([{ time: 0, frame: packet }], 101));
  const folder = () => {
    const path = join(directory(), 'folder');
    mkdirSync(path);
    return path;
  };
  test.each([
    [
      'a capture without link headers, whose addresses were taken for MACs',
      raw,
      'expected a capture of Ethernet frames, got link type 101',
    ],
    ['a folder, which ended in a stack', folder, 'expected a file that can be read, got EISDIR'],
    ['no frame', () => file('a.pcap', pcapBytes([])), 'expected a capture with frames, got none'],
    ['too many', () => file('a.pcap', pcapBytes(captured(257))), 'expected at most 256 frames, got 257; cut'],
  ])('%s', async (_, made, message) => {
    const { code, stdout, stderr } = await explain('--frame', made());
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
    expect(stderr).toContain(`sluice explain: --frame: ${message}`);
    expect(stderr.trim()).not.toContain('\n');
  });
});
