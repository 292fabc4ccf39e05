/**
 * `npm run attack`: the rate that established connections keep beside an attack, compared with the rate
 * beside an equal load of harmless packets. Established TCP and UDP connections are where a user has them: in the engine
 * (and, for comparison, all of it on the slow path). The harmless packets are those of 24 hosts' pings: known to the
 * router, and nothing that the engine takes. For every frame of the attack there is one of them, of the same length (as
 * near as a ping may come), on the same port, and as many different ones, so that both come as cold from memory. CPU time
 * counts, not the clock on the wall; rounds alternate between the two sides. `--write` puts the table into
 * docs/reliability.md.
 *
 * `--answers` does something else: a live router with a pool of 64 ports under 10,000 flows, and how long its control plane
 * takes to answer meanwhile (test/lab/pool-pressure.ts); it needs root.
 */
import { press } from '../lab/pool-pressure.ts';
import { icmp, icmpv6, ipv4, ipv6, Random } from '../lib/build.ts';
import { commandLine } from '../lib/command.ts';
import * as H from '../lib/home.ts';
import { machine, writeBlock } from '../soak/table.ts';
import { fromLan, fromWan, World } from '../soak/world.ts';
import { ATTACKS, type Hostile } from './attacks.ts';

const USAGE = `usage: npm run attack [-- OPTION ...]

The rate that established connections keep beside an attack, compared with the rate beside harmless packets.

  --seconds N    CPU time for each attack, engine and slow path (3)
  --only NAME    only attacks whose name contains this
  --write        put the table into docs/reliability.md
  --answers      instead: how long the control plane takes to answer while a pool of ports is used up (needs root)
`;

const asked = commandLine('attack', USAGE, {
  seconds: { kind: 'value', expected: 'a number' },
  only: { kind: 'value', expected: 'a part of an attack’s name' },
  write: { kind: 'flag' },
  answers: { kind: 'flag' },
});
const seconds = asked.above0('seconds', 3);
const wanted = asked.chosen('only', Object.keys(ATTACKS));

if (asked.has('answers')) {
  const { answers, live } = await press();
  live.close();
  answers.sort((a, b) => a - b);
  const at = (part: number): string =>
    `${answers[Math.min(answers.length - 1, Math.floor(answers.length * part))].toFixed(1)} ms`;
  const slowest = answers[answers.length - 1];
  console.log(machine('npm run attack -- --answers'));
  console.log(
    `attack: ${answers.length} answers, half within ${at(0.5)}, 99 % within ${at(0.99)}, all within ${at(1)}`,
  );
  process.exit(slowest <= 100 ? 0 : 1);
}

/** Frames until the first comes again, two seconds of the router's clock later: who floods with invented addresses repeats none. */
const POOL = 200_000;
const FLOWS = 24;
/** Rounds before the measurement: questions about neighbours are given up after three seconds, and V8 has seen it all by then. */
const WARM_UP = 4000;

function world(engine: boolean): World {
  const made = new World({
    conntrack: { max: 8192 },
    nat: {
      masquerade: [{ out: 'wan', from: '192.168.1.0/24' }],
      forward: [{ in: 'wan', proto: 'tcp', port: 8080, to: '192.168.1.10:80' }],
    },
    offload: { mode: engine ? 'on' : 'off' },
  });
  made.establish(FLOWS);
  return made;
}

/** Bytes of Ethernet, IPv4 and ICMP headers, and of Ethernet, IPv6 and ICMPv6 headers. */
const LEAST4 = 42;
const LEAST6 = 62;

