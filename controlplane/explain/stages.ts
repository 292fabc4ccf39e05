/**
 * Stages in words: what each has looked up, found and decided, and which line of the configuration was the cause. It is read
 * from what the stages have left in the packet and in the tables; nothing here decides anything. Who asks is steps.ts.
 */
import { conntrackLine } from '../../conntrack/format.ts';
import { helperOf } from '../../conntrack/helpers/index.ts';
import { NAT_DMZ, NAT_DNAT, NAT_TRIGGER, NR_KIND, NR_WHERE, NR_WORDS } from '../../conntrack/nat-rules.ts';
import {
  CT_ESTABLISHED,
  CT_FLOWS,
  CT_HELPER,
  CT_PORTS_IO,
  CT_RELATED,
  CT_STATUS,
  CT_TCP,
  CT_WORDS,
  IPS_SEEN_REPLY,
  TCP_END,
  TCP_MAXACK,
  TCP_MAXEND,
  TCP_MAXWIN,
} from '../../conntrack/record.ts';
import * as D from '../../dataplane/drop.ts';
import * as IF from '../../dataplane/interfaces.ts';
import * as NEIGH from '../../dataplane/neighbours.ts';
import * as NH from '../../dataplane/nexthops.ts';
import type { ObservedPath } from '../../dataplane/observe.ts';
import * as T from '../../dataplane/tables.ts';
import { formatAddress, formatCidr, formatMac } from '../../dataplane/wire/address.ts';
import { raw16, raw32 } from '../../dataplane/wire/bytes.ts';
import type { Packet } from '../../dataplane/wire/packet.ts';
import * as tcp from '../../dataplane/wire/tcp.ts';
import { FLOWS_INSTALLED, FLOWS_PENDING, NOT_OFFLOADED, WHY_NO_REPLY } from '../../offload/engine.ts';
import { tableZone } from '../compile-rules.ts';
import type { Config, PrefixValue, Where } from '../config/index.ts';
import type { Control } from '../control.ts';
import { CTINFO, detailText, endpoint, hasPortPair, hostPort, tupleText, whereText } from './words.ts';

/** What one stage did. */
export interface Step {
  stage: string;
  /** What it asked for, and in which table. */
  looked_up?: string;
  found?: string;
  /** What it made of that. */
  decided: string;
  /** `file:line:column path` of the configuration that was the cause. */
  where?: string;
}

const NUD: Readonly<Record<number, string>> = {
  [NEIGH.NUD_INCOMPLETE]: 'INCOMPLETE',
  [NEIGH.NUD_REACHABLE]: 'REACHABLE',
  [NEIGH.NUD_STALE]: 'STALE',
  [NEIGH.NUD_DELAY]: 'DELAY',
  [NEIGH.NUD_PROBE]: 'PROBE',
  [NEIGH.NUD_FAILED]: 'FAILED',
  [NEIGH.NUD_PERMANENT]: 'PERMANENT',
};

/** `filter.rule` when nobody has asked the filter. */
export const NOT_ASKED = -2;

export class StageWords {
  private readonly tables: T.Tables;
  private readonly control: Control;
  private readonly config: Config;
  private readonly path: ObservedPath;

  constructor(tables: T.Tables, control: Control, path: ObservedPath) {
    this.tables = tables;
    this.control = control;
    this.config = control.config;
    this.path = path;
  }

