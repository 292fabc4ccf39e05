/**
 * Capture writer: pcap and pcapng, to a path, a file descriptor (1 for `-w -`) or memory.
 *
 * Formats: pcap (draft-ietf-opsawg-pcap, version 2.4, nano- or microseconds) and pcapng (draft-ietf-opsawg-pcapng,
 * version 1.0: one section, interfaces with if_name and if_tsresol 9, Enhanced Packet Blocks with epb_flags,
 * epb_packetid and opt_comment). Always little-endian, no dates or host names unless given: the same calls give the same
 * bytes on every machine.
 *
 * Writes are gathered in a buffer and go out when it is full, on flush() and on close(). write() never throws: when the
 * target fails (disk full, the reader of a pipe gone), `error` is set once, later frames are counted in `dropped`, and so are those
 * that were still buffered; a file of its own then ends behind the last whole record. A live router's mirrors, which wait for
 * nobody and go on, are mirror-file.ts's.
 */
import { closeSync, openSync, writeSync } from 'node:fs';
import { framesIn, PCAP_HEADER, PCAP_RECORD, takeBack, wholeRecords } from './capture-cut.ts';
import {
  BLOCK_ENHANCED,
  BLOCK_INTERFACE,
  BLOCK_SECTION,
  BLOCK_STATISTICS,
  BYTE_ORDER_MAGIC,
  CaptureError,
  LINKTYPE_ETHERNET,
  MAX_FRAME,
  OPT_COMMENT,
  OPT_FLAGS,
  OPT_PACKET_ID,
  PCAP_MAGIC_MICRO,
  PCAP_MAGIC_NANO,
} from './capture-reader.ts';

/** epb_flags bits 0–1: which way a frame went (pcapng draft, section 4.3.1). */
export const DIRECTION_UNKNOWN = 0;
export const DIRECTION_INBOUND = 1;
export const DIRECTION_OUTBOUND = 2;

/** How long a target that cannot take more (a full pipe) is waited for before the writer gives up, milliseconds. */
const PATIENCE = 10000;
const BUFFER_BYTES = 256 * 1024;
/** Longest text option: its length field has 16 bits, and the padding must still fit. */
const MAX_TEXT = 65532;

export interface CaptureWriterOptions {
  /** Default 'pcap'. */
  format?: 'pcap' | 'pcapng';
  /** pcap only: default 'nano'. pcapng is always written in nanoseconds. */
  resolution?: 'nano' | 'micro';
  /** pcap, and the default of every interface: default LINKTYPE_ETHERNET. */
  linkType?: number;
  /** Longest frame kept, bytes; longer ones are cut. Default and maximum MAX_FRAME. */
  snapLength?: number;
  /** pcapng: interfaces to declare at once; addInterface() declares more at any time. */
  interfaces?: string[];
  /** pcapng: shb_hardware and shb_userappl. */
  hardware?: string;
  userApplication?: string;
  /** A path: keep what is in the file, and write behind it. Only pcapng may go on so, with a new section. */
  append?: boolean;
}

export class CaptureWriter {
  /** Frames written; frames that came after an error, or were lost by it. */
  frames = 0;
  dropped = 0;
  /** Bytes produced so far, the buffered ones included. */
  bytes = 0;
  error: CaptureError | null = null;
  /** For callers that number frames (epb_packetid) and share the writer. */
  nextPacketId = 1;
  readonly format: 'pcap' | 'pcapng';
  /** Number of interfaces declared (pcapng). */
  interfaceCount = 0;

  private readonly target: string;
  private readonly descriptor: number;
  private readonly ownsDescriptor: boolean;
  private readonly inMemory: boolean;
  private readonly micro: boolean;
  private readonly linkType: number;
  private readonly snapLength: number;
  private readonly encoder = new TextEncoder();
  private buffer: Uint8Array<ArrayBuffer>;
  private view: DataView;
  private used = 0;
  private closed = false;

