/** From configuration to verdict: compiled rules against a naive matcher over the configuration's own objects. */
import { describe, expect, it } from 'vitest';
import { CT_ESTABLISHED, CT_INVALID, CT_NEW, CT_RELATED, CT_UNTRACKED } from '../../conntrack/record.ts';
import { compileRules, tableZone } from '../../controlplane/compile-rules.ts';
import type {
  Config,
  PacketState,
  PrefixValue,
  RuleConfig,
  Scope,
  Verdict,
  ZoneConfig,
} from '../../controlplane/config/types.ts';
import { ACCEPT, DROP, FilterTable, FilterWriter, REJECT, ZONE_ROUTER } from '../../dataplane/filter.ts';
import { type Family, networkWords, parseAddress, type Words } from '../../dataplane/wire/address.ts';
import { Packet } from '../../dataplane/wire/packet.ts';

const WHERE = { line: 1, column: 1, path: 'rules[0]' };

function prefix(text: string): PrefixValue {
  const [address, length] = text.split('/');
  const parsed = parseAddress(address)!;
  const prefixLength = length === undefined ? (parsed.family === 4 ? 32 : 128) : Number(length);
  return { family: parsed.family, words: networkWords(parsed.family, parsed.words, prefixLength), prefixLength, text };
}

function ruleConfig(fields: Partial<RuleConfig>): RuleConfig {
  return {
    from: null,
    to: null,
    family: null,
    protocols: [],
    src: [],
    dst: [],
    srcHosts: [],
    dstHosts: [],
    sport: [],
    port: [],
    icmpTypes: [],
    states: [],
    verdict: 'accept',
    name: '',
    helper: null,
    where: WHERE,
    ...fields,
  };
}

/** Three zones; ports 0 and 1 are in the first, 2 in the second, 3 in the third. */
const ZONE_OF_PORT = [0, 0, 1, 2];
const NAMES = ['lan', 'wan', 'dmz'];
const VERDICTS: Verdict[] = ['accept', 'drop', 'reject'];
const NUMBER: Record<Verdict, number> = { accept: ACCEPT, drop: DROP, reject: REJECT };

function zoneScope(number: number): Scope {
  return {
    kind: 'zone',
    name: NAMES[number],
    number,
    ports: ZONE_OF_PORT.flatMap((z, p) => (z === number ? [p] : [])),
  };
}

function portScope(number: number): Scope {
  return { kind: 'port', name: `p${number}`, number, ports: [number] };
}

function configOf(rules: RuleConfig[], verdicts: (zone: number) => Pick<ZoneConfig, 'ipv4' | 'ipv6'>): Config {
  const zones = NAMES.map((name, number) => ({ name, number, ...verdicts(number), ports: [], where: WHERE }));
  // The built-in rules have tests of their own (test/rfc/rfc6092-*, rfc4890-*).
  const firewall = { ipv6: 'zones', icmpv6: false };
  return { file: 'test.yaml', rules, zones, firewall, nat: { nptv6: [] } } as unknown as Config;
}

const DROPPING = () => ({
  ipv4: { forward: 'drop', input: 'drop' } as const,
  ipv6: { forward: 'drop', input: 'drop' } as const,
});

function load(config: Config, options: Parameters<typeof compileRules>[1] = {}) {
  const table = new FilterTable(new SharedArrayBuffer(FilterTable.bytes(20_000, 1)), 1);
  const compiled = compileRules(config, options);
  expect(compiled.problems).toEqual([]);
  expect(new FilterWriter(table).load(compiled)).toBeNull();
  return { table, compiled };
}

/** A packet as people see it. */
interface Seen {
  family: Family;
  proto: number;
  src: Words;
  dst: Words;
  sport: number;
  dport: number;
  type: number;
  inPort: number;
  /** −1: to the router. */
  outPort: number;
  state: PacketState | 'untracked';
}

const CT = {
  new: CT_NEW,
  established: CT_ESTABLISHED,
  related: CT_RELATED,
  invalid: CT_INVALID,
  untracked: CT_UNTRACKED,
};
const WITH_PORTS = [6, 17, 33, 132, 136];

function fill(p: Packet, s: Seen): void {
  p.family = s.family;
  p.proto = s.proto;
  [p.s0, p.s1, p.s2, p.s3] = s.src;
  [p.d0, p.d1, p.d2, p.d3] = s.dst;
  const wire = new DataView(new ArrayBuffer(4));
  if (WITH_PORTS.includes(s.proto)) {
    wire.setUint16(0, s.sport);
    wire.setUint16(2, s.dport);
  } else if (s.proto === 1 || s.proto === 58) {
    wire.setUint16(0, 0x4711);
    wire.setUint8(2, s.type);
  }
  p.ports = wire.getInt32(0, true);
  p.port = s.inPort;
  p.outPort = s.outPort;
  p.ctinfo = CT[s.state];
}

