/**
 * H.323 call signalling: Q.931 messages with an H.225.0 user-user element, TCP 1720, framed by TPKT.
 *
 * Followed in the user-user element: Setup, CallProceeding, Connect, Alerting, Facility and Progress, for
 *
 *   h245Address              the sender's H.245 port: FIND_EXPECT, TCP, helper H.245
 *   fastStart, h245Control   OpenLogicalChannel and H.245 messages inside: as in h323-h245.ts (fastStart of the six
 *                            messages, h245Control of any message)
 *   destCallSignalAddress    Setup, translated connections: FIND_REWRITE reverse 1, the receiver as it knows itself
 *   sourceCallSignalAddress  Setup, translated connections: FIND_REWRITE, the sender as the receiver knows it
 *   alternativeAddress       Facility, reason callForwarded: FIND_EXPECT, TCP, helper Q.931. It names a third host, so
 *                            only where the configuration allows that (`bounce`); netfilter allows it when the routes
 *                            to the two ends differ, which is for the caller to see
 *
 * An H.245 port announced twice by one connection keeps the port that it was given. Other hosts' addresses, port 0 and
 * the other address family are passed over.
 *
 * Not decoded: tokens that are not extension additions (Progress: what follows them is not looked at), parallel
 * H.245 in Setup (parallelH245Control; neither does netfilter), messages split over segments other than after the TPKT
 * header. What cannot be decoded passes untouched, and so does the rest of its segment.
 */
import {
  aliases,
  callType,
  endpointType,
  guid,
  H245_NUMBER,
  h245Security,
  nonStandardParameter,
  notedFinding,
  notedIs,
  notedPort,
  Q931_NUMBER,
  qseriesOptions,
  rewriteOwn,
  transportAddress,
  writeTransport,
} from './h323-h225.ts';
import {
  channelFindings,
  h245Message,
  isWebPage,
  M_FIRST_FREE,
  nextTpkt,
  openLogicalChannel,
  type TpktFrame,
} from './h323-h245.ts';
import {
  FIND_EXPECT,
  FIND_REWRITE,
  FROM_PEER,
  type Helper,
  type HelperContext,
  NOT_UNDERSTOOD,
  UNDERSTOOD,
} from './helper.ts';
import {
  boolean,
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
  sequenceOf,
} from './per.ts';

const TCP = 6;
const Q931_DISCRIMINATOR = 8;
const USER_USER = 0x7e;
/** Protocol discriminator of a user-user element in ASN.1 (H.225.0 §7.2.2.31). */
const UU_ASN1 = 5;

const M_H245 = M_FIRST_FREE;
const M_DESTINATION = M_FIRST_FREE + 1;
const M_SOURCE = M_FIRST_FREE + 2;
const M_ALTERNATIVE = M_FIRST_FREE + 3;
const M_REASON = M_FIRST_FREE + 4;
/** Index in FacilityReason. */
const CALL_FORWARDED = 1;

const fastStart = sequenceOf(octets(0, -1, openLogicalChannel));
const callIdentifier = extensible([guid]);
const reply = [null, null, null, null, fastStart]; // callIdentifier, h245SecurityMode, tokens, cryptoTokens, fastStart

const setup = extensible(
  [
    objectIdentifier,
    opt(transportAddress, M_H245),
    opt(aliases), // sourceAddress
    endpointType,
    opt(aliases), // destinationAddress
    opt(transportAddress, M_DESTINATION),
    opt(aliases), // destExtraCallInfo
    opt(sequenceOf(integer(0, 65535))), // destExtraCRV
    boolean, // activeMC
    guid,
    openChoice([nothing, nothing, nothing]), // conferenceGoal
    opt(qseriesOptions),
    callType,
  ],
  [mark(transportAddress, M_SOURCE), null, null, null, null, null, fastStart],
);
const alerting = extensible([objectIdentifier, endpointType, opt(transportAddress, M_H245)], reply);
const connect = extensible([objectIdentifier, opt(transportAddress, M_H245), endpointType, guid], reply);
const facilityReason = openChoice([nothing, nothing, nothing, nothing], [], true);
const facility = extensible(
  [objectIdentifier, opt(transportAddress, M_ALTERNATIVE), opt(aliases), opt(guid), mark(facilityReason, M_REASON)],
  [null, null, null, null, null, null, mark(transportAddress, M_H245), fastStart],
);
/** Always in an open type. */
const progress = cutSequence(
  objectIdentifier,
  endpointType,
  opt(transportAddress, M_H245),
  callIdentifier,
  opt(h245Security),
  opt(rest), // tokens
  opt(rest), // cryptoTokens
  opt(fastStart),
);
const information = extensible([objectIdentifier]);
const releaseComplete = extensible([objectIdentifier, opt(openChoice(new Array<PerType>(12).fill(nothing)))]);

