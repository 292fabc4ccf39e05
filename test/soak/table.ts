/** Results in docs/reliability.md: a block between two comments, replaced by the command that made it. */
import { readFileSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';

/** What was run, where, when. */
export function machine(command: string): string {
  const cores = cpus();
  const [date] = new Date().toISOString().split('T');
  return `\`${command}\`, ${date}, Node.js ${process.versions.node}, ${cores.length} × ${cores[0]?.model.trim() ?? 'unknown'}\n`;
}

/** Replaces what stands between `<!-- NAME -->` and `<!-- /NAME -->`. Throws when the document has no such block. */
export function writeBlock(name: string, text: string, file = 'docs/reliability.md'): void {
  const before = readFileSync(file, 'utf8');
  const block = new RegExp(`(<!-- ${name} -->\n)[\\s\\S]*?(<!-- /${name} -->)`);
  if (!block.test(before)) throw new Error(`${file}: expected a block <!-- ${name} -->, got none`);
  writeFileSync(
    file,
    before.replace(block, (_, from, to) => `${from}${text}\n${to}`),
  );
}
