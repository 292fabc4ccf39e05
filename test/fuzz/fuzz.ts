/**
 * Fuzz: mutated inputs against one target after the other. A target makes an input from a seed and judges it itself: it
 * throws when something is wrong. Here are the mutations of bytes and text, and the loop that bounds time and memory.
 */
import { Random } from '../lib/build.ts';

export interface Target {
  name: string;
  /** One input; throws when the code under test misbehaves. */
  run(random: Random): void | Promise<void>;
  /** Releases what the target holds. */
  close?(): void | Promise<void>;
}

/** Longest time of the processor that one input may take, ms: others may keep the machine busy. */
const TOO_LONG = 2000;
/** Memory that a target may hold on to, bytes. */
const TOO_MUCH = 256 * 1024 * 1024;

export interface Outcome {
  target: string;
  inputs: number;
  slowest: number;
  /** Growth of the heap and of buffers outside of it, bytes. */
  growth: number;
}

/**
 * Runs a target until `inputs` are done or `seconds` are over. Seeds are seed, seed + 1, ...
 * @throws Error that names the target, the seed of the input which failed, and the first: what keeps a state needs all
 */
export async function fuzz(
  target: Target,
  seed: number,
  limit: { inputs?: number; seconds?: number },
): Promise<Outcome> {
  const end = performance.now() + (limit.seconds ?? Number.POSITIVE_INFINITY) * 1000;
  const used = () => {
    globalThis.gc?.();
    const { heapUsed, external } = process.memoryUsage();
    return heapUsed + external;
  };
  let before = -1;
  let slowest = 0;
  let inputs = 0;
  for (; inputs < (limit.inputs ?? Number.POSITIVE_INFINITY) && performance.now() < end; inputs++) {
    const start = process.cpuUsage();
    try {
      await target.run(new Random(seed + inputs));
    } catch (error) {
      const where = `fuzz ${target.name}, seed ${seed + inputs} (from ${seed} on)`;
      throw new Error(`${where}: ${(error as Error).message}`, { cause: error });
    }
    const { user, system } = process.cpuUsage(start);
    const took = (user + system) / 1000;
    slowest = Math.max(slowest, took);
    if (took > TOO_LONG) throw new Error(`fuzz ${target.name}, seed ${seed + inputs}: took ${Math.round(took)} ms`);
    if (inputs === 200) before = used();
  }
  const growth = before < 0 ? 0 : used() - before;
  if (growth > TOO_MUCH) throw new Error(`fuzz ${target.name}: holds ${growth >> 20} MiB more after ${inputs} inputs`);
  return { target: target.name, inputs, slowest, growth };
}

const NASTY = [0, 1, 2, 7, 8, 0x0a, 0x0d, 0x20, 0x2c, 0x3a, 0x7c, 0x7f, 0x80, 0xfe, 0xff];

/** A changed copy: bits, bytes, lengths, pieces removed, repeated, moved, or taken from another sample. */
export function mutateBytes(random: Random, samples: readonly Uint8Array[], limit = 4096): Uint8Array {
  let out = Uint8Array.from(random.pick(samples));
  for (let n = random.int(0, 5); n > 0; n--) {
    const at = out.length === 0 ? 0 : random.int(0, out.length - 1);
    const to = Math.min(out.length, at + random.int(1, 16));
    switch (random.int(0, 8)) {
      case 0:
        out[at] ^= 1 << random.int(0, 7);
        break;
      case 1:
        out[at] = random.pick(NASTY);
        break;
      case 2:
        out[at] = random.int(0, 255);
        break;
      case 3:
        out = Uint8Array.of(...out.subarray(0, at), ...out.subarray(to));
        break;
      case 4:
        out = Uint8Array.of(...out.subarray(0, to), ...out.subarray(at));
        break;
      case 5:
        out = out.slice(0, at);
        break;
      case 6: {
        const other = random.pick(samples);
        const from = other.length === 0 ? 0 : random.int(0, other.length - 1);
        out = Uint8Array.of(...out.subarray(0, at), ...other.subarray(from));
        break;
      }
      case 7:
        out = Uint8Array.of(...out.subarray(0, at), ...random.bytes(random.int(1, 12)), ...out.subarray(at));
        break;
      case 8: {
        // A number that is nearly right, or as large as can be.
        if (at + 1 < out.length)
          out.set(
            random.pick([
              [0, 0],
              [255, 255],
              [0x7f, 255],
              [out[at], out[at + 1] + 1],
            ]),
            at,
          );
        break;
      }
    }
    if (out.length > limit) out = out.slice(0, limit);
  }
  return out;
}

/** The same for text, with digits that become long and lines that come again. */
export function mutateText(random: Random, samples: readonly string[], limit = 20_000): string {
  let text = random.pick(samples);
  for (let n = random.int(1, 4); n > 0; n--) {
    const at = random.int(0, text.length);
    const to = Math.min(text.length, at + random.int(0, 20));
    switch (random.int(0, 6)) {
      case 0:
        text = text.slice(0, at) + text.slice(to);
        break;
      case 1:
        text = text.slice(0, to) + text.slice(at);
        break;
      case 2: {
        const words = [
          '0',
          '-1',
          '65536',
          '99999999999999999999',
          '1e400',
          'null',
          '~',
          '*a',
          '&a',
          '!!',
          '<<',
          '\0',
          '\ud800',
        ];
        text =
          text.slice(0, at) +
          random.pick([...words, '{', '}', '[', ']', ': ', '\n', '\t', '  ', '#', '"', "'", '|', '>', '%']) +
          text.slice(at);
        break;
      }
      case 3: {
        const other = random.pick(samples);
        text = text.slice(0, at) + other.slice(random.int(0, other.length));
        break;
      }
      case 4: {
        const lines = text.split('\n');
        const a = random.int(0, lines.length - 1);
        const b = random.int(0, lines.length - 1);
        [lines[a], lines[b]] = [lines[b], lines[a]];
        text = lines.join('\n');
        break;
      }
      case 5:
        text = text.replace(/\d+/, () => '9'.repeat(random.int(1, 30)));
        break;
      case 6:
        text = text.slice(0, at) + String.fromCharCode(random.int(0, 0xffff)) + text.slice(at);
        break;
    }
    text = text.slice(0, limit);
  }
  return text;
}
