/**
 * TFTP: the server answers from a port of its own (RFC 1350 §4), which no tracker would take for the same connection.
 *
 *   client:40000 → server:69   RRQ (1) or WRQ (2), a file name, a mode
 *   server:any   → client:40000   what is expected
 *
 * The payload names no address, so nothing is rewritten: the expected packets go to the endpoint that the request came
 * from, translated as the request was. As Linux's helper, only the operation code is looked at.
 *
 * Not here: option negotiation (RFC 2347), the transfer itself.
 */
import {
  FIND_EXPECT,
  type Finding,
  FROM_PEER,
  type Helper,
  type HelperContext,
  NOT_UNDERSTOOD,
  nextFinding,
  UNDERSTOOD,
} from './helper.ts';
import { copyAddress } from './text.ts';

export const TFTP = 2;

const READ_REQUEST = 1;
const WRITE_REQUEST = 2;
/** The last code that is defined: OACK, RFC 2347. */
const LAST_CODE = 6;

export const tftp: Helper = {
  name: 'tftp',
  number: TFTP,
  ports: [69],
  protocols: [17],
  limits: [1],
  inspect,
  write,
};

function inspect(c: HelperContext): number {
  if (c.to - c.from < 2) return NOT_UNDERSTOOD;
  const code = (c.u8[c.from] << 8) | c.u8[c.from + 1];
  if (code === 0 || code > LAST_CODE) return NOT_UNDERSTOOD;
  if (c.dir !== 0 || (code !== READ_REQUEST && code !== WRITE_REQUEST)) return UNDERSTOOD;
  const f = nextFinding(c, FIND_EXPECT, c.from, c.from);
  if (f === null) return UNDERSTOOD;
  copyAddress(c.family, c.src, f.address);
  f.port = c.sport;
  f.proto = 17;
  f.who = FROM_PEER;
  // The server saw the request come from there, and answers there: no other port would do.
  if (c.nat) f.translatedPort = c.sportTranslated;
  return UNDERSTOOD;
}

/** Never asked: nothing is rewritten. */
function write(
  _f: Finding,
  _family: number,
  _address: Int32Array,
  _port: number,
  _out: Uint8Array,
  _at: number,
): number {
  return 0;
}
