/**
 * Capture reader: pcap and pcapng files, plain or gzip, frame by frame without an allocation per frame.
 *
 * Formats: pcap (draft-ietf-opsawg-pcap: microseconds and nanoseconds, both byte orders, Kuznetzov's "modified" records,
 * and the swapped length fields of version 2.2 and older) and pcapng (draft-ietf-opsawg-pcapng: sections of either byte
 * order, several interfaces, Enhanced, Simple and the obsolete Packet Blocks, comments and flags). gzip may consist of
 * several members one after the other.
 *
 *   pcap:    | header 24 | record header 16 (modified: 24) | captured bytes | record header ...
 *   pcapng:  | type 4 | length 4 | body, padded to 4 | length 4 | type ...
 *
 * A capture is read into memory whole. Every length in it is checked against what is really there before it is used,
 * so nothing is read outside, nothing is allocated because a file says so, and every step moves forward. A broken or
 * cut file delivers everything before the fault; then next() returns false and `error` says where and what.
 *
 * Does not: follow a growing file, decrypt, resolve names, or read zstd and lz4.
 */
import { constants as bufferConstants } from 'node:buffer';
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { constants, gunzipSync } from 'node:zlib';

export { ETHERNET_HEADER, ethernetFrame, LINKTYPE_ETHERNET } from './capture-link.ts';

export const PCAP_MAGIC_MICRO = 0xa1b2c3d4;
export const PCAP_MAGIC_NANO = 0xa1b23c4d;
export const PCAP_MAGIC_MODIFIED = 0xa1b2cd34;
export const BLOCK_SECTION = 0x0a0d0d0a;
export const BLOCK_INTERFACE = 1;
export const BLOCK_PACKET = 2; // obsolete
export const BLOCK_SIMPLE = 3;
export const BLOCK_STATISTICS = 5;
export const BLOCK_ENHANCED = 6;
export const BYTE_ORDER_MAGIC = 0x1a2b3c4d;
export const OPT_COMMENT = 1;
export const OPT_FLAGS = 2; // in packet blocks; in an interface block 2 is the name
export const OPT_PACKET_ID = 5;

/** Longest frame believed: libpcap's MAXIMUM_SNAPLEN. A longer one means that the reader has lost its place. */
export const MAX_FRAME = 262144;
/** Most bytes that a compressed capture or a pipe may amount to (bombs); `limit` of openCapture changes it. */
export const DEFAULT_LIMIT = 1024 * 1024 * 1024;
/** Most bytes of a plain file, when no `limit` is given (sparse files cost nothing on disk, but memory here). */
const PLAIN_LIMIT = 4096 * 1024 * 1024;
/** Most bytes saved from damaged gzip data: finding the fault inflates it some thirty times. */
const SALVAGE_LIMIT = 256 * 1024 * 1024;
const MAX_LENGTH = bufferConstants.MAX_LENGTH;
/** Most interfaces in a file. Each costs an object, and a block that declares one is only 20 bytes long. */
const MAX_INTERFACES = 65536;
const AT_MOST = `a frame of at most ${MAX_FRAME} bytes`;

/** What a capture has instead of the expected: `file: at byte N: expected X, got Y; advice`. */
export class CaptureError extends Error {
  readonly file: string;
  /** Byte offset in the (uncompressed) capture. */
  readonly offset: number;
  readonly expected: string;
  readonly got: string;

  constructor(file: string, offset: number, expected: string, got: string, advice = '') {
    super(`${file}: at byte ${offset}: expected ${expected}, got ${got}${advice === '' ? '' : '; ' + advice}`);
    this.name = 'CaptureError';
    this.file = file;
    this.offset = offset;
    this.expected = expected;
    this.got = got;
  }
}

/** One interface of a capture. A pcap file has exactly one. */
export interface CaptureInterface {
  name: string;
  linkType: number;
  /** Longest captured length; 0 = no limit. */
  snapLength: number;
  /** Bytes of frame check sequence at the end of each frame. */
  fcsLength: number;
  /** if_tsresol: 10^−n, or 2^−n when the highest bit is set; the same as units in a second. */
  resolution: number;
  unitsPerSecond: number;
  /** Seconds to add to each time stamp. */
  offsetSeconds: number;
}

export interface OpenOptions {
  /** Most bytes of uncompressed capture. Default DEFAULT_LIMIT; 4 GiB for a plain file, whose size is known. */
  limit?: number;
}

