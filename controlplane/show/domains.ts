/** `show domains`: how each domain of the control plane is doing, and how often it was started again (domain.ts). */
import type { DomainView } from '../domain.ts';
import { knownFilters, type Shown, type ShowSource } from './source.ts';

export function showDomains(source: ShowSource, filters: Readonly<Record<string, string>>): Shown {
  knownFilters(filters, []);
  const json: DomainView[] = [...source.control.domains.health];
  const lines = json.map(({ domain, state, thread, restarts, failures, reason }) => {
    const why = reason === '' ? '' : `, last: ${reason}`;
    return `${domain}: ${state}, ${thread === 'own' ? 'a thread of its own' : 'main thread'}, restarts ${restarts}, failures ${failures}${why}`;
  });
  return { text: lines.join('\n'), json };
}
