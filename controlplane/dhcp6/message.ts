/**
 * DHCPv6 messages between clients and servers: bytes to values and back (RFC 8415 §8 and §21; RFC 3646; RFC 4361's DUIDs
 * are opaque here).
 *
 *    0        1                4
 *   | type 1 | transaction 3  | options ...          type 1–11; relays' messages are in relay-message.ts
 *
 * Parsing is strict: an option that overruns its container, has a length that its type does not allow, or stands twice
 * where once is the rule makes the whole message malformed, and `parseMessage` says null. What is well formed but means
 * nothing (a preferred lifetime longer than the valid one) is for the receiver to judge. Options not named here are kept
 * as bytes, in order. Lifetimes are seconds, unsigned, INFINITY for ever; addresses raw words.
 *
 * Not here: IA_TA and server unicast (gone with RFC 9915), vendor options' insides.
 */
import { networkWords, type Words } from '../../dataplane/wire/address.ts';
import * as C from './constants.ts';
import { addressAt, be16, be32, eachOption, Malformed, Writer } from './reader.ts';

export interface Status {
  code: number;
  text: string;
}

export interface IaAddress {
  words: Words;
  preferred: number;
  valid: number;
  status: Status | null;
}

export interface IaPrefix extends IaAddress {
  prefixLength: number;
}

/** An identity association for addresses (IA_NA) or prefixes (IA_PD). */
export interface Ia {
  kind: 'na' | 'pd';
  iaid: number;
  t1: number;
  t2: number;
  /** Of kind `na`: empty in a PD. */
  addresses: IaAddress[];
  /** Of kind `pd`; host bits are zero (§21.22: the receiver ignores them). */
  prefixes: IaPrefix[];
  status: Status | null;
}

/** RFC 8415 §21.11. */
export interface Authentication {
  protocol: number;
  algorithm: number;
  method: number;
  /** Replay detection, 8 bytes. */
  replay: Uint8Array;
  information: Uint8Array;
}

export interface RawOption {
  code: number;
  data: Uint8Array;
}

export interface Message {
  type: number;
  /** Transaction id, 24 bits. */
  xid: number;
  clientId: Uint8Array | null;
  serverId: Uint8Array | null;
  ias: Ia[];
  /** Option codes asked for. */
  request: number[];
  preference: number | null;
  /** Hundredths of a second. */
  elapsed: number | null;
  status: Status | null;
  rapidCommit: boolean;
  reconfigureAccept: boolean;
  /** Of a Reconfigure: the type of message that the client shall send. */
  reconfigure: number | null;
  authentication: Authentication | null;
  dns: Words[];
  domains: string[];
  informationRefresh: number | null;
  solMaxRt: number | null;
  infMaxRt: number | null;
  others: RawOption[];
}

export function newMessage(type: number, xid: number): Message {
  return {
    type,
    xid,
    clientId: null,
    serverId: null,
    ias: [],
    request: [],
    preference: null,
    elapsed: null,
    status: null,
    rapidCommit: false,
    reconfigureAccept: false,
    reconfigure: null,
    authentication: null,
    dns: [],
    domains: [],
    informationRefresh: null,
    solMaxRt: null,
    infMaxRt: null,
    others: [],
  };
}

/** §11.1: a type of two bytes and 1 to 128 bytes of identifier. */
const MIN_DUID = 3;
const MAX_DUID = 130;

/** The message in [from, to), or null when it is malformed or of a relay. Copies what it keeps. */
export function parseMessage(u8: Uint8Array, from = 0, to = u8.length): Message | null {
  if (to - from < 4 || u8[from] < C.SOLICIT || u8[from] > C.INFORMATION_REQUEST) return null;
  const message = newMessage(u8[from], (u8[from + 1] << 16) | (u8[from + 2] << 8) | u8[from + 3]);
  const seen = new Set<number>();
  try {
    eachOption(u8, from + 4, to, (code, at, end) => {
      // §21: options other than the identity associations stand once; unknown ones are nobody's to judge.
      if (KNOWN_ONCE.has(code)) {
        if (seen.has(code)) throw new Malformed();
        seen.add(code);
      }
      readOption(message, u8, code, at, end);
    });
  } catch (error) {
    if (error instanceof Malformed) return null;
    throw error;
  }
  return message;
}

const KNOWN_ONCE = new Set([
  C.OPT_CLIENTID,
  C.OPT_SERVERID,
  C.OPT_ORO,
  C.OPT_PREFERENCE,
  C.OPT_ELAPSED_TIME,
  C.OPT_AUTH,
  C.OPT_STATUS_CODE,
  C.OPT_RAPID_COMMIT,
  C.OPT_RECONF_MSG,
  C.OPT_RECONF_ACCEPT,
  C.OPT_DNS_SERVERS,
  C.OPT_DOMAIN_LIST,
  C.OPT_INFORMATION_REFRESH_TIME,
  C.OPT_SOL_MAX_RT,
  C.OPT_INF_MAX_RT,
]);