/**
 * Opens a capture; `-` is the standard input. Throws a CaptureError when the file cannot be read at all; what is wrong
 * inside it is told later, by the reader's `error`.
 */
export function openCapture(file: string, options: OpenOptions = {}): CaptureReader {
  let bytes: Uint8Array;
  try {
    bytes = readWhole(file, options.limit);
  } catch (cause) {
    if (cause instanceof CaptureError) throw cause;
    throw new CaptureError(file, 0, 'a capture file that can be read', (cause as Error).message);
  }
  return CaptureReader.fromBytes(file, bytes, options);
}

/** Reads a file or a pipe to its end. Not readFileSync: that stops at 2 GiB, and never on a pipe that never ends. */
function readWhole(file: string, given: number | undefined): Uint8Array {
  const descriptor = file === '-' ? 0 : openSync(file, 'r');
  try {
    const stat = fstatSync(descriptor);
    const known = stat.isFile();
    const limit = given ?? (known ? PLAIN_LIMIT : DEFAULT_LIMIT);
    if (known && stat.size > limit) throw tooLarge(file, limit);
    let buffer = new Uint8Array(known ? stat.size : Math.min(limit, 65536));
    let length = 0;
    for (;;) {
      if (length === buffer.length) {
        if (known) break;
        if (length >= limit) throw tooLarge(file, limit);
        const grown = new Uint8Array(Math.min(limit, buffer.length * 2));
        grown.set(buffer);
        buffer = grown;
      }
      // A single read gives at most 2 GiB − 4096 bytes on Linux.
      const got = readSync(descriptor, buffer, length, Math.min(buffer.length - length, 0x4000_0000), null);
      if (got === 0) break;
      length += got;
    }
    return length === buffer.length ? buffer : buffer.subarray(0, length);
  } finally {
    if (descriptor !== 0) closeSync(descriptor);
  }
}

function tooLarge(file: string, limit: number): CaptureError {
  const advice = 'split it with editcap -c, or uncompress it first';
  return new CaptureError(file, limit, `at most ${limit} bytes of capture`, 'more', advice);
}

/** Result of inflating: as many bytes as are sound, and what was wrong after them. */
interface Inflated {
  bytes: Uint8Array;
  error: CaptureError | null;
}

/**
 * Inflates all gzip members (RFC 1952 section 2.2: a file is a series of members). A cut or damaged file gives what
 * precedes the fault; a file that inflates beyond the limit gives nothing.
 */
function inflate(name: string, bytes: Uint8Array, limit: number): Inflated {
  const strict = gunzip(bytes, limit, constants.Z_FINISH);
  if (!(strict instanceof Error)) return { bytes: strict, error: null };
  if (strict.code === 'ERR_BUFFER_TOO_LARGE') return { bytes: new Uint8Array(0), error: tooLarge(name, limit) };
  // SYNC_FLUSH makes zlib hand out what it has when the input ends early: enough for a file that is only cut.
  let sound = bytes.length;
  let best = gunzip(bytes, limit, constants.Z_SYNC_FLUSH);
  if (best instanceof Error) {
    // At damage zlib gives no output at all, so search for the longest prefix that it accepts.
    let faulty = bytes.length;
    sound = 0;
    best = new Uint8Array(0);
    while (faulty - sound > 1) {
      const middle = Math.floor((sound + faulty) / 2);
      const result = gunzip(bytes.subarray(0, middle), Math.min(limit, SALVAGE_LIMIT), constants.Z_SYNC_FLUSH);
      if (result instanceof Error) faulty = middle;
      else {
        sound = middle;
        best = result;
      }
    }
  }
  const fault = `${strict.message} (compressed byte ${sound})`;
  return { bytes: best, error: new CaptureError(name, best.length, 'sound gzip data', fault) };
}

function gunzip(bytes: Uint8Array, limit: number, finishFlush: number): Uint8Array | NodeJS.ErrnoException {
  try {
    return gunzipSync(bytes, { maxOutputLength: Math.min(limit, MAX_LENGTH), finishFlush });
  } catch (error) {
    return error as NodeJS.ErrnoException;
  }
}

