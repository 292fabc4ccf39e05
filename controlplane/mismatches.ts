/**
 * Mismatches: the file that gets both frames of every difference that verify mode finds.
 *
 * Apart from controlplane/offload.ts, since this one needs files, and the inline router does not.
 */
import type { CaptureError } from '../dataplane/ports/capture-reader.ts';
import { CaptureWriter } from '../dataplane/ports/capture-writer.ts';
import type { Mismatch } from './offload.ts';

/**
 * Writes the frames of every mismatch to a pcapng file, made with the first of them: interface `engine` has the engine's
 * frame, `slow-path` the other, both with what differs as their comment.
 */
export class MismatchCapture {
  private readonly file: string | null;
  private writer: CaptureWriter | null = null;

  /** @param file null: into memory (tests) */
  constructor(file: string | null) {
    this.file = file;
  }

  /** To be given as RouterOptions.mismatch. */
  readonly write = (mismatch: Mismatch, milliseconds: number): void => {
    this.writer ??= new CaptureWriter(this.file, { format: 'pcapng', interfaces: ['engine', 'slow-path'] });
    const seconds = Math.floor(milliseconds / 1000);
    const nanoseconds = (milliseconds % 1000) * 1e6;
    const { engine, slow } = mismatch;
    const comment = `offload mismatch: ${mismatch.what}`;
    this.writer.write(engine, 0, engine.length, engine.length, seconds, nanoseconds, 0, 0, -1, comment);
    if (slow === null) return;
    this.writer.write(slow, 0, slow.length, slow.length, seconds, nanoseconds, 1, 0, -1, comment);
  };

  /** The file's bytes when it is in memory. */
  bytes(): Uint8Array {
    return this.writer?.toBytes() ?? new Uint8Array(0);
  }

  /** Closes the file. Returns what failed in it. */
  close(): CaptureError | null {
    this.writer?.close();
    return this.writer?.error ?? null;
  }
}