/** Bits of an address as text: wire order, most significant first. */
function bits(family: Family, words: Words): string {
  let text = '';
  for (let byte = 0; byte < (family === 4 ? 4 : 16); byte++)
    text += ((words[byte >> 2] >>> ((byte & 3) * 8)) & 255).toString(2).padStart(8, '0');
  return text;
}

function naiveMatch(rule: RuleConfig, s: Seen): boolean {
  const inside = (p: PrefixValue, w: Words) =>
    p.family === s.family &&
    bits(s.family, w).slice(0, p.prefixLength) === bits(p.family, p.words).slice(0, p.prefixLength);
  const states = rule.states.length === 0 ? ['new'] : rule.states;
  if (rule.from !== null && !rule.from.ports.includes(s.inPort)) return false;
  if (rule.to !== null && (s.outPort < 0 || !rule.to.ports.includes(s.outPort))) return false;
  if (rule.family !== null && rule.family !== s.family) return false;
  if (rule.protocols.length > 0 && !rule.protocols.includes(s.proto)) return false;
  if (rule.src.length > 0 && !rule.src.some((p) => inside(p, s.src))) return false;
  if (rule.dst.length > 0 && !rule.dst.some((p) => inside(p, s.dst))) return false;
  const hasPorts = WITH_PORTS.includes(s.proto);
  if (rule.sport.length > 0 && !(hasPorts && rule.sport.some(([a, b]) => s.sport >= a && s.sport <= b))) return false;
  if (rule.port.length > 0 && !(hasPorts && rule.port.some(([a, b]) => s.dport >= a && s.dport <= b))) return false;
  if (rule.icmpTypes.length > 0 && !((s.proto === 1 || s.proto === 58) && rule.icmpTypes.includes(s.type)))
    return false;
  return (states as string[]).includes(s.state);
}

describe('against a naive matcher', () => {
  it.each([1, 2, 3])('random rules and packets, seed %i', (seed) => {
    let state = seed * 7919;
    const below = (n: number) => {
      state = (Math.imul(state, 1664525) + 1013904223) | 0;
      return ((Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) >>> 8) & 0xffff) % n;
    };
    const pick = <T>(from: readonly T[]): T => from[below(from.length)];
    const some = <T>(most: number, make: () => T): T[] => Array.from({ length: below(most + 1) }, make);

    const v4 = ['10.0.0.0', '10.0.0.1', '10.0.0.129', '10.1.0.1', '192.168.1.10', '255.255.255.255'];
    const v6 = ['2001:db8::1', '2001:db8::8000:1', '2001:db8:1::1', '2001:db8:0:1::', 'fe80::1'];
    const numbers = [0, 1, 79, 80, 81, 255, 256, 32767, 32768, 65535];
    const protocols = [1, 6, 17, 47, 50, 58, 132];
    const range = (): [number, number] => {
      const pair = [pick(numbers), pick(numbers)].sort((a, b) => a - b);
      return [pair[0], pair[1]];
    };
    const randomPrefix = () =>
      below(2) === 0
        ? prefix(`${pick(v4)}/${pick([0, 8, 9, 24, 25, 32])}`)
        : prefix(`${pick(v6)}/${pick([0, 10, 32, 48, 64, 97, 128])}`);
    const scope = () => (below(2) === 0 ? null : below(3) > 0 ? zoneScope(below(3)) : portScope(below(4)));
    const randomRule = () =>
      ruleConfig({
        from: scope(),
        to: scope(),
        family: pick([null, null, 4, 6] as const),
        protocols: some(3, () => pick(protocols)),
        src: below(2) === 0 ? [] : some(2, randomPrefix),
        dst: below(2) === 0 ? [] : some(2, randomPrefix),
        sport: below(4) > 0 ? [] : some(2, range),
        port: below(2) > 0 ? [] : some(2, range),
        icmpTypes: below(4) > 0 ? [] : some(4, () => pick([0, 3, 4, 8, 128, 129, 255])),
        states: some(2, () => pick(['new', 'established', 'related', 'invalid'] as const)),
        verdict: pick(VERDICTS),
        where: WHERE,
      });

    const p = new Packet();
    const decided = new Set<string>();
    for (let round = 0; round < 120; round++) {
      const config = configOf(some(12, randomRule), () => ({
        ipv4: { forward: pick(VERDICTS), input: pick(VERDICTS) },
        ipv6: { forward: pick(VERDICTS), input: pick(VERDICTS) },
      }));
      const { table } = load(config);
      for (let n = 0; n < 150; n++) {
        const family = pick([4, 6] as const);
        const address = () => parseAddress(pick(family === 4 ? v4 : v6))!.words;
        const seen: Seen = {
          family,
          proto: pick(family === 4 ? [1, 6, 6, 17, 47, 50, 132] : [58, 6, 6, 17, 47, 50, 132]),
          src: address(),
          dst: address(),
          sport: pick(numbers),
          dport: pick(numbers),
          type: pick([0, 3, 4, 5, 8, 128, 129, 255]),
          inPort: below(4),
          outPort: below(5) - 1,
          state: pick(['new', 'new', 'new', 'established', 'related', 'invalid', 'untracked'] as const),
        };
        const expected = config.rules.findIndex((rule) => naiveMatch(rule, seen));
        const zone = config.zones[ZONE_OF_PORT[seen.inPort]][family === 4 ? 'ipv4' : 'ipv6'];
        const verdict = expected >= 0 ? config.rules[expected].verdict : zone[seen.outPort < 0 ? 'input' : 'forward'];
        fill(p, seen);
        const from = tableZone(ZONE_OF_PORT[seen.inPort]);
        const to = seen.outPort < 0 ? ZONE_ROUTER : tableZone(ZONE_OF_PORT[seen.outPort]);
        expect([table.evaluate(p, from, to, 0), table.rule]).toEqual([NUMBER[verdict], expected]);
        decided.add(expected < 0 ? 'zone' : 'rule');
      }
    }
    expect(decided.size).toBe(2);
  });
});