export class CaptureReader {
  readonly name: string;
  /** The whole capture; the current frame is data[offset … offset + capturedLength). */
  readonly data: Uint8Array;
  offset = 0;
  capturedLength = 0;
  /** Length on the wire; larger than capturedLength when the frame was cut. */
  originalLength = 0;
  /** Time stamp: seconds since 1970 and nanoseconds (0 … 999 999 999). */
  seconds = 0;
  nanoseconds = 0;
  /** Index in `interfaces`; pcapng numbers anew in each section, this list runs on. */
  interfaceId = 0;
  linkType = 0;
  /** Bytes of frame check sequence at the frame's end on the wire. */
  fcsLength = 0;
  /** pcapng epb_flags (bits 0–1: 1 inbound, 2 outbound); 0 when absent. */
  flags = 0;
  /** pcapng epb_packetid, 64 bits in two halves (unsigned); both 0 when absent. */
  packetIdHigh = 0;
  packetIdLow = 0;
  /** Frames delivered. */
  frames = 0;
  /** Why next() returned false, when that was not the regular end. */
  error: CaptureError | null = null;
  format: 'pcap' | 'pcapng' | '' = '';
  readonly interfaces: CaptureInterface[] = [];

  private readonly view: DataView;
  private readonly inflateError: CaptureError | null;
  private at = 0;
  private little = false;
  // pcap
  private recordHeader = 16;
  private nano = false;
  /** 0: captured length first; 1: last; 2: whichever is smaller is the captured length. */
  private lengthOrder = 0;
  // pcapng
  private sectionBase = 0;
  private optionsAt = 0;
  private optionsEnd = 0;

  private constructor(name: string, data: Uint8Array, inflateError: CaptureError | null) {
    this.name = name;
    this.data = data;
    this.view = new DataView(data.buffer, data.byteOffset, data.byteLength);
    this.inflateError = inflateError;
    this.rewind();
  }

  /** Reads a capture that is in memory (gzip too). The bytes are not copied and must not change. Never throws. */
  static fromBytes(name: string, bytes: Uint8Array, options: OpenOptions = {}): CaptureReader {
    if (bytes.length >= 2 && bytes[0] === 0x1f && bytes[1] === 0x8b) {
      const inflated = inflate(name, bytes, options.limit ?? DEFAULT_LIMIT);
      return new CaptureReader(name, inflated.bytes, inflated.error);
    }
    return new CaptureReader(name, bytes, null);
  }

  /** Starts again from the first frame. */
  rewind(): void {
    this.at = 0;
    this.frames = 0;
    this.error = null;
    this.interfaces.length = 0;
    this.format = '';
    this.clearFrame();
    this.readFileHeader();
  }

  /** Goes to the next frame and fills the fields; false at the end and at a fault (then `error` is set). */
  next(): boolean {
    if (this.error !== null || !(this.format === 'pcap' ? this.nextRecord() : this.nextBlock())) {
      this.clearFrame();
      return false;
    }
    this.frames++;
    return true;
  }

  /** Comments of the current frame, one per line; '' when it has none (pcap has none at all). */
  get comment(): string {
    let text = '';
    const view = this.view;
    for (let at = this.optionsAt; at + 4 <= this.optionsEnd; ) {
      const code = view.getUint16(at, this.little);
      const length = view.getUint16(at + 2, this.little);
      if (code === 0 || at + 4 + length > this.optionsEnd) break;
      if (code === OPT_COMMENT) text += (text === '' ? '' : '\n') + this.text(at + 4, length);
      at += 4 + ((length + 3) & ~3);
    }
    return text;
  }

  private clearFrame(): void {
    this.offset = 0;
    this.capturedLength = 0;
    this.originalLength = 0;
    this.optionsAt = 0;
    this.optionsEnd = 0;
  }

  private text(at: number, length: number): string {
    const bytes = this.data.subarray(at, at + length);
    const end = bytes.indexOf(0); // some writers count a terminating zero
    return new TextDecoder().decode(end < 0 ? bytes : bytes.subarray(0, end));
  }

  private fail(offset: number, expected: string, got: string): false {
    this.error = new CaptureError(this.name, offset, expected, got);
    return false;
  }

  /** The data ends too early. Where inflating stopped early, that is the cause to name. */
  private short(offset: number, expected: string, got: string): false {
    this.fail(offset, expected, got);
    this.error = this.inflateError ?? this.error;
    return false;
  }

  /** The regular end of the data: false, with the inflating fault when there was one. */
  private end(): false {
    this.error = this.inflateError;
    return false;
  }

