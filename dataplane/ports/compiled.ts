/**
 * Compiled: finds the WebAssembly that the build has made of dataplane/compiled/, for those who make tables.
 */
import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { type WasmModule, WebAssembly } from '../wire/webassembly.ts';

/** The root of the project: in the build two folders up, which is dist; from the sources (tests), dist is below. */
const ROOTS = ['../../', '../../dist/'];

const modules = new Map<string, WasmModule | null>();

/**
 * The compiled module of that name (as controlplane/compile.mjs has it); null when the project has not been built, or this
 * JavaScript engine cannot run it.
 */
export function compiledModule(name: string): WasmModule | null {
  let module = modules.get(name);
  if (module !== undefined) return module;
  module = null;
  for (const root of ROOTS) {
    const file = fileURLToPath(new URL(`${root}${name}.wasm`, import.meta.url));
    if (!existsSync(file)) continue;
    try {
      module = new WebAssembly.Module(readFileSync(file));
    } catch {
      // An engine without SIMD or threads.
    }
    break;
  }
  modules.set(name, module);
  return module;
}

/** The compiled burst of the fast path; without it, all goes on as well. */
export function compiledBurst(): WasmModule | null {
  return compiledModule('dataplane/compiled/burst');
}
