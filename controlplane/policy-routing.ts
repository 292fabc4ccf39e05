/**
 * Policy routing: the configuration's tables beside the main one, and the rules that say who asks which (row V5).
 *
 * A table has the routes that name it and nothing else: no connected routes, none that a protocol has learned. What it has
 * no route for goes on to the next rule, and at last to the main table, as in Linux.
 */
import type { NextHopSpec, NextHopWriter } from '../dataplane/nexthops.ts';
import { MAX_LINES, type PolicyLine } from '../dataplane/policy.ts';
import { type RouteEntry, RouteWriter } from '../dataplane/routes.ts';
import { EPOCH_ROUTE, type Tables } from '../dataplane/tables.ts';
import { maskWords } from '../dataplane/wire/address.ts';
import { tableZone } from './compile-rules.ts';
import type { Config, PrefixValue } from './config/index.ts';
import { PORT_PROTOCOLS } from './config/values.ts';
import { bestRoutes } from './own-routes.ts';

/** Room for tables and rules that a configuration needs (dataplane/tables.ts). */
export function policySizes(config: Config): { policyTables: number } {
  // A rule may lead past the others to the main table: then there are rules without a table of their own.
  return { policyTables: config.routingRules.length === 0 ? 0 : Math.max(1, config.routeTables.length) };
}

/** Takes several specs as one next hop (a group, where there are more than one); 0: the table is full. */
type Acquire = (specs: readonly NextHopSpec[]) => number;

export class PolicyRouting {
  private readonly tables: Tables;
  private readonly writers: RouteWriter[];
  private readonly nexthops: NextHopWriter;
  private readonly acquire: Acquire;
  private readonly log: (message: string) => void;

  constructor(tables: Tables, nexthops: NextHopWriter, acquire: Acquire, log: (message: string) => void) {
    this.tables = tables;
    this.writers = tables.policyRoutes.map((table) => new RouteWriter(table));
    this.nexthops = nexthops;
    this.acquire = acquire;
    this.log = log;
  }

  /** Puts tables and rules of a configuration in force, in place of those before. */
  configure(config: Config): void {
    if (this.writers.length === 0) return;
    for (const [n, writer] of this.writers.entries()) this.fill(writer, config, n + 1);
    if (!this.tables.policy.load(policyLines(config)))
      this.log(`routing-rules: expected at most ${MAX_LINES} combinations, got more; the rules in force stay`);
    this.tables.flush(EPOCH_ROUTE);
  }

  private fill(writer: RouteWriter, config: Config, table: number): void {
    const wanted = bestRoutes(config.routes.filter((route) => route.table === table));
    const keep = new Set<string>();
    for (const { to, specs } of wanted) {
      const n = this.acquire(specs);
      const before = writer.get(to.family, to.words, to.prefixLength);
      if (n === 0 || writer.add(to.family, to.words, to.prefixLength, n) !== null) {
        if (n !== 0) this.nexthops.release(n);
        this.log(`routes: ${to.text} does not fit into table ${config.routeTables[table - 1]}`);
      } else if (before !== 0) this.nexthops.release(before);
      keep.add(keyOf(to));
    }
    for (const entry of writer.list())
      if (!keep.has(keyOf(entry))) this.nexthops.release(writer.remove(entry.family, entry.words, entry.prefixLength));
  }

  /** Routes of each table by its name. */
  *list(config: Config): Iterable<{ table: string; entry: RouteEntry }> {
    for (const [n, writer] of this.writers.entries())
      for (const entry of writer.list()) yield { table: config.routeTables[n] ?? String(n + 1), entry };
  }

  mark(): number[] {
    return this.writers.map((writer) => writer.mark());
  }

  get rests(): boolean {
    return this.writers.some((writer) => writer.rests);
  }

  reclaim(marks: readonly number[]): void {
    this.writers.forEach((writer, n) => void writer.reclaim(marks[n]));
  }
}

type Key = Pick<PrefixValue, 'family' | 'words' | 'prefixLength'>;

function keyOf({ family, words, prefixLength }: Key): string {
  return [family, ...words, prefixLength].join();
}

/** Each rule is the product of its lists; what no packet can be makes no line. */
function policyLines(config: Config): PolicyLine[] {
  const lines: PolicyLine[] = [];
  const any = [null];
  config.routingRules.forEach((rule, number) => {
    const masked = (prefix: PrefixValue | null) =>
      prefix === null ? null : { words: prefix.words, mask: maskWords(prefix.family, prefix.prefixLength) };
    for (const proto of rule.protocols.length > 0 ? rule.protocols : [-1])
      for (const src of rule.src.length > 0 ? rule.src : any)
        for (const dst of rule.dst.length > 0 ? rule.dst : any)
          for (const sport of rule.sport.length > 0 ? rule.sport : any)
            for (const dport of rule.port.length > 0 ? rule.port : any)
              for (const dscp of rule.dscp.length > 0 ? rule.dscp : [-1]) {
                const families = new Set(
                  [rule.family, src?.family, dst?.family].filter((f) => f !== undefined && f !== null),
                );
                if (families.size > 1) continue;
                if ((sport !== null || dport !== null) && !PORT_PROTOCOLS.includes(proto)) continue;
                lines.push({
                  table: rule.table,
                  zone: rule.from?.kind === 'zone' ? tableZone(rule.from.number) : -1,
                  port: rule.from?.kind === 'port' ? rule.from.number : -1,
                  family: ([...families][0] ?? 0) as 0 | 4 | 6,
                  proto,
                  dscp,
                  sport,
                  dport,
                  src: masked(src),
                  dst: masked(dst),
                  rule: number,
                });
              }
  });
  return lines;
}
