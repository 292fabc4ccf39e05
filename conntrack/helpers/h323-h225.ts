/**
 * H.225.0 types that call signalling (Q.931) and RAS share, as tables for the PER decoder, and how their transport
 * addresses become findings and are written.
 *
 * From ITU-T H.225.0 (12/2009), module H323-MESSAGES; only root components are spelled out where the additions are of
 * no interest (an addition is an open type and skips itself).
 */
import { FIND_REWRITE, type Finding, type HelperContext, nextFinding } from './helper.ts';
import {
  address4,
  address6,
  boolean,
  extensible,
  integer,
  nothing,
  objectIdentifier,
  octets,
  openChoice,
  opt,
  type PerReader,
  sequence,
  sequenceOf,
  text,
} from './per.ts';

/** Numbers in the registry: here, because the three name each other in their expectations. */
export const Q931_NUMBER = 7;
export const H245_NUMBER = 8;
export const RAS_NUMBER = 9;
/** netfilter's time for all expectations of H.323, seconds. */
export const H323_TIMEOUT = 240;

const h221NonStandard = extensible([integer(0, 255), integer(0, 255), integer(0, 65535)]);
export const nonStandardParameter = sequence(openChoice([objectIdentifier, h221NonStandard]), octets());
const onlyNonStandard = extensible([opt(nonStandardParameter)]);

/** IA5String (SIZE (1..128)) (FROM ("0123456789#*,")): 13 letters take 4 bits. */
export const digits = text(4, 1, 128);
/** GatekeeperIdentifier and EndpointIdentifier. */
export const identifier = text(16, 1, 128);
export const guid = octets(16, 16);

export const transportAddress = openChoice([
  sequence(address4),
  extensible([
    octets(4, 4),
    integer(0, 65535),
    sequenceOf(octets(4, 4)),
    openChoice([nothing, nothing]), // strict, loose
  ]),
  sequence(octets(6, 6), octets(4, 4), octets(2, 2)), // IPX
  extensible([address6]),
  octets(16, 16), // NetBIOS
  octets(1, 20), // NSAP
  nonStandardParameter,
]);

export const aliasAddress = openChoice([digits, text(16, 1, 256)]);
export const aliases = sequenceOf(aliasAddress);

export const vendorIdentifier = extensible([h221NonStandard, opt(octets(1, 256)), opt(octets(1, 256))]);
const supportedProtocols = openChoice([
  nonStandardParameter,
  onlyNonStandard, // h310
  onlyNonStandard, // h320
  onlyNonStandard, // h321
  onlyNonStandard, // h322
  onlyNonStandard, // h323
  onlyNonStandard, // h324
  onlyNonStandard, // voice
  onlyNonStandard, // t120-only
]);
const gatewayInfo = extensible([opt(sequenceOf(supportedProtocols)), opt(nonStandardParameter)]);
export const endpointType = extensible([
  opt(nonStandardParameter),
  opt(vendorIdentifier),
  opt(onlyNonStandard), // gatekeeper
  opt(gatewayInfo),
  opt(onlyNonStandard), // mcu
  opt(onlyNonStandard), // terminal
  boolean, // mc
  boolean, // undefinedNode
]);

const q954Details = extensible([boolean, boolean]);
export const qseriesOptions = extensible([boolean, boolean, boolean, boolean, boolean, boolean, boolean, q954Details]);
export const callType = openChoice([nothing, nothing, nothing, nothing]);
export const callModel = openChoice([nothing, nothing]);
const securityServiceMode = openChoice([nonStandardParameter, nothing, nothing]);
const securityCapabilities = extensible([
  opt(nonStandardParameter),
  securityServiceMode,
  securityServiceMode,
  securityServiceMode,
]);
export const h245Security = openChoice([nonStandardParameter, nothing, securityCapabilities, securityCapabilities]);

/** Format of findings: address and port as they stand in the message; PLUS_ONE: the port after the one given. */
export const TRANSPORT = 1;
export const TRANSPORT_PLUS_ONE = 2;

/** Port of the address that note `n` found (host order). */
export function notedPort(c: HelperContext, per: PerReader, n: number): number {
  const at = per.values[n] + (per.families[n] === 4 ? 4 : 16);
  return (c.u8[at] << 8) | c.u8[at + 1];
}

/** Word `k` of the address of note `n`, raw. */
function notedWord(c: HelperContext, per: PerReader, n: number, k: number): number {
  const at = per.values[n] + 4 * k;
  return c.u8[at] | (c.u8[at + 1] << 8) | (c.u8[at + 2] << 16) | (c.u8[at + 3] << 24);
}

/** True when note `n` is an address of the connection's family and equals `address`. */
export function notedIs(c: HelperContext, per: PerReader, n: number, address: Int32Array): boolean {
  if (per.families[n] !== c.family) return false;
  for (let k = c.family === 4 ? 0 : 3; k >= 0; k--) if (notedWord(c, per, n, k) !== address[k]) return false;
  return true;
}

/** A finding over the address and port of note `n`, which has the connection's family. `null`: no more room. */
export function notedFinding(c: HelperContext, per: PerReader, n: number, kind: number): Finding | null {
  const from = per.values[n];
  const f = nextFinding(c, kind, from, from + (c.family === 4 ? 6 : 18));
  if (f === null) return null;
  f.format = TRANSPORT;
  f.port = notedPort(c, per, n);
  f.timeout = H323_TIMEOUT;
  for (let k = c.family === 4 ? 0 : 3; k >= 0; k--) f.address[k] = notedWord(c, per, n, k);
  return f;
}

/** An address of the sender's own side in note `n`: becomes the sender as the receiver knows it, with `port`. */
export function rewriteOwn(c: HelperContext, per: PerReader, n: number, port: number): void {
  const f = notedFinding(c, per, n, FIND_REWRITE);
  if (f !== null) f.translatedPort = port;
}

/** Writes address and port, both big endian: 6 bytes (IPv4) or 18. */
export function writeTransport(
  f: Finding,
  family: number,
  address: Int32Array,
  port: number,
  out: Uint8Array,
  at: number,
): number {
  const words = family === 4 ? 1 : 4;
  for (let k = 0; k < words; k++) for (let b = 0; b < 4; b++) out[at + 4 * k + b] = address[k] >>> (8 * b);
  const written = f.format === TRANSPORT_PLUS_ONE ? port + 1 : port;
  out[at + 4 * words] = written >>> 8;
  out[at + 4 * words + 1] = written;
  return 4 * words + 2;
}
