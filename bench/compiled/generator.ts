/**
 * Generator: copies frames from a master into slots, and from slots to an output ring, 64 bytes each. AssemblyScript, compiled
 * by `npm run build`: what a packet generator in C does by vector instructions is done by them here, so that the copies which
 * no router is to blame for cost alike.
 */
import { META_LEN, META_OFF, META_PORT, META_WORDS } from '../../dataplane/frames.ts';

/** Frames begin so many bytes into a line. */
const LEAD: usize = 2;

/** Copies 64 bytes; both addresses begin a line. */
function copyLine(to: usize, from: usize): void {
  v128.store(to, v128.load(from));
  v128.store(to, v128.load(from, 16), 16);
  v128.store(to, v128.load(from, 32), 32);
  v128.store(to, v128.load(from, 48), 48);
}

/** Fills `n` slots of the list with as many lines from `from` on: frames of `length` bytes that `port` receives. */
export function receive(meta: usize, frames: usize, list: usize, n: i32, from: usize, length: i32, port: i32): void {
  for (let k = 0; k < n; k++) {
    const m = meta + ((<usize>load<u32>(list + (k << 2)) * META_WORDS) << 2);
    copyLine(frames + <usize>load<u32>(m, META_OFF << 2) - LEAD, from + ((<usize>k) << 6));
    store<i32>(m, length, META_LEN << 2);
    store<i32>(m, port, META_PORT << 2);
  }
}

/** Copies the frames of the list to lines `at`, `at` + 1 … of a ring of `mask` + 1 lines. */
export function send(meta: usize, frames: usize, list: usize, n: i32, ring: usize, at: i32, mask: i32): void {
  for (let k = 0; k < n; k++) {
    const m = meta + ((<usize>load<u32>(list + (k << 2)) * META_WORDS) << 2);
    copyLine(ring + ((<usize>((at + k) & mask)) << 6), frames + <usize>load<u32>(m, META_OFF << 2) - LEAD);
  }
}