const body = openChoice([setup, alerting, connect, alerting, information, releaseComplete, facility], [progress]);
/** H323-UserInformation; the user-data after the PDU does not matter. */
const userInformation = cutSequence(
  extensible(
    [body, opt(nonStandardParameter)],
    [null, null, sequenceOf(octets(0, -1, h245Message))], // h4501SupplementaryService, h245Tunnelling, h245Control
  ),
  opt(rest),
);

/** The user-user element's ASN.1 in a Q.931 message [from, to): sets `frame`; false when there is none. */
function findUserUser(u8: Uint8Array, from: number, to: number, frame: TpktFrame): boolean {
  if (to - from < 3 || u8[from] !== Q931_DISCRIMINATOR) return false;
  // Call reference: length in the low four bits, then that many bytes; then the message type (Q.931 §4.3, §4.4).
  let at = from + 2 + (u8[from + 1] & 0x0f) + 1;
  while (at < to) {
    const element = u8[at++];
    if ((element & 0x80) !== 0) continue; // single octet element (§4.5.1)
    if (element === USER_USER) {
      // H.225.0 §7.2.2.31: two octets of length here, since the element is longer than Q.931 allows.
      if (to - at < 3 || u8[at + 2] !== UU_ASN1) return false;
      const length = (u8[at] << 8) | u8[at + 1];
      if (length < 1 || length > to - at - 2) return false;
      frame.from = at + 3;
      frame.to = at + 2 + length;
      return true;
    }
    if (at === to) return false;
    at += 1 + u8[at];
  }
  return false;
}

function expectPort(c: HelperContext, per: PerReader, n: number, helper: number): void {
  const f = notedFinding(c, per, n, FIND_EXPECT);
  if (f === null) return;
  f.proto = TCP;
  f.who = FROM_PEER;
  f.helper = helper;
}

function callFindings(c: HelperContext, per: PerReader): void {
  let forwarded = false;
  for (let n = 0; n < per.count; n++) if (per.marks[n] === M_REASON) forwarded = per.values[n] === CALL_FORWARDED;
  for (let n = 0; n < per.count; n++) {
    const m = per.marks[n];
    if (m < M_H245 || per.families[n] !== c.family || notedPort(c, per, n) === 0) continue;
    if (m === M_H245 && !forwarded && notedIs(c, per, n, c.src)) expectPort(c, per, n, H245_NUMBER);
    else if (m === M_ALTERNATIVE && forwarded && (c.bounce || notedIs(c, per, n, c.src)))
      expectPort(c, per, n, Q931_NUMBER);
    else if (m === M_SOURCE && c.nat && c.family === 4 && !notedIs(c, per, n, c.srcTranslated))
      rewriteOwn(c, per, n, c.sportTranslated);
    else if (m === M_DESTINATION && c.nat && c.family === 4) {
      const f = notedFinding(c, per, n, FIND_REWRITE);
      if (f !== null) f.reverse = 1;
    }
  }
}

const per = new PerReader();
const frame: TpktFrame = { from: 0, to: 0 };
const element: TpktFrame = { from: 0, to: 0 };

function inspect(c: HelperContext): number {
  if (isWebPage(c)) return UNDERSTOOD;
  let result = NOT_UNDERSTOOD;
  for (let next = c.from; nextTpkt(c, next, frame); next = frame.to) {
    if (!findUserUser(c.u8, frame.from, frame.to, element)) break;
    if (!per.decode(userInformation, c.u8, element.from, element.to)) break;
    result = UNDERSTOOD;
    callFindings(c, per);
    channelFindings(c, per);
  }
  return result;
}

export const q931: Helper = {
  name: 'Q.931',
  number: Q931_NUMBER,
  ports: [1720],
  protocols: [TCP],
  // netfilter: 4 pairs for each direction, T.120 and H.245.
  limits: [20],
  inspect,
  write: writeTransport,
};
