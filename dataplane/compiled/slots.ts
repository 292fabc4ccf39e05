/**
 * Slots: takes and frees the slots of a whole burst (frames.ts: takeBurst, freeBurst), compiled to WebAssembly with burst.ts.
 *
 * What costs a frame in JavaScript is eight words of metadata, each stored behind a check of its bounds; here they are three stores.
 */
import {
  FREE_LARGE,
  FREE_LIST,
  FREE_SMALL,
  HEADROOM,
  LARGE_STRIDE,
  META_OFF,
  META_WORDS,
  SMALL_STRIDE,
} from '../frames.ts';

// Set once: addresses in bytes, and the number of small slots.
let meta: usize = 0;
let free: usize = 0;
let small: i32 = 0;

/** Where things are; of an arena whose first slot begins at its first byte. */
export function placeSlots(metaAt: usize, freeAt: usize, smallSlots: i32): void {
  meta = metaAt;
  free = freeAt;
  small = smallSlots;
}

/** Metadata of a slot that begins at byte `start`: all else is 0. */
function reset(slot: i32, start: i32): void {
  const m = meta + ((<usize>slot * META_WORDS) << 2);
  v128.store(m, i32x4.splat(0));
  v128.store(m, i32x4.splat(0), 16);
  store<i32>(m, start, META_OFF << 2);
}

/** Takes up to `n` slots for ordinary frames into the list; large ones serve when there is no small one. Returns how many. */
export function take(list: usize, n: i32): i32 {
  let left = load<i32>(free, FREE_SMALL << 2);
  let k = 0;
  for (; k < n && left > 0; k++) {
    const slot = load<i32>(free + ((<usize>--left) << 2), FREE_LIST << 2);
    store<i32>(list + ((<usize>k) << 2), slot);
    reset(slot, HEADROOM + 2 + slot * SMALL_STRIDE);
  }
  store<i32>(free, left, FREE_SMALL << 2);
  if (k === n) return n;
  left = load<i32>(free, FREE_LARGE << 2);
  for (; k < n && left > 0; k++) {
    const slot = load<i32>(free + ((<usize>(small + --left)) << 2), FREE_LIST << 2);
    store<i32>(list + ((<usize>k) << 2), slot);
    reset(slot, HEADROOM + 2 + small * SMALL_STRIDE + (slot - small) * LARGE_STRIDE);
  }
  store<i32>(free, left, FREE_LARGE << 2);
  return k;
}

/** Frees the `n` slots of the list. */
export function give(list: usize, n: i32): void {
  let smalls = load<i32>(free, FREE_SMALL << 2);
  let larges = load<i32>(free, FREE_LARGE << 2);
  for (let k = 0; k < n; k++) {
    const slot = load<i32>(list + ((<usize>k) << 2));
    const place = slot < small ? smalls++ : small + larges++;
    store<i32>(free + ((<usize>place) << 2), slot, FREE_LIST << 2);
  }
  store<i32>(free, smalls, FREE_SMALL << 2);
  store<i32>(free, larges, FREE_LARGE << 2);
}
