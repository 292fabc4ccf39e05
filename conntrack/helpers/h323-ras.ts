/**
 * H.225.0 RAS: registration, admission and status between an H.323 endpoint and its gatekeeper, UDP 1719.
 *
 *   GRQ, LRQ    rasAddress, replyAddress that is this flow's source: FIND_REWRITE (translated flows)
 *   GCF         rasAddress other than this flow's source: FIND_EXPECT, UDP, helper RAS, nothing to rewrite
 *   RRQ         first callSignalAddress of the sender: FIND_EXPECT, TCP, helper Q.931, permanent, from the gatekeeper
 *               only, for timeToLive seconds (300 when not given); rasAddress as in GRQ
 *   RCF, IRR    callSignalAddress: FIND_REWRITE, see below; IRR: rasAddress as in GRQ
 *   URQ         callSignalAddress as in RCF; FIND_CLOSE
 *   ARQ         destCallSignalAddress that is the sender's registered one: as in RCF; else srcCallSignalAddress of the
 *               sender: FIND_REWRITE of the address, the port stays (translatedPort = port)
 *   ACF, LCF    destCallSignalAddress, callSignalAddress: FIND_EXPECT, TCP, helper Q.931, permanent, nothing to rewrite;
 *               ACF to the receiver's own address (it is being called): as in RCF
 *
 * A FIND_REWRITE with proto 6 names not this flow but the Q.931 endpoint that an RRQ opened, an expectation of this
 * flow: reverse 0 has the endpoint as its owner knows it (give the port that the expectation has outside), reverse 1 as
 * the gatekeeper was told (give back the owner's). No such expectation: leave the bytes alone.
 *
 * Expectations that name a third host (GCF, ACF, LCF) are reported only where the configuration allows it (`bounce`):
 * the connections that they stand for go out of the named side, where policy lets them pass anyway.
 *
 * Not decoded: everything after the last address above; RCF's timeToLive (RRQ's counts); other messages.
 */
import {
  aliases,
  callModel,
  callType,
  endpointType,
  identifier,
  nonStandardParameter,
  notedFinding,
  notedIs,
  notedPort,
  Q931_NUMBER,
  RAS_NUMBER,
  rewriteOwn,
  transportAddress,
  vendorIdentifier,
  writeTransport,
} from './h323-h225.ts';
import {
  FIND_CLOSE,
  FIND_EXPECT,
  FIND_REWRITE,
  type Helper,
  type HelperContext,
  NOT_UNDERSTOOD,
  nextFinding,
  UNDERSTOOD,
} from './helper.ts';
import {
  boolean,
  cutSequence,
  extensible,
  integer,
  mark,
  objectIdentifier,
  openChoice,
  opt,
  PerReader,
  type PerType,
  rest,
  sequence,
  sequenceOf,
} from './per.ts';

const TCP = 6;
const UDP = 17;

// Marks, which also tell the message.
const M_RAS = 1; // GRQ, RRQ, LRQ, IRR
const M_GATEKEEPER = 2; // GCF
const M_REGISTER = 3; // RRQ
const M_TTL = 4;
const M_SIGNAL = 5; // RCF, URQ, IRR
const M_CALLED = 6; // ARQ
const M_CALLER = 7; // ARQ
const M_ADMITTED = 8; // ACF
const M_LOCATED = 9; // LCF
const M_MESSAGE = 10;
const URQ = 6;

/** RRQ without timeToLive (netfilter's default_rrq_ttl), and the longest believed, seconds. */
const DEFAULT_TTL = 300;
const MOST_TTL = 86400;

/** State: the port of the sender's registered call signalling address, by direction. */
const SIGNAL_PORT = 0;

const addresses = sequenceOf(transportAddress);
const sequenceNumber = integer(1, 65535);
const bandwidth = integer(0, 4294967295);

const gatekeeperRequest = cutSequence(
  sequenceNumber,
  objectIdentifier,
  opt(nonStandardParameter),
  mark(transportAddress, M_RAS),
  rest, // endpointType
  opt(rest), // gatekeeperIdentifier
  opt(rest), // callServices
  opt(rest), // endpointAlias
);
const gatekeeperConfirm = cutSequence(
  sequenceNumber,
  objectIdentifier,
  opt(nonStandardParameter),
  opt(identifier),
  mark(transportAddress, M_GATEKEEPER),
);
const registrationRequest = extensible(
  [
    sequenceNumber,
    objectIdentifier,
    opt(nonStandardParameter),
    boolean, // discoveryComplete
    mark(addresses, M_REGISTER),
    mark(addresses, M_RAS),
    endpointType,
    opt(aliases),
    opt(identifier),
    vendorIdentifier,
  ],
  [null, mark(integer(1, 4294967295, true), M_TTL)], // alternateEndpoints, timeToLive
);
const registrationConfirm = cutSequence(
  sequenceNumber,
  objectIdentifier,
  opt(nonStandardParameter),
  mark(addresses, M_SIGNAL),
  opt(rest), // terminalAlias
  opt(rest), // gatekeeperIdentifier
  rest, // endpointIdentifier
);
const unregistrationRequest = cutSequence(
  sequenceNumber,
  mark(addresses, M_SIGNAL),
  opt(rest), // endpointAlias
  opt(rest), // nonStandardData
  opt(rest), // endpointIdentifier
);
const admissionRequest = cutSequence(
  sequenceNumber,
  callType,
  opt(callModel),
  identifier,
  opt(aliases), // destinationInfo
  opt(transportAddress, M_CALLED),
  opt(aliases), // destExtraCallInfo
  aliases, // srcInfo
  opt(transportAddress, M_CALLER),
  rest, // bandWidth
  opt(rest), // nonStandardData
  opt(rest), // callServices
);
const admissionConfirm = cutSequence(
  sequenceNumber,
  bandwidth,
  callModel,
  mark(transportAddress, M_ADMITTED),
  opt(rest), // irrFrequency
  opt(rest), // nonStandardData
);
const locationRequest = cutSequence(
  sequenceNumber,
  opt(identifier),
  aliases,
  opt(nonStandardParameter),
  mark(transportAddress, M_RAS),
);
const locationConfirm = cutSequence(
  sequenceNumber,
  mark(transportAddress, M_LOCATED),
  rest, // rasAddress: of no use here
  opt(rest), // nonStandardData
);
const infoRequestResponse = cutSequence(
  opt(nonStandardParameter),
  sequenceNumber,
  endpointType,
  identifier,
  mark(transportAddress, M_RAS),
  mark(addresses, M_SIGNAL),
  opt(rest), // endpointAlias
  opt(rest), // perCallInfo
);

