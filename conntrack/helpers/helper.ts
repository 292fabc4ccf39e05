/**
 * Helper: the shape of an application layer gateway's watching half.
 *
 * A helper is pure: it reads one payload and reports findings; it changes nothing but its own eight words of state. A
 * finding says where in the payload an endpoint is announced, and what traffic it will bring (an expectation). What a
 * finding leads to is decided elsewhere: the expectation table opens (expect.ts), NAT chooses the address and port that
 * the other side shall see, and the mangler writes the replacement text, which it asks of the helper's `write`
 * (dataplane/mangle.ts). IPv6 and untranslated IPv4 need the first step only.
 *
 * A helper never throws and never allocates per packet; a payload that it does not understand yields no findings and
 * NOT_UNDERSTOOD at worst, and the packet goes on unchanged (unless the RFC demands a drop: DEMANDS_DROP).
 */

/** Results of `inspect`. */
export const UNDERSTOOD = 0;
export const NOT_UNDERSTOOD = 1;
export const DEMANDS_DROP = 2;

/** Kinds of findings. */
/** An endpoint is announced to which the peer will connect or send: open it, and rewrite it when it is translated. */
export const FIND_EXPECT = 1;
/** An endpoint is named that belongs to this connection's own side: rewrite it as this connection is translated. */
export const FIND_REWRITE = 2;
/** A length field in the text (SIP Content-Length) that must follow what other findings of the payload change. */
export const FIND_LENGTH = 3;
/** What an earlier finding opened is over (RTSP TEARDOWN, SIP BYE, PPTP call-clear): expectations of `class` go. */
export const FIND_CLOSE = 4;
/**
 * What an earlier finding opened is confirmed by the other end (SIP: 200 to REGISTER): expectations of `class` live
 * `timeout` seconds from now. Nothing is rewritten; who does not know this kind may pass it over.
 */
export const FIND_REFRESH = 5;
/** The connection has done what it was for and ends with this packet (DNS: the last answer). */
export const FIND_DONE = 6;

/** Who may use an expectation. */
export const FROM_PEER = 0; // the other end's address of the control connection, any port
export const FROM_ANY = 1;
export const FROM_PEER_PORT = 2; // the peer's address and `peerPort`

export const STATE_WORDS = 8;
export const MAX_FINDINGS = 32;

/** One finding; objects are made once and reused, `Findings.next` hands out the next one, reset. */
export interface Finding {
  kind: number;
  /** Bytes of the payload that stand for the endpoint, absolute offsets in the frame; `to` = `from`: nothing to rewrite. */
  from: number;
  to: number;
  /** Which spelling `write` shall use (the helper's own numbers). */
  format: number;
  /** Announced endpoint: family, raw address words (IPv4: word 0), port in host order (or PPTP call ID), protocol. */
  family: number;
  address: Int32Array;
  port: number;
  proto: number;
  /** Consecutive ports that belong together (RTP and RTCP: 2, and the first is even: `even` 1). */
  count: number;
  even: number;
  /** FROM_*; and the peer's port for FROM_PEER_PORT. */
  who: number;
  peerPort: number;
  /** A peer address that the payload itself names, raw; `peerGiven` 1 when it does (FTP with bounce allowed, SIP). */
  peer: Int32Array;
  peerGiven: number;
  /** Expectation class (limits are per class), seconds to live, 1 when it stays after its first use. */
  class: number;
  timeout: number;
  permanent: number;
  /** 1: nobody may come before the other end has confirmed it (FIND_REFRESH). */
  pending: number;
  /** Helper number of the expected connection itself (SIP: signalling from elsewhere); 0 none. */
  helper: number;
  /**
   * 1: the two numbers of FIND_REWRITE name the *other* side (text that the other end put there, seen coming back): it is
   * rewritten to what the receiver knows.
   */
  reverse: number;
  /**
   * The port (PPTP: call ID) that stands for `port` at the other side when that is settled already; −1: NAT chooses.
   * `peerTranslatedPort`: the same for `peerPort`.
   */
  translatedPort: number;
  peerTranslatedPort: number;
  /** FIND_LENGTH: the bytes that the number counts, absolute; replacements inside change it, others do not. */
  bodyFrom: number;
  bodyTo: number;
}

