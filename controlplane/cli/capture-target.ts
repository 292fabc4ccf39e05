/**
 * Capture target: the file, named pipe or standard output of `sluice capture`.
 *
 * Pipes are written without blocking, so that Ctrl-C, SIGTERM and --seconds are heard while nobody reads; what does not go at once
 * waits here, and the caller, who stops reading from the router meanwhile. It ends behind a whole block: what a full disk took of
 * the last one is taken back. A standard output that is a socket is written as it is: it may block.
 */
import { closeSync, constants, fstatSync, openSync, writeSync } from 'node:fs';
import { framesIn, openForWriting, takeBack, wholeRecords } from '../../dataplane/ports/capture-cut.ts';

const { O_WRONLY, O_TRUNC, O_NONBLOCK } = constants;

export class CaptureTarget {
  private readonly file: string;
  private descriptor = -1;
  /** Whole blocks, and how many bytes of them have gone. */
  private blocks: Uint8Array = new Uint8Array(0);
  private sent = 0;

  /** @param file `-` for the standard output */
  constructor(file: string) {
    this.file = file;
  }

  /** Opens it; false: a named pipe that nobody reads yet. Throws what the system says of a file that cannot be written. */
  open(): boolean {
    if (this.file === '-') {
      this.descriptor = nonBlockingOutput();
      return true;
    }
    try {
      this.descriptor = openForWriting(this.file, O_TRUNC);
      return true;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENXIO') return false;
      throw error;
    }
  }

  /** Something has not gone yet. */
  get waiting(): boolean {
    return this.sent < this.blocks.length;
  }

  /** Hands whole blocks over, when nothing waits. Returns as `push`. */
  write(blocks: Uint8Array): string {
    this.blocks = blocks;
    this.sent = 0;
    return this.push();
  }

  /** Writes what can be written now. Returns '', or what is wrong: EPIPE when nobody reads any more. */
  push(): string {
    while (this.waiting)
      try {
        this.sent += writeSync(this.descriptor, this.blocks, this.sent);
      } catch (error) {
        const { code, message } = error as NodeJS.ErrnoException;
        if (code === 'EAGAIN') return '';
        if (code !== 'EINTR') return code ?? message;
      }
    return '';
  }

  /** Gives up what waits, but for the rest of a block that has begun. Returns how many frames will be missing. */
  trim(): number {
    const { blocks, sent } = this;
    let end = wholeRecords(blocks, 0, sent, 'pcapng');
    if (end < sent) end += new DataView(blocks.buffer, blocks.byteOffset).getUint32(end + 4, true);
    const missing = framesIn(blocks, end, blocks.length, 'pcapng');
    this.blocks = blocks.subarray(0, end);
    return missing;
  }

  /** Closes it. A file ends behind a whole block. Returns how many frames did not get through whole. */
  close(): number {
    const { blocks, sent, descriptor } = this;
    if (descriptor < 0) return 0;
    const whole = wholeRecords(blocks, 0, sent, 'pcapng');
    if (this.file !== '-') takeBack(descriptor, sent - whole);
    if (descriptor > 2) closeSync(descriptor);
    this.descriptor = -1;
    return framesIn(blocks, whole, blocks.length, 'pcapng');
  }
}

/**
 * The standard output; where it is a pipe, opened once more without blocking: the flag of the one that others share (the shell,
 * what writes to it before and after) stays as it is.
 */
function nonBlockingOutput(): number {
  try {
    if (fstatSync(1).isFIFO()) return openSync('/proc/self/fd/1', O_WRONLY | O_NONBLOCK);
  } catch {
    // No /proc, or a pipe of another user: it may block.
  }
  return 1;
}
