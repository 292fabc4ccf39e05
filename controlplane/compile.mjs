/**
 * Compile: what is written in AssemblyScript (the folders named `compiled`) to WebAssembly in dist. Run by `npm run build`,
 * behind tsc.
 *
 * Its sources import the layouts of records from the modules that define them, as every other file does. AssemblyScript
 * could not compile those modules, so it is given in their place what it needs of them: their integer constants, with
 * the values that the built modules have.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import asc from 'assemblyscript/asc';

const root = resolve(dirname(fileURLToPath(import.meta.url)), '..');
const dist = join(root, 'dist');
const MODULES = ['dataplane/compiled/burst', 'bench/compiled/generator'];
/** Parts of them. */
const PARTS = ['dataplane/compiled/slots'];
/** A function whose comment ends so is inlined. AssemblyScript says it by a decorator, which TypeScript has for classes only. */
const INLINE = /@inline\s*\*\/\s*function/g;
const UPPER = /^[A-Z][A-Z0-9_]*$/;

/** Source text of a module of the project: the compiled folder's own, of any other its integer constants. */
async function sourceOf(path) {
  if ([...MODULES, ...PARTS].includes(path.replace(/\.ts$/, '')))
    return readFileSync(join(root, path), 'utf8').replace(INLINE, '*/ @inline function');
  const built = join(dist, path.replace(/\.ts$/, '.js'));
  if (!existsSync(built)) return null;
  const constants = Object.entries(await import(pathToFileURL(built).href));
  return constants
    .filter(([name, value]) => UPPER.test(name) && Number.isInteger(value) && value === (value | 0))
    .map(([name, value]) => `export const ${name}: i32 = ${value};`)
    .join('\n');
}

async function compile(path) {
  const { error, stderr } = await asc.main(
    [
      `${path}.ts`,
      ...['--outFile', `${path}.wasm`, '-O3', '--noAssert', '--runtime', 'stub'],
      ...['--importMemory', '--sharedMemory', '--initialMemory', '1', '--maximumMemory', '65536'],
      ...['--enable', 'simd', '--enable', 'threads', '--enable', 'bulk-memory'],
    ],
    {
      readFile: (source) => sourceOf(source),
      writeFile: (_, bytes) => {
        const file = join(dist, `${path}.wasm`);
        mkdirSync(dirname(file), { recursive: true });
        writeFileSync(file, bytes);
      },
      listFiles: () => [],
    },
  );
  if (error === null) return true;
  process.stderr.write(`${stderr.toString()}${error.message}\n`);
  return false;
}

for (const path of MODULES) if (!(await compile(path))) process.exitCode = 1;
