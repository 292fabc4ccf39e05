/**
 * Numbers of DHCPv6: ports and groups, message types, option and status codes, timers.
 *
 * RFC 8415 §7 and RFC 9915 §7 have them all; options of other RFCs name theirs. RFC 9915 drops IA_TA and the server
 * unicast option, and nothing here sends either.
 */
import { parseIpv6, type Words } from '../../dataplane/wire/address.ts';

export const CLIENT_PORT = 546;
export const SERVER_PORT = 547;
/** ff02::1:2 and ff05::1:3 (§7.1). */
export const ALL_RELAYS_AND_SERVERS: Words = parseIpv6('ff02::1:2') as Words;
export const ALL_SERVERS: Words = parseIpv6('ff05::1:3') as Words;
export const UNSPECIFIED: Words = [0, 0, 0, 0];

// Message types (§7.3).
export const SOLICIT = 1;
export const ADVERTISE = 2;
export const REQUEST = 3;
export const CONFIRM = 4;
export const RENEW = 5;
export const REBIND = 6;
export const REPLY = 7;
export const RELEASE = 8;
export const DECLINE = 9;
export const RECONFIGURE = 10;
export const INFORMATION_REQUEST = 11;
export const RELAY_FORW = 12;
export const RELAY_REPL = 13;

export const MESSAGE_NAMES: readonly string[] = [
  '',
  'SOLICIT',
  'ADVERTISE',
  'REQUEST',
  'CONFIRM',
  'RENEW',
  'REBIND',
  'REPLY',
  'RELEASE',
  'DECLINE',
  'RECONFIGURE',
  'INFORMATION-REQUEST',
  'RELAY-FORW',
  'RELAY-REPL',
];

// Option codes (§21 unless said otherwise).
export const OPT_CLIENTID = 1;
export const OPT_SERVERID = 2;
export const OPT_IA_NA = 3;
export const OPT_IA_TA = 4;
export const OPT_IAADDR = 5;
export const OPT_ORO = 6;
export const OPT_PREFERENCE = 7;
export const OPT_ELAPSED_TIME = 8;
export const OPT_RELAY_MSG = 9;
export const OPT_AUTH = 11;
export const OPT_STATUS_CODE = 13;
export const OPT_RAPID_COMMIT = 14;
export const OPT_INTERFACE_ID = 18;
export const OPT_RECONF_MSG = 19;
export const OPT_RECONF_ACCEPT = 20;
/** RFC 3646. */
export const OPT_DNS_SERVERS = 23;
export const OPT_DOMAIN_LIST = 24;
export const OPT_IA_PD = 25;
export const OPT_IAPREFIX = 26;
export const OPT_INFORMATION_REFRESH_TIME = 32;
/** RFC 4649. */
export const OPT_REMOTE_ID = 37;
/** RFC 4580. */
export const OPT_SUBSCRIBER_ID = 38;
/** RFC 4994: which options the server shall send back to the relay. */
export const OPT_ERO = 43;
/** RFC 6939. */
export const OPT_CLIENT_LINKLAYER_ADDR = 79;
export const OPT_SOL_MAX_RT = 82;
export const OPT_INF_MAX_RT = 83;

// Status codes (§21.13).
export const SUCCESS = 0;
export const UNSPEC_FAIL = 1;
export const NO_ADDRS_AVAIL = 2;
export const NO_BINDING = 3;
export const NOT_ON_LINK = 4;
export const NO_PREFIX_AVAIL = 6;

/** A lifetime, T1 or T2 that never ends (§7.7). */
export const INFINITY = 0xffffffff;
/** Times that a Relay-forward may have been relayed (§7.6 HOP_COUNT_LIMIT). */
export const HOP_COUNT_LIMIT = 8;

/** How a message is sent again (§15): first timeout, its bound, number of times, and duration; milliseconds, 0: no bound. */
export interface Timing {
  irt: number;
  mrt: number;
  mrc: number;
  mrd: number;
}

// §7.6.
export const SOL_MAX_DELAY = 1000;
export const CNF_MAX_DELAY = 1000;
export const INF_MAX_DELAY = 1000;
export const SOLICIT_TIMING: Timing = { irt: 1000, mrt: 3_600_000, mrc: 0, mrd: 0 };
export const REQUEST_TIMING: Timing = { irt: 1000, mrt: 30_000, mrc: 10, mrd: 0 };
export const CONFIRM_TIMING: Timing = { irt: 1000, mrt: 4000, mrc: 0, mrd: 10_000 };
export const RENEW_TIMING: Timing = { irt: 10_000, mrt: 600_000, mrc: 0, mrd: 0 };
export const REBIND_TIMING: Timing = { irt: 10_000, mrt: 600_000, mrc: 0, mrd: 0 };
export const INFORMATION_TIMING: Timing = { irt: 1000, mrt: 3_600_000, mrc: 0, mrd: 0 };
export const RELEASE_TIMING: Timing = { irt: 1000, mrt: 0, mrc: 4, mrd: 0 };
export const DECLINE_TIMING: Timing = { irt: 1000, mrt: 0, mrc: 4, mrd: 0 };
/** Seconds: default and least time between Information-requests (§7.6 IRT_DEFAULT, IRT_MINIMUM). */
export const IRT_DEFAULT = 86_400;
export const IRT_MINIMUM = 600;
/** Seconds: what SOL_MAX_RT and INF_MAX_RT options may say (§21.24, §21.25). */
export const MAX_RT_LOW = 60;
export const MAX_RT_HIGH = 86_400;