function readOption(m: Message, u8: Uint8Array, code: number, at: number, end: number): void {
  const length = end - at;
  const exactly = (bytes: number) => {
    if (length !== bytes) throw new Malformed();
  };
  switch (code) {
    case C.OPT_CLIENTID:
    case C.OPT_SERVERID: {
      if (length < MIN_DUID || length > MAX_DUID) throw new Malformed();
      const duid = u8.slice(at, end);
      if (code === C.OPT_CLIENTID) m.clientId = duid;
      else m.serverId = duid;
      break;
    }
    case C.OPT_IA_NA:
    case C.OPT_IA_PD:
      m.ias.push(readIa(u8, code, at, end));
      break;
    case C.OPT_ORO:
      if (length % 2 !== 0) throw new Malformed();
      for (let n = at; n < end; n += 2) m.request.push(be16(u8, n));
      break;
    case C.OPT_PREFERENCE:
      exactly(1);
      m.preference = u8[at];
      break;
    case C.OPT_ELAPSED_TIME:
      exactly(2);
      m.elapsed = be16(u8, at);
      break;
    case C.OPT_STATUS_CODE:
      m.status = readStatus(u8, at, end);
      break;
    case C.OPT_RAPID_COMMIT:
      exactly(0);
      m.rapidCommit = true;
      break;
    case C.OPT_RECONF_ACCEPT:
      exactly(0);
      m.reconfigureAccept = true;
      break;
    case C.OPT_RECONF_MSG:
      exactly(1);
      // §21.19: Renew, Rebind or Information-request.
      if (u8[at] !== C.RENEW && u8[at] !== C.REBIND && u8[at] !== C.INFORMATION_REQUEST) throw new Malformed();
      m.reconfigure = u8[at];
      break;
    case C.OPT_AUTH:
      if (length < 11) throw new Malformed();
      m.authentication = {
        protocol: u8[at],
        algorithm: u8[at + 1],
        method: u8[at + 2],
        replay: u8.slice(at + 3, at + 11),
        information: u8.slice(at + 11, end),
      };
      break;
    case C.OPT_DNS_SERVERS:
      if (length === 0 || length % 16 !== 0) throw new Malformed();
      for (let n = at; n < end; n += 16) m.dns.push(addressAt(u8, n));
      break;
    case C.OPT_DOMAIN_LIST:
      m.domains = readDomains(u8, at, end);
      break;
    case C.OPT_INFORMATION_REFRESH_TIME:
      exactly(4);
      m.informationRefresh = be32(u8, at);
      break;
    case C.OPT_SOL_MAX_RT:
      exactly(4);
      m.solMaxRt = be32(u8, at);
      break;
    case C.OPT_INF_MAX_RT:
      exactly(4);
      m.infMaxRt = be32(u8, at);
      break;
    default:
      m.others.push({ code, data: u8.slice(at, end) });
  }
}

function readIa(u8: Uint8Array, code: number, at: number, end: number): Ia {
  if (end - at < 12) throw new Malformed();
  const ia: Ia = {
    kind: code === C.OPT_IA_NA ? 'na' : 'pd',
    iaid: be32(u8, at),
    t1: be32(u8, at + 4),
    t2: be32(u8, at + 8),
    addresses: [],
    prefixes: [],
    status: null,
  };
  eachOption(u8, at + 12, end, (inner, from, to) => {
    if (inner === C.OPT_IAADDR && ia.kind === 'na') {
      if (to - from < 24) throw new Malformed();
      const [preferred, valid] = [be32(u8, from + 16), be32(u8, from + 20)];
      const status = readInnerStatus(u8, from + 24, to);
      ia.addresses.push({ words: addressAt(u8, from), preferred, valid, status });
    } else if (inner === C.OPT_IAPREFIX && ia.kind === 'pd') {
      if (to - from < 25 || u8[from + 8] > 128) throw new Malformed();
      const prefixLength = u8[from + 8];
      const words = networkWords(6, addressAt(u8, from + 9), prefixLength);
      const status = readInnerStatus(u8, from + 25, to);
      ia.prefixes.push({ words, prefixLength, preferred: be32(u8, from), valid: be32(u8, from + 4), status });
    } else if (inner === C.OPT_STATUS_CODE) {
      if (ia.status !== null) throw new Malformed();
      ia.status = readStatus(u8, from, to);
    }
  });
  return ia;
}

/** The status inside an address or prefix option; other options there are passed over. */
function readInnerStatus(u8: Uint8Array, from: number, to: number): Status | null {
  let status: Status | null = null;
  eachOption(u8, from, to, (code, at, end) => {
    if (code === C.OPT_STATUS_CODE) status = readStatus(u8, at, end);
  });
  return status;
}

