/**
 * Compiler: how much of the path V8 may compile into one function.
 *
 * V8 stops inlining when what a function has taken in comes to 920 bytes of bytecode: a limit for programs that are mostly cold.
 * A packet's walk is thirty small stages, one call each, all of them hot. With room for them V8 compiles the walk into a
 * few functions, and what each stage loads for itself (the tables, their views, their lengths) is loaded once: a fifth of
 * a slow-path packet's time. The engine's loops gain nothing and lose nothing.
 *
 * Flags of V8 hold for the whole process, its threads included, for functions that are optimised from then on. So the one
 * who starts a process decides; a program that embeds the router keeps V8 as it is.
 */
import { setFlagsFromString } from 'node:v8';

/** Bytes of bytecode that a function may take in altogether, and that one of those taken in may have (V8: 920 and 460). */
export const INLINE_LIMITS: readonly string[] = [
  '--max-inlined-bytecode-size-cumulative=4000',
  '--max-inlined-bytecode-size=1000',
];

/** Lets V8 inline the path's stages into one another. Call it before any packet walks. */
export function inlineStages(): void {
  for (const flag of INLINE_LIMITS) setFlagsFromString(flag);
}
