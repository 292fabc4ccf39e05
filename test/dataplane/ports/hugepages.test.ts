/** Where buffers lie: exact cache lines, and huge pages where they are worth it. */
import { afterEach, describe, expect, it } from 'vitest';
import { adviseHuge, adviseHugeAll, bufferAddress, exactLead } from '../../../dataplane/ports/hugepages.ts';
import { CACHE_LINE, privateAligned, setLead, sharedAligned } from '../../../dataplane/wire/aligned.ts';

describe.skipIf(process.platform !== 'linux')('huge pages and addresses', () => {
  afterEach(() => setLead(() => CACHE_LINE - 16));

  it('with exactLead every aligned table begins on a cache line', () => {
    exactLead();
    for (const bytes of [1, 64, 100, 4096, 65_536, 1_000_000, 50_000_000])
      for (const make of [sharedAligned, privateAligned]) {
        const { buffer, lead } = make(bytes);
        expect((bufferAddress(buffer) + lead) % CACHE_LINE).toBe(0);
        expect(lead + bytes).toBeLessThanOrEqual(buffer.byteLength);
      }
  });

  it('the address of a table above 4 GiB could not be had', () => {
    // Address space alone: no page of it is touched.
    const buffer = new SharedArrayBuffer(2 ** 32 + 4096);
    expect(bufferAddress(buffer)).toBeGreaterThan(0);
  });

  it('leaves small buffers alone, and never asks for more than there is', () => {
    expect(adviseHuge(new SharedArrayBuffer(4096))).toBe(0);
    const buffer = new SharedArrayBuffer(64 * 1024 * 1024 + 64);
    const bytes = adviseHuge(buffer);
    // 0 on a kernel without huge pages.
    expect([0, 62, 64].map((mib) => mib * 1024 * 1024)).toContain(bytes);
    new Int32Array(buffer).fill(1);
    expect(new Int32Array(buffer)[buffer.byteLength / 4 - 1]).toBe(1);
  });

  it('walks nested buffers', () => {
    const big = (): SharedArrayBuffer => new SharedArrayBuffer(16 * 1024 * 1024);
    const one = adviseHuge(big());
    expect(adviseHugeAll({ a: big(), b: null, c: { d: big(), n: 5 } })).toBeGreaterThanOrEqual(one);
  });
});
