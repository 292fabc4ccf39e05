/** Timeouts: the kernel's names and defaults, overrides in seconds, and errors for people. */
import { describe, expect, it } from 'vitest';
import {
  CFG_SCTP,
  CFG_TCP,
  CFG_TCP_LIBERAL,
  CFG_TCP_UNACK,
  CFG_UDP,
  CFG_UDP_STREAM,
  CFG_WORDS,
  createTimeouts,
  fillTimeouts,
  TIMEOUT_NAMES,
  timeoutsOf,
} from '../../conntrack/timeouts.ts';

/** `sysctl net.netfilter` of Linux 6.18 in a fresh namespace, the part that is about protocols. */
const LINUX = `generic_timeout 600
gre_timeout 30
gre_timeout_stream 180
icmp_timeout 30
icmpv6_timeout 30
sctp_timeout_closed 10
sctp_timeout_cookie_echoed 3
sctp_timeout_cookie_wait 3
sctp_timeout_established 210
sctp_timeout_heartbeat_sent 30
sctp_timeout_shutdown_ack_sent 3
sctp_timeout_shutdown_recd 3
sctp_timeout_shutdown_sent 3
tcp_be_liberal 0
tcp_ignore_invalid_rst 0
tcp_loose 1
tcp_max_retrans 3
tcp_timeout_close 10
tcp_timeout_close_wait 60
tcp_timeout_established 432000
tcp_timeout_fin_wait 120
tcp_timeout_last_ack 30
tcp_timeout_max_retrans 300
tcp_timeout_syn_recv 60
tcp_timeout_syn_sent 120
tcp_timeout_time_wait 120
tcp_timeout_unacknowledged 300
udp_timeout 30
udp_timeout_stream 120`;

describe('defaults', () => {
  it('are Linux’s, under Linux’s names', () => {
    const linux = Object.fromEntries(LINUX.split('\n').map((line) => line.split(' ')));
    const ours = timeoutsOf(createTimeouts());
    for (const [name, value] of Object.entries(linux)) expect(ours[name], name).toBe(Number(value));
    expect(TIMEOUT_NAMES.filter((name) => !(name in linux))).toEqual(['tcp_timeout_syn_sent2']);
  });

  it('give every TCP and SCTP state a time', () => {
    const cfg = createTimeouts();
    for (let state = 0; state < 10; state++) expect(cfg[CFG_TCP + state], `TCP ${state}`).toBeGreaterThan(0);
    for (let state = 0; state < 9; state++) expect(cfg[CFG_SCTP + state], `SCTP ${state}`).toBeGreaterThan(0);
  });
});

describe('overrides', () => {
  it('are seconds, milliseconds inside; the sysctl’s full name is fine', () => {
    const cfg = createTimeouts({ udp_timeout: 7, nf_conntrack_tcp_timeout_established: 7440, tcp_be_liberal: true });
    expect([cfg[CFG_UDP], cfg[CFG_TCP + 3], cfg[CFG_TCP_LIBERAL]]).toEqual([7000, 7_440_000, 1]);
    expect([cfg[CFG_UDP_STREAM], cfg[CFG_TCP_UNACK]]).toEqual([120_000, 300_000]);
  });

  it('go round: what timeoutsOf says makes the same array', () => {
    const cfg = createTimeouts({ icmp_timeout: 3, tcp_max_retrans: 9, sctp_timeout_closed: 99 });
    expect(createTimeouts(timeoutsOf(cfg))).toEqual(cfg);
  });

  it('work in shared memory', () => {
    const cfg = new Int32Array(new SharedArrayBuffer(CFG_WORDS * 4));
    expect(fillTimeouts(cfg, { generic_timeout: 60 })).toEqual([]);
    expect(timeoutsOf(cfg).generic_timeout).toBe(60);
  });

  it.each([
    ['udp_timeouts', 30, 'expected one of the names of nf_conntrack\'s sysctl, got "udp_timeouts"'],
    ['toString', 30, 'expected one of the names'],
    ['udp_timeout', -1, 'expected a whole number from 0 to 2000000 seconds, got "-1"'],
    ['udp_timeout', 1.5, 'got "1.5"'],
    ['udp_timeout', 3e9, 'got "3000000000"'],
    ['tcp_loose', 2, 'expected a whole number from 0 to 1, got "2"'],
  ])('%s: %d is refused with a sentence, and the default stays', (name, value, sentence) => {
    const cfg = new Int32Array(CFG_WORDS);
    const problems = fillTimeouts(cfg, { [name]: value });
    expect(problems).toHaveLength(1);
    expect(problems[0]).toContain(`conntrack.timeouts.${name}: `);
    expect(problems[0]).toContain(sentence);
    expect(cfg).toEqual(createTimeouts());
    expect(() => createTimeouts({ [name]: value })).toThrow(sentence);
  });
});
