/**
 * H.245 control channel of H.323: TCP, on a port that Q.931 announced (or tunnelled in Q.931 messages).
 *
 * Followed: OpenLogicalChannel and OpenLogicalChannelAck, for the media they announce (H.2250 parameters: mediaChannel
 * and mediaControlChannel) and for T.120 (separateStack). Each address that is the sender's own becomes a FIND_EXPECT:
 *
 *   mediaChannel, mediaControlChannel   UDP, count 2, even: `port` is the even port of the RTP and RTCP pair, also
 *                                       where the message names the odd one (then the format is TRANSPORT_PLUS_ONE and
 *                                       `write` puts the port after the one it is given)
 *   separateStack                       TCP, permanent (several channels)
 *
 * One channel names its pair twice, and the acknowledgement and later channels again: an endpoint that this connection
 * expects already keeps the port that it has. Addresses of other hosts, multicast and port 0 are passed over.
 *
 * Messages are framed by TPKT (RFC 1006 §6: version 3, reserved 0, length 2); several in one segment are read, the
 * header alone in a segment before its message too (NetMeeting does so), a message split otherwise passes unread.
 *
 * Not decoded (the message passes untouched): multiplex parameters of H.222, H.223 and V.76, which H.323 does not use.
 * As netfilter, one H.245 message per TPKT is read.
 */
import {
  H245_NUMBER,
  H323_TIMEOUT,
  notedFinding,
  notedIs,
  notedPort,
  TRANSPORT_PLUS_ONE,
  writeTransport,
} from './h323-h225.ts';
import { FIND_EXPECT, type Helper, type HelperContext, NOT_UNDERSTOOD, UNDERSTOOD } from './helper.ts';
import {
  address4,
  address6,
  boolean,
  choice,
  cutSequence,
  extensible,
  integer,
  mark,
  nothing,
  objectIdentifier,
  octets,
  openChoice,
  opt,
  PerReader,
  type PerType,
  rest,
  sequence,
  sequenceOf,
  unknown,
} from './per.ts';
import { looksLikeHttp } from './text.ts';

const TCP = 6;
const UDP = 17;

// Marks of notes.
const M_CHANNEL = 1; // value: a logical channel's description begins
const M_T120 = 2; // index of the data protocol of T.120
const M_MEDIA = 3;
const M_STACK = 4; // separateStack of OpenLogicalChannel: T.120's only when M_T120 says separateLANStack
const M_STACK_ACK = 5;
/** Marks from here on belong to the caller. */
export const M_FIRST_FREE = 8;
/** separateLANStack in DataProtocolCapability: the fourth addition after seven root alternatives. */
const SEPARATE_LAN_STACK = 10;

// ITU-T H.245, module MULTIMEDIA-SYSTEM-CONTROL.
const nonStandard = sequence(
  choice(objectIdentifier, sequence(integer(0, 255), integer(0, 255), integer(0, 65535))),
  octets(),
);
const unicast = openChoice([
  extensible([address4]),
  extensible([octets(6, 6), octets(4, 4), octets(2, 2)]), // IPX
  extensible([address6]),
  octets(16, 16), // NetBIOS
  extensible([choice(nothing, nothing), octets(4, 4), integer(0, 65535), sequenceOf(octets(4, 4))]),
]);
const multicast = openChoice([
  extensible([octets(4, 4), integer(0, 65535)]),
  extensible([octets(16, 16), integer(0, 65535)]),
]);
const address = openChoice([unicast, multicast]);

