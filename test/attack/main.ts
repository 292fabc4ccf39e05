/**
 * `npm run attack -- --seconds 3`: the rate that established connections keep beside an attack, compared with the rate
 * beside as many harmless packets (other established traffic). Rounds alternate between the two, so that a machine that
 * gets slower or faster slows or speeds both. `--write` puts the table into docs/reliability.md.
 */
import { parseArgs } from 'node:util';
import { Random } from '../lib/build.ts';
import { machine, writeBlock } from '../soak/table.ts';
import { World } from '../soak/world.ts';
import { ATTACKS, type Hostile } from './attacks.ts';

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '3' },
    only: { type: 'string' },
    write: { type: 'boolean', default: false },
  },
});
const seconds = Number(values.seconds);
if (!(seconds > 0)) {
  console.error(`attack: --seconds: expected a number above 0, got "${values.seconds}"`);
  process.exit(2);
}

const POOL = 20_000;
const FLOWS = 24;

function world(): World {
  const made = new World({
    conntrack: { max: 8192 },
    nat: {
      masquerade: [{ out: 'wan', from: '192.168.1.0/24' }],
      forward: [{ in: 'wan', proto: 'tcp', port: 8080, to: '192.168.1.10:80' }],
    },
  });
  made.establish(FLOWS);
  return made;
}

/** One side of a comparison: rounds of all established packets and as many others, and the time that they took. */
class Side {
  readonly world = world();
  private readonly others: readonly Hostile[];
  private at = 0;
  milliseconds = 0;
  carried = 0;

  constructor(others: readonly Hostile[]) {
    this.others = others;
  }

  rounds(count: number): void {
    const { world } = this;
    for (let round = 0; round < count; round++) {
      for (let n = 0; n < world.exchanges.length; n++) {
        const { port, frame } = this.others[this.at++ % this.others.length];
        world.push(port, frame);
      }
      const carried = world.carry();
      const start = performance.now();
      world.work(1);
      this.milliseconds += performance.now() - start;
      this.carried += carried;
      world.drain();
    }
  }

  /** Established packets a second. */
  get rate(): number {
    return (this.carried / this.milliseconds) * 1000;
  }
}

const rows = [['attack', 'beside harmless packets', 'beside the attack', 'kept', 'connections in the table', 'lost']];
let worst = 1;
for (const [name, make] of Object.entries(ATTACKS)) {
  if (values.only !== undefined && !name.includes(values.only)) continue;
  const random = new Random(11);
  const next = make();
  const harmless = world().exchanges.map(({ port, frame }): Hostile => ({ port, frame }));
  const calm = new Side(harmless);
  const stormy = new Side(Array.from({ length: POOL }, () => next(random)));
  for (const side of [calm, stormy]) {
    side.rounds(300);
    side.milliseconds = side.carried = 0;
  }
  while (calm.milliseconds + stormy.milliseconds < seconds * 1000) {
    calm.rounds(20);
    stormy.rounds(20);
  }
  stormy.world.check(`after ${name}`);
  stormy.world.balance(`after ${name}`);
  const kept = stormy.rate / calm.rate;
  worst = Math.min(worst, kept);
  rows.push([
    name,
    `${Math.round(calm.rate / 1000)} kpps`,
    `${Math.round(stormy.rate / 1000)} kpps`,
    `${Math.round(kept * 100)} %`,
    `${stormy.world.router.tables.conntrack.count} of ${stormy.world.router.tables.conntrack.max}`,
    `${stormy.world.lost}`,
  ]);
}
const text = [machine(`npm run attack -- --seconds ${values.seconds}`), ...rows.map((r) => `| ${r.join(' | ')} |`)];
text.splice(2, 0, `|${rows[0].map(() => ' --- ').join('|')}|`);
console.log(text.join('\n'));
console.log(
  `attack: ${rows.length - 1} attacks, no connection lost, at least ${Math.round(worst * 100)} % of the rate kept`,
);
if (values.write) writeBlock('attack', text.join('\n'));