/** For each frame a harmless one: a ping's request where it comes from inside, else an answer. */
function pings(like: readonly Hostile[]): Hostile[] {
  return like.map(({ port, frame }, n) => {
    const id = 1 + (n % FLOWS);
    const outwards = port === 'lan';
    const six = id % 3 === 2;
    const body = new Uint8Array(Math.max(0, frame.length - (six ? LEAST6 : LEAST4))).fill(n);
    const message = { id, seq: (n / FLOWS) & 0xffff };
    if (six) {
      const echo = icmpv6({ type: outwards ? 128 : 129, ...message }, body);
      return outwards
        ? { port, frame: fromLan(ipv6({ src: H.HOST6, dst: H.SERVER6 }, echo)) }
        : { port, frame: fromWan(ipv6({ src: H.SERVER6, dst: H.HOST6 }, echo)) };
    }
    const echo = icmp({ type: outwards ? 8 : 0, ...message }, body);
    return outwards
      ? { port, frame: fromLan(ipv4({ src: H.HOST, dst: H.SERVER }, echo)) }
      : { port, frame: fromWan(ipv4({ src: H.SERVER, dst: H.ROUTER_WAN }, echo)) };
  });
}

/** A request of each ping, so that answers have something to belong to. */
const REQUESTS = pings(Array.from({ length: FLOWS }, () => ({ port: 'lan', frame: new Uint8Array(64) })));

/** One side of a comparison: rounds of all established packets and as many others, and the CPU time that they took. */
class Side {
  readonly world: World;
  private readonly others: readonly Hostile[];
  private at = 0;
  microseconds = 0;
  carried = 0;

  constructor(others: readonly Hostile[], engine: boolean) {
    this.world = world(engine);
    this.others = others;
    for (const { port, frame } of REQUESTS) this.world.put(port, frame);
  }

  rounds(count: number): void {
    const { world } = this;
    for (let round = 0; round < count; round++) {
      for (let n = 0; n < world.exchanges.length; n++) {
        const { port, frame } = this.others[this.at++ % this.others.length];
        world.push(port, frame);
      }
      const carried = world.carry();
      const before = process.cpuUsage();
      world.circle();
      const used = process.cpuUsage(before);
      this.microseconds += used.user + used.system;
      this.carried += carried;
      world.drain();
    }
  }

  /** Established packets a second of CPU time. */
  get rate(): number {
    return (this.carried / this.microseconds) * 1e6;
  }
}

const rows = [
  [
    'attack',
    'engine: beside pings',
    'beside the attack',
    'kept',
    'slow path: beside pings',
    'beside the attack',
    'kept',
    'connections in the table',
    'lost',
  ],
];
let worst = 1;
for (const name of wanted) {
  const random = new Random(11);
  const next = ATTACKS[name]();
  const hostile = Array.from({ length: POOL }, () => next(random));
  const harmless = pings(hostile);
  const row = [name];
  let after: World | null = null;
  for (const engine of [true, false]) {
    const calm = new Side(harmless, engine);
    const stormy = new Side(hostile, engine);
    for (const side of [calm, stormy]) {
      side.rounds(WARM_UP);
      side.microseconds = side.carried = 0;
    }
    while (calm.microseconds + stormy.microseconds < seconds * 500_000) {
      calm.rounds(20);
      stormy.rounds(20);
    }
    stormy.world.check(`after ${name}`);
    stormy.world.balance(`after ${name}`);
    const kept = stormy.rate / calm.rate;
    worst = Math.min(worst, kept);
    row.push(`${Math.round(calm.rate / 1000)} kpps`, `${Math.round(stormy.rate / 1000)} kpps`);
    row.push(`${Math.round(kept * 100)} %`);
    after = stormy.world;
  }
  const { conntrack } = after!.router.tables;
  rows.push([...row, `${conntrack.count} of ${conntrack.max}`, `${after!.lost}`]);
}
const text = [machine(`npm run attack -- --seconds ${seconds}`), ...rows.map((r) => `| ${r.join(' | ')} |`)];
text.splice(2, 0, `|${rows[0].map(() => ' --- ').join('|')}|`);
console.log(text.join('\n'));
console.log(
  `attack: ${rows.length - 1} attacks, no connection lost, at least ${Math.round(worst * 100)} % of the rate kept`,
);
if (asked.has('write')) writeBlock('attack', text.join('\n'));