const frames = integer(1, 256);
const flags = (n: number): PerType[] => new Array(n).fill(boolean);
const h261 = extensible([opt(integer(1, 4)), opt(integer(1, 4)), boolean, integer(1, 19200), boolean]);
const h262 = extensible([
  ...flags(11),
  opt(integer(0, 1073741823)),
  opt(integer(0, 262143)),
  opt(integer(0, 16383)),
  opt(integer(0, 16383)),
  opt(integer(0, 15)),
  opt(integer(0, 4294967295)),
]);
const mpi = opt(integer(1, 32));
const h263 = extensible([
  mpi,
  mpi,
  mpi,
  mpi,
  mpi,
  integer(1, 192400),
  ...flags(5),
  opt(integer(0, 524287)),
  opt(integer(0, 65535)),
]);
const is11172Video = extensible([
  boolean,
  opt(integer(0, 1073741823)),
  opt(integer(0, 262143)),
  opt(integer(0, 16383)),
  opt(integer(0, 16383)),
  opt(integer(0, 15)),
  opt(integer(0, 4294967295)),
]);
const video = openChoice([nonStandard, h261, h262, h263, is11172Video]);
const audio = openChoice([
  nonStandard,
  frames, // g711Alaw64k
  frames, // g711Alaw56k
  frames, // g711Ulaw64k
  frames, // g711Ulaw56k
  frames, // g722-64k
  frames, // g722-56k
  frames, // g722-48k
  sequence(frames, boolean), // g7231
  frames, // g728
  frames, // g729
  frames, // g729AnnexA
  extensible([...flags(8), integer(1, 448)]), // IS 11172
  extensible([...flags(20), integer(1, 1130)]), // IS 13818
]);
const dataProtocol = openChoice([nonStandard, nothing, nothing, nothing, nothing, nothing, nothing], [], true);
const t84Profile = choice(nothing, extensible(flags(19)));
const application = openChoice([
  nonStandard,
  mark(dataProtocol, M_T120),
  dataProtocol, // dsm-cc
  dataProtocol, // userData
  sequence(dataProtocol, t84Profile),
  dataProtocol, // t434
  dataProtocol, // h224
  sequence(dataProtocol, octets()), // nlpid
  nothing, // dsvdControl
  dataProtocol, // h222DataPartitioning
]);
const data = extensible([application, integer(0, 4294967295)]);
const encryption = openChoice([nonStandard, nothing]);
const dataType = openChoice([nonStandard, nothing, video, audio, data, encryption]);

// H2250LogicalChannelParameters and …AckParameters: only ever in an open type, so their ends need no decoding.
const h2250 = cutSequence(
  opt(sequenceOf(nonStandard)),
  integer(0, 255), // sessionID
  opt(integer(1, 255)), // associatedSessionID
  opt(address, M_MEDIA), // mediaChannel
  opt(boolean), // mediaGuaranteedDelivery
  opt(address, M_MEDIA), // mediaControlChannel
  opt(rest), // mediaControlGuaranteedDelivery
  opt(rest), // silenceSuppression
  opt(rest), // destination
  opt(rest), // dynamicRTPPayloadType
  opt(rest), // mediaPacketization
);
const h2250Ack = cutSequence(
  opt(sequenceOf(nonStandard)),
  opt(integer(1, 255)), // sessionID
  opt(address, M_MEDIA),
  opt(address, M_MEDIA),
  opt(rest), // dynamicRTPPayloadType
);
/** NetworkAccessParameters, up to the address; Q.2931 and E.164 addresses end it. */
const networkAccess = cutSequence(
  opt(openChoice([nothing, nothing])), // distribution
  openChoice([rest, rest, address]), // networkAddress
  rest, // associateConference
  opt(rest), // externalReference
);
const channelNumber = integer(1, 65535);

/** OpenLogicalChannel; fastStart of Q.931 carries it as well. */
export const openLogicalChannel = extensible(
  [
    mark(integer(1, 65535, true), M_CHANNEL),
    extensible([opt(integer(0, 65535)), dataType, openChoice([unknown, unknown, unknown], [h2250, nothing])]),
    opt(extensible([dataType, opt(openChoice([unknown, unknown], [h2250]))])),
  ],
  [mark(networkAccess, M_STACK)],
);
const openLogicalChannelAck = extensible(
  [channelNumber, opt(extensible([channelNumber, opt(integer(0, 65535)), opt(openChoice([unknown], [h2250]))]))],
  [mark(networkAccess, M_STACK_ACK), openChoice([h2250Ack])],
);
const others = (n: number): PerType[] => new Array(n).fill(rest);
/** MultimediaSystemControlMessage: requests have 11 root alternatives, responses 19; all others end the message. */
export const h245Message = openChoice([
  openChoice([...others(3), openLogicalChannel, ...others(7)]),
  openChoice([...others(5), openLogicalChannelAck, ...others(13)]),
  rest, // command
  rest, // indication
]);