  /** The step of one stage; `before`: the packet as the stage found it. */
  step(p: Packet, before: Packet, stage: number, verdict: number): Omit<Step, 'stage'> | null {
    switch (stage) {
      case D.STAGE_LINK_INPUT:
        return this.linkInput(p, before, verdict);
      case D.STAGE_IP_PARSE:
        return this.ipParse(p, verdict);
      case D.STAGE_IP_SANITY:
        return this.sourceGuard(p, verdict);
      case D.STAGE_REASSEMBLY:
        return {
          looked_up: `the other fragments of this datagram (identification ${p.fragId >>> 0})`,
          found:
            verdict === D.GO_ON
              ? 'all of them'
              : p.isFragment !== 0
                ? `this one begins at byte ${p.fragOffset}${p.fragMore !== 0 ? ', more follow' : ', the last'}`
                : 'an atomic fragment',
          decided:
            verdict === D.HELD
              ? 'it waits for the rest'
              : this.outcome(p, verdict, 'the datagram is whole and walks on as one packet'),
        };
      case D.STAGE_CONNTRACK_IN:
        return this.conntrackIn(p, before, verdict);
      case D.STAGE_NAT_PREROUTING:
        return this.natPrerouting(p, before, verdict);
      case D.STAGE_ROUTE:
        return this.route(p, verdict);
      case D.STAGE_TTL:
        return { found: `TTL ${p.ttl}`, decided: this.outcome(p, verdict, `leaves with ${p.ttl - 1}`) };
      case D.STAGE_MTU:
        return this.mtu(p, verdict);
      case D.STAGE_FORWARD_FILTER:
        return this.filter(p, verdict, false);
      case D.STAGE_NAT_POSTROUTING:
        return this.natPostrouting(p, before, verdict);
      case D.STAGE_ALG:
        return this.alg(p, before, verdict);
      case D.STAGE_CONNTRACK_CONFIRM:
        return {
          decided: this.outcome(
            p,
            verdict,
            p.ct >= 0
              ? `the connection is entered: ${this.connection(p.ct)}`
              : 'nothing is entered: the packet belongs to another connection’s mapping',
          ),
        };
      case D.STAGE_NEIGHBOUR:
        return this.neighbour(p, verdict);
      case D.STAGE_OFFLOAD_PROGRAM:
        return this.offloadProgram(p);
      case D.STAGE_FRAGMENT:
        return {
          found: `${p.end - p.l3} bytes, MTU ${p.mtu}`,
          decided: this.outcome(p, verdict, verdict === D.FORWARDED ? 'cut into fragments' : 'fits as it is'),
        };
      case D.STAGE_TX:
        return {
          decided: this.outcome(p, verdict, `leaves by ${this.port(p.outPort)}, ${p.len} bytes`),
          where: this.where(this.config.ports[p.outPort]?.where),
        };
      case D.STAGE_INPUT:
        return this.filter(p, verdict, true);
      default:
        return { decided: this.outcome(p, verdict, 'passes') };
    }
  }

  private port(number: number): string {
    return (
      this.config.ports[number]?.name ??
      (number === this.tables.control[T.HOST_PORT] - 1 ? 'sluice0' : `port ${number}`)
    );
  }

  private zone(tableNumber: number): string {
    return this.config.zones.find((zone) => tableZone(zone.number) === tableNumber)?.name ?? 'none';
  }

  private zoneOf(port: number): number {
    return this.tables.interfaces.words[port * IF.IF_WORDS + IF.IF_ZONE];
  }

  private where(where: Where | null | undefined): string | undefined {
    return whereText(this.config, where);
  }

  private natWhere(rule: number): string | undefined {
    const { natRules } = this.tables;
    if (rule < 0) return undefined;
    return this.where(this.control.natPlaces[natRules.words[natRules.first() + rule * NR_WORDS + NR_WHERE]]);
  }

  /** Why a stage ended the walk, as far as the reason's own sentence says it. */
  private refused(p: Packet, verdict: number): string {
    const reason = verdict - D.DROP;
    const detail = reason === D.CT_INVALID_DROP ? detailText(p.detail) : '';
    return `drop ${D.reasonName(reason)}: ${detail === '' ? D.REASONS[reason]?.[1] : detail}`;
  }

  private outcome(p: Packet, verdict: number, otherwise: string): string {
    if (verdict >= D.DROP) return this.refused(p, verdict);
    if (verdict === D.HELD) return 'held';
    return otherwise;
  }

  private linkInput(p: Packet, before: Packet, verdict: number): Omit<Step, 'stage'> {
    const w = this.tables.interfaces.words;
    const r = p.port * IF.IF_WORDS;
    const u8 = this.path.frames.u8;
    const mac = (at: number): string =>
      Array.from(u8.subarray(at, at + 6), (b) => b.toString(16).padStart(2, '0')).join(':');
    const up = (w[r + IF.IF_FLAGS] & IF.IFF_UP) !== 0;
    const vlan = p.vlan !== 0 ? `, VLAN ${p.vlan}` : '';
    const own = formatMac(w[r + IF.IF_MAC_LO], w[r + IF.IF_MAC_HI]);
    const passes =
      verdict === D.DELIVERED
        ? 'ARP: to the control plane'
        : `enters by ${this.port(p.port)}, zone ${this.zone(this.zoneOf(p.port))}`;
    return {
      looked_up: `port ${this.port(before.port)}${vlan}, destination MAC ${p.len >= 6 ? mac(p.off) : 'cut off'}`,
      found: `the port is ${up ? 'up' : 'down'}, its MAC is ${own}${p.len >= 12 ? `; sender ${mac(p.off + 6)}` : ''}`,
      decided: this.outcome(p, verdict, passes),
      where: this.where(this.config.ports[p.port]?.where),
    };
  }

