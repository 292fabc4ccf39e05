/**
 * Mirror file: where the mirror of a live port goes, a file or a named pipe, as pcapng. It never throws, nor waits for anybody:
 * what it cannot write is counted in `lost`, and packets go on.
 *
 *   write() → encoder: blocks in memory → flush(): the chunk that is on its way → write(2), non-blocking
 *
 * File.  What cannot be written whole (disk full, quota, I/O error) is taken back to the last whole block, so that all before it
 *        can be read; then the file is closed, which lets a file that was deleted give its room back. It is tried again after
 *        FIRST_PAUSE seconds, then ever more rarely, and goes on behind what is there as a new section (pcapng draft, section 4.1).
 *        A file that was renamed or deleted is made anew within a second; one that was emptied goes on with a new section.
 * Pipe.  Opened when there is a reader (open(2) fails with ENXIO until then; it is tried every second). What a slow reader does
 *        not take waits, up to HELD bytes; what comes then is lost. A reader that goes is noticed within a second; the next one
 *        begins with a section header. Of two that change within a second the second one goes on where the first ended.
 *
 * Losses are written down as an Interface Statistics Block (draft, section 4.6) before the next frame. A write to a slow disk
 * does take the worker's time: that is the system call's, for which there is no other way here.
 */
import { closeSync, constants, existsSync, fstatSync, statfsSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { framesIn, openForWriting, takeBack, wholeRecords } from './capture-cut.ts';
import { CaptureWriter } from './capture-writer.ts';
import {
  addressOf,
  EAGAIN,
  EINTR,
  EIO,
  ENOSPC,
  ENXIO,
  EPIPE,
  errno,
  fcntl,
  type Memory,
  mapMemory,
  ppoll,
  write,
} from './ffi.ts';

const { O_APPEND, O_TRUNC } = constants;
const F_SETPIPE_SZ = 1031;
/** What a pipe may hold without privileges (/proc/sys/fs/pipe-max-size). */
const PIPE_BYTES = 1 << 20;
const POLLERR = 8;

/** Bytes that are worth a system call; and those that may wait for a pipe's reader. */
const FLUSH = 256 * 1024;
const HELD = 1024 * 1024;
/** Seconds before a file is tried again: doubles from the first to the last while it does not last. */
const FIRST_PAUSE = 1;
const LAST_PAUSE = 64;
/** Bytes that a full disk must have before it counts as having room: else every block that others leave would be a new section. */
const ROOM = 1024 * 1024;

const NOTHING = new Uint8Array(0);

export interface MirrorFileOptions {
  /** Keep what is in the file, and begin a section behind it. */
  append?: boolean;
  /** Frames that a predecessor lost: `lost` goes on from there. */
  lost?: number;
}

export class MirrorFile {
  /** Frames taken; those that are in `lost` because they never got to the file or the reader are among them. */
  frames = 0;
  /** Frames that are missing in the file. */
  lost: number;
  /** Why nothing is written now, as errno; 0: it is. ENXIO: a pipe that nobody reads. */
  trouble = 0;
  nextPacketId = 1;

  private readonly path: string;
  private readonly names: string[] = [];
  private encoder = this.section();
  /** Of the encoder: bytes and frames that are in the chunk, or were. */
  private takenBytes = 0;
  private takenFrames = 0;
  /** Whole blocks on their way, and how many of its bytes have gone. */
  private chunk = NOTHING;
  private sent = 0;
  private fd = -1;
  private kind: 'file' | 'pipe' | 'device' = 'file';
  private device = 0;
  private inode = 0;
  /** Of a file: as we left it. */
  private length = 0;
  private empty: boolean;
  private second = 0;
  private openSince = 0;
  private retryAt = 0;
  private pause = FIRST_PAUSE;
  /** Tenth of a second of the last flush; millisecond in which the pipe was full. */
  private flushedAt = -1;
  private fullAt = -1;
  /** What the last statistics block said. */
  private told = 0;
  /** struct pollfd, then a timespec of 0. */
  private poll: Memory | null = null;

  /** @param path is opened at once; where that fails, `trouble` says why, and it is tried again */
  constructor(path: string, options: MirrorFileOptions = {}) {
    this.path = path;
    this.empty = options.append !== true;
    this.lost = options.lost ?? 0;
    this.open();
  }

  /** Declares an interface, in every section, and returns its number. */
  addInterface(name: string): number {
    this.names.push(name);
    return this.encoder.addInterface(name);
  }

  /** As CaptureWriter.write. */
  write(
    u8: Uint8Array,
    offset: number,
    length: number,
    originalLength: number,
    seconds: number,
    nanoseconds: number,
    interfaceId: number,
    flags: number,
    packetId: number,
    comment: string,
  ): void {
    if (seconds !== this.second) this.look(seconds);
    if (this.fd >= 0 && this.held >= FLUSH) {
      // A pipe that was full is not asked again for every frame.
      const millisecond = Math.floor(nanoseconds / 1e6);
      if (this.fullAt !== millisecond) {
        this.flush();
        this.fullAt = this.held > 0 ? millisecond : -1;
      }
    }
    if (this.fd < 0 || this.held >= HELD) {
      this.lost++;
      return;
    }
    if (this.lost !== this.told) {
      this.encoder.statistics(interfaceId, seconds, nanoseconds, this.lost);
      this.told = this.lost;
    }
    const { encoder } = this;
    encoder.write(u8, offset, length, originalLength, seconds, nanoseconds, interfaceId, flags, packetId, comment);
    this.frames++;
  }

  /** To be called now and then, also while no frames come: takes up readers and files, writes what waits. */
  tick(seconds: number, nanoseconds: number): void {
    if (seconds !== this.second) this.look(seconds);
    const tenth = seconds * 10 + Math.floor(nanoseconds / 1e8);
    if (this.fd < 0 || this.held === 0 || tenth === this.flushedAt) return;
    this.flushedAt = tenth;
    this.flush();
  }

  /** Writes what can be written at once, and closes. */
  close(): void {
    if (this.fd >= 0) this.flush();
    this.release();
  }

  /** Bytes that wait. */
  private get held(): number {
    return this.encoder.bytes - this.takenBytes + this.chunk.length - this.sent;
  }

  private section(): CaptureWriter {
    return new CaptureWriter(null, { format: 'pcapng', interfaces: this.names });
  }

  /** Once a second: is the file still the one that the path names, does somebody read the pipe? */
  private look(seconds: number): void {
    this.second = seconds;
    if (this.fd < 0) {
      if (seconds < this.retryAt) return;
      if (this.trouble === ENOSPC && !this.hasRoom()) this.rest();
      else this.open();
    } else if (this.kind === 'pipe') {
      if (this.isUnread()) this.stop(ENXIO);
    } else if (this.isOther()) {
      this.flush();
      this.release();
      this.open();
    }
  }

  private open(): void {
    try {
      // By Node's call: it closes what a worker leaves open that dies without a last word (out of memory).
      this.fd = openForWriting(this.path, O_APPEND | (this.empty ? O_TRUNC : 0));
      const stat = fstatSync(this.fd);
      this.kind = stat.isFIFO() ? 'pipe' : stat.isFile() ? 'file' : 'device';
      this.device = stat.dev;
      this.inode = stat.ino;
      this.length = stat.size;
    } catch (error) {
      this.stop(-((error as NodeJS.ErrnoException).errno ?? -EIO));
      return;
    }
    if (this.kind === 'pipe') fcntl(this.fd, F_SETPIPE_SZ, PIPE_BYTES); // refused: the usual 64 KiB do as well
    this.empty = false;
    this.encoder = this.section();
    this.takenBytes = 0;
    this.takenFrames = 0;
    this.openSince = this.second;
    this.flush();
    // Not before the header is written: a disk that is still full has not changed.
    if (this.fd >= 0) this.trouble = 0;
  }

  /** Hands all that waits to the system, as far as that takes it. */
  private flush(): void {
    if (this.kind === 'file') this.beginAnew();
    for (;;) {
      if (this.sent === this.chunk.length && !this.nextChunk()) return;
      const at = addressOf(this.chunk.buffer) + this.sent;
      const written = write(this.fd, at, this.chunk.length - this.sent);
      if (written > 0) {
        this.sent += written;
        this.length += written;
        continue;
      }
      const reason = written < 0 ? errno() : EAGAIN;
      if (reason === EINTR) continue;
      if (reason !== EAGAIN) this.stop(reason === EPIPE ? ENXIO : reason);
      return;
    }
  }

  /** A file that became shorter was emptied by somebody: what comes next is read only behind a section header. */
  private beginAnew(): void {
    try {
      const { size } = fstatSync(this.fd);
      if (size >= this.length) return;
      this.length = size;
      this.chunk = this.section().take();
      this.sent = 0;
    } catch {
      // The write that follows says what is wrong.
    }
  }

  private nextChunk(): boolean {
    const { encoder } = this;
    this.chunk = encoder.bytes === this.takenBytes ? NOTHING : encoder.take();
    this.sent = 0;
    this.takenBytes = encoder.bytes;
    this.takenFrames = encoder.frames;
    return this.chunk.length > 0;
  }

  /** Nothing more can be written: what did not get through is lost, and half a block is taken back. */
  private stop(reason: number): void {
    if (this.fd >= 0) takeBack(this.fd, this.sent - wholeRecords(this.chunk, 0, this.sent, 'pcapng'));
    this.release();
    this.trouble = reason;
    if (reason === ENXIO) this.retryAt = this.second + FIRST_PAUSE;
    else {
      if (this.second - this.openSince > LAST_PAUSE) this.pause = FIRST_PAUSE;
      this.rest();
    }
  }

  private rest(): void {
    this.retryAt = this.second + this.pause;
    this.pause = Math.min(this.pause * 2, LAST_PAUSE);
  }

  /** Closes the file. What waits is lost. */
  private release(): void {
    if (this.fd < 0) return;
    const { chunk, sent } = this;
    this.lost += framesIn(chunk, wholeRecords(chunk, 0, sent, 'pcapng'), chunk.length, 'pcapng');
    this.lost += this.encoder.frames - this.takenFrames;
    this.takenBytes = this.encoder.bytes;
    this.takenFrames = this.encoder.frames;
    this.chunk = NOTHING;
    this.sent = 0;
    try {
      closeSync(this.fd);
    } catch {
      // What a file system says late is not known to be of any frame.
    }
    this.fd = -1;
  }

  private isOther(): boolean {
    try {
      const stat = statSync(this.path, { throwIfNoEntry: false });
      return stat === undefined || stat.ino !== this.inode || stat.dev !== this.device;
    } catch {
      return false; // a folder that cannot be looked into says nothing about the file
    }
  }

  private hasRoom(): boolean {
    try {
      const { bavail, bsize } = statfsSync(existsSync(this.path) ? this.path : dirname(this.path));
      return bavail * bsize >= ROOM;
    } catch {
      return true; // opening it says what is wrong
    }
  }

  /** A pipe's last reader is gone (poll(2): POLLERR at the end that writes). */
  private isUnread(): boolean {
    this.poll ??= mapMemory(32);
    const words = new Int32Array(this.poll.buffer, 0, 2);
    words[0] = this.fd;
    words[1] = 0;
    return ppoll(this.poll.base, 1, this.poll.base + 16, 0) > 0 && ((words[1] >>> 16) & POLLERR) !== 0;
  }
}
