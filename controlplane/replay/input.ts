/**
 * Input: captures as one sequence of Ethernet frames in the order of time.
 *
 * Frames of all captures are merged by time; at the same time the capture that was named first goes first. Within a
 * capture the order of the file stands: a time stamp that goes backwards counts as the one before it. A capture that
 * is broken gives what precedes the fault, and `error` says the rest.
 */
import {
  type CaptureReader,
  ETHERNET_HEADER,
  ethernetFrame,
  openCapture,
} from '../../dataplane/ports/capture-reader.ts';

export class CaptureInput {
  readonly file: string;
  readonly reader: CaptureReader;
  /** Number of the port that the frames enter; −1 when that depends on the frame. */
  readonly port: number;
  /** The current frame is frame[0 … length). */
  frame = new Uint8Array(2048);
  length = 0;
  /** Time of the current frame, never before that of the one before it. */
  seconds = 0;
  nanoseconds = 0;
  /** The current frame was cut when it was captured. */
  cut = false;
  /** Frames that are neither Ethernet nor IP, and so cannot be played. */
  unknown = 0;
  /** Frames that were cut when they were captured. */
  cuts = 0;
  /** Frames given. */
  frames = 0;
  private started = false;

  /** @throws CaptureError when the file cannot be opened; what is wrong inside is told by the reader's `error` */
  constructor(file: string, port: number, reader: CaptureReader = openCapture(file)) {
    this.file = file;
    this.port = port;
    this.reader = reader;
  }

  /** Goes to the next frame that can be played. */
  next(): boolean {
    const reader = this.reader;
    while (reader.next()) {
      const room = reader.capturedLength + ETHERNET_HEADER;
      if (this.frame.length < room) this.frame = new Uint8Array(room * 2);
      this.length = ethernetFrame(reader, this.frame, 0);
      if (!this.started || compare(reader.seconds, reader.nanoseconds, this.seconds, this.nanoseconds) > 0) {
        this.seconds = reader.seconds;
        this.nanoseconds = reader.nanoseconds;
      }
      this.started = true;
      if (this.length < 0) {
        this.unknown++;
        continue;
      }
      this.cut = reader.capturedLength < reader.originalLength;
      if (this.cut) this.cuts++;
      this.frames++;
      return true;
    }
    this.length = 0;
    return false;
  }

  /** Back to the beginning; counts start anew. */
  rewind(): void {
    this.reader.rewind();
    this.length = 0;
    this.unknown = 0;
    this.cuts = 0;
    this.frames = 0;
    this.started = false;
  }

  /** Share of the file that has been read, 0 to 1. */
  get progress(): number {
    return this.reader.data.length === 0 ? 1 : this.reader.offset / this.reader.data.length;
  }

  /** True when time stamps finer than microseconds may appear. */
  get nano(): boolean {
    return this.reader.interfaces.some((one) => one.unitsPerSecond > 1e6);
  }
}

/** Order of two times. */
export function compare(s1: number, n1: number, s2: number, n2: number): number {
  return s1 === s2 ? n1 - n2 : s1 - s2;
}

/** Merges captures by time. Call next() until it gives null; the input given stands on the frame. */
export class Timeline {
  /** Inputs that stand on a frame, in the order in which they were named. */
  private readonly open: CaptureInput[];
  private current: CaptureInput | null = null;

  constructor(inputs: readonly CaptureInput[]) {
    this.open = inputs.filter((input) => input.next());
  }

  /** The input whose frame comes next; null at the end of all. */
  next(): CaptureInput | null {
    const { open } = this;
    if (this.current !== null && !this.current.next()) open.splice(open.indexOf(this.current), 1);
    let first = open.length > 0 ? open[0] : null;
    for (let n = 1; n < open.length && first !== null; n++)
      if (compare(open[n].seconds, open[n].nanoseconds, first.seconds, first.nanoseconds) < 0) first = open[n];
    this.current = first;
    return first;
  }
}
