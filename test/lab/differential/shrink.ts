/**
 * Shrink: the shortest list of frames that still shows a difference, by delta debugging (Zeller's ddmin: leave out
 * halves, then smaller parts, as long as the rest still differs); and what is saved of it.
 */
import { toHex } from '../../lib/build.ts';
import { type InlineRouter, playInline, type Scenario, type ScenarioFrame, type TopologyOptions } from './scenario.ts';

/** The shortest sub-list for which `differs` holds; no single item can be left out. `differs(items)` must hold. */
export function shrinkList<T>(items: readonly T[], differs: (items: readonly T[]) => boolean): readonly T[] {
  let best = items;
  let parts = 2;
  while (best.length > 1) {
    const size = Math.ceil(best.length / parts);
    let found = false;
    for (let at = 0; at < best.length; at += size) {
      const rest = [...best.slice(0, at), ...best.slice(at + size)];
      if (rest.length > 0 && differs(rest)) {
        best = rest;
        found = true;
        break;
      }
    }
    if (found) parts = Math.max(2, parts - 1);
    else if (size === 1) break;
    else parts = Math.min(best.length, parts * 2);
  }
  return best;
}

/** A scenario as it is kept in a file: frames in hex. */
export interface Saved {
  name: string;
  /** What both routers did, in words, when it was found. */
  notes: string;
  topology: TopologyOptions;
  normalise: readonly string[];
  frames: { port: string; frame: string }[];
}

/** Turns frames that are functions into the bytes that they were for this router. */
export function fixed(
  router: InlineRouter,
  ports: readonly string[],
  frames: readonly ScenarioFrame[],
): ScenarioFrame[] {
  const out: ScenarioFrame[] = [];
  const spies = frames.map((f, n): ScenarioFrame => {
    const { frame } = f;
    if (typeof frame !== 'function') {
      out[n] = f;
      return f;
    }
    return {
      ...f,
      frame: (past) => {
        const bytes = frame(past);
        out[n] = { ...f, frame: bytes };
        return bytes;
      },
    };
  });
  playInline(router, ports, spies);
  return out;
}

/** The scenario as text; its frames must be bytes (see `fixed`). */
export function save(scenario: Scenario, notes: string): string {
  const saved: Saved = {
    name: scenario.name,
    notes,
    topology: scenario.topology,
    normalise: scenario.normalise ?? [],
    frames: scenario.frames.map((f) => {
      if (typeof f.frame === 'function') throw new Error('save: expected frames of bytes, got a function; see fixed()');
      return { port: f.port, frame: toHex(f.frame) };
    }),
  };
  return `${JSON.stringify(saved, null, 2)}\n`;
}

/** The scenario of a saved text. */
export function load(text: string): Scenario {
  const saved = JSON.parse(text) as Saved;
  const bytes = (hex: string) => Uint8Array.from(hex.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16));
  return { ...saved, frames: saved.frames.map((f) => ({ port: f.port, frame: bytes(f.frame) })) };
}