  private ipParse(p: Packet, verdict: number): Omit<Step, 'stage'> {
    const flags = p.proto === 6 && verdict === D.GO_ON ? `, ${tcp.text(this.path.frames.u8, p.l4)}` : '';
    const fragment = p.isFragment !== 0 ? `, a fragment at byte ${p.fragOffset}` : '';
    return {
      found: `IPv${p.family}, ${p.end - p.l3} bytes, TTL ${p.ttl}, ${this.received(p)}${flags}${fragment}`,
      decided: this.outcome(p, verdict, 'headers, lengths and checksums are right'),
    };
  }

  private sourceGuard(p: Packet, verdict: number): Omit<Step, 'stage'> {
    const { u8 } = this.path.frames;
    const lo = raw32(u8, p.off + 6);
    const hi = raw16(u8, p.off + 10);
    const source = formatAddress(p.family, p.s0, p.s1, p.s2, p.s3);
    const { securityGroup: group, where } = this.config.ports[p.port];
    if (group === null)
      return {
        looked_up: `the way back to ${source}`,
        decided: this.outcome(p, verdict, 'it is the way that the packet came'),
        where: this.where(where),
      };
    const own = (this.control.securityGroups?.ofPort(p.port) ?? [])
      .filter(({ family, mac }) => family === p.family && (mac === null || (mac.lo === lo && (mac.hi & 0xffff) === hi)))
      .map(({ family, words, prefixLength, mac }) => {
        const prefix = formatCidr(family, words, prefixLength);
        return mac === null ? `its EUI-64 address in ${prefix}` : prefix;
      });
    return {
      looked_up: `${source} among what the security group of ${this.port(p.port)} gives to ${formatMac(lo, hi)}`,
      found: own.length > 0 ? own.join(', ') : 'nothing',
      decided: this.outcome(p, verdict, 'it may send this'),
      where: this.where(group.where),
    };
  }

  private received(p: Packet): string {
    return tupleText(p.family, p.proto, [p.rs0, p.rs1, p.rs2, p.rs3], [p.rd0, p.rd1, p.rd2, p.rd3], p.rports);
  }

  private connection(index: number): string {
    const t = this.tables.conntrack;
    return conntrackLine(t.words, t.words6, t.doubles, index, this.tables.now(), {
      helperName: (helper) => helperOf(helper)?.name,
    });
  }

  private conntrackIn(p: Packet, before: Packet, verdict: number): Omit<Step, 'stage'> {
    const zone = this.tables.interfaces.words[p.port * IF.IF_WORDS + IF.IF_CT_ZONE];
    const known = p.ct >= 0 && p.fresh === 0;
    const info = CTINFO[p.ctinfo] ?? 'not tracked';
    const direction = p.dir === 0 ? 'ORIGINAL' : 'REPLY';
    const related = p.innerL3 !== 0 ? ', the connection of the packet that it quotes' : '';
    const step: Omit<Step, 'stage'> = {
      looked_up: `${tupleText(before.family, before.proto, [before.s0, before.s1, before.s2, before.s3], [before.d0, before.d1, before.d2, before.d3], before.ports)} in the connection table${zone === 0 ? '' : `, zone ${zone}`}`,
      found: known ? `${this.connection(p.ct)} (direction ${direction}${related})${this.window(p)}` : 'no connection',
      decided: this.outcome(p, verdict, p.detail !== 0 ? `${info}: ${detailText(p.detail)}` : info),
    };
    if (verdict >= D.DROP && (verdict - D.DROP === D.CT_FULL || p.ctinfo === 0))
      step.where = this.where(this.config.conntrack.where);
    return step;
  }

