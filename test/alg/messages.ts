/** Messages of the protocols that carry addresses in their payload, as plain functions: what the RFCs draw, nothing else. */
import { concat, toBytes, u16 } from '../lib/build.ts';

// --- PPTP, RFC 2637 §2 -------------------------------------------------------------------------------------------------

const LENGTHS = [0, 156, 156, 16, 16, 16, 20, 168, 32, 220, 24, 28, 16, 148, 40, 24];

function control(type: number, ...body: number[]): Uint8Array {
  const out = new Uint8Array(LENGTHS[type]);
  out.set([out.length >> 8, out.length & 255, 0, 1, 0x1a, 0x2b, 0x3c, 0x4d, 0, type, 0, 0, ...body]);
  return out;
}
const two = (n: number) => [n >> 8, n & 255];

export const pptp = {
  startRequest: () => control(1, 1, 0),
  startReply: () => control(2, 1, 0, 1, 0),
  stopRequest: () => control(3, 1),
  stopReply: () => control(4, 1),
  echoRequest: () => control(5, 1, 2, 3, 4),
  echoReply: () => control(6, 1, 2, 3, 4, 1),
  outgoingCallRequest: (id: number) => control(7, ...two(id), 0x78, 0x28),
  outgoingCallReply: (id: number, peer: number, result = 1) => control(8, ...two(id), ...two(peer), result, 0),
  callClear: (id: number) => control(12, ...two(id)),
  callDisconnect: (id: number) => control(13, ...two(id), 1),
  wanError: (peer: number) => control(14, ...two(peer)),
  setLinkInfo: (peer: number) => control(15, ...two(peer), 0, 0, 255, 255, 255, 255, 255, 255, 255, 255),
};

/** Where a message's first and second Call ID are. */
export const FIRST_ID = 12;
export const SECOND_ID = 14;

// --- TFTP, RFC 1350 ------------------------------------------------------------------------------------------------------

export const tftpRequest = (code = 1, file = 'file') => concat(u16(code), toBytes(`${file}\0octet\0`));
export const tftpData = (block = 1) => concat(u16(3), u16(block), toBytes('data'));
export const tftpAck = (block = 1) => concat(u16(4), u16(block));

// --- SIP, RFC 3261, with SDP, RFC 4566 -------------------------------------------------------------------------------------

export interface Sdp {
  address: string;
  /** `audio 4000`, `video 4002`; a medium may have an address of its own behind `@`. */
  media: string[];
}

export function sdp({ address, media }: Sdp): string {
  const kind = address.includes(':') ? 'IP6' : 'IP4';
  const lines = ['v=0', `o=alice 1 1 IN ${kind} ${address}`, 's=-', `c=IN ${kind} ${address}`, 't=0 0'];
  for (const medium of media) {
    const [what, own] = medium.split('@');
    lines.push(`m=${what} RTP/AVP 0`);
    if (own) lines.push(`c=IN ${kind} ${own}`);
  }
  return `${lines.join('\r\n')}\r\n`;
}

const inBrackets = (host: string) => (host.includes(':') ? `[${host}]` : host);
/** `host:port` of a URI or a Via. */
export const at = (host: string, port: number) => `${inBrackets(host)}:${port}`;

export interface SipOptions {
  transport?: 'UDP' | 'TCP';
  /** Host and port in the topmost Via, in Contact. */
  via: string;
  contact?: string;
  uri?: string;
  cseq?: number;
  headers?: string[];
  body?: string;
}

function sipMessage(start: string, method: string, o: SipOptions): string {
  const body = o.body ?? '';
  const lines = [
    start,
    `Via: SIP/2.0/${o.transport ?? 'UDP'} ${o.via};rport;branch=z9hG4bK1`,
    'From: <sip:alice@example.net>;tag=1',
    'To: <sip:bob@example.net>',
    'Call-ID: 1@example.net',
    `CSeq: ${o.cseq ?? 1} ${method}`,
    ...(o.contact ? [`Contact: <sip:alice@${o.contact}>`] : []),
    ...(o.headers ?? []),
    ...(body ? ['Content-Type: application/sdp'] : []),
    `Content-Length: ${body.length}`,
  ];
  return `${lines.join('\r\n')}\r\n\r\n${body}`;
}

export const sipRequest = (method: string, o: SipOptions) =>
  sipMessage(`${method} ${o.uri ?? 'sip:bob@example.net'} SIP/2.0`, method, o);
export const sipReply = (status: number, method: string, o: SipOptions) => sipMessage(`SIP/2.0 ${status} X`, method, o);
