/**
 * Checked: typed arrays that refuse what is outside of a window, for functions that take frame memory. JavaScript answers
 * a read beyond the end with undefined and goes on; here it is an error with the offset in it. A window is in bytes of
 * the memory; every element that is read must have at least one byte in it (words straddle the window's ends).
 */

export class OutOfBounds extends Error {
  constructor(at: number, from: number, to: number) {
    super(`access at byte ${at}: expected an offset from ${from} to ${to - 1}`);
    this.name = 'OutOfBounds';
  }
}

type Words = Uint8Array | Uint16Array | Int32Array;

export interface Window {
  from: number;
  to: number;
}

/** A view of `array` that throws OutOfBounds outside of `window`, which may be changed afterwards. */
export function checked<T extends Words>(array: T, window: Window): T {
  const size = array.BYTES_PER_ELEMENT;
  const look = (key: string | symbol): number => {
    if (typeof key !== 'string') return -1;
    const index = Number(key);
    if (Number.isNaN(index)) {
      // An index that was computed from nothing: undefined, NaN, a fraction.
      if (key === 'NaN' || key === 'undefined') throw new OutOfBounds(Number.NaN, window.from, window.to);
      return -1;
    }
    if (!Number.isInteger(index) || index * size + size <= window.from || index * size >= window.to)
      throw new OutOfBounds(index * size, window.from, window.to);
    return index;
  };
  return new Proxy(array, {
    get(target, key) {
      const index = look(key);
      if (index >= 0) return target[index];
      const value = Reflect.get(target, key, target);
      return typeof value === 'function' ? value.bind(target) : value;
    },
    set(target, key, value) {
      const index = look(key);
      if (index < 0) return Reflect.set(target, key, value, target);
      target[index] = value;
      return true;
    },
  });
}
