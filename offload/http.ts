/**
 * Light inspection of HTTP/1 (RFC 9112), for the policy (row O5): is this response a stream, a page, or one of many?
 *
 * Looked at: the first bytes of a segment in the REPLY direction, and in them the status line, Content-Type, Connection
 * and Content-Length. A head that goes on in the next segment counts as far as it was seen. TLS is left alone.
 */
const WINDOW = 1024;

/** What a response's head says. */
export const HTTP_NONE = 0;
/** A page or a picture on a connection that ends with it, or with the next few. */
export const HTTP_SHORT = 1;
/** A page or a picture on a persistent connection: more will follow. */
export const HTTP_PERSISTENT = 2;
/** A large body (application/octet-stream and the like). */
export const HTTP_BULK = 3;
/** audio/, video/, or a type that streams over HTTP (HLS, DASH). */
export const HTTP_STREAM = 4;

/** Bytes of body from which on a short answer is a large one. */
const LARGE = 1 << 20;

/** Classifies the payload u8[at … end) of a segment that a server sent. */
export function inspectResponse(u8: Uint8Array, at: number, end: number): number {
  const stop = end - at > WINDOW ? at + WINDOW : end;
  // "HTTP/1.x"
  if (stop - at < 12 || u8[at] !== 0x48 || u8[at + 1] !== 0x54 || u8[at + 2] !== 0x54 || u8[at + 3] !== 0x50)
    return HTTP_NONE;
  // RFC 9112 §9.3: HTTP/1.1 persists unless it says otherwise, HTTP/1.0 only if it says so.
  let persistent = u8[at + 7] === 0x31;
  let kind = HTTP_NONE;
  for (let n = at; n + 1 < stop; n++) {
    if (u8[n] !== 0x0a) continue;
    const line = n + 1;
    if (u8[line] === 0x0d || u8[line] === 0x0a) break;
    if (isField(u8, line, stop, CONTENT_TYPE)) {
      const found = typeOf(u8, skip(u8, line + CONTENT_TYPE.length, stop), stop);
      if (found === HTTP_STREAM) return HTTP_STREAM;
      kind = found;
    } else if (isField(u8, line, stop, CONNECTION)) {
      const value = skip(u8, line + CONNECTION.length, stop);
      persistent = value < stop && (u8[value] | 0x20) === 0x6b; // keep-alive, not close
    } else if (isField(u8, line, stop, CONTENT_LENGTH)) {
      if (number(u8, skip(u8, line + CONTENT_LENGTH.length, stop), stop) >= LARGE && kind === HTTP_NONE)
        kind = HTTP_BULK;
    }
  }
  if (kind === HTTP_BULK) return HTTP_BULK;
  return persistent ? HTTP_PERSISTENT : HTTP_SHORT;
}

const field = (name: string): Uint8Array => Uint8Array.from(name, (letter) => letter.charCodeAt(0));
const CONTENT_TYPE = field('content-type:');
const CONTENT_LENGTH = field('content-length:');
const CONNECTION = field('connection:');
const AUDIO = field('audio/');
const VIDEO = field('video/');
/** HLS and DASH descriptions, and the transport streams that call themselves applications. */
const MPEGURL = field('application/vnd.apple.mpegurl');
const X_MPEGURL = field('application/x-mpegurl');
const DASH = field('application/dash+xml');
const OCTETS = field('application/octet-stream');

/** Names and media types are case-insensitive (RFC 9110 §5.1, §8.3.1); the patterns are in lower case. */
function isField(u8: Uint8Array, at: number, stop: number, name: Uint8Array): boolean {
  if (stop - at < name.length) return false;
  for (let n = 0; n < name.length; n++) {
    const byte = u8[at + n];
    if ((byte >= 0x41 && byte <= 0x5a ? byte | 0x20 : byte) !== name[n]) return false;
  }
  return true;
}

function skip(u8: Uint8Array, from: number, stop: number): number {
  let at = from;
  while (at < stop && (u8[at] === 0x20 || u8[at] === 0x09)) at++;
  return at;
}

function typeOf(u8: Uint8Array, at: number, stop: number): number {
  if (isField(u8, at, stop, VIDEO) || isField(u8, at, stop, AUDIO)) return HTTP_STREAM;
  if (isField(u8, at, stop, MPEGURL) || isField(u8, at, stop, X_MPEGURL) || isField(u8, at, stop, DASH))
    return HTTP_STREAM;
  return isField(u8, at, stop, OCTETS) ? HTTP_BULK : HTTP_NONE;
}

function number(u8: Uint8Array, at: number, stop: number): number {
  let value = 0;
  for (let n = at; n < stop && u8[n] >= 0x30 && u8[n] <= 0x39; n++) {
    value = value * 10 + u8[n] - 0x30;
    if (value >= LARGE) return LARGE;
  }
  return value;
}
