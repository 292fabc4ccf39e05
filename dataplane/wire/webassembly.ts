/**
 * WebAssembly, typed: the part of it that is used here. TypeScript's libraries have its types only together with a browser's
 * document, which the rest of the project must not see.
 */

/** A WebAssembly.Memory that threads share. Its buffer keeps its size. */
export interface WasmMemory {
  readonly buffer: SharedArrayBuffer;
}

/** A WebAssembly.Module: opaque, and may be sent to other threads. */
export type WasmModule = object;

interface WebAssemblyApi {
  /** @throws RangeError without address space for it */
  Memory: new (descriptor: {
    initial: number;
    maximum: number;
    shared: true;
  }) => WasmMemory;
  /** @throws CompileError when the engine cannot run it */
  Module: new (
    bytes: Uint8Array,
  ) => WasmModule;
  Instance: new (module: WasmModule, imports: { env: { memory: WasmMemory } }) => { exports: object };
}

export const { WebAssembly } = globalThis as unknown as { WebAssembly: WebAssemblyApi };
