/**
 * Fold: puts the values of imported numeric constants into the built data path.
 *
 * V8 folds a module's own constants, but loads an imported one from its module cell, checks that it is initialised and
 * checks that it is a small integer, at every use: a fifth of the time of a packet that the engine forwards. The record
 * layouts are constants of other modules by design, so the build replaces them in dist, token by token, after tsc has
 * compiled; the sources stay as they are, and the unfolded build behaves the same. Run by `npm run build`.
 *
 * Only exported `const`s whose value is an integer, named in upper case, used as plain identifiers or as members of a
 * namespace import. Lines stay where they are, so source maps stay right to the line.
 */
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import ts from 'typescript';

const dist = resolve(dirname(fileURLToPath(import.meta.url)), '..', 'dist');
const FOLDERS = ['dataplane', 'conntrack', 'offload', 'bench'];
const UPPER = /^[A-Z][A-Z0-9_]*$/;

function* files(folder) {
  for (const name of readdirSync(folder)) {
    const path = join(folder, name);
    if (statSync(path).isDirectory()) {
      if (name !== 'ports' && name !== 'results') yield* files(path);
    } else if (name.endsWith('.js') && name !== 'main.js' && name !== 'worker.js') yield path;
  }
}

/** Integer constants that a built module of the data path exports; null for modules that must not be run here. */
const known = new Map();
async function constantsOf(path) {
  if (!known.has(path)) {
    const inside = FOLDERS.slice(0, 3).some((folder) => path.startsWith(join(dist, folder)));
    const safe = inside && !path.includes(`${join('dataplane', 'ports')}`);
    const exports = safe ? await import(pathToFileURL(path).href) : {};
    const integers = Object.entries(exports).filter(([name, value]) => UPPER.test(name) && Number.isInteger(value));
    known.set(path, new Map(integers));
  }
  return known.get(path);
}

let replaced = 0;
for (const folder of FOLDERS) {
  if (!existsSync(join(dist, folder))) continue;
  for (const path of files(join(dist, folder))) {
    const text = readFileSync(path, 'utf8');
    const source = ts.createSourceFile(path, text, ts.ScriptTarget.Latest, true, ts.ScriptKind.JS);
    const names = new Map();
    const spaces = new Map();
    for (const statement of source.statements) {
      if (!ts.isImportDeclaration(statement) || !statement.moduleSpecifier.text.startsWith('.')) continue;
      const bindings = statement.importClause?.namedBindings;
      if (bindings === undefined) continue;
      const constants = await constantsOf(resolve(dirname(path), statement.moduleSpecifier.text));
      if (ts.isNamespaceImport(bindings)) spaces.set(bindings.name.text, constants);
      else
        for (const element of bindings.elements) {
          const value = constants.get((element.propertyName ?? element.name).text);
          if (value !== undefined) names.set(element.name.text, value);
        }
    }
    const edits = [];
    const visit = (node) => {
      if (ts.isImportDeclaration(node) || ts.isExportDeclaration(node)) return;
      if (ts.isPropertyAccessExpression(node) && ts.isIdentifier(node.expression)) {
        const value = spaces.get(node.expression.text)?.get(node.name.text);
        if (value !== undefined) return void edits.push([node.getStart(source), node.getEnd(), value]);
      }
      if (ts.isIdentifier(node) && names.has(node.text)) {
        const { parent } = node;
        // A member's or a property's name is not a use; a declaration of the same name cannot be (it would be an error).
        const isName =
          (ts.isPropertyAccessExpression(parent) && parent.name === node) ||
          (ts.isPropertyAssignment(parent) && parent.name === node) ||
          ts.isShorthandPropertyAssignment(parent);
        if (!isName) edits.push([node.getStart(source), node.getEnd(), names.get(node.text)]);
        return;
      }
      ts.forEachChild(node, visit);
    };
    visit(source);
    if (edits.length === 0) continue;
    let out = text;
    for (const [from, to, value] of edits.sort((a, b) => b[0] - a[0]))
      out = out.slice(0, from) + (value < 0 ? `(${value})` : `${value}`) + out.slice(to);
    writeFileSync(path, out);
    replaced += edits.length;
  }
}
if (process.argv.includes('--verbose')) console.log(`folded ${replaced} uses of imported constants`);
