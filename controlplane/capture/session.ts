/**
 * Session: one capture that runs, as pcapng: an interface for each port, the direction of each frame, the same packet
 * identifier (epb_packetid) for a frame received and what was sent because of it, and a comment that says what happened.
 */
import {
  CaptureWriter,
  DIRECTION_INBOUND,
  DIRECTION_OUTBOUND,
  DIRECTION_UNKNOWN,
} from '../../dataplane/ports/capture-writer.ts';
import type { RingReader } from '../../dataplane/rings.ts';
import * as B from '../../dataplane/watch-block.ts';
import type { Config } from '../config/index.ts';
import { frameComment, type RecordWord } from './comment.ts';

/** Bytes that wait for a slow reader; what comes then is lost and counted. */
const WAITING = 16 * 1024 * 1024;
const DIRECTIONS: Readonly<Record<number, number>> = {
  [B.DIRECTION_IN]: DIRECTION_INBOUND,
  [B.DIRECTION_OUT]: DIRECTION_OUTBOUND,
};

export class CaptureSession {
  /** Frames written; frames that the reader was too slow for. */
  frames = 0;
  skipped = 0;
  /** Called when there is something to read. */
  onData: () => void = () => {};
  private readonly writer: CaptureWriter;
  private readonly interfaces = new Map<number, number>();
  private readonly rings: readonly RingReader[];
  private readonly end: () => void;
  private readonly lostBefore: number;
  private told = 0;
  private waiting = 0;
  private open = true;

  /** @param snap bytes kept of each frame   @param end called once, when the capture is closed */
  constructor(config: Config, rings: readonly RingReader[], snap: number, end: () => void) {
    this.writer = new CaptureWriter(null, { format: 'pcapng', userApplication: 'sluice', snapLength: snap });
    for (const { name, number } of config.ports) this.interfaces.set(number, this.writer.addInterface(name));
    this.rings = rings;
    this.end = end;
    this.lostBefore = this.lostInRings();
    this.waiting = this.writer.bytes;
  }

  private lostInRings(): number {
    return this.rings.reduce((sum, ring) => sum + ring.lost, 0);
  }

  /** Frames that found no room on their way here, of this capture or of another that ran meanwhile. */
  get lost(): number {
    return this.lostInRings() - this.lostBefore + this.skipped;
  }

  /** Writes a frame that the workers recorded. */
  write(word: RecordWord, port: number, bytes: Uint8Array, worker: number): void {
    if (!this.open) return;
    if (this.waiting > WAITING) {
      this.skipped++;
      return;
    }
    let id = this.interfaces.get(port);
    if (id === undefined) {
      // A port that came later, or the way to the host kernel.
      id = this.writer.addInterface(port >= 0 ? `sluice${port}` : 'unknown');
      this.interfaces.set(port, id);
    }
    const lost = this.lost;
    const loss =
      lost > this.told ? ` (${lost - this.told} frames were lost about here: the capture could not keep up)` : '';
    this.told = lost;
    const before = this.writer.bytes;
    this.writer.write(
      bytes,
      0,
      bytes.length,
      word(B.R_LENGTH),
      word(B.R_SECONDS) >>> 0,
      word(B.R_NANOS),
      id,
      DIRECTIONS[word(B.R_DIRECTION)] ?? DIRECTION_UNKNOWN,
      (word(B.R_ID) >>> 0) + worker * 4294967296,
      `${frameComment(word)}${loss}`,
    );
    this.waiting += this.writer.bytes - before;
    this.frames++;
  }

  /** Writes down how many frames were lost so far. Also what shows the reader of a quiet capture that it goes on. */
  statistics(): void {
    const now = Date.now();
    const seconds = Math.floor(now / 1000);
    this.writer.statistics(0, seconds, (now - seconds * 1000) * 1e6, this.lost);
    this.waiting += 1;
  }

  /** Tells the reader. */
  wake(): void {
    if (this.open && this.waiting > 0) this.onData();
  }

  /** pcapng since the last `read`; a whole file when all reads are put together. */
  read(): Uint8Array<ArrayBuffer> {
    this.waiting = 0;
    return this.writer.take();
  }

  /** Ends the capture; what was written can still be read. */
  close(): void {
    if (!this.open) return;
    this.open = false;
    this.end();
  }
}