  private readFileHeader(): void {
    const left = this.data.length;
    if (left < 4) {
      this.short(0, 'a pcap or pcapng header', left === 0 ? 'an empty file' : `${left} bytes`);
      return;
    }
    const magic = this.view.getUint32(0, false);
    if (magic === BLOCK_SECTION) {
      this.format = 'pcapng';
      this.sectionBase = 0;
      return;
    }
    const swapped = this.view.getUint32(0, true);
    if (isPcapMagic(magic)) this.readPcapHeader(magic, false);
    else if (isPcapMagic(swapped)) this.readPcapHeader(swapped, true);
    else this.fail(0, 'a pcap, pcapng or gzip magic number', hex(magic));
  }

  /** Classic pcap: | magic | major, minor | zone | sigfigs | snap length | FCS and link type | */
  private readPcapHeader(magic: number, little: boolean): void {
    const view = this.view;
    this.format = 'pcap';
    this.little = little;
    if (this.data.length < 24) {
      this.short(0, 'a pcap header of 24 bytes', `${this.data.length} bytes`);
      return;
    }
    const major = view.getUint16(4, little);
    const minor = view.getUint16(6, little);
    if (major !== 2 && major !== 543) {
      this.fail(4, 'pcap version 2', `version ${major}.${minor}`);
      return;
    }
    this.nano = magic === PCAP_MAGIC_NANO;
    this.recordHeader = magic === PCAP_MAGIC_MODIFIED ? 24 : 16;
    // tcpdump before 2.3 (and DG/UX, which called itself 543) put the original length first; 2.3 existed in both ways.
    this.lengthOrder = major === 543 || minor < 3 ? 1 : minor === 3 ? 2 : 0;
    const network = view.getUint32(20, little);
    this.linkType = network & 0xffff;
    // The FCS length is there when bit 26 says so, in 16-bit units (pcap draft, "FCS len").
    this.fcsLength = (network & 0x0400_0000) !== 0 ? (network >>> 28) * 2 : 0;
    this.interfaceId = 0;
    this.flags = 0;
    this.packetIdHigh = 0;
    this.packetIdLow = 0;
    this.interfaces.push({
      name: '',
      linkType: this.linkType,
      snapLength: view.getUint32(16, little),
      fcsLength: this.fcsLength,
      resolution: this.nano ? 9 : 6,
      unitsPerSecond: this.nano ? 1e9 : 1e6,
      offsetSeconds: 0,
    });
    this.at = 24;
  }

  private nextRecord(): boolean {
    const { view, little, at } = this;
    const left = this.data.length - at;
    if (left === 0) return this.end();
    if (left < this.recordHeader)
      return this.short(at, `a record header of ${this.recordHeader} bytes`, `${left} bytes`);
    let captured = view.getUint32(at + 8, little);
    let original = view.getUint32(at + 12, little);
    if (this.lengthOrder === 1 || (this.lengthOrder === 2 && captured > original)) {
      const first = captured;
      captured = original;
      original = first;
    }
    if (captured > MAX_FRAME) return this.fail(at, AT_MOST, `${captured}`);
    const room = left - this.recordHeader;
    if (captured > room) return this.short(at, `${captured} bytes of frame`, `${room}`);
    const fraction = view.getUint32(at + 4, little);
    const units = this.nano ? 1_000_000_000 : 1_000_000;
    // Some writers leave a whole second or more in the fraction: carry it.
    const carry = Math.floor(fraction / units);
    this.seconds = view.getUint32(at, little) + carry;
    this.nanoseconds = (fraction - carry * units) * (this.nano ? 1 : 1000);
    this.offset = at + this.recordHeader;
    this.capturedLength = captured;
    this.originalLength = original;
    this.at = this.offset + captured;
    return true;
  }

  /** pcapng: reads blocks until one holds a frame. */
  private nextBlock(): boolean {
    for (;;) {
      const { view, at } = this;
      const left = this.data.length - at;
      if (left === 0) return this.end();
      if (left < 12) return this.short(at, 'a block of at least 12 bytes', `${left} bytes`);
      // The section header's type reads the same in both orders; its byte-order magic settles all that follows.
      if (view.getUint32(at, false) === BLOCK_SECTION && !this.readByteOrder(at)) return false;
      const little = this.little;
      const type = view.getUint32(at, little);
      const length = view.getUint32(at + 4, little);
      if (length < 12 || (length & 3) !== 0)
        return this.fail(at + 4, 'a block length ≥ 12, multiple of 4', `${length}`);
      if (length > left) return this.short(at, `a block of ${length} bytes`, `${left} bytes`);
      const again = view.getUint32(at + length - 4, little);
      if (again !== length) return this.fail(at + length - 4, `the block length ${length} again`, `${again}`);
      this.at = at + length;
      const end = at + length - 4;
      if (type === BLOCK_ENHANCED || type === BLOCK_PACKET) return this.readPacketBlock(at, end, type);
      if (type === BLOCK_SIMPLE) return this.readSimpleBlock(at, end);
      if (type === BLOCK_INTERFACE && !this.readInterfaceBlock(at, end)) return false;
      if (type === BLOCK_SECTION && !this.readSectionBlock(at, end)) return false;
      // Every other block (names, statistics, secrets, custom ...) holds no frame and is skipped.
    }
  }