const ROOT_MESSAGES = 25;
const known: (PerType | undefined)[] = [];
known[0] = gatekeeperRequest;
known[1] = gatekeeperConfirm;
known[3] = registrationRequest;
known[4] = registrationConfirm;
known[URQ] = unregistrationRequest;
known[9] = admissionRequest;
known[10] = admissionConfirm;
known[18] = locationRequest;
known[19] = locationConfirm;
known[22] = infoRequestResponse;
/** RasMessage; its index is noted with the mark of the component that holds it. */
const rasMessage = openChoice(
  Array.from({ length: ROOT_MESSAGES }, (_, n) => known[n] ?? rest),
  [],
  true,
);
const message = sequence(mark(rasMessage, M_MESSAGE));

/** A connection that the gatekeeper directs the receiver to make. */
function expectOutward(c: HelperContext, per: PerReader, n: number, proto: number, helper: number): void {
  if (!c.bounce && !notedIs(c, per, n, c.src)) return;
  const f = notedFinding(c, per, n, FIND_EXPECT);
  if (f === null) return;
  f.to = f.from; // nothing is rewritten: the address is the receiver's business
  f.proto = proto;
  f.helper = helper;
  f.permanent = proto === TCP ? 1 : 0;
}

/** The registered endpoint, seen from its own side (reverse 0) or coming back from the gatekeeper (1). */
function rewriteSignal(c: HelperContext, per: PerReader, n: number, reverse: number): void {
  const f = notedFinding(c, per, n, FIND_REWRITE);
  if (f === null) return;
  f.proto = TCP;
  f.reverse = reverse;
}

function findings(c: HelperContext, per: PerReader): void {
  const registered = c.stateAt + SIGNAL_PORT + c.dir;
  const translated = c.nat && c.family === 4;
  let ttl = DEFAULT_TTL;
  let over = false;
  let done = 0; // marks that are for the first fitting address only
  for (let n = 0; n < per.count; n++) if (per.marks[n] === M_TTL) ttl = Math.min(per.values[n] >>> 0, MOST_TTL);
  for (let n = 0; n < per.count; n++) {
    const m = per.marks[n];
    if (per.families[n] === 0) {
      if (m === M_MESSAGE) over = per.values[n] === URQ;
      continue;
    }
    if (per.families[n] !== c.family) continue;
    const port = notedPort(c, per, n);
    if (port === 0 || (done & (1 << m)) !== 0) continue;
    const own = notedIs(c, per, n, c.src);
    if (m === M_REGISTER && own) {
      done |= 1 << m;
      const f = notedFinding(c, per, n, FIND_EXPECT);
      if (f === null) return;
      f.proto = TCP;
      f.helper = Q931_NUMBER;
      f.permanent = 1;
      f.timeout = ttl;
      c.state[registered] = port;
    } else if (m === M_RAS && own && port === c.sport && translated) {
      done |= 1 << m;
      rewriteOwn(c, per, n, c.sportTranslated);
    } else if (m === M_GATEKEEPER && !(own && port === c.sport)) expectOutward(c, per, n, UDP, RAS_NUMBER);
    else if (m === M_SIGNAL && translated) {
      if (own && port === c.state[registered]) rewriteSignal(c, per, n, 0);
      else if (notedIs(c, per, n, c.dst)) rewriteSignal(c, per, n, 1);
      else continue;
      done |= 1 << m;
    } else if (m === M_CALLED && translated && own && port === c.state[registered]) {
      rewriteSignal(c, per, n, 0);
      done |= 1 << M_CALLER;
    } else if (m === M_CALLER && translated && own) rewriteOwn(c, per, n, port);
    else if (m === M_ADMITTED && notedIs(c, per, n, c.dst)) {
      if (translated) rewriteSignal(c, per, n, 1);
    } else if (m === M_ADMITTED || m === M_LOCATED) expectOutward(c, per, n, TCP, Q931_NUMBER);
  }
  if (over) close(c); // last: what is rewritten above is looked up among the expectations that this ends
}

/** The registration is over, and with it the port that it opened. */
function close(c: HelperContext): void {
  const f = nextFinding(c, FIND_CLOSE, c.from, c.from);
  if (f !== null) f.proto = TCP;
}

const per = new PerReader();

function inspect(c: HelperContext): number {
  if (!per.decode(message, c.u8, c.from, c.to)) return NOT_UNDERSTOOD;
  findings(c, per);
  return UNDERSTOOD;
}

export const ras: Helper = {
  name: 'RAS',
  number: RAS_NUMBER,
  ports: [1719],
  protocols: [UDP],
  limits: [32],
  inspect,
  write: writeTransport,
};
