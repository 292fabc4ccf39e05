/**
 * docs/rfc.md: every requirement has a row, every row a test that exists and, below test/rfc, names the requirement in a
 * test title; or it says why there is none.
 */
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
const page = readFileSync(join(root, 'docs', 'rfc.md'), 'utf8');

const numbered = (word: string, count: number): string[] => Array.from({ length: count }, (_, n) => `${word}-${n + 1}`);
/** The clauses that each RFC has, by its own count. */
const CLAUSES: Record<string, string[]> = {
  4787: numbered('REQ', 14),
  5382: numbered('REQ', 10),
  5508: numbered('REQ', 11),
  6888: numbered('REQ', 15),
  7857: ['§2', '§2.1', '§2.2', '§3', '§4', '§5', '§6', '§7', '§7.1', '§8', '§9', '§10', '§11', '§12'],
  6092: numbered('REC', 50),
  4890: [1, 2, 3, 4, 5].flatMap((n) => [`§4.3.${n}`, `§4.4.${n}`]).sort(),
  7084: Object.entries({ G: 5, W: 6, WLL: 3, WAA: 10, WPD: 8, ULA: 5, L: 14, S: 3 }).flatMap(([word, count]) =>
    numbered(word, count),
  ),
  9096: ['WPD-9', 'WPD-10', 'L-13', 'L-15', 'L-16'],
};

interface Row {
  clause: string;
  where: string;
}

/** Rows of the section of an RFC. */
function rowsOf(rfc: string): Row[] {
  const section = page.split(/^## /m).find((part) => part.startsWith(`RFC ${rfc} `)) ?? '';
  return [...section.matchAll(/^\| ([A-Z]+-\d+|§[\d.]+)[^|]* \|[^|]+\| ([^|]+) \|$/gm)].map(([, clause, where]) => ({
    clause,
    where,
  }));
}

/** Names in backticks that mean tests; others are keys of the configuration. */
function testsIn(where: string): string[] {
  return [...where.matchAll(/`([^`]+)`/g)].map(([, name]) => name).filter((name) => /^rfc\d|\//.test(name));
}

const fileOf = (name: string): string => join(root, 'test', name.includes('/') ? '' : 'rfc', `${name}.test.ts`);

/** What a test file says outside of its comments: titles, whole or as rows of a table of tests. */
function titlesOf(file: string): string {
  return readFileSync(file, 'utf8').replace(/\/\*[\s\S]*?\*\/|^\s*\/\/.*$/gm, '');
}

describe('docs/rfc.md', () => {
  it.each(Object.keys(CLAUSES))('RFC %s: every clause has one row', (rfc) => {
    expect(
      rowsOf(rfc)
        .map(({ clause }) => clause)
        .sort(),
    ).toEqual([...CLAUSES[rfc]].sort());
  });

  it.each(Object.keys(CLAUSES))('RFC %s: every row names tests that exist, or says why there is none', (rfc) => {
    const wrong: string[] = [];
    for (const { clause, where } of rowsOf(rfc)) {
      const tests = testsIn(where);
      if (tests.length === 0 && !/^(not |does not apply)/.test(where)) wrong.push(`${clause}: no test and no reason`);
      for (const name of tests) if (!existsSync(fileOf(name))) wrong.push(`${clause}: no ${name}`);
      // In a test that is named after the RFC, a title names the clause.
      for (const name of tests.filter((each) => each.startsWith(`rfc${rfc}-`) && existsSync(fileOf(each)))) {
        const named = new RegExp(`(?<![A-Z])${clause.replaceAll('.', '\\.')}(?![\\d.]\\d|\\d)`);
        if (!named.test(titlesOf(fileOf(name)))) wrong.push(`${clause}: no title of ${name} names it`);
      }
    }
    expect(wrong).toEqual([]);
  });
});