  /**
   * @param target a path (created; truncated unless `append`), an open file descriptor (left open by close()), or null for memory
   * Throws a CaptureError when the path cannot be created.
   */
  constructor(target: string | number | null, options: CaptureWriterOptions = {}) {
    this.format = options.format ?? 'pcap';
    this.micro = options.resolution === 'micro';
    this.linkType = options.linkType ?? LINKTYPE_ETHERNET;
    this.snapLength = Math.min(options.snapLength ?? MAX_FRAME, MAX_FRAME);
    this.inMemory = target === null;
    this.ownsDescriptor = typeof target === 'string';
    this.target = typeof target === 'string' ? target : target === null ? 'memory' : `file descriptor ${target}`;
    this.buffer = new Uint8Array(this.inMemory ? 4096 : BUFFER_BYTES);
    this.view = new DataView(this.buffer.buffer);
    if (typeof target === 'string') {
      try {
        // What a capture shows is its owner's alone to read.
        this.descriptor = openSync(target, options.append === true ? 'a' : 'w', 0o600);
      } catch (cause) {
        throw new CaptureError(target, 0, 'a file that can be written', (cause as Error).message);
      }
    } else this.descriptor = target ?? -1;
    if (this.format === 'pcap') this.writeFileHeader();
    else {
      this.writeSection(options.hardware ?? '', options.userApplication ?? '');
      for (const name of options.interfaces ?? []) this.addInterface(name);
    }
  }

  /** pcapng: declares an interface and returns its number. A pcap file has one, number 0, which needs no declaration. */
  addInterface(name: string, linkType: number = this.linkType): number {
    if (this.format === 'pcap') return 0;
    const start = this.begin(BLOCK_INTERFACE, 64 + 3 * name.length);
    this.view.setUint16(this.used, linkType, true);
    this.view.setUint16(this.used + 2, 0, true);
    this.view.setUint32(this.used + 4, this.snapLength, true);
    this.used += 8;
    if (name !== '') this.textOption(2, name); // if_name
    this.option(9, 1); // if_tsresol
    this.buffer[this.used] = 9; // nanoseconds
    this.buffer.fill(0, this.used + 1, this.used + 4);
    this.used += 4;
    this.option(0, 0);
    this.finish(start);
    return this.interfaceCount++;
  }

  /**
   * Writes one frame: u8[offset … offset + length), cut to the snap length.
   *
   * @param originalLength length on the wire   @param seconds, nanoseconds time stamp (seconds since 1970)
   * The rest is for pcapng and has no effect on pcap:
   * @param interfaceId from addInterface(), which must have been called   @param flags epb_flags, DIRECTION_*; 0 is omitted
   * @param packetId epb_packetid; negative is omitted   @param comment opt_comment; '' is omitted, cut at 64 KiB
   */
  write(
    u8: Uint8Array,
    offset: number,
    length: number,
    originalLength: number,
    seconds: number,
    nanoseconds: number,
    interfaceId = 0,
    flags = 0,
    packetId = -1,
    comment = '',
  ): void {
    if (this.error !== null || this.closed) {
      this.dropped++;
      return;
    }
    const kept = Math.min(length, this.snapLength);
    if (this.format === 'pcap') this.writeRecord(u8, offset, kept, originalLength, seconds, nanoseconds);
    else {
      if (interfaceId >= this.interfaceCount) {
        // A block that names an undeclared interface would make the whole file unreadable.
        this.dropped++;
        return;
      }
      const start = this.begin(BLOCK_ENHANCED, kept + 128 + 3 * comment.length);
      this.writeEnhanced(u8, offset, kept, originalLength, seconds, nanoseconds, interfaceId);
      if (flags !== 0) {
        this.option(OPT_FLAGS, 4);
        this.word(flags);
      }
      if (packetId >= 0) {
        this.option(OPT_PACKET_ID, 8);
        this.word(packetId % 4294967296);
        this.word(Math.floor(packetId / 4294967296));
      }
      if (comment !== '') this.textOption(OPT_COMMENT, comment);
      if (flags !== 0 || packetId >= 0 || comment !== '') this.option(0, 0);
      this.finish(start);
    }
    this.frames++;
  }