/** What `inspect` sees and fills; one object per worker. */
export interface HelperContext {
  /** Frame memory and the payload's bytes [from, to) in it. */
  u8: Uint8Array;
  from: number;
  to: number;
  /** Direction of the packet (0 ORIGINAL: from the client that opened the control connection), family, protocol. */
  dir: number;
  family: number;
  proto: number;
  /** The packet's addresses before any translation of this packet, raw, and ports in host order. */
  src: Int32Array;
  dst: Int32Array;
  sport: number;
  dport: number;
  /**
   * The two ends as the sender of this packet knows them are src and dst; as its receiver will know the sender: */
  srcTranslated: Int32Array;
  sportTranslated: number;
  /** True when either address or port of this connection is translated. */
  nat: boolean;
  /** TCP: sequence number of the payload's first byte (host order int32). 0 otherwise. */
  seq: number;
  /** TCP: this is the segment that was edited last, sent again: it begins as it did then. */
  again: boolean;
  /** The helper's own words for this connection: STATE_WORDS from `stateAt`, all zero at first, shared by both directions. */
  state: Int32Array;
  stateAt: number;
  /** Options from the configuration. */
  loose: boolean;
  bounce: boolean;
  /** Findings of this payload, in the order of their place in it. */
  count: number;
  readonly findings: readonly Finding[];
}

export interface Helper {
  /** netfilter's name: ftp, tftp, sip, rtsp, pptp, irc, H.245, Q.931, RAS. */
  readonly name: string;
  /** Number in the registry (helpers/index.ts), 1 … 255. */
  readonly number: number;
  /** Default destination ports of the control connection, and its protocols (6, 17). */
  readonly ports: readonly number[];
  readonly protocols: readonly number[];
  /** Expectations that one connection may have open at a time, by class. */
  readonly limits: readonly number[];
  /** Reads one payload. Returns UNDERSTOOD, NOT_UNDERSTOOD or DEMANDS_DROP; findings are in the context. */
  inspect(context: HelperContext): number;
  /**
   * Writes the replacement of a finding's bytes for endpoint (`family`, raw `address`, `port`) to `out` from `at`; there
   * are always 128 bytes of room. For FIND_LENGTH, `port` is the new length. Returns the number of bytes written.
   */
  write(finding: Finding, family: number, address: Int32Array, port: number, out: Uint8Array, at: number): number;
}

/** Makes a context with MAX_FINDINGS reusable findings. */
export function newHelperContext(u8: Uint8Array): HelperContext {
  const findings: Finding[] = [];
  for (let n = 0; n < MAX_FINDINGS; n++)
    findings.push({
      kind: 0,
      from: 0,
      to: 0,
      format: 0,
      family: 4,
      address: new Int32Array(4),
      port: 0,
      proto: 6,
      count: 1,
      even: 0,
      who: FROM_PEER,
      peerPort: 0,
      peer: new Int32Array(4),
      peerGiven: 0,
      class: 0,
      timeout: 300,
      permanent: 0,
      pending: 0,
      helper: 0,
      reverse: 0,
      translatedPort: -1,
      peerTranslatedPort: -1,
      bodyFrom: 0,
      bodyTo: 0,
    });
  return {
    u8,
    from: 0,
    to: 0,
    dir: 0,
    family: 4,
    proto: 6,
    src: new Int32Array(4),
    dst: new Int32Array(4),
    sport: 0,
    dport: 0,
    srcTranslated: new Int32Array(4),
    sportTranslated: 0,
    nat: false,
    seq: 0,
    again: false,
    state: new Int32Array(STATE_WORDS),
    stateAt: 0,
    loose: false,
    bounce: false,
    count: 0,
    findings,
  };
}

/** The next free finding, reset to its defaults; null when a payload has more than MAX_FINDINGS (the rest is ignored). */
export function nextFinding(context: HelperContext, kind: number, from: number, to: number): Finding | null {
  if (context.count >= MAX_FINDINGS) return null;
  const f = context.findings[context.count++];
  f.kind = kind;
  f.from = from;
  f.to = to;
  f.format = 0;
  f.family = context.family;
  f.address[0] = f.address[1] = f.address[2] = f.address[3] = 0;
  f.port = 0;
  f.proto = context.proto;
  f.count = 1;
  f.even = 0;
  f.who = FROM_PEER;
  f.peerPort = 0;
  f.peer[0] = f.peer[1] = f.peer[2] = f.peer[3] = 0;
  f.peerGiven = 0;
  f.class = 0;
  f.timeout = 300;
  f.permanent = 0;
  f.pending = 0;
  f.helper = 0;
  f.reverse = 0;
  f.translatedPort = -1;
  f.peerTranslatedPort = -1;
  f.bodyFrom = 0;
  f.bodyTo = 0;
  return f;
}