function readStatus(u8: Uint8Array, at: number, end: number): Status {
  if (end - at < 2) throw new Malformed();
  return { code: be16(u8, at), text: new TextDecoder().decode(u8.subarray(at + 2, end)) };
}

/** RFC 8415 §10: names as RFC 1035 §3.1 writes them, whole and without compression. */
function readDomains(u8: Uint8Array, from: number, to: number): string[] {
  const names: string[] = [];
  let at = from;
  while (at < to) {
    const labels: string[] = [];
    const start = at;
    for (;;) {
      if (at >= to) throw new Malformed();
      const length = u8[at++];
      if (length === 0) break;
      if (length > 63 || at + length > to) throw new Malformed();
      for (let n = at; n < at + length; n++) if (!isNameByte(u8[n])) throw new Malformed();
      labels.push(String.fromCharCode(...u8.subarray(at, at + length)));
      at += length;
    }
    if (labels.length === 0 || at - start > 255) throw new Malformed();
    names.push(labels.join('.'));
  }
  return names;
}

/** Letters, digits, hyphen and underscore: a name of the net goes into files and scripts. */
function isNameByte(byte: number): boolean {
  return (
    (byte >= 0x30 && byte <= 0x39) ||
    (byte >= 0x41 && byte <= 0x5a) ||
    (byte >= 0x61 && byte <= 0x7a) ||
    byte === 0x2d ||
    byte === 0x5f
  );
}

/** The bytes of a message. Options come in the order of their codes' first mention in RFC 8415. */
export function emitMessage(m: Message): Uint8Array {
  const w = new Writer();
  w.u8(m.type);
  w.u8(m.xid >>> 16);
  w.u16(m.xid & 0xffff);
  if (m.clientId !== null) w.data(C.OPT_CLIENTID, m.clientId);
  if (m.serverId !== null) w.data(C.OPT_SERVERID, m.serverId);
  for (const ia of m.ias) writeIa(w, ia);
  if (m.request.length > 0)
    w.option(C.OPT_ORO, () => {
      for (const code of m.request) w.u16(code);
    });
  const { preference, elapsed, reconfigure, authentication: auth } = m;
  if (preference !== null) w.option(C.OPT_PREFERENCE, () => w.u8(preference));
  if (elapsed !== null) w.option(C.OPT_ELAPSED_TIME, () => w.u16(elapsed));
  if (auth !== null)
    w.option(C.OPT_AUTH, () =>
      w.put([auth.protocol, auth.algorithm, auth.method, ...auth.replay, ...auth.information]),
    );
  if (m.status !== null) writeStatus(w, m.status);
  if (m.rapidCommit) w.data(C.OPT_RAPID_COMMIT, []);
  if (reconfigure !== null) w.option(C.OPT_RECONF_MSG, () => w.u8(reconfigure));
  if (m.reconfigureAccept) w.data(C.OPT_RECONF_ACCEPT, []);
  if (m.dns.length > 0)
    w.option(C.OPT_DNS_SERVERS, () => {
      for (const words of m.dns) w.address(words);
    });
  if (m.domains.length > 0)
    w.option(C.OPT_DOMAIN_LIST, () => {
      for (const name of m.domains) writeDomain(w, name);
    });
  for (const [code, seconds] of [
    [C.OPT_INFORMATION_REFRESH_TIME, m.informationRefresh],
    [C.OPT_SOL_MAX_RT, m.solMaxRt],
    [C.OPT_INF_MAX_RT, m.infMaxRt],
  ] as const)
    if (seconds !== null) w.option(code, () => w.u32(seconds));
  for (const { code, data } of m.others) w.data(code, data);
  return w.finish();
}

function writeIa(w: Writer, ia: Ia): void {
  w.option(ia.kind === 'na' ? C.OPT_IA_NA : C.OPT_IA_PD, () => {
    w.u32(ia.iaid);
    w.u32(ia.t1);
    w.u32(ia.t2);
    for (const { words, preferred, valid, status } of ia.addresses)
      w.option(C.OPT_IAADDR, () => {
        w.address(words);
        w.u32(preferred);
        w.u32(valid);
        if (status !== null) writeStatus(w, status);
      });
    for (const { words, prefixLength, preferred, valid, status } of ia.prefixes)
      w.option(C.OPT_IAPREFIX, () => {
        w.u32(preferred);
        w.u32(valid);
        w.u8(prefixLength);
        w.address(words);
        if (status !== null) writeStatus(w, status);
      });
    if (ia.status !== null) writeStatus(w, ia.status);
  });
}

function writeStatus(w: Writer, status: Status): void {
  w.option(C.OPT_STATUS_CODE, () => {
    w.u16(status.code);
    w.put(new TextEncoder().encode(status.text));
  });
}

function writeDomain(w: Writer, name: string): void {
  for (const label of name.split('.')) {
    w.u8(label.length);
    for (const letter of label) w.u8(letter.charCodeAt(0));
  }
  w.u8(0);
}
