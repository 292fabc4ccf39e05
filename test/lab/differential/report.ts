/** A scenario and its difference as text for people: every frame in one line, then what differs. */
import { toHex } from '../../lib/build.ts';
import { dissect, summary } from './dissect.ts';
import type { Scenario } from './scenario.ts';

const FIELDS = /tcp\.(seq|ack|flags|window|options)|icmp6?\.(type|code)|ip\.ttl|ip6\.hop|^ip\.fragment/;

export function explainDifference(scenario: Scenario, difference: string): string {
  const lines = scenario.frames.map((f, n) => {
    if (typeof f.frame === 'function') return `  ${n} ${f.port}: (depends on what has left)`;
    const fields = dissect(f.frame)
      .filter((x) => FIELDS.test(x.name) && !x.name.startsWith('quote'))
      .map((x) => `${x.name.replace(/^\w+\./, '')} ${x.text}`);
    return `  ${n} ${f.port}: ${summary(f.frame)} ${fields.join(', ')}\n      ${toHex(f.frame.subarray(14, 110))}`;
  });
  return `${lines.join('\n')}\n${difference}`;
}
