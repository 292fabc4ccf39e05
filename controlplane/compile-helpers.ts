/**
 * From the configuration's `alg` to the table of helpers: which destination ports each follows, and its options.
 *
 * The table (Tables.helperPorts) has a helper's number for every port of UDP, then of TCP, 0 for none, and behind them the
 * options of each helper (dataplane/mangle.ts). H.323's registration channel (RAS) is a helper of its own, with H.323's options.
 */
import { HELPER_RAS, helperOf } from '../conntrack/helpers/index.ts';
import { ALG_BOUNCE, ALG_ENABLED, ALG_LOOSE, ALG_OPTIONS } from '../dataplane/mangle.ts';
import type { Tables } from '../dataplane/tables.ts';
import type { Config } from './config/index.ts';

/** Numbers of the helpers (conntrack/helpers/index.ts) by their names in the configuration. */
export const HELPER_NUMBERS = { ftp: 1, tftp: 2, irc: 3, rtsp: 4, sip: 5, pptp: 6, h323: 7, dns: 10 } as const;

/** Which destination ports a helper follows, and its options: of a configuration, and of no other before. */
export function fillHelpers(table: Tables['helperPorts'], config: Config): void {
  table.fill(0);
  for (const alg of Object.values(config.alg)) {
    const number = HELPER_NUMBERS[alg.name];
    const helper = helperOf(number);
    if (!alg.enabled || helper === null) continue;
    table[ALG_OPTIONS + number] = ALG_ENABLED | (alg.loose ? ALG_LOOSE : 0) | (alg.bounce ? ALG_BOUNCE : 0);
    const numbers = alg.name === 'h323' ? [HELPER_NUMBERS.h323, HELPER_RAS] : [number];
    for (const one of numbers) {
      const watched = helperOf(one);
      if (watched === null) continue;
      table[ALG_OPTIONS + one] = table[ALG_OPTIONS + number];
      const ports = one === number && alg.ports.length > 0 ? alg.ports : watched.ports;
      for (const proto of watched.protocols) for (const port of ports) table[(proto === 17 ? 0 : 65536) + port] = one;
    }
  }
}
