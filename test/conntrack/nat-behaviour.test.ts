/**
 * The nine combinations of mapping and filtering, and the presets, against a naive model of RFC 4787 §4.1 and §5.
 */
import { describe, expect, it } from 'vitest';
import { Random } from '../lib/build.ts';
import { addressOf, type Endpoint, portOf, World } from './nat-world.ts';

const BEHAVIOURS = ['endpoint-independent', 'address-dependent', 'address-and-port-dependent'] as const;
type Behaviour = (typeof BEHAVIOURS)[number];

/** As much of an endpoint as a behaviour looks at. */
function part(behaviour: Behaviour, e: Endpoint): string {
  return behaviour === 'endpoint-independent' ? '' : behaviour === 'address-dependent' ? addressOf(e) : e;
}

/**
 * RFC 4787 as maps; nothing ever expires. A host's packets to somebody who has come in by one of its mappings are answers:
 * they leave by that mapping, whatever the mapping behaviour would give a packet that begins something.
 */
class Model {
  readonly mapping: Behaviour;
  readonly filtering: Behaviour;
  readonly byInside = new Map<string, Endpoint>();
  readonly byOutside = new Map<Endpoint, { inside: Endpoint; seen: Set<string> }>();
  /** Inside and far endpoint to the outside endpoint of their session. */
  readonly sessions = new Map<string, Endpoint>();

  constructor(mapping: Behaviour, filtering: Behaviour) {
    this.mapping = mapping;
    this.filtering = filtering;
  }

  /** Takes note of what an outbound packet was seen as. Returns what is wrong with it, '' nothing. */
  out(from: Endpoint, to: Endpoint, seen: Endpoint): string {
    const key = `${from} ${part(this.mapping, to)}`;
    const session = this.sessions.get(`${from} ${to}`);
    const known = session ?? this.byInside.get(key);
    if (known !== undefined && known !== seen) return `${key} was ${known}, now ${seen}`;
    const owner = this.byOutside.get(seen);
    if (known === undefined && owner !== undefined) return `${seen} is ${owner.inside}'s`;
    if (session === undefined) this.byInside.set(key, seen);
    this.sessions.set(`${from} ${to}`, seen);
    if (owner === undefined) this.byOutside.set(seen, { inside: from, seen: new Set() });
    this.byOutside.get(seen)!.seen.add(part(this.filtering, to));
    return '';
  }

  in(from: Endpoint, to: Endpoint): Endpoint | null {
    const owner = this.byOutside.get(to);
    if (!owner?.seen.has(part(this.filtering, from))) return null;
    const session = `${owner.inside} ${from}`;
    if (!this.sessions.has(session)) this.sessions.set(session, to);
    return owner.inside;
  }
}

