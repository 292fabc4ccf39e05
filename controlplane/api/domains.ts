/**
 * Domains over the API: makes one of the control plane's domains anew (domain.ts).
 */
import { DOMAINS } from '../domain.ts';
import { Refusal } from './http.ts';
import type { Route } from './route.ts';

export const RESTART_ROUTE: Route = {
  method: 'POST',
  path: '/v1/restart/{domain}',
  summary: 'Restarts one domain of the control plane; forwarding and the other domains go on',
  tag: 'domains',
  params: { domain: { description: 'which domain', values: DOMAINS } },
  body: { types: ['application/json'], limit: 1024, description: 'An empty object' },
  answer: {
    type: 'application/json',
    description: 'The domain after its restart, as `show domains` has it',
    schema: {
      type: 'object',
      properties: {
        domain: { type: 'string', enum: DOMAINS },
        state: { type: 'string', enum: ['running', 'down'] },
        thread: { type: 'string', enum: ['own', 'main'] },
        restarts: { type: 'number' },
        failures: { type: 'number' },
        reason: { type: 'string' },
      },
    },
  },
  handle: async ({ source }, { params: { domain } }) => {
    const name = DOMAINS.find((one) => one === domain);
    if (name === undefined)
      throw new Refusal(404, `restart: expected one of ${DOMAINS.join(', ')}, got ${JSON.stringify(domain)}`);
    if (source.restart === undefined)
      throw new Refusal(501, 'restart: expected a router with domains, got a view of one');
    await source.restart(name);
    return { json: source.control.domains.health.find((view) => view.domain === name) };
  },
};