describe('compileRules', () => {
  it("the design's example: one IPv6 host's port 443 is open, nothing else", () => {
    const { table } = load(
      configOf(
        [
          ruleConfig({
            from: zoneScope(1),
            to: zoneScope(0),
            family: 6,
            protocols: [6],
            dst: [prefix('2001:db8:1::10')],
            port: [[443, 443]],
            states: ['new'],
          }),
        ],
        DROPPING,
      ),
    );
    const p = new Packet();
    const seen: Seen = {
      family: 6,
      proto: 6,
      src: parseAddress('2001:db8:ffff::9')!.words,
      dst: parseAddress('2001:db8:1::10')!.words,
      sport: 5000,
      dport: 443,
      type: 0,
      inPort: 2,
      outPort: 0,
      state: 'new',
    };
    const verdict = (change: Partial<Seen>, from = 2, to = 1) => {
      fill(p, { ...seen, ...change });
      return table.evaluate(p, from, to, 0);
    };
    expect(verdict({})).toBe(ACCEPT);
    expect(verdict({ dport: 80 })).toBe(DROP);
    expect(verdict({ dst: parseAddress('2001:db8:1::11')!.words })).toBe(DROP);
    expect(verdict({ proto: 17 })).toBe(DROP);
    expect(verdict({}, 3)).toBe(DROP);
    expect(verdict({}, 2, ZONE_ROUTER)).toBe(DROP);
  });

  it('ports without a protocol mean the protocols that have ports; ICMP types mean both ICMPs', () => {
    const compiled = compileRules(
      configOf([ruleConfig({ port: [[53, 53]] }), ruleConfig({ icmpTypes: [8, 128, 129] })], DROPPING),
    );
    expect(compiled.rules.filter((r) => r.id === 0).map((r) => r.proto)).toEqual(WITH_PORTS);
    expect(compiled.rules.filter((r) => r.id === 1).map((r) => [r.proto, r.family, r.icmpTypes])).toEqual([
      [1, 4, [8, 8]],
      [1, 4, [128, 129]],
      [58, 6, [8, 8]],
      [58, 6, [128, 129]],
    ]);
  });

  it('a rule attaches a helper by its number', () => {
    const config = configOf([ruleConfig({ protocols: [6], port: [[2121, 2121]], helper: 'ftp' })], DROPPING);
    const { table } = load(config, { helperNumber: (name) => (name === 'ftp' ? 7 : 0) });
    const p = new Packet();
    const words = parseAddress('10.0.0.1')!.words;
    const base = { family: 4 as const, proto: 6, src: words, dst: words, sport: 1, type: 0, inPort: 0, outPort: 2 };
    fill(p, { ...base, dport: 2121, state: 'new' });
    expect(table.evaluate(p, 1, 2, 0)).toBe(ACCEPT);
    expect(table.helper).toBe(7);
  });

  it('names stay when a rule moves, differ between twins, and labels name the place', () => {
    const a = ruleConfig({ protocols: [6], where: { line: 9, column: 3, path: 'rules[0]' } });
    const b = ruleConfig({ protocols: [17], name: 'dns', where: { line: 10, column: 3, path: 'rules[1]' } });
    const one = compileRules(configOf([a, b, { ...a, where: { line: 11, column: 3, path: 'rules[2]' } }], DROPPING));
    const two = compileRules(configOf([b, { ...a, where: b.where }], DROPPING));
    expect(new Set(one.names).size).toBe(3);
    expect(two.names).toEqual([one.names[1], one.names[0]]);
    expect(one.labels).toEqual(['rules[0]', 'dns', 'rules[2]']);
    expect(one.places[0]?.line).toBe(9);
  });

  it('refuses a product of lists that is too large before it is made, and says where', () => {
    const many = Array.from({ length: 1024 }, (_, n) => prefix(`10.${n >> 8}.${n & 255}.0/24`));
    const compiled = compileRules(configOf([ruleConfig({ src: many, dst: many })], DROPPING));
    expect(compiled.problems).toMatchObject([{ file: 'test.yaml', line: 1, path: 'rules[0]' }]);
    expect(compiled.rules).toEqual([]);
  });
});
