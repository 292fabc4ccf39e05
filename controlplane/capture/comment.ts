/** Comment: what a capture says of a frame: why it was dropped, how it was translated, what it answers. */
import * as D from '../../dataplane/drop.ts';
import * as B from '../../dataplane/watch-block.ts';
import { EX_MISS, EX_TEXT } from '../../offload/engine.ts';
import { dropText, endpoint, hasPortPair, hostPort } from '../explain/words.ts';

/** A record's words (watch-block.ts), by number. */
export type RecordWord = (n: number) => number;

/** The comment on a frame, '' when there is nothing to say. */
export function frameComment(word: RecordWord): string {
  const verdict = word(B.R_VERDICT);
  const flags = word(B.R_FLAGS);
  const waited = (flags & B.RF_RESUMED) !== 0 ? ' after it had waited' : '';
  if (verdict >= D.DROP) return `drop ${dropText(verdict - D.DROP, word(B.R_STAGE), word(B.R_DETAIL))}${waited}`;
  if (word(B.R_DIRECTION) === B.DIRECTION_IN) {
    if (verdict === D.HELD) return `held at ${D.STAGES[word(B.R_STAGE)]}`;
    if (verdict === D.DELIVERED) return 'delivered to the router';
    if (verdict === D.CONSUMED)
      return word(B.R_STAGE) === D.STAGE_REASSEMBLY ? 'to the worker that reassembles it' : 'went on as other frames';
    if ((flags & B.RF_ENGINE) !== 0) return 'forwarded by the engine';
    const why = flags >> B.RF_WHY;
    // No entry is no exception: most packets have none.
    return why <= EX_MISS ? 'forwarded' : `forwarded; the engine left it to the slow path: ${EX_TEXT[why]}`;
  }
  const answers = word(B.R_ANSWERS);
  const parts =
    (flags & B.RF_OWN) === 0 ? [] : [answers === 0 ? 'generated' : `generated in answer to packet ${answers >>> 0}`];
  parts.push(...translation(word));
  if (waited !== '') parts.push('had waited for its neighbour');
  return parts.join(', ');
}

/** `snat 192.168.1.10:4000 -> 203.0.113.1:4000`, and the same of a destination. */
export function translation(word: RecordWord): string[] {
  const key = word(B.R_KEY);
  const family = key >> 8;
  const pair = hasPortPair(key & 0xff);
  const end = (address: number, port: number): string =>
    endpoint(family, [word(address), word(address + 1), word(address + 2), word(address + 3)], pair ? port : -1);
  const low = (n: number): number => hostPort(word(n) & 0xffff);
  const high = (n: number): number => hostPort(word(n) >>> 16);
  if (key === 0 || word(B.R_SRC) === 0) return [];
  const source = [end(B.R_RSRC, low(B.R_RPORTS)), end(B.R_SRC, low(B.R_PORTS))];
  const destination = [end(B.R_RDST, high(B.R_RPORTS)), end(B.R_DST, high(B.R_PORTS))];
  const parts: string[] = [];
  if (source[0] !== source[1]) parts.push(`snat ${source[0]} -> ${source[1]}`);
  if (destination[0] !== destination[1]) parts.push(`dnat ${destination[0]} -> ${destination[1]}`);
  return parts;
}
