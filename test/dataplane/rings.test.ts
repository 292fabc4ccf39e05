/**
 * Rings: what one thread writes another reads, in order, whole and exactly once, whatever the lengths and wherever the
 * ring wraps; what found no room is counted and nothing else is lost.
 */
import { readFileSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import ts from 'typescript';
import { describe, expect, it } from 'vitest';
import { Frames, META_LEN, META_OFF, META_WORDS } from '../../dataplane/frames.ts';
import { createRing, PUNT_FRAME, PUNT_RESOLVE, RingReader, RingWriter } from '../../dataplane/rings.ts';
import { random } from './ports/lab.ts';

/** Takes everything from the ring and tells the first thing that is not as `expected` makes it. */
const READER = `
import { parentPort, workerData } from 'node:worker_threads';
const ring = new RingReader(workerData.ring);
const shared = new Int32Array(workerData.shared);
const bytes = new Uint8Array(65536);
let fault = '';
const fail = (text) => { if (fault === '') fault = text; };
for (let n = 0; ; ) {
  if (!ring.next()) {
    if (Atomics.load(shared, 0) !== 0 && ring.isEmpty) break;
    continue;
  }
  if (ring.port !== n) fail('record ' + n + ' came as ' + ring.port);
  if (ring.kind === 1) {
    if (ring.word(0) !== ~n || ring.word(1) !== ring.length) fail('words of frame ' + n);
    ring.copy(bytes, 0);
    for (let i = 0; i < ring.length; i++)
      if (bytes[i] !== ((n * 7 + i * 13) & 0xff)) { fail('byte ' + i + ' of frame ' + n); break; }
  } else for (let k = 0; k < 5; k++) if (ring.word(k) !== n + k) fail('word ' + k + ' of event ' + n);
  ring.release();
  n++;
  Atomics.store(shared, 1, n);
}
parentPort.postMessage(fault);
`;

/** rings.ts and what it imports at run time, as one module. */
function source(): string {
  const plain = (name: string): string =>
    ts
      .transpileModule(readFileSync(new URL(`../../dataplane/${name}.ts`, import.meta.url), 'utf8'), {
        compilerOptions: { target: ts.ScriptTarget.ES2023, module: ts.ModuleKind.ESNext },
      })
      .outputText.replace(/^import .*$/gm, '');
  return `${plain('frames')}\n${plain('rings')}\n${READER}`;
}

describe('rings', () => {
  it('two threads: every accepted record arrives whole and in order (seed 7)', async () => {
    const memory = createRing(32768);
    const shared = new SharedArrayBuffer(8);
    const state = new Int32Array(shared);
    const reader = new Worker(new URL(`data:text/javascript,${encodeURIComponent(source())}`), {
      workerData: { ring: memory, shared },
    });
    const verdict = new Promise<string>((resolve, reject) => {
      reader.once('message', resolve);
      reader.once('error', reject);
    });
    const ring = new RingWriter(memory);
    const frames = new Frames(1, 1);
    const next = random(7);
    let written = 0;
    let refused = 0;
    while (written < 60_000) {
      const choice = next();
      let taken: boolean;
      if ((choice & 3) === 0) {
        taken = ring.event(PUNT_RESOLVE, written, written, written + 1, written + 2, written + 3, written + 4);
      } else {
        // Mostly small, sometimes jumbo; from aligned and from odd places.
        const length = (choice & 0xff0) === 0 ? 9000 : (choice >>> 8) % 300;
        const slot = frames.alloc(length + 8);
        const off = frames.meta[slot * META_WORDS + META_OFF] + ((choice >>> 2) & 3);
        frames.meta[slot * META_WORDS + META_OFF] = off;
        frames.meta[slot * META_WORDS + META_LEN] = length;
        for (let i = 0; i < length; i++) frames.u8[off + i] = written * 7 + i * 13;
        taken = ring.frame(PUNT_FRAME, written, frames, slot, ~written, length);
        frames.free(slot);
      }
      if (taken) written++;
      else if (++refused % 64 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    Atomics.store(state, 0, 1);
    expect(await verdict).toBe('');
    expect(state[1]).toBe(written);
    expect(ring.lost).toBe(refused);
    // The reader was slower at times, else the full ring was not tried.
    expect(refused).toBeGreaterThan(0);
  });

  it('positions wrap past 2^31 without a hitch', () => {
    const memory = createRing(4096);
    const words = new Int32Array(memory);
    words[0] = 0x7fffffff & ~4095;
    words[16] = words[0];
    const writer = new RingWriter(memory);
    const reader = new RingReader(memory);
    for (let n = 0; n < 40; n++) {
      const payload = new Uint8Array(1000).fill(n);
      expect(writer.bytes(1, n, payload)).toBe(true);
      expect(reader.next()).toBe(true);
      const got = new Uint8Array(1000);
      reader.copy(got, 0);
      expect([reader.port, reader.length, got]).toEqual([n, 1000, payload]);
      reader.release();
      expect(reader.next()).toBe(false);
    }
    expect(words[0]).toBeLessThan(0);
  });

  it('takes exactly what fits, and again once it was read', () => {
    const memory = createRing(1024);
    const writer = new RingWriter(memory);
    const reader = new RingReader(memory);
    for (let round = 0; round < 3; round++) {
      let taken = 0;
      while (writer.event(2, 0, taken)) taken++;
      expect(taken).toBe(1024 / 32);
      for (let n = 0; n < taken; n++) {
        expect(reader.next() && reader.word(0)).toBe(n);
        reader.release();
      }
      expect(reader.isEmpty).toBe(true);
    }
    expect(writer.lost).toBe(3);
    // Longer than the whole ring: refused, and the ring goes on.
    expect(writer.bytes(1, 0, new Uint8Array(2000))).toBe(false);
    expect(writer.event(2, 5, 1)).toBe(true);
    expect(reader.next() && reader.port).toBe(5);
  });
});
