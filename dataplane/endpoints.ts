/**
 * Endpoints: which sources and destinations a line of a rule list asks for, as words of that line.
 *
 *   two words in a row   SPORT  first << 16 | last, host order, 0xffff any    DPORT
 *   16 words in a row    0–3 SRC   4–7 SRC_MASK   8–11 DST   12–15 DST_MASK   raw; a mask of zeros matches anything
 *
 * Here is how they are written. The filter (filter.ts) and policy routing (policy.ts) compare them in loops of their own.
 */

/** The ports' word that matches any port, also of protocols that have none. */
export const ANY_PORT = 0xffff;

/** An address with a mask, raw words; IPv4 uses the first. */
export interface MaskedAddress {
  words: readonly number[];
  mask: readonly number[];
}

export interface Endpoints {
  /** null any. */
  src: MaskedAddress | null;
  dst: MaskedAddress | null;
  /** First and last, host integers; null any. Only with a protocol that has ports. */
  sport: readonly [number, number] | null;
  dport: readonly [number, number] | null;
}

/** Writes a line's endpoints. @param ports word index of SPORT   @param addresses of SRC */
export function writeEndpoints(w: Int32Array, ports: number, addresses: number, line: Endpoints): void {
  const { src, dst, sport, dport } = line;
  w[ports] = sport === null ? ANY_PORT : (sport[0] << 16) | sport[1];
  w[ports + 1] = dport === null ? ANY_PORT : (dport[0] << 16) | dport[1];
  for (let n = 0; n < 4; n++) {
    const [from, to] = [src?.mask[n] ?? 0, dst?.mask[n] ?? 0];
    w[addresses + n] = (src?.words[n] ?? 0) & from;
    w[addresses + 4 + n] = from;
    w[addresses + 8 + n] = (dst?.words[n] ?? 0) & to;
    w[addresses + 12 + n] = to;
  }
}
