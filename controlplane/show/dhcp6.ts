/**
 * `show dhcp6`: what each port's role of DHCPv6 has and gives, and what was counted. Leases of a server are counted in
 * text and listed in JSON (there may be ten thousand). Lifetimes are seconds from now; null: for ever.
 */
import type { Dhcp6Json } from '../dhcp6/describe.ts';
import { knownFilters, type Shown, type ShowSource } from './source.ts';

export function showDhcp6(source: ShowSource, filters: Readonly<Record<string, string>>): Shown | Promise<Shown> {
  knownFilters(filters, []);
  const json = source.control.domains.ask('ipv6', 'dhcp6') as Dhcp6Json | null | Promise<Dhcp6Json | null>;
  return json instanceof Promise ? json.then(shown) : shown(json);
}

function shown(json: Dhcp6Json | null): Shown {
  if (json === null) return { text: 'no port has DHCPv6', json };
  const counts = (of: Record<string, number>) =>
    Object.entries(of)
      .map(([word, count]) => ` ${word} ${count}`)
      .join('') || ' nothing';
  const seconds = (valid: number | null) => (valid === null ? 'for ever' : `for ${valid} s`);
  const lines = [
    ...json.clients.flatMap(({ port, state, leases }) => [
      `${port}: client, ${state}`,
      ...leases.map(({ prefix, valid }) => `  ${prefix} ${seconds(valid)}`),
    ]),
    ...json.servers.map((port) => `${port}: server`),
    ...(json.servers.length > 0 ? [`leases: ${json.leases.length}`] : []),
    ...json.relays.flatMap(({ port, routes }) => [`${port}: relay, ${routes.length} routes`]),
    ...json.ldras.map(({ port, network }) => `${port}: LDRA toward ${network}`),
    `received:${counts(json.received)}`,
    `sent:${counts(json.sent)}`,
    `faults:${counts(json.faults)}`,
  ];
  return { text: lines.join('\n'), json };
}