  private readByteOrder(at: number): boolean {
    const magic = this.view.getUint32(at + 8, false);
    if (magic === BYTE_ORDER_MAGIC) this.little = false;
    else if (this.view.getUint32(at + 8, true) === BYTE_ORDER_MAGIC) this.little = true;
    else return this.fail(at + 8, `the byte-order magic ${hex(BYTE_ORDER_MAGIC)}`, hex(magic));
    return true;
  }

  /** | type | length | byte-order magic | major, minor | section length 8 | options | length | */
  private readSectionBlock(at: number, end: number): boolean {
    if (end - at < 24) return this.fail(at, 'a section header of at least 28 bytes', `${end + 4 - at}`);
    const major = this.view.getUint16(at + 12, this.little);
    // Version 1.2 was written by some and means 1.0; all of major version 1 can be read.
    if (major !== 1) return this.fail(at + 12, 'pcapng version 1', `version ${major}`);
    this.sectionBase = this.interfaces.length;
    return true;
  }

  /** | type | length | link type 2, reserved 2 | snap length | options | length | */
  private readInterfaceBlock(at: number, end: number): boolean {
    if (end - at < 16) return this.fail(at, 'an interface block of at least 20 bytes', `${end + 4 - at}`);
    if (this.interfaces.length >= MAX_INTERFACES)
      return this.fail(at, `at most ${MAX_INTERFACES} interfaces`, 'one more');
    const { view, little } = this;
    const described: CaptureInterface = {
      name: '',
      linkType: view.getUint16(at + 8, little),
      snapLength: view.getUint32(at + 12, little),
      fcsLength: 0,
      resolution: 6, // the default
      unitsPerSecond: 1e6,
      offsetSeconds: 0,
    };
    for (let option = at + 16; option + 4 <= end; ) {
      const code = view.getUint16(option, little);
      const length = view.getUint16(option + 2, little);
      const value = option + 4;
      if (code === 0 || value + length > end) break;
      if (code === 2) described.name = this.text(value, length);
      else if (code === 9 && length >= 1) {
        described.resolution = this.data[value];
        described.unitsPerSecond = Number(unitsOf(described.resolution));
      }
      // Written as bytes by some and as bits by others: no link has an FCS of 16 bytes, none of 8 bits.
      else if (code === 13 && length >= 1) {
        described.fcsLength = this.data[value] >= 16 ? this.data[value] >>> 3 : this.data[value];
      } else if (code === 14 && length >= 8) {
        const low = view.getUint32(value + (little ? 0 : 4), little);
        described.offsetSeconds = view.getInt32(value + (little ? 4 : 0), little) * 4294967296 + low;
      }
      option = value + ((length + 3) & ~3);
    }
    this.interfaces.push(described);
    return true;
  }

  /**
   * Enhanced: | type | length | interface 4 | time high | time low | captured | original | data | options | length |
   * Obsolete: the same with | interface 2, drops 2 |.
   */
  private readPacketBlock(at: number, end: number, type: number): boolean {
    const { view, little } = this;
    if (end - at < 28) return this.fail(at, 'a packet block of at least 32 bytes', `${end + 4 - at}`);
    const id = type === BLOCK_ENHANCED ? view.getUint32(at + 8, little) : view.getUint16(at + 8, little);
    if (!this.enterInterface(at + 8, id)) return false;
    const captured = view.getUint32(at + 20, little);
    if (!this.checkCaptured(at + 20, captured, end - at - 28)) return false;
    this.setTime(view.getUint32(at + 12, little), view.getUint32(at + 16, little));
    this.offset = at + 28;
    this.capturedLength = captured;
    this.originalLength = view.getUint32(at + 24, little);
    this.optionsAt = at + 28 + ((captured + 3) & ~3);
    this.optionsEnd = end;
    if (this.optionsAt < end) this.readPacketOptions();
    return true;
  }