  /** Hands everything written so far to the target. Does nothing for a writer in memory. */
  flush(): void {
    if (this.inMemory) return;
    // The frame at which the buffer could not be emptied is in it by now.
    if (this.error !== null) this.giveUp(0);
    let at = 0;
    let waited = 0;
    while (at < this.used && this.error === null) {
      try {
        at += writeSync(this.descriptor, this.buffer, at, this.used - at);
        waited = 0;
      } catch (cause) {
        const { code, message } = cause as NodeJS.ErrnoException;
        if (code === 'EINTR') continue;
        // A non-blocking pipe that is full: wait for its reader, but not for ever.
        if (code === 'EAGAIN' && waited < PATIENCE) {
          Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1);
          waited++;
          continue;
        }
        this.error = new CaptureError(this.target, this.bytes - this.used + at, 'room to write', message);
        this.giveUp(at);
      }
    }
    this.used = 0;
  }

  /** Of the buffer only `sent` bytes could be written. */
  private giveUp(sent: number): void {
    const { buffer, used, format } = this;
    const first = format === 'pcap' && this.bytes === used ? PCAP_HEADER : 0;
    const whole = sent < first ? 0 : wholeRecords(buffer, first, sent, format);
    if (this.ownsDescriptor) takeBack(this.descriptor, sent - whole);
    const lost = framesIn(buffer, Math.max(whole, first), used, format);
    this.frames -= lost;
    this.dropped += lost;
  }

  /** Flushes and closes the file (a descriptor that was handed in stays open). Can be called again. Never throws. */
  close(): void {
    if (this.closed) return;
    this.flush();
    this.closed = true;
    if (!this.ownsDescriptor) return;
    try {
      closeSync(this.descriptor);
    } catch (cause) {
      this.error ??= new CaptureError(this.target, this.bytes, 'the file to close', (cause as Error).message);
    }
  }

  /** The capture so far, copied out. Only for a writer in memory; others give what is still buffered. */
  toBytes(): Uint8Array<ArrayBuffer> {
    return this.buffer.slice(0, this.used);
  }

  /**
   * pcapng: writes an Interface Statistics Block (draft, section 4.6): frames that this interface lost until this time. Interface
   * `interfaceId` must have been declared.
   */
  statistics(interfaceId: number, seconds: number, nanos: number, lost: number): void {
    if (this.format === 'pcap' || this.error !== null || this.closed || interfaceId >= this.interfaceCount) return;
    const start = this.begin(BLOCK_STATISTICS, 64);
    this.word(interfaceId);
    this.timestamp(seconds, nanos);
    this.option(5, 8); // isb_ifdrop
    this.word(lost % 4294967296);
    this.word(Math.floor(lost / 4294967296));
    this.option(0, 0);
    this.finish(start);
  }

  /** The capture since the last `take`, copied out. Only for a writer in memory. */
  take(): Uint8Array<ArrayBuffer> {
    const taken = this.buffer.slice(0, this.used);
    this.used = 0;
    return taken;
  }

  /** Makes room for `length` more bytes in the buffer. */
  private reserve(length: number): void {
    if (this.used + length <= this.buffer.length) return;
    this.flush();
    if (this.used + length <= this.buffer.length) return;
    const grown = new Uint8Array(Math.max(this.buffer.length * 2, this.used + length));
    grown.set(this.buffer.subarray(0, this.used));
    this.buffer = grown;
    this.view = new DataView(grown.buffer);
  }

  private word(value: number): void {
    this.view.setUint32(this.used, value, true);
    this.used += 4;
  }

  private writeFileHeader(): void {
    this.reserve(PCAP_HEADER);
    this.word(this.micro ? PCAP_MAGIC_MICRO : PCAP_MAGIC_NANO);
    this.word(2 | (4 << 16)); // version 2.4
    this.word(0);
    this.word(0);
    this.word(this.snapLength);
    this.word(this.linkType);
    this.bytes += PCAP_HEADER;
  }

  private writeRecord(
    u8: Uint8Array,
    offset: number,
    kept: number,
    original: number,
    seconds: number,
    nanos: number,
  ): void {
    this.reserve(PCAP_RECORD + kept);
    this.word(seconds); // 32 bits unsigned: until 2106
    this.word(this.micro ? Math.floor(nanos / 1000) : nanos);
    this.word(kept);
    this.word(original);
    this.copy(u8, offset, kept);
    this.bytes += PCAP_RECORD + kept;
  }

  private writeSection(hardware: string, userApplication: string): void {
    const start = this.begin(BLOCK_SECTION, 64 + 3 * (hardware.length + userApplication.length));
    this.word(BYTE_ORDER_MAGIC);
    this.word(1); // version 1.0
    this.word(0xffff_ffff); // section length −1: unknown
    this.word(0xffff_ffff);
    if (hardware !== '') this.textOption(2, hardware);
    if (userApplication !== '') this.textOption(4, userApplication);
    if (hardware !== '' || userApplication !== '') this.option(0, 0);
    this.finish(start);
  }

  /** The fixed part of an Enhanced Packet Block and the frame, padded. */
  private writeEnhanced(
    u8: Uint8Array,
    offset: number,
    kept: number,
    original: number,
    seconds: number,
    nanos: number,
    interfaceId: number,
  ): void {
    this.word(interfaceId);
    this.timestamp(seconds, nanos);
    this.word(kept);
    this.word(original);
    this.copy(u8, offset, kept);
    this.pad();
  }

  /** High word, then low word of nanoseconds since 1970. */
  private timestamp(seconds: number, nanos: number): void {
    // seconds · 10^9 + nanos as 64 bits: two products of at most 2^48, so that doubles stay exact.
    const upper = Math.floor(seconds / 65536) * 1e9;
    const lower = (upper % 65536) * 65536 + (seconds % 65536) * 1e9 + nanos;
    this.word(Math.floor(upper / 65536) + Math.floor(lower / 4294967296));
    this.word(lower % 4294967296);
  }

  /** Starts a block; `room` bounds its whole length. Returns where it starts in the buffer. */
  private begin(type: number, room: number): number {
    this.reserve(room);
    const start = this.used;
    this.word(type);
    this.word(0);
    return start;
  }

  private finish(start: number): void {
    const length = this.used + 4 - start;
    this.view.setUint32(start + 4, length, true);
    this.word(length);
    this.bytes += length;
  }

  private option(code: number, length: number): void {
    this.view.setUint16(this.used, code, true);
    this.view.setUint16(this.used + 2, length, true);
    this.used += 4;
  }

  private textOption(code: number, text: string): void {
    const room = this.buffer.subarray(this.used + 4, this.used + 4 + MAX_TEXT);
    const { written } = this.encoder.encodeInto(text, room); // cuts between characters
    this.option(code, written);
    this.used += written;
    this.pad();
  }

  private pad(): void {
    while ((this.used & 3) !== 0) this.buffer[this.used++] = 0;
  }

  private copy(u8: Uint8Array, offset: number, length: number): void {
    const { buffer, used } = this;
    if (length <= 128) for (let i = 0; i < length; i++) buffer[used + i] = u8[offset + i];
    else buffer.set(u8.subarray(offset, offset + length), used);
    this.used = used + length;
  }
}