  /** What the tracker expects of a segment that it refuses. */
  private window(p: Packet): string {
    if (p.proto !== 6 || p.detail === 0 || p.innerL3 !== 0) return '';
    const w = this.tables.conntrack.words;
    const sender = p.ct * CT_WORDS + CT_TCP + 4 * p.dir;
    const receiver = p.ct * CT_WORDS + CT_TCP + 4 * (p.dir ^ 1);
    const { u8 } = this.path.frames;
    const lower = (w[sender + TCP_END] - w[receiver + TCP_MAXWIN]) >>> 0;
    return `; sequence number ${tcp.seq(u8, p.l4) >>> 0}, expected ${lower} to ${w[sender + TCP_MAXEND] >>> 0}, acknowledged so far ${w[receiver + TCP_MAXACK] >>> 0}`;
  }

  private natPrerouting(p: Packet, before: Packet, verdict: number): Omit<Step, 'stage'> {
    const { nat } = this.path;
    const pair = hasPortPair(p.proto);
    const end = (q: Packet): string =>
      endpoint(q.family, [q.d0, q.d1, q.d2, q.d3], pair ? hostPort(q.ports >>> 16) : -1);
    const changed = end(p) !== end(before);
    const { natRules } = this.tables;
    const kind = nat.rule >= 0 ? natRules.words[natRules.first() + nat.rule * NR_WORDS + NR_KIND] : 0;
    const kinds: Readonly<Record<number, string>> = {
      [NAT_DNAT]: 'a port forward',
      [NAT_DMZ]: 'the DMZ host',
      [NAT_TRIGGER]: 'a triggered port',
    };
    return {
      looked_up: p.fresh !== 0 ? `destination rules and mappings for ${end(before)}` : 'the connection’s tuples',
      found:
        kinds[kind] ??
        (changed ? (p.fresh !== 0 ? 'a mapping' : 'a translation') : 'no translation of the destination'),
      decided: this.outcome(p, verdict, changed ? `dnat ${end(before)} -> ${end(p)}` : 'the destination stays'),
      where: this.natWhere(nat.rule),
    };
  }

  private route(p: Packet, verdict: number): Omit<Step, 'stage'> {
    const { routes, nexthops } = this.tables;
    const words = [p.d0, p.d1, p.d2, p.d3] as const;
    const destination = formatAddress(p.family, ...words);
    const { policy } = this.tables;
    const rule = policy.count() === 0 || policy.rule < 0 ? undefined : this.config.routingRules[policy.rule];
    const table = rule === undefined || rule.table === 0 ? routes : this.tables.policyRoutes[rule.table - 1];
    const n = p.family === 4 ? table.lookup4(p.d0) : table.lookup6(...words);
    const { length } = table;
    const named = rule === undefined ? '' : `, table ${this.config.routeTables[rule.table - 1] ?? 'main'} by a rule`;
    const looked_up = `${destination} in the IPv${p.family} routes${named}`;
    if (n === 0)
      return {
        looked_up,
        found: 'no route',
        decided: this.outcome(p, verdict, p.outPort >= 0 ? `out by ${this.port(p.outPort)}` : 'for the router itself'),
      };
    // Of several, the one that the flow has taken.
    const isGroup = nexthops.kind(n) === NH.NH_GROUP;
    const at = nexthops.at(isGroup && p.nexthop !== 0 ? p.nexthop : nexthops.select(n, 0));
    const kind = nexthops.words[at + NH.NH_KIND_WORD];
    const port = nexthops.words[at + NH.NH_PORT_WORD];
    const via =
      kind === NH.NH_VIA ? ` via ${formatAddress(nexthops.words[at + NH.NH_FAMILY_WORD], p.n0, p.n1, p.n2, p.n3)}` : '';
    const dev = port >= 0 ? ` dev ${this.port(port)}` : '';
    const types: Readonly<Record<number, string>> = {
      [NH.NH_LOCAL]: 'an own address',
      [NH.NH_BROADCAST]: 'a broadcast address',
      [NH.NH_BLACKHOLE]: 'blackhole',
      [NH.NH_PROHIBIT]: 'prohibit',
      [NH.NH_UNREACHABLE]: 'unreachable',
    };
    const local = kind === NH.NH_LOCAL || kind === NH.NH_BROADCAST || verdict === D.DELIVERED;
    return {
      looked_up,
      found: `/${length}${via}${dev}${types[kind] === undefined ? '' : `, ${types[kind]}`}${kind === NH.NH_CONNECTED ? ', connected' : ''}`,
      decided: local
        ? 'for the router itself'
        : this.outcome(
            p,
            verdict,
            `out by ${this.port(p.outPort)}, next hop ${formatAddress(p.family, p.n0, p.n1, p.n2, p.n3)}`,
          ),
      where: this.where(rule?.where ?? this.routeWhere(p.family, words, length, port)),
    };
  }

