/**
 * `show drops`, `show stages` and `show workers`: what the counters say.
 *
 * PACKETS and NS of `stages` are those of the last time that the stages were timed (`sluice show stages --sample SECONDS`):
 * packets that a stage had to do with, and nanoseconds of one in sixteen of them, other stages that it began included.
 *
 * Drops are counted by reason, not by stage: `stages` files each reason under the stage of the packet's path that is the
 * usual one to give it (a few, as TX_LINK_DOWN, are given at two).
 *
 * The first line of `stages` adds up (tables.ts): what ports have received, and the frames that no port received (those of
 * the router itself and of its host), went one of six ways. So there may be more drops than frames received.
 */
import { REASONS, STAGES } from '../../dataplane/drop.ts';
import * as T from '../../dataplane/tables.ts';
import { readCounters } from './counters.ts';
import { knownFilters, type Shown, type ShowSource } from './source.ts';

/** Reasons by stage; those that are not named here belong to the stage before them in the list of drop.ts. */
const FIRST_OF_STAGE: Readonly<Record<string, string>> = {
  NOT_SPECIFIED: 'rx',
  PKT_TOO_SMALL: 'link-input',
  IP_INHDR: 'ip-parse',
  IP_INVALID_SOURCE: 'ip-sanity',
  IPV6_CHAIN: 'ip-parse',
  FRAG_NAT: 'reassembly',
  CT_INVALID: 'conntrack-in',
  CT_CLASH: 'conntrack-confirm',
  NAT_EXHAUSTED: 'nat-postrouting',
  IP_OUTNOROUTES: 'route',
  IP_TTL: 'ttl',
  PKT_TOO_BIG: 'mtu',
  FILTER_DROP: 'forward-filter',
  INPUT_DROP: 'input',
  NEIGH_FAILED: 'neighbour',
  NO_BUFFER: 'rx',
  TX_LINK_DOWN: 'tx',
  PUNT_QUEUEFULL: 'input',
  ALG_DROP: 'alg',
  GSO_MALFORMED: 'ip-parse',
  HAIRPIN_LOOP: 'route',
  ENGINE_STALE: 'offload-lookup',
  IPV6_DISABLED: 'link-input',
  SECURITY_GROUP: 'ip-sanity',
  LINK_LOCAL_PROTO: 'ip-sanity',
  FRAG_DUP: 'reassembly',
};

/** The stage that usually gives a reason. */
export function stageOf(reason: string): string {
  let stage = 'rx';
  for (const [name] of REASONS) {
    stage = FIRST_OF_STAGE[name] ?? stage;
    if (name === reason) break;
  }
  return stage;
}

export function showDrops(source: ShowSource, filters: Readonly<Record<string, string>>): Shown {
  knownFilters(filters, []);
  const json = REASONS.map(([reason, description], number) => ({
    reason,
    count: source.tables.total(T.C_DROPS + number),
    stage: stageOf(reason),
    description,
  }))
    .filter(({ count }) => count > 0)
    .sort((a, b) => b.count - a.count);
  const rows = json.map(({ reason, count, stage, description }) => [reason, String(count), stage, description]);
  return { text: table(['REASON', 'COUNT', 'STAGE', 'MEANING'], rows, [1]), json };
}

export function showStages(source: ShowSource, filters: Readonly<Record<string, string>>): Shown {
  knownFilters(filters, []);
  const { received, forwarded, delivered, generated, held, dropped } = readCounters(source.tables, source.config);
  const made = source.tables.total(T.C_MADE);
  const consumed = source.tables.total(T.C_CONSUMED);
  const times = source.watch?.stageTimes();
  const stages = STAGES.map((stage, number) => {
    const own = Object.entries(dropped).filter(([reason]) => stageOf(reason) === stage);
    const { packets = 0, timed = 0, nanoseconds = 0 } = times?.[number] ?? {};
    return {
      stage,
      dropped: own.reduce((sum, [, count]) => sum + count, 0),
      reasons: Object.fromEntries(own),
      // Of the last time that the stages were timed.
      ...(packets > 0 ? { packets } : {}),
      ...(timed > 0 ? { nanoseconds: Math.round(nanoseconds / timed) } : {}),
    };
  });
  const rows = stages.map(({ stage, dropped: count, reasons, packets, nanoseconds }) => [
    stage,
    String(packets ?? '-'),
    String(nanoseconds ?? '-'),
    String(count),
    Object.entries(reasons)
      .map(([reason, n]) => `${reason} ${n}`)
      .join(', '),
  ]);
  const all = stages.reduce((sum, { dropped: count }) => sum + count, 0);
  const totals = { received, made, forwarded, delivered, generated, held, consumed, dropped: all };
  return {
    text: [
      `received ${received} + made ${made} = forwarded ${forwarded} + delivered ${delivered} + generated ${generated} + ` +
        `held ${held} + consumed ${consumed} + dropped ${all}`,
      'made: by the router itself, by its host (sluice0), or out of another frame; consumed: others went on in its place',
      table(['STAGE', 'PACKETS', 'NS', 'DROPPED', 'REASONS'], rows, [1, 2, 3]),
      ...(stages.some(({ packets }) => packets !== undefined) ? [] : ['PACKETS and NS: show stages --sample 1']),
    ].join('\n'),
    json: { ...totals, stages },
  };
}

export function showWorkers(source: ShowSource, filters: Readonly<Record<string, string>>): Shown {
  knownFilters(filters, []);
  const workers = source.live?.workers() ?? [];
  const rows = workers.map((w) =>
    [
      w.worker,
      w.state,
      w.received,
      w.bursts,
      w.circles,
      w.sleeps,
      w.timeouts,
      w.restarts,
      w.punt_lost,
      w.inject_lost,
    ].map(String),
  );
  const head = [
    'WORKER',
    'STATE',
    'RECEIVED',
    'BURSTS',
    'CIRCLES',
    'SLEEPS',
    'TIMEOUTS',
    'RESTARTS',
    'PUNT-LOST',
    'INJECT-LOST',
  ];
  return { text: table(head, rows, [0, 2, 3, 4, 5, 6, 7, 8, 9]), json: workers };
}

/** Columns wide enough for what is in them; those in `right` are numbers. */
function table(head: readonly string[], rows: readonly (readonly string[])[], right: readonly number[]): string {
  const widths = head.map((title, n) => Math.max(title.length, ...rows.map((row) => row[n].length)));
  return [head, ...rows]
    .map((row) =>
      row
        .map((cell, n) => (right.includes(n) ? cell.padStart(widths[n]) : cell.padEnd(widths[n])))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}
