/**
 * Policy routing in the configuration: tables are named by the routes in them (`routes[].table`), and `routing-rules` say
 * which packets ask them before the main one.
 */
import { MAX_TABLES } from '../../dataplane/policy.ts';
import { didYouMean } from './errors.ts';
import type { Reader } from './reader.ts';
import { routingRuleSchema } from './schema.ts';
import type { Scopes } from './scopes.ts';
import type { RoutingRuleConfig, Where } from './types.ts';
import { familyOf, PORT_PROTOCOLS } from './values.ts';

/** The table that is asked when no rule says otherwise, and at last. */
export const MAIN = 'main';

interface TabledRoute {
  tableName: string;
  where: Where;
}

/** Reads `routing-rules`, and collects the names of tables: number n of a rule or route is `routeTables[n − 1]`. */
export function normalizeRouting(
  reader: Reader,
  value: unknown,
  routes: readonly TabledRoute[],
  scopes: Scopes,
): { routeTables: string[]; routingRules: RoutingRuleConfig[] } {
  const routeTables = [...new Set(routes.map(({ tableName }) => tableName))].filter((table) => table !== MAIN);
  if (routeTables.length > MAX_TABLES)
    reader.reportWords(['routes'], `at most ${MAX_TABLES} tables beside ${MAIN}`, String(routeTables.length));
  const routingRules: RoutingRuleConfig[] = [];
  const used = new Set<string>();
  reader.list(value, ['routing-rules']).forEach((item, n) => {
    const path = ['routing-rules', n];
    const given = reader.read(routingRuleSchema, item, path, { table: MAIN });
    if (given === undefined) return;
    const { table } = given;
    if (table !== MAIN && !routeTables.includes(table))
      reader.report([...path, 'table'], 'a table that a route names', table, didYouMean(table, [MAIN, ...routeTables]));
    used.add(table);
    const protocols = given.proto ?? [];
    for (const key of ['port', 'sport'] as const)
      if (given[key] !== undefined && (protocols.length === 0 || !protocols.every((p) => PORT_PROTOCOLS.includes(p))))
        reader.reportWords(
          [...path, key],
          `"${key}" with protocols that have ports only`,
          protocols.length === 0 ? 'no "proto"' : 'one that has none',
          'add "proto: tcp"',
        );
    const family = familyOf(given.family);
    for (const key of ['src', 'dst'] as const) {
      const wrong = given[key]?.find((prefix) => family !== null && prefix.family !== family);
      if (wrong !== undefined) reader.report([...path, key], `addresses of IPv${family}`, wrong.text);
    }
    routingRules.push({
      from: scopes.find(given.from, [...path, 'from']),
      family,
      protocols,
      src: given.src ?? [],
      dst: given.dst ?? [],
      sport: given.sport ?? [],
      port: given.port ?? [],
      dscp: given.dscp ?? [],
      table: routeTables.indexOf(table) + 1,
      where: reader.where(path),
    });
  });
  for (const { tableName, where } of routes)
    if (tableName !== MAIN && !used.has(tableName)) {
      reader.warnings.push(`${where.path}: no rule leads to table ${tableName}`);
      used.add(tableName);
    }
  return { routeTables, routingRules };
}