/**
 * The clock that stamps frames: a wall-clock or capture time (the origin) plus the router's own nanoseconds since then.
 * Two numbers instead of one, because nanoseconds since 1970 do not fit a double exactly; since the start they do for
 * 104 days.
 */
export class CaptureClock {
  seconds = 0;
  nanoseconds = 0;
  originSeconds: number;
  originNanos: number;
  private readonly nowNanos: () => number;
  /** The origin was neither given nor taken from a capture yet; it may still move to an earlier capture's start. */
  private unset: boolean;
  private readonly movable: boolean;

  /**
   * @param nowNanos nanoseconds since the origin, not negative
   * @param originSeconds, originNanos time at nowNanos() = 0; without them the first captures played decide (startAt)
   */
  constructor(nowNanos: () => number, originSeconds?: number, originNanos = 0) {
    this.nowNanos = nowNanos;
    this.originSeconds = originSeconds ?? 0;
    this.originNanos = originNanos;
    this.movable = originSeconds === undefined;
    this.unset = this.movable;
  }

  /** A capture that begins at this time will be played: it becomes the origin when none is given or known to be earlier. */
  startAt(seconds: number, nanoseconds: number): void {
    if (!this.movable || (!this.unset && this.nanosAt(seconds, nanoseconds) >= 0)) return;
    this.originSeconds = seconds;
    this.originNanos = nanoseconds;
    this.unset = false;
  }

  /** A clock that follows the machine's. */
  static wall(): CaptureClock {
    const start = performance.timeOrigin;
    const seconds = Math.floor(start / 1000);
    return new CaptureClock(
      () => Math.floor(performance.now() * 1e6),
      seconds,
      Math.floor((start - seconds * 1000) * 1e6),
    );
  }

  /** Takes the time: fills seconds and nanoseconds. */
  read(): void {
    const nanos = this.originNanos + this.nowNanos();
    const carry = Math.floor(nanos / 1e9);
    this.seconds = this.originSeconds + carry;
    this.nanoseconds = Math.floor(nanos - carry * 1e9);
  }

  /** Nanoseconds since the origin at a capture time: negative before it. */
  nanosAt(seconds: number, nanoseconds: number): number {
    return (seconds - this.originSeconds) * 1e9 + (nanoseconds - this.originNanos);
  }

  now(): number {
    return this.nowNanos();
  }
}