  /** The line that a route comes from: a route of the configuration, else the port whose address made it. */
  private routeWhere(
    family: number,
    words: readonly [number, number, number, number],
    length: number,
    port: number,
  ): Where | undefined {
    const covers = (prefix: PrefixValue): boolean =>
      prefix.family === family && prefix.prefixLength === length && sameBits(words, prefix.words, length);
    return this.config.routes.find((route) => covers(route.to))?.where ?? this.config.ports[port]?.where;
  }

  private mtu(p: Packet, verdict: number): Omit<Step, 'stage'> {
    const length = p.gsoType === 0 ? p.end - p.l3 : p.gsoSize + p.l4 - p.l3;
    const cut = p.family === 4 && p.dontFragment === 0;
    const where = this.config.ports[p.outPort]?.where;
    const fits = length <= p.mtu ? 'fits' : 'too long, and may be cut later';
    return {
      found: `${length} bytes, MTU ${p.mtu} of ${this.port(p.outPort)}${cut ? '' : ', may not be fragmented'}`,
      decided: this.outcome(p, verdict, fits),
      ...(verdict >= D.DROP ? { where: this.where(where) } : {}),
    };
  }

  private filter(p: Packet, verdict: number, isInput: boolean): Omit<Step, 'stage'> {
    const { filter } = this.tables;
    const from = this.zoneOf(p.port);
    const zone = this.config.zones.find((one) => tableZone(one.number) === from);
    const to = isInput ? 'the router' : `zone ${this.zone(this.zoneOf(p.outPort))}`;
    const looked_up = `rules from zone ${this.zone(from)} to ${to}`;
    const accepted = isInput
      ? verdict === D.CONSUMED
        ? 'accepted: to the host kernel'
        : 'accepted: to a built-in protocol'
      : 'accepted';
    const decided = this.outcome(p, verdict, accepted);
    if (filter.rule === NOT_ASKED) {
      const known = p.ctinfo === CT_ESTABLISHED || p.ctinfo === CT_RELATED;
      const why = known ? `${CTINFO[p.ctinfo]} packets pass` : isInput ? 'no rule is asked' : 'NAT has admitted it';
      return { found: why, decided };
    }
    if (filter.rule >= 0)
      return {
        looked_up,
        found: `rule ${this.control.ruleLabels[filter.rule] ?? filter.rule}`,
        decided,
        where: this.where(this.control.rulePlaces[filter.rule]),
      };
    const verdicts = p.family === 4 ? zone?.ipv4 : zone?.ipv6;
    const own = isInput ? `input: ${verdicts?.input}` : `forward: ${verdicts?.forward}`;
    return {
      looked_up,
      found: `no rule; zone ${zone?.name ?? 'none'} says ${own}`,
      decided,
      where: this.where(zone?.where),
    };
  }

  private natPostrouting(p: Packet, before: Packet, verdict: number): Omit<Step, 'stage'> {
    const { nat } = this.path;
    const pair = hasPortPair(p.proto);
    const end = (q: Packet): string =>
      endpoint(q.family, [q.s0, q.s1, q.s2, q.s3], pair ? hostPort(q.ports & 0xffff) : -1);
    const changed = end(p) !== end(before) || (p.ports & 0xffff) !== (before.ports & 0xffff);
    const id =
      pair || !changed ? '' : ` (identifier ${hostPort(before.ports & 0xffff)} -> ${hostPort(p.ports & 0xffff)})`;
    const rule = this.natWhere(nat.rule);
    const searched = nat.probes > 1 ? `, ${nat.probes} ports tried` : '';
    return {
      looked_up:
        p.fresh !== 0 || verdict >= D.DROP
          ? `source rules for ${end(before)} out by ${this.port(p.outPort)}`
          : 'the connection’s tuples',
      found:
        nat.rule >= 0 ? `masquerade or snat${searched}` : changed ? 'a translation' : 'no translation of the source',
      decided: this.outcome(p, verdict, changed ? `snat ${end(before)} -> ${end(p)}${id}` : 'the source stays'),
      ...(rule === undefined ? {} : { where: rule }),
    };
  }