describe('mapping × filtering', () => {
  for (const mapping of BEHAVIOURS)
    for (const filtering of BEHAVIOURS)
      it(`${mapping} mapping, ${filtering} filtering: four hundred random packets as the model says`, () => {
        const world = new World({ profile: 'symmetric', masquerade: [{ out: 'wan', mapping, filtering }] });
        const model = new Model(mapping, filtering);
        const random = new Random(BEHAVIOURS.indexOf(mapping) * 3 + BEHAVIOURS.indexOf(filtering));
        const inside = ['192.168.1.10:4000', '192.168.1.10:4001', '192.168.1.11:4000'];
        const far = ['198.51.100.1:1', '198.51.100.1:2', '198.51.100.2:1', '198.51.100.3:7', '198.51.100.3:1'];
        for (let n = 0; n < 400; n++) {
          const to = random.pick(far);
          if (random.chance(0.4) || model.byOutside.size === 0) {
            const from = random.pick(inside);
            const seen = world.out(from, to);
            expect(seen).not.toBeNull();
            expect(model.out(from, to, seen!)).toBe('');
          } else {
            const outside = random.pick([...model.byOutside.keys()]);
            expect([n, to, outside, world.in(to, outside)]).toEqual([n, to, outside, model.in(to, outside)]);
          }
        }
        expect(world.mappings).toBe(model.byOutside.size);
      });

  it('a packet to a host’s second mapping was lost when the host knew its sender by the first', () => {
    const masquerade = [{ out: 'wan', mapping: 'address-dependent', filtering: 'endpoint-independent' }];
    const world = new World({ masquerade });
    const first = world.out('192.168.1.10:4000', '198.51.100.1:1')!;
    const second = world.out('192.168.1.10:4000', '198.51.100.2:1')!;
    expect(second).not.toBe(first);
    expect(world.in('198.51.100.1:1', second)).toBe('192.168.1.10:4000');
    // It belongs to no connection of its own: what the host answers goes by the connection that there is.
    expect(world.router.conntrack.count).toBe(2);
    expect(world.out('192.168.1.10:4000', '198.51.100.1:1')).toBe(first);
  });

  it('sees what nobody has mapped as nobody’s', () => {
    const world = new World({ profile: 'full-cone' });
    const seen = world.out('192.168.1.10:4000', '198.51.100.1:53')!;
    expect(world.in('198.51.100.9:9', seen)).toBe('192.168.1.10:4000');
    expect(world.in('198.51.100.9:9', `203.0.113.1:${portOf(seen) + 1}`)).toBeNull();
    expect(world.dropped('INPUT_DROP')).toBe(1);
  });
});

describe('presets', () => {
  it.each([
    // [profile, same port towards another host, another host gets in, another port of a known host gets in]
    ['full-cone', true, true, true],
    ['restricted-cone', true, false, true],
    ['port-restricted-cone', true, false, false],
    ['symmetric', false, false, false],
  ] as const)('%s', (profile, stable, stranger, otherPort) => {
    const world = new World({ profile });
    const a = world.out('192.168.1.10:4000', '198.51.100.1:3478')!;
    const b = world.out('192.168.1.10:4000', '198.51.100.2:3478')!;
    expect(a === b).toBe(stable);
    expect(world.in('198.51.100.1:3478', a)).toBe('192.168.1.10:4000');
    expect(world.in('198.51.100.9:3478', a) !== null).toBe(stranger);
    expect(world.in('198.51.100.1:9999', a) !== null).toBe(otherPort);
    expect(world.dropped('NAT_FILTERED')).toBe((stranger ? 0 : 1) + (otherPort ? 0 : 1));
  });

  it('linux keeps the port, for every destination, and makes no mapping', () => {
    const world = new World({ profile: 'linux' });
    expect(world.out('192.168.1.10:4000', '198.51.100.1:3478')).toBe('203.0.113.1:4000');
    expect(world.out('192.168.1.10:4000', '198.51.100.2:3478')).toBe('203.0.113.1:4000');
    // Another host's same port towards another destination is another tuple.
    expect(world.out('192.168.1.11:4000', '198.51.100.3:3478')).toBe('203.0.113.1:4000');
    expect(world.out('192.168.1.11:4000', '198.51.100.1:3478')).not.toBe('203.0.113.1:4000');
    expect(world.mappings).toBe(0);
  });

  it('an entry’s own words override the profile’s', () => {
    const world = new World({ profile: 'linux', masquerade: [{ out: 'wan', filtering: 'endpoint-independent' }] });
    const seen = world.out('192.168.1.10:4000', '198.51.100.1:3478')!;
    expect(world.in('198.51.100.9:1', seen)).toBe('192.168.1.10:4000');
  });

  it('what comes in by a mapping and is answered is one session, also with the engine on', () => {
    const world = new World({ profile: 'full-cone' }, { offload: { mode: 'verify' } });
    const seen = world.out('192.168.1.10:4000', '198.51.100.1:3478')!;
    for (let n = 0; n < 20; n++) {
      expect(world.in('198.51.100.9:99', seen)).toBe('192.168.1.10:4000');
      expect(world.out('192.168.1.10:4000', '198.51.100.9:99')).toBe(seen);
    }
    expect(world.router.conntrack.count).toBe(2);
    expect(world.mappings).toBe(1);
  });
});