/** Turns the notes of logical channels (M_CHANNEL … M_STACK_ACK) into findings; other notes are passed over. */
export function channelFindings(c: HelperContext, per: PerReader): void {
  let t120 = false;
  for (let n = 0; n < per.count; n++) {
    const m = per.marks[n];
    if (m === M_CHANNEL) t120 = false;
    else if (m === M_T120) t120 = per.values[n] === SEPARATE_LAN_STACK;
    else if (m === M_MEDIA || m === M_STACK_ACK || (m === M_STACK && t120)) {
      // The sender may open ports of its own only.
      if (!notedIs(c, per, n, c.src)) continue;
      const port = notedPort(c, per, n);
      if (port === 0) continue;
      const f = notedFinding(c, per, n, FIND_EXPECT);
      if (f === null) return;
      f.timeout = H323_TIMEOUT;
      if (m === M_MEDIA) {
        f.proto = UDP;
        f.port = port & ~1;
        f.count = 2;
        f.even = 1;
        if ((port & 1) === 1) f.format = TRANSPORT_PLUS_ONE;
      } else {
        f.proto = TCP;
        f.permanent = 1;
      }
    }
  }
}

const TPKT_HEADER = 4;

/** A message without its header: bytes [from, to). */
export interface TpktFrame {
  from: number;
  to: number;
}

/**
 * Finds the TPKT messages of a payload one after the other: the one that begins at `next` (first call: `c.from`; then the
 * end of the one before) goes to `frame`. False: no more. State word `stateAt + dir` holds the length of a message whose
 * header came alone in the segment before.
 */
export function nextTpkt(c: HelperContext, next: number, frame: TpktFrame): boolean {
  const u8 = c.u8;
  const word = c.stateAt + c.dir;
  const waiting = c.state[word];
  const left = c.to - next;
  if (left === 0) return false;
  const length = left < TPKT_HEADER ? 0 : (u8[next + 2] << 8) | u8[next + 3];
  // The announced rest of a message may itself begin like a header (an openLogicalChannel does: 3, 0).
  const announced = next === c.from && waiting > 0 && waiting <= left && length !== waiting + TPKT_HEADER;
  if (announced || left < TPKT_HEADER || u8[next] !== 3 || u8[next + 1] !== 0) {
    if (next === c.from) c.state[word] = 0;
    frame.from = next;
    frame.to = next + waiting;
    return announced;
  }
  c.state[word] = 0;
  if (length < TPKT_HEADER) return false;
  if (length > left) {
    if (left === TPKT_HEADER && next === c.from) c.state[word] = length - TPKT_HEADER;
    return false;
  }
  frame.from = next + TPKT_HEADER;
  frame.to = next + length;
  return true;
}

/** State word that is 1 once the client has spoken HTTP: behind the lengths of both directions. */
const STOPPED = 2;

/** True on a connection whose client speaks HTTP: a page can make a browser send anything, but not as its first words. */
export function isWebPage(c: HelperContext): boolean {
  const word = c.stateAt + STOPPED;
  if (c.dir === 0 && c.from < c.to && looksLikeHttp(c.u8, c.from, c.to)) c.state[word] = 1;
  return c.state[word] !== 0;
}

const per = new PerReader();
const frame: TpktFrame = { from: 0, to: 0 };

function inspect(c: HelperContext): number {
  if (isWebPage(c)) return UNDERSTOOD;
  let result = NOT_UNDERSTOOD;
  for (let next = c.from; nextTpkt(c, next, frame); next = frame.to) {
    if (!per.decode(h245Message, c.u8, frame.from, frame.to)) break;
    result = UNDERSTOOD;
    channelFindings(c, per);
  }
  return result;
}

export const h245: Helper = {
  name: 'H.245',
  number: H245_NUMBER,
  ports: [], // by expectation only
  protocols: [TCP],
  // netfilter: 4 pairs for each direction, and T.120.
  limits: [18],
  inspect,
  write: writeTransport,
};
