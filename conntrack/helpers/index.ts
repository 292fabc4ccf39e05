/**
 * Index: the registry of helpers. A connection's record holds a helper's number, configuration and listings its name; both
 * are fixed: numbers are kept in shared memory, names are netfilter's.
 *
 * A number is taken by one line in `helpers`, at its place. Not here: which connection gets which helper.
 */
import { DNS, dns } from './dns.ts';
import { FTP, ftp } from './ftp.ts';
import { h245 } from './h323-h245.ts';
import { q931 } from './h323-q931.ts';
import { ras } from './h323-ras.ts';
import type { Helper } from './helper.ts';
import { IRC, irc } from './irc.ts';
import { pptp } from './pptp.ts';
import { RTSP, rtsp } from './rtsp.ts';
import { SIP, sip } from './sip.ts';
import { TFTP, tftp } from './tftp.ts';

export const HELPER_NONE = 0;
export const HELPER_FTP = FTP;
export const HELPER_TFTP = TFTP;
export const HELPER_IRC = IRC;
export const HELPER_RTSP = RTSP;
export const HELPER_SIP = SIP;
export const HELPER_PPTP = 6;
export const HELPER_Q931 = 7;
export const HELPER_H245 = 8;
export const HELPER_RAS = 9;
export const HELPER_DNS = DNS;

/** By number; null: none (yet) of that number. */
export const helpers: readonly (Helper | null)[] = [
  null, // 0: a connection without a helper
  ftp,
  tftp,
  irc,
  rtsp,
  sip,
  pptp,
  q931,
  h245,
  ras,
  dns,
];

/** The helper of a number from a connection's record; null for 0 and for what is not registered. */
export function helperOf(number: number): Helper | null {
  return number > 0 && number < helpers.length ? helpers[number] : null;
}

/** The helper of netfilter's name (`ftp`, `Q.931`), in any case; null when there is none. For configuration, not for packets. */
export function helperNamed(name: string): Helper | null {
  const wanted = name.toLowerCase();
  return helpers.find((helper) => helper?.name.toLowerCase() === wanted) ?? null;
}
