/**
 * Filters: what the VALUE of FILTER=VALUE may be. A value that nothing could ever match is an error: a misspelt word must
 * not look like an empty table. Every function throws RangeError in the house form.
 */
import { PROTOCOL_NAMES, STATE_WORDS } from '../../conntrack/format.ts';
import { inPrefix, networkWords, parseAddress, parseCidr } from '../../dataplane/wire/address.ts';
import { didYouMean, quote } from '../config/errors.ts';
import type { Config } from '../config/index.ts';

/** True for the addresses that an address or a prefix covers. */
export function addressFilter(name: string, text: string | undefined): (address: string | undefined) => boolean {
  if (text === undefined) return () => true;
  const exact = parseAddress(text);
  const bits = exact?.family === 4 ? 32 : 128;
  const prefix = exact === null ? parseCidr(text) : { ...exact, prefixLength: bits };
  if (prefix === null) throw new RangeError(`${name}: expected an address or a prefix, got ${quote(text)}`);
  const network = { ...prefix, words: networkWords(prefix.family, prefix.words, prefix.prefixLength) };
  return (address) => {
    const parsed = address === undefined ? null : parseAddress(address);
    return parsed !== null && parsed.family === network.family && inPrefix(parsed.words, network);
  };
}

/** A whole number up to `most`, such as a port. */
export function numberFilter(name: string, text: string | undefined, most: number): (value?: number) => boolean {
  if (text === undefined) return () => true;
  const wanted = /^\d{1,5}$/.test(text) ? Number(text) : Number.NaN;
  if (!(wanted <= most)) throw new RangeError(`${name}: expected a number from 0 to ${most}, got ${quote(text)}`);
  return (value) => value === wanted;
}

/** A protocol by the conntrack tool's name or by number. */
export function protocolFilter(text: string | undefined): (name: string, proto: number) => boolean {
  if (text === undefined) return () => true;
  const wanted = text.toLowerCase();
  if (/^\d{1,3}$/.test(wanted) && Number(wanted) <= 255) return (_, proto) => proto === Number(wanted);
  if (!PROTOCOL_NAMES.includes(wanted))
    throw new RangeError(
      `proto: expected one of ${PROTOCOL_NAMES.join(', ')}, or a number from 0 to 255, got ${quote(text)}`,
    );
  return (name) => name === wanted;
}

/** A state of TCP or SCTP, or a status; in capitals. Undefined: any. */
export function stateFilter(text: string | undefined): string | undefined {
  const wanted = text?.toUpperCase();
  if (wanted !== undefined && !STATE_WORDS.includes(wanted)) {
    const near = didYouMean(wanted, STATE_WORDS);
    throw new RangeError(
      `state: expected ${near === '' ? `one of ${STATE_WORDS.join(', ')}` : 'a state'}, got ${quote(text)}${near === '' ? '' : `; ${near}`}`,
    );
  }
  return wanted;
}

/** A port of the configuration. */
export function portFilter(config: Config, name: string | undefined): (dev: string | undefined) => boolean {
  if (name === undefined) return () => true;
  const names = config.ports.map((port) => port.name);
  if (!names.includes(name)) throw new RangeError(`dev: expected one of ${names.join(', ')}, got ${quote(name)}`);
  return (dev) => dev === name;
}
