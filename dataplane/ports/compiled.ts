/**
 * Compiled: finds the WebAssembly that the build has made of dataplane/compiled/, for those who make tables.
 */
import { existsSync, readFileSync, statSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { type WasmModule, WebAssembly } from '../wire/webassembly.ts';

/** The root of the project: in the build two folders up, which is dist; from the sources (tests), dist is below. */
const ROOTS = ['../../', '../../dist/'];

/** Sources that are compiled in, or whose constants are. */
const LAYOUTS = ['compiled/slots', 'frames', 'ground', 'interfaces', 'neighbours', 'parse']
  .map((name) => `dataplane/${name}.ts`)
  .concat(['engine', 'policy', 'table'].map((name) => `offload/${name}.ts`));

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
    try {
      const file = fileURLToPath(new URL(`${root}${name}.wasm`, import.meta.url));
      if (!existsSync(file) || isStale(file, name)) continue;
      module = new WebAssembly.Module(readFileSync(file));
      break;
    } catch {
      // An engine without SIMD or threads; or a bundle, which has no files beside it.
    }
  }
  modules.set(name, module);
  return module;
}

/** True in a source tree whose layouts have changed since the build: what was compiled for the old ones must not run. */
function isStale(file: string, name: string): boolean {
  const built = statSync(file).mtimeMs;
  return [`${name}.ts`, ...LAYOUTS].some((source) => {
    const path = fileURLToPath(new URL(`../../${source}`, import.meta.url));
    return existsSync(path) && statSync(path).mtimeMs > built;
  });
}

/** The compiled burst of the fast path; without it, all goes on as well. */
export function compiledBurst(): WasmModule | null {
  return compiledModule('dataplane/compiled/burst');
}
