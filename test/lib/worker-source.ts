/**
 * worker-source: a test's own worker thread, from the TypeScript sources as they are now. The entry and everything that it
 * imports by relative paths is transpiled into a temporary folder with the same tree; so it needs no build, and tests
 * what is in the tree rather than what was built last.
 */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import ts from 'typescript';

const root = resolve(dirname(fileURLToPath(import.meta.url)), '../..');

/** `entry`: a file of this repository, relative to its root. `remove` deletes the folder again. */
export function workerSource(entry: string): { url: URL; remove: () => void } {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-worker-'));
  writeFileSync(join(folder, 'package.json'), '{"type":"module"}');
  symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'));
  const out = (file: string) => join(folder, relative(root, file).replace(/\.ts$/, '.js'));
  const seen = new Set<string>();
  const visit = (file: string): void => {
    if (seen.has(file)) return;
    seen.add(file);
    const source = readFileSync(file, 'utf8');
    const { outputText } = ts.transpileModule(source, {
      fileName: file,
      compilerOptions: {
        target: ts.ScriptTarget.ES2023,
        module: ts.ModuleKind.ESNext,
        verbatimModuleSyntax: true,
        rewriteRelativeImportExtensions: true,
      },
    });
    mkdirSync(dirname(out(file)), { recursive: true });
    writeFileSync(out(file), outputText);
    for (const { fileName } of ts.preProcessFile(outputText.replaceAll(/(from ['"]\..*)\.js(['"])/g, '$1.ts$2'))
      .importedFiles)
      if (fileName.startsWith('.')) visit(resolve(dirname(file), fileName));
  };
  visit(join(root, entry));
  return { url: pathToFileURL(out(join(root, entry))), remove: () => rmSync(folder, { recursive: true, force: true }) };
}
