/**
 * Every real capture, played through NAT with the engine off, on and in verify mode: verify finds no difference, and what
 * leaves is the same bytes. Each capture is played twice, with the first speaker inside and with the other one.
 *
 * The bytes are not compared where the tracker refuses segments (captures with packets missing from their middle): an
 * engine does not check TCP's window, and forwards what the slow path alone would drop as INVALID.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { CaptureInput } from '../../controlplane/replay/input.ts';
import { captureFile, directory, example, haveCaptures, sluice } from '../controlplane/replay/files.ts';
import { get16, ipText } from '../lib/build.ts';

/** Source and destination of the first unicast IP packet, untagged or behind one VLAN tag; null when there is none. */
function firstPair(file: string): [string, string] | null {
  const input = new CaptureInput(file, 0);
  while (input.next()) {
    const { frame, length } = input;
    const at = get16(frame, 12) === 0x8100 ? 18 : 14;
    if (length < at + 40) continue;
    const version = frame[at] >> 4;
    const type = get16(frame, at - 2);
    if (type === 0x0800 && version === 4 && frame[at + 16] < 224 && frame[at + 12] > 0)
      return [ipText(frame.slice(at + 12, at + 16)), ipText(frame.slice(at + 16, at + 20))];
    if (type === 0x86dd && version === 6 && frame[at + 24] !== 0xff && frame[at + 8] !== 0xfe)
      return [ipText(frame.slice(at + 8, at + 24)), ipText(frame.slice(at + 24, at + 40))];
  }
  return null;
}

function allCaptures(): string[] {
  const folder = captureFile('.');
  return readdirSync(folder, { recursive: true })
    .map(String)
    .filter((name) => /\.pcap(ng)?$/.test(name))
    .sort()
    .map((name) => join(folder, name));
}

test.runIf(haveCaptures)(
  'all captures: the same bytes whatever the engine does, and zero mismatches',
  async () => {
    const files = allCaptures();
    expect(files.length).toBeGreaterThan(60);
    let hits = 0;
    let played = 0;
    let compared = 0;
    for (const file of files) {
      const pair = firstPair(file);
      if (pair === null) continue;
      for (const inside of new Set(pair)) {
        const cidr = `${inside}/${inside.includes(':') ? 128 : 32}`;
        const left: string[] = [];
        let comparable = true;
        for (const mode of ['off', 'on', 'verify']) {
          const out = directory();
          const args = ['--capture', file, '--inside', cidr, '--out', out, '--offload', mode, '--json'];
          const { stdout, stderr } = await sluice('replay', example('capture.yaml'), ...args);
          expect(stdout, `${file}: ${stderr}`).not.toBe('');
          const { offload, received, dropped } = JSON.parse(stdout);
          if (mode === 'off') comparable = !('CT_INVALID' in dropped);
          expect(offload.mismatches, `${file} ${cidr}`).toBe(0);
          expect(existsSync(join(out, 'mismatches.pcapng'))).toBe(false);
          left.push(['lan', 'wan'].map((port) => readFileSync(join(out, `${port}.pcap`)).toString('hex')).join());
          if (mode === 'verify') hits += offload.hits;
          if (mode === 'verify') played += received;
        }
        if (!comparable) continue;
        compared++;
        expect(left[1] === left[0], `${file} ${cidr}: engine on and off`).toBe(true);
        expect(left[2] === left[0], `${file} ${cidr}: verify and off`).toBe(true);
      }
    }
    expect(played).toBeGreaterThan(1000);
    expect(hits).toBeGreaterThan(100);
    expect(compared).toBeGreaterThan(60);
  },
  300_000,
);
