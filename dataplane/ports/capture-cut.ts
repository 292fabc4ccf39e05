/**
 * Capture cut: where the whole records of a capture end, as CaptureWriter writes them (little-endian, no padding between).
 *
 * For writers that could not write all: what was written of the last record is taken back to here, so that a reader comes to
 * the end of the file behind a whole frame; and how such a writer opens what it writes to. Nothing here is for captures of
 * others: no length is checked.
 */
import { constants, fstatSync, ftruncateSync, openSync } from 'node:fs';
import { BLOCK_ENHANCED } from './capture-reader.ts';

/** Bytes of a pcap file before its first record, and of a record before its frame. */
export const PCAP_HEADER = 24;
export const PCAP_RECORD = 16;

/** Offset behind the last record that ends at or before `limit`, walking from the record that begins at `from`. */
export function wholeRecords(bytes: Uint8Array, from: number, limit: number, format: 'pcap' | 'pcapng'): number {
  let at = from;
  while (at < limit && at + recordLength(bytes, at, format) <= limit) at += recordLength(bytes, at, format);
  return at;
}

/** Frames in the whole records from `from` to `to`. */
export function framesIn(bytes: Uint8Array, from: number, to: number, format: 'pcap' | 'pcapng'): number {
  let frames = 0;
  for (let at = from; at < to; at += recordLength(bytes, at, format))
    if (format === 'pcap' || bytes[at] === BLOCK_ENHANCED) frames++;
  return frames;
}

/**
 * Opens a file, made when there is none (its owner's alone: so is what a capture shows), or a named pipe, without ever waiting: ENXIO
 * is a pipe that nobody reads. Throws what the system says.
 *
 * @param flags further O_* flags
 */
export function openForWriting(path: string, flags: number): number {
  const { O_WRONLY, O_NONBLOCK, O_CREAT } = constants;
  try {
    return openSync(path, O_WRONLY | O_NONBLOCK | flags);
  } catch (error) {
    // O_CREAT only where it is needed: with it Linux refuses a pipe of somebody else in a folder for all (fs.protected_fifos).
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    return openSync(path, O_WRONLY | O_NONBLOCK | O_CREAT | flags, 0o600);
  }
}

/** Takes the last `half` bytes of a regular file back; nothing of any other, nor where the file system refuses. */
export function takeBack(descriptor: number, half: number): void {
  if (half === 0) return;
  try {
    const stat = fstatSync(descriptor);
    if (stat.isFile() && stat.size >= half) ftruncateSync(descriptor, stat.size - half);
  } catch {
    // Readers find the end of the file in the middle of a record, and say so.
  }
}

/** A block's whole length is its second word; a pcap record's is that of the frame, in its third, and of its header. */
function recordLength(bytes: Uint8Array, at: number, format: 'pcap' | 'pcapng'): number {
  return format === 'pcapng' ? wordAt(bytes, at + 4) : PCAP_RECORD + wordAt(bytes, at + 8);
}

/** No record is longer than 2^31 bytes. */
function wordAt(bytes: Uint8Array, at: number): number {
  return bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16) | (bytes[at + 3] << 24);
}