  /** | type | length | original | data | length |: interface 0 of the section, no time: the last frame's stands. */
  private readSimpleBlock(at: number, end: number): boolean {
    if (end - at < 12) return this.fail(at, 'a simple packet block of at least 16 bytes', `${end + 4 - at}`);
    if (!this.enterInterface(at, 0)) return false;
    const original = this.view.getUint32(at + 8, this.little);
    const snap = this.interfaces[this.interfaceId].snapLength;
    // The captured length is not written: the smaller of the original and the snap length (pcapng draft, section 4.4).
    const captured = snap !== 0 && snap < original ? snap : original;
    if (!this.checkCaptured(at + 8, captured, end - at - 12)) return false;
    this.offset = at + 12;
    this.capturedLength = captured;
    this.originalLength = original;
    this.optionsAt = 0;
    this.optionsEnd = 0;
    return true;
  }

  private checkCaptured(at: number, captured: number, room: number): boolean {
    if (captured > MAX_FRAME) return this.fail(at, AT_MOST, `${captured}`);
    if (captured > room) return this.fail(at, `at most the ${room} bytes of its block`, `${captured}`);
    return true;
  }

  private enterInterface(at: number, id: number): boolean {
    const index = this.sectionBase + id;
    if (index >= this.interfaces.length) {
      const known = this.interfaces.length - this.sectionBase;
      return this.fail(at, `one of the section's ${known} interfaces`, `interface ${id}`);
    }
    this.interfaceId = index;
    this.linkType = this.interfaces[index].linkType;
    this.fcsLength = this.interfaces[index].fcsLength;
    this.flags = 0;
    this.packetIdHigh = 0;
    this.packetIdLow = 0;
    return true;
  }

  /** Flags and packet id. An option that overruns its block ends the list; the frame itself is sound. */
  private readPacketOptions(): void {
    const { view, little, optionsEnd } = this;
    for (let at = this.optionsAt; at + 4 <= optionsEnd; ) {
      const code = view.getUint16(at, little);
      const length = view.getUint16(at + 2, little);
      if (code === 0 || at + 4 + length > optionsEnd) return;
      if (code === OPT_FLAGS && length >= 4) {
        this.flags = view.getUint32(at + 4, little);
        const fcs = (this.flags >>> 5) & 15; // overrides the interface's when not 0
        if (fcs !== 0) this.fcsLength = fcs;
      } else if (code === OPT_PACKET_ID && length >= 8) {
        this.packetIdLow = view.getUint32(at + (little ? 4 : 8), little);
        this.packetIdHigh = view.getUint32(at + (little ? 8 : 4), little);
      }
      at += 4 + ((length + 3) & ~3);
    }
  }

  /** Splits a 64-bit time stamp in the interface's units into seconds and nanoseconds, exactly. */
  private setTime(high: number, low: number): void {
    const { resolution, unitsPerSecond: units, offsetSeconds } = this.interfaces[this.interfaceId];
    let fraction: number;
    if (units <= 1e9 && 1e9 % units === 0) {
      // Long division in base 65536: each partial dividend stays below 2^46, so that doubles are exact.
      const top = Math.floor(high / units);
      const middle = (high - top * units) * 65536 + (low >>> 16);
      const q1 = Math.floor(middle / units);
      const rest = (middle - q1 * units) * 65536 + (low & 0xffff);
      const q2 = Math.floor(rest / units);
      this.seconds = top * 4294967296 + q1 * 65536 + q2;
      fraction = (rest - q2 * units) * (1e9 / units);
    } else {
      // Powers of two and finer than nanoseconds: rare, and not worth a second long division.
      const exact = unitsOf(resolution);
      const stamp = (BigInt(high) << 32n) | BigInt(low);
      this.seconds = Number(stamp / exact);
      fraction = Number(((stamp % exact) * 1_000_000_000n) / exact);
    }
    this.seconds += offsetSeconds;
    this.nanoseconds = fraction;
  }
}

/** if_tsresol: negative power of 10, or of 2 when the highest bit is set. */
function unitsOf(resolution: number): bigint {
  return (resolution & 0x80) !== 0 ? 1n << BigInt(resolution & 0x7f) : 10n ** BigInt(resolution);
}

function isPcapMagic(magic: number): boolean {
  return magic === PCAP_MAGIC_MICRO || magic === PCAP_MAGIC_NANO || magic === PCAP_MAGIC_MODIFIED;
}

function hex(word: number): string {
  return '0x' + word.toString(16).padStart(8, '0');
}
