/**
 * BpfRing against a naive reference: a writer in JavaScript does in plain memory what the kernel does in a ring's (reserve,
 * submit or discard, in any order), and a list says what the reader must find. Places begin where their halves wrap.
 */
import { describe, expect, it } from 'vitest';
import { random } from './lab.ts';

const PAGE = 4096;
const BYTES = 8192;
const BUSY = 0x80000000;
const DISCARD = 0x40000000;

/** A record as the writer knows it. */
interface Written {
  place: bigint;
  /** Bytes of it in the ring. */
  size: number;
  data: Uint8Array;
  state: 'busy' | 'submitted' | 'discarded';
}

describe.skipIf(process.platform !== 'linux')('BpfRing', async () => {
  const { BpfRing } = await import('../../../dataplane/ports/bpf-ring.ts');
  const { mapMemory } = await import('../../../dataplane/ports/ffi.ts');

  /** The writing end (kernel/bpf/ringbuf.c): its memory is there twice in a row, so what is written is written twice. */
  class Writer {
    readonly task;
    /** Not read yet, in order. */
    readonly waiting: Written[] = [];
    private readonly consumer: BigUint64Array;
    private readonly producer: BigUint64Array;
    private readonly view: DataView;

    constructor(start: bigint) {
      const consumer = mapMemory(PAGE);
      const producer = mapMemory(PAGE + 2 * BYTES);
      this.task = { consumer: consumer.base, producer: producer.base, bytes: BYTES };
      this.consumer = new BigUint64Array(consumer.buffer, 0, 1);
      this.producer = new BigUint64Array(producer.buffer, 0, 1);
      this.view = new DataView(producer.buffer, PAGE);
      this.consumer[0] = start;
      this.producer[0] = start;
    }

    get read(): bigint {
      return this.consumer[0];
    }
    get written(): bigint {
      return this.producer[0];
    }

    /** False when there is no room. */
    reserve(data: Uint8Array): boolean {
      const size = (data.length + 8 + 7) & ~7;
      const place = this.producer[0];
      if (place + BigInt(size) - this.consumer[0] > BigInt(BYTES - 1)) return false;
      this.waiting.push({ place, size, data, state: 'busy' });
      this.header(place, (data.length | BUSY) >>> 0);
      const at = Number(place % BigInt(BYTES));
      for (let n = 0; n < data.length; n++) this.byte(at + 8 + n, data[n]);
      this.producer[0] = place + BigInt(size);
      return true;
    }

    commit(record: Written, discard: boolean): void {
      record.state = discard ? 'discarded' : 'submitted';
      this.header(record.place, record.data.length | (discard ? DISCARD : 0));
    }

    private header(place: bigint, word: number): void {
      const at = Number(place % BigInt(BYTES));
      for (let n = 0; n < 4; n++) this.byte(at + n, (word >>> (8 * n)) & 0xff);
    }

    private byte(at: number, value: number): void {
      this.view.setUint8(at % BYTES, value);
      this.view.setUint8((at % BYTES) + BYTES, value);
    }
  }

  it.each([
    ['0', 0n],
    ['just below 2^31', 2n ** 31n - 8n * 1000n],
    ['just below 2^32', 2n ** 32n - 8n * 1000n],
    ['at 2^32', 2n ** 32n],
    ['just below 2^33', 2n ** 33n - 8n],
    ['just below 2^63', 2n ** 63n - 8n * 2000n],
  ])('finds every record whole and in order, from a place %s', (_, start) => {
    const writer = new Writer(start);
    const next = random(Number(start % 1000003n) + 7);
    let reader = new BpfRing(writer.task);
    /** Behind what was read, whether given back or not; and what was given back. */
    let at = start;
    let given = start;
    let found = 0;
    let refused = 0;
    for (let step = 0; step < 8000; step++) {
      const what = next() % 8;
      if (what < 3) {
        const data = new Uint8Array(next() % (next() % 16 === 0 ? 3000 : 200)).map(() => next());
        if (!writer.reserve(data)) refused++;
      } else if (what < 6) {
        const busy = writer.waiting.filter(({ state }) => state === 'busy');
        // Now and then not the oldest: then those behind it wait for it.
        if (busy.length > 0) writer.commit(busy[next() % 4 === 0 ? next() % busy.length : 0], next() % 5 === 0);
      } else if (what === 6) {
        const { waiting } = writer;
        for (let most = next() % 6; most > 0; most--) {
          // Nobody sees what was discarded, also when it is the last.
          while (waiting.length > 0 && waiting[0].state === 'discarded') {
            const { place, size } = waiting.shift() as Written;
            at = place + BigInt(size);
          }
          const place = reader.peek();
          if (waiting.length === 0 || waiting[0].state === 'busy') {
            expect(place).toBe(-1);
            break;
          }
          const record = waiting[0];
          expect(place).toBe(Number(record.place % BigInt(BYTES)) + 8);
          expect(Buffer.compare(reader.bytes.subarray(place, place + record.data.length), record.data)).toBe(0);
          // Twice asked is twice the same.
          if (next() % 4 === 0) expect(reader.peek()).toBe(place);
          reader.skip();
          waiting.shift();
          at = record.place + BigInt(record.size);
          found++;
        }
        expect(writer.read).toBe(given);
        if (next() % 3 !== 0) {
          reader.release();
          given = at;
          expect(writer.read).toBe(given);
        }
      } else if (next() % 8 === 0) {
        // Who dies gives nothing back: its successor goes on where the last release was.
        reader.release();
        given = at;
        reader = new BpfRing(writer.task);
      }
    }
    expect(found).toBeGreaterThan(500);
    expect(refused).toBeGreaterThan(10);
    expect(writer.written - start).toBeGreaterThan(5n * BigInt(BYTES));
  });

  it('finds again what a reader before it has read and not given back', () => {
    const writer = new Writer(2n ** 32n - 40n);
    for (const [n, text] of ['one', 'two', 'three'].entries()) {
      writer.reserve(Buffer.from(text));
      writer.commit(writer.waiting[n], false);
    }
    const reader = new BpfRing(writer.task);
    const text = (ring: InstanceType<typeof BpfRing>, length: number): string => {
      const at = ring.peek();
      return Buffer.from(ring.bytes.subarray(at, at + length)).toString();
    };
    expect(text(reader, 3)).toBe('one');
    reader.skip();
    reader.release();
    expect(text(reader, 3)).toBe('two');
    reader.skip();
    const heir = new BpfRing(writer.task);
    expect(text(heir, 3)).toBe('two');
    heir.skip();
    expect(text(heir, 5)).toBe('three');
    heir.skip();
    heir.release();
    expect(heir.peek()).toBe(-1);
    expect(writer.read).toBe(writer.written);
  });

  it('gives back a ring full of what was discarded', () => {
    const writer = new Writer(2n ** 32n - 16n);
    while (writer.reserve(new Uint8Array(120))) writer.commit(writer.waiting[writer.waiting.length - 1], true);
    const reader = new BpfRing(writer.task);
    expect(reader.peek()).toBe(-1);
    reader.release();
    expect(writer.read).toBe(writer.written);
    expect(writer.reserve(new Uint8Array(120))).toBe(true);
  });
});