  private alg(p: Packet, before: Packet, verdict: number): Omit<Step, 'stage'> {
    // A drop has given the record of a first packet back; what it says is still there.
    const index = p.ct >= 0 ? p.ct : before.ct;
    const number = index >= 0 ? this.tables.conntrack.words[index * CT_WORDS + CT_HELPER] & 0xff : 0;
    const name = helperOf(number)?.name ?? 'none';
    const alg = Object.values(this.config.alg).find((one) => one.name === name);
    const change = p.end - p.l3 - (before.end - before.l3);
    const edited = change === 0 ? '' : `, ${change > 0 ? '+' : ''}${change} bytes`;
    return {
      looked_up: `helper ${name}`,
      found: `${this.tables.expectations.count} expectations${edited}`,
      decided: verdict === D.CONSUMED ? 'a super-frame: cut into segments first' : this.outcome(p, verdict, 'passes'),
      where: this.where(alg?.where),
    };
  }

  private neighbour(p: Packet, verdict: number): Omit<Step, 'stage'> {
    const { neighbours } = this.tables;
    const w = neighbours.words;
    const address = formatAddress(p.family, p.n0, p.n1, p.n2, p.n3);
    const at = neighbours.at(p.neighbour);
    const state = p.neighbour >= 0 ? (NUD[w[at]] ?? String(w[at])) : 'no entry';
    const mac =
      p.neighbour >= 0 && (w[at] & NEIGH.NUD_VALID) !== 0
        ? ` ${formatMac(w[at + NEIGH.NEIGH_MAC_LO], w[at + NEIGH.NEIGH_MAC_HI])}`
        : '';
    const configured = this.config.neighbors.find(
      (one) => one.port === p.outPort && sameBits([p.n0, p.n1, p.n2, p.n3], one.ip.words, p.family === 4 ? 32 : 128),
    );
    const asks = p.family === 4 ? 'ARP' : 'neighbour discovery';
    return {
      looked_up: `${address} on ${this.port(p.outPort)}`,
      found: `${state}${mac}`,
      decided:
        verdict === D.HELD
          ? `it waits while ${asks} asks for ${address}; without an answer: drop NEIGH_FAILED`
          : this.outcome(p, verdict, 'its MAC is known'),
      where: this.where(configured?.where),
    };
  }

  private offloadProgram(p: Packet): Omit<Step, 'stage'> {
    const { installed, why } = engineState(this.tables, p.ct);
    const where = this.where(this.config.offload.where);
    return {
      looked_up: 'the engine’s policy',
      decided: installed ? 'an entry is installed or kept' : `no entry: ${why}`,
      where,
    };
  }
}

/** Whether a connection is in the engine, and why not. */
export function engineState(tables: T.Tables, connection: number): { installed: boolean; why: string } {
  if (tables.flows === null) return { installed: false, why: 'the engine is off' };
  const w = tables.conntrack.words;
  const c = connection * CT_WORDS;
  if (connection < 0) return { installed: false, why: 'there is no connection' };
  const flows = w[c + CT_FLOWS];
  if ((flows & FLOWS_INSTALLED) !== 0) {
    const both = (flows & 3) === 3;
    return { installed: true, why: both ? 'entries for both directions' : 'an entry for one direction' };
  }
  if ((flows & FLOWS_PENDING) !== 0) return { installed: false, why: 'its entry is being programmed' };
  const why = w[c + CT_PORTS_IO] >>> 24;
  // The engine is only asked about packets of connections that were answered.
  if (why === 0 && (w[c + CT_STATUS] & IPS_SEEN_REPLY) !== 0)
    return { installed: false, why: 'not considered yet: its next packet asks' };
  return { installed: false, why: NOT_OFFLOADED[why === 0 ? WHY_NO_REPLY : why] ?? '' };
}

/** True when the first `length` bits of two raw addresses are equal. */
function sameBits(a: ArrayLike<number>, b: ArrayLike<number>, length: number): boolean {
  for (let bit = 0; bit < length; bit += 8) {
    const x = (a[bit >> 5] >>> (bit & 31)) & 0xff;
    const y = (b[bit >> 5] >>> (bit & 31)) & 0xff;
    const mask = length - bit >= 8 ? 0xff : (0xff << (8 - (length - bit))) & 0xff;
    if (((x ^ y) & mask) !== 0) return false;
  }
  return true;
}
