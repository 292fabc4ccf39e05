/**
 * Timeouts and options of the protocol trackers: one Int32Array that every worker reads.
 *
 * Times are milliseconds. Names are those of the kernel's sysctl (net.netfilter.nf_conntrack_*, without that prefix)
 * and defaults are the kernel's; people give seconds, as there. TCP's and SCTP's times are indexed by state, so a
 * tracker reads `cfg[CFG_TCP + state]`.
 *
 * The array may lie in shared memory: a change takes effect with the next packet of a connection, never before.
 */

/** TCP: + state (record.ts TCP_*), ten words; NONE has no time of its own and reads as SYN_SENT. */
export const CFG_TCP = 0;
/** Applies after `tcp_max_retrans` equal ACKs, and while a receiver's window is closed. */
export const CFG_TCP_RETRANS = 10;
/** Applies while data waits for its ACK, and to a connection picked up in the middle. */
export const CFG_TCP_UNACK = 11;
export const CFG_UDP = 12;
export const CFG_UDP_STREAM = 13;
export const CFG_ICMP = 14;
export const CFG_ICMPV6 = 15;
export const CFG_GENERIC = 16;
export const CFG_GRE = 17;
export const CFG_GRE_STREAM = 18;
/** SCTP: + state (sctp.ts), nine words. */
export const CFG_SCTP = 19;
/** 1: a connection may be picked up in the middle (the kernel's default). */
export const CFG_TCP_LOOSE = 28;
/** 1: only a RST outside the window is INVALID, other segments outside it pass. */
export const CFG_TCP_LIBERAL = 29;
/** Equal ACKs after which CFG_TCP_RETRANS applies. */
export const CFG_TCP_MAX_RETRANS = 30;
/** 1: a RST below the highest ACK is not INVALID either. */
export const CFG_TCP_IGNORE_INVALID_RST = 31;
export const CFG_WORDS = 32;

interface Setting {
  /** First word, and how many words get the value. */
  word: number;
  /** The kernel's default, seconds for a time, a plain number otherwise. */
  value: number;
  /** True: seconds outside, milliseconds in the array. */
  time: boolean;
  /** Largest value accepted. */
  max: number;
}

/** 2^31 ms is 24.8 days; deadlines are compared by difference, so a time must stay well below that. */
const MAX_SECONDS = 2_000_000;

const time = (word: number, value: number): Setting => ({ word, value, time: true, max: MAX_SECONDS });
const option = (word: number, value: number, max = 1): Setting => ({ word, value, time: false, max });

/** Every setting, by the kernel's name. */
const SETTINGS: Readonly<Record<string, Setting>> = {
  tcp_timeout_syn_sent: time(CFG_TCP + 1, 120),
  tcp_timeout_syn_recv: time(CFG_TCP + 2, 60),
  tcp_timeout_established: time(CFG_TCP + 3, 432_000), // five days
  tcp_timeout_fin_wait: time(CFG_TCP + 4, 120),
  tcp_timeout_close_wait: time(CFG_TCP + 5, 60),
  tcp_timeout_last_ack: time(CFG_TCP + 6, 30),
  tcp_timeout_time_wait: time(CFG_TCP + 7, 120), // 2 MSL, RFC 9293 §3.4.2
  tcp_timeout_close: time(CFG_TCP + 8, 10),
  tcp_timeout_syn_sent2: time(CFG_TCP + 9, 120), // the kernel has this time too, but no sysctl for it
  tcp_timeout_max_retrans: time(CFG_TCP_RETRANS, 300),
  tcp_timeout_unacknowledged: time(CFG_TCP_UNACK, 300),
  udp_timeout: time(CFG_UDP, 30),
  udp_timeout_stream: time(CFG_UDP_STREAM, 120),
  icmp_timeout: time(CFG_ICMP, 30),
  icmpv6_timeout: time(CFG_ICMPV6, 30),
  generic_timeout: time(CFG_GENERIC, 600),
  gre_timeout: time(CFG_GRE, 30),
  gre_timeout_stream: time(CFG_GRE_STREAM, 180),
  sctp_timeout_closed: time(CFG_SCTP + 1, 10),
  sctp_timeout_cookie_wait: time(CFG_SCTP + 2, 3),
  sctp_timeout_cookie_echoed: time(CFG_SCTP + 3, 3),
  sctp_timeout_established: time(CFG_SCTP + 4, 210),
  sctp_timeout_shutdown_sent: time(CFG_SCTP + 5, 3),
  sctp_timeout_shutdown_recd: time(CFG_SCTP + 6, 3),
  sctp_timeout_shutdown_ack_sent: time(CFG_SCTP + 7, 3),
  sctp_timeout_heartbeat_sent: time(CFG_SCTP + 8, 30),
  tcp_loose: option(CFG_TCP_LOOSE, 1),
  tcp_be_liberal: option(CFG_TCP_LIBERAL, 0),
  tcp_max_retrans: option(CFG_TCP_MAX_RETRANS, 3, 255),
  tcp_ignore_invalid_rst: option(CFG_TCP_IGNORE_INVALID_RST, 0),
};

/** All names that `fillTimeouts` takes, in the order above. */
export const TIMEOUT_NAMES: readonly string[] = Object.keys(SETTINGS);

/**
 * Fills `cfg` (CFG_WORDS words) with the kernel's defaults and then with `overrides`: a map from the kernel's names to
 * seconds (times) or numbers (options; booleans are taken as 0 and 1). The prefix `nf_conntrack_` may be written.
 * Returns one sentence for every override that is not right; those are left at their default.
 */
export function fillTimeouts(cfg: Int32Array, overrides: Readonly<Record<string, number | boolean>> = {}): string[] {
  const problems: string[] = [];
  for (const name of TIMEOUT_NAMES) write(cfg, SETTINGS[name], SETTINGS[name].value);
  for (const [key, given] of Object.entries(overrides)) {
    const name = key.replace(/^nf_conntrack_/, '');
    const setting = Object.hasOwn(SETTINGS, name) ? SETTINGS[name] : undefined;
    if (!setting) {
      problems.push(`conntrack.timeouts.${key}: expected one of the names of nf_conntrack's sysctl, got "${key}"`);
      continue;
    }
    const value = Number(given);
    if (!Number.isInteger(value) || value < 0 || value > setting.max) {
      const unit = setting.time ? ' seconds' : '';
      problems.push(
        `conntrack.timeouts.${key}: expected a whole number from 0 to ${setting.max}${unit}, got "${given}"`,
      );
      continue;
    }
    write(cfg, setting, value);
  }
  cfg[CFG_TCP] = cfg[CFG_TCP + 1];
  cfg[CFG_SCTP] = cfg[CFG_SCTP + 1];
  return problems;
}

/** A new array with the defaults and `overrides`; throws with all problems in one message. */
export function createTimeouts(overrides: Readonly<Record<string, number | boolean>> = {}): Int32Array {
  const cfg = new Int32Array(CFG_WORDS);
  const problems = fillTimeouts(cfg, overrides);
  if (problems.length > 0) throw new Error(problems.join('\n'));
  return cfg;
}

/** The values in `cfg` by name, in seconds or numbers: what `fillTimeouts` would take to make it. */
export function timeoutsOf(cfg: Int32Array): Record<string, number> {
  const out: Record<string, number> = {};
  for (const name of TIMEOUT_NAMES) {
    const setting = SETTINGS[name];
    out[name] = setting.time ? cfg[setting.word] / 1000 : cfg[setting.word];
  }
  return out;
}

function write(cfg: Int32Array, setting: Setting, value: number): void {
  cfg[setting.word] = setting.time ? value * 1000 : value;
}
