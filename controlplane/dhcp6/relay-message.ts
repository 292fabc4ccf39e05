/**
 * DHCPv6 messages of relays: Relay-forward and Relay-reply (RFC 8415 §9), with the options that relays add.
 *
 *    0        1      2               18              34
 *   | type 1 | hops | link address  | peer address  | options ... one of which is the relayed message
 *
 * The relayed message may be one of a relay again; `unwrap` goes down to the client's. Strict as message.ts is.
 */
import type { Words } from '../../dataplane/wire/address.ts';
import * as C from './constants.ts';
import type { RawOption } from './message.ts';
import { addressAt, be16, be32, eachOption, Malformed, Writer } from './reader.ts';

/** RFC 4649: who vouches (IANA enterprise number), and bytes that mean something to it. */
export interface RemoteId {
  enterprise: number;
  id: Uint8Array;
}

export interface RelayMessage {
  type: typeof C.RELAY_FORW | typeof C.RELAY_REPL;
  hops: number;
  /** An address of the link that the client is on; unspecified from an LDRA (RFC 6221 §5.1). */
  link: Words;
  /** Where the relayed message came from, and where a reply goes. */
  peer: Words;
  interfaceId: Uint8Array | null;
  remoteId: RemoteId | null;
  subscriberId: Uint8Array | null;
  /** RFC 6939: hardware type and address as one. */
  linkLayer: Uint8Array | null;
  /** RFC 4994: codes of the options that the server shall send back. */
  echo: number[];
  /** The relayed message. */
  message: Uint8Array;
  others: RawOption[];
}

const HEADER = 34;

export function isRelayType(type: number): boolean {
  return type === C.RELAY_FORW || type === C.RELAY_REPL;
}

export function newRelayMessage(
  type: RelayMessage['type'],
  hops: number,
  link: Words,
  peer: Words,
  message: Uint8Array,
): RelayMessage {
  return {
    type,
    hops,
    link,
    peer,
    interfaceId: null,
    remoteId: null,
    subscriberId: null,
    linkLayer: null,
    echo: [],
    message,
    others: [],
  };
}

/** The relay message in [from, to), or null when it is malformed, has no relayed message, or is no relay's. */
export function parseRelay(u8: Uint8Array, from = 0, to = u8.length): RelayMessage | null {
  const type = u8[from];
  if (to - from < HEADER || (type !== C.RELAY_FORW && type !== C.RELAY_REPL)) return null;
  const inner = { message: null as Uint8Array | null };
  const m = newRelayMessage(type, u8[from + 1], addressAt(u8, from + 2), addressAt(u8, from + 18), new Uint8Array(0));
  const seen = new Set<number>();
  try {
    eachOption(u8, from + HEADER, to, (code, at, end) => {
      if (seen.has(code) && ONCE.has(code)) throw new Malformed();
      seen.add(code);
      const data = u8.slice(at, end);
      if (code === C.OPT_RELAY_MSG) {
        if (data.length < 4) throw new Malformed();
        inner.message = data;
      } else if (code === C.OPT_INTERFACE_ID) {
        if (data.length === 0) throw new Malformed();
        m.interfaceId = data;
      } else if (code === C.OPT_REMOTE_ID) {
        // RFC 4649 §3: four bytes of enterprise number, and at least one more.
        if (data.length < 5) throw new Malformed();
        m.remoteId = { enterprise: be32(data, 0), id: data.slice(4) };
      } else if (code === C.OPT_SUBSCRIBER_ID) {
        if (data.length === 0) throw new Malformed();
        m.subscriberId = data;
      } else if (code === C.OPT_CLIENT_LINKLAYER_ADDR) {
        if (data.length < 3) throw new Malformed();
        m.linkLayer = data;
      } else if (code === C.OPT_ERO) {
        if (data.length % 2 !== 0) throw new Malformed();
        for (let n = 0; n < data.length; n += 2) m.echo.push(be16(data, n));
      } else m.others.push({ code, data });
    });
  } catch (error) {
    if (error instanceof Malformed) return null;
    throw error;
  }
  if (inner.message === null) return null;
  m.message = inner.message;
  return m;
}

const ONCE = new Set([
  C.OPT_RELAY_MSG,
  C.OPT_INTERFACE_ID,
  C.OPT_REMOTE_ID,
  C.OPT_SUBSCRIBER_ID,
  C.OPT_CLIENT_LINKLAYER_ADDR,
  C.OPT_ERO,
]);

export function emitRelay(m: RelayMessage): Uint8Array {
  const w = new Writer();
  w.u8(m.type);
  w.u8(m.hops);
  w.address(m.link);
  w.address(m.peer);
  if (m.interfaceId !== null) w.data(C.OPT_INTERFACE_ID, m.interfaceId);
  const { remoteId } = m;
  if (remoteId !== null)
    w.option(C.OPT_REMOTE_ID, () => {
      w.u32(remoteId.enterprise);
      w.put(remoteId.id);
    });
  if (m.subscriberId !== null) w.data(C.OPT_SUBSCRIBER_ID, m.subscriberId);
  if (m.linkLayer !== null) w.data(C.OPT_CLIENT_LINKLAYER_ADDR, m.linkLayer);
  if (m.echo.length > 0)
    w.option(C.OPT_ERO, () => {
      for (const code of m.echo) w.u16(code);
    });
  for (const { code, data } of m.others) w.data(code, data);
  w.data(C.OPT_RELAY_MSG, m.message);
  return w.finish();
}

/**
 * All relay messages around a client's or server's, outermost first, and the innermost bytes; null when one is malformed,
 * of another type than the outermost, or there are more than `limit`.
 */
export function unwrap(u8: Uint8Array, limit: number): { relays: RelayMessage[]; message: Uint8Array } | null {
  const relays: RelayMessage[] = [];
  let message = u8;
  while (message.length > 0 && isRelayType(message[0])) {
    if (relays.length >= limit) return null;
    const relay = parseRelay(message);
    if (relay === null || (relays.length > 0 && relay.type !== relays[0].type)) return null;
    relays.push(relay);
    message = relay.message;
  }
  return { relays, message };
}
