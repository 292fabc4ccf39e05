/**
 * Announced: endpoints that a payload names, in the order in which they stand there.
 *
 * The same payload is read as it was captured and as it left the router: what differs pairwise is what the router's
 * helpers have announced to the far end in place of the inside endpoint. Read are FTP (RFC 959, RFC 2428), SDP (RFC 8866),
 * SIP Contact and Via (RFC 3261), RTSP Transport (RFC 2326) and IRC DCC; binary protocols by the places where the inside
 * address stood. Deliberately independent of the helpers: it reads the router's words as a stranger would.
 */
import { addressBytes, parseAddress } from '../../dataplane/wire/address.ts';

export interface Announced {
  /** Null: the address that the packet itself came from. */
  address: Uint8Array | null;
  port: number;
  /** Most consecutive ports meant (RTP and RTCP). */
  ports: number;
}

const PATTERNS =
  /\b(?:PORT |227 [^\r\n]*?)\(?(\d{1,3}(?:,\d{1,3}){5})|\bEPRT \|[12]\|([0-9A-Fa-f:.]+)\|(\d{1,5})\||\b229 [^\r\n]*?\(\|\|\|(\d{1,5})\||\bclient_port=(\d{1,5})|\bDCC (?:SEND|CHAT|ACCEPT) \S+ (\d{1,10}) (\d{1,5})|^(?:Contact|m|Via|v)\s*:[^\r\n]*?(?:@|<sips?:|SIP\/2\.0\/\w+\s+)(\[[0-9A-Fa-f:.]+\]|\d{1,3}(?:\.\d{1,3}){3})(?::(\d{1,5}))?/gim;
const SIP_PORT = 5060;

/** Endpoints in a text. */
export function announcements(text: string): Announced[] {
  const found: Announced[] = [];
  const add = (address: string | null, port: string | number, ports = 1) => {
    const parsed = address === null ? null : parseAddress(address.replace(/[[\]]/g, ''));
    const number = Number(port);
    if ((address !== null && parsed === null) || !(number > 0 && number < 65536)) return;
    found.push({ address: parsed === null ? null : addressBytes(parsed.family, parsed.words), port: number, ports });
  };
  for (const match of text.matchAll(PATTERNS)) {
    if (match[1] !== undefined) {
      const n = match[1].split(',').map(Number);
      add(n.slice(0, 4).join('.'), n[4] * 256 + n[5]);
    } else if (match[2] !== undefined) add(match[2], match[3]);
    else if (match[4] !== undefined) add(null, match[4]);
    else if (match[5] !== undefined) add(null, match[5], 2);
    else if (match[6] !== undefined) {
      const word = Number(match[6]);
      add([word / 16777216, word / 65536, word / 256, word].map((part) => Math.floor(part) & 255).join('.'), match[7]);
    } else add(match[8], match[9] ?? SIP_PORT);
  }
  if (/^m=/m.test(text)) sdp(text, add);
  return found;
}

/** SDP: every medium with the connection address that holds for it, its own or the session's (RFC 8866 §5.7). */
function sdp(text: string, add: (address: string | null, port: string, ports: number) => void): void {
  let session: string | null = null;
  let media: { port: string; address: string | null } | null = null;
  const flush = () => {
    if (media !== null) add(media.address, media.port, 2);
  };
  for (const line of text.split(/\r?\n/)) {
    const connection = /^c=IN IP[46] ([0-9A-Fa-f:.]+)/.exec(line);
    const medium = /^m=\w+ (\d{1,5})/.exec(line);
    if (medium !== null) {
      flush();
      media = { port: medium[1], address: session };
    } else if (connection !== null && media !== null) media.address = connection[1];
    else if (connection !== null) session = connection[1];
  }
  flush();
}

/** Places of `address`, followed by a port, in a binary payload (H.225 and H.245 transport addresses). */
export function binaryPlaces(payload: Uint8Array, address: Uint8Array): number[] {
  const places: number[] = [];
  for (let at = 0; at + address.length + 2 <= payload.length; at++) {
    let n = 0;
    while (n < address.length && payload[at + n] === address[n]) n++;
    if (n === address.length) places.push(at);
  }
  return places;
}

/** PPTP (RFC 2637 §2): offsets of the sender's own and the peer's call ID in a control message; −1: it has none. */
export function pptpCallIds(payload: Uint8Array): { own: number; peer: number } | null {
  const word = (at: number) => (payload[at] << 8) | payload[at + 1];
  if (payload.length < 16 || word(2) !== 1 || word(4) !== 0x1a2b || word(6) !== 0x3c4d) return null;
  switch (word(8)) {
    case 7: // Outgoing-Call-Request
    case 9: // Incoming-Call-Request
    case 12: // Call-Clear-Request
    case 13: // Call-Disconnect-Notify
      return { own: 12, peer: -1 };
    case 8: // Outgoing-Call-Reply
    case 10: // Incoming-Call-Reply
      return { own: 12, peer: 14 };
    case 11: // Incoming-Call-Connected
    case 14: // WAN-Error-Notify
    case 15: // Set-Link-Info
      return { own: -1, peer: 12 };
    default:
      return null;
  }
}
