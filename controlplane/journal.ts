/**
 * Journal: the lease file. Records are appended, one line each, and never changed:
 *
 *   1c291ca3 {"client":"duid:00:03:...","prefix":"2001:db8:ff00:40::/60", ...}\n
 *   └ CRC-32C of the JSON text in hexadecimal
 *
 * `append` hands the record to the kernel at once, so that it survives the death of this process; `sync` returns when it
 * is on the disk, so that it survives the machine's. Whoever promises a lease calls both first. At start the records are
 * read up to the last whole one. What is behind it, a record cut in the middle or garbage, is moved to FILE.damaged-N
 * and kept; then the file is written anew with what is still in force, beside the old one, and renamed over it.
 *
 * Not here: what a record means (dhcp6/leases.ts, dhcp4/lease-file.ts), and two processes on one file: a lock file names the owner's process.
 */
import {
  closeSync,
  existsSync,
  fdatasyncSync,
  fsyncSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { dirname } from 'node:path';
import { crc32c } from '../dataplane/wire/crc32c.ts';

export type JournalRecord = Record<string, unknown>;

/** A file is to be written anew when it has this many times the records in force, and so many more. */
const COMPACT_RATIO = 4;
const COMPACT_LEAST = 1000;
/** Milliseconds by which a file may be younger than the time of day: they do not come from one clock everywhere. */
const YOUNGER = 1000;

export interface Recovered {
  records: JournalRecord[];
  /** Bytes behind the last whole record, and the file that has them now; '' when there were none. */
  damaged: number;
  aside: string;
  /**
   * Milliseconds by which the time of day is behind the file's last writing, as in a box without a clock that has just
   * been switched on: times in the records count from then. 0: it is not.
   */
  behind: number;
}

/** CRC-32C (RFC 3720 §B.4) of the bytes, eight hexadecimal digits. */
function checksum(bytes: Uint8Array): string {
  // The function stores the sum in the bytes: the four behind the text.
  const copy = new Uint8Array(bytes.length + 4);
  copy.set(bytes);
  crc32c(copy, 0, copy.length, bytes.length);
  return Buffer.from(copy.subarray(bytes.length)).toString('hex');
}

export function formatRecord(record: JournalRecord): string {
  const text = JSON.stringify(record);
  return `${checksum(Buffer.from(text))} ${text}\n`;
}

/** The records of a file's bytes, and how many of the bytes they take. */
export function parseRecords(bytes: Buffer): { records: JournalRecord[]; length: number } {
  const records: JournalRecord[] = [];
  let at = 0;
  for (;;) {
    const end = bytes.indexOf(10, at);
    if (end < 0) return { records, length: at };
    const text = bytes.subarray(at + 9, end);
    if (end - at < 11 || bytes[at + 8] !== 0x20) return { records, length: at };
    if (bytes.toString('latin1', at, at + 8) !== checksum(text)) return { records, length: at };
    try {
      records.push(JSON.parse(text.toString('utf8')) as JournalRecord);
    } catch {
      return { records, length: at };
    }
    at = end + 1;
  }
}

export class Journal {
  readonly file: string;
  private fd: number;
  private dirty = false;
  /** Bytes of whole records: where the next one goes. */
  private length = 0;
  /** Records in the file. */
  count = 0;

  private constructor(file: string, fd: number) {
    this.file = file;
    this.fd = fd;
  }

  /**
   * Opens the file, made when it is not there.
   *
   * @throws Error when it cannot be read or written, or another living process has it
   */
  static open(file: string): { journal: Journal; recovered: Recovered } {
    lock(file);
    const recovered: Recovered = { records: [], damaged: 0, aside: '', behind: 0 };
    if (existsSync(file)) {
      const bytes = readFileSync(file);
      const { records, length } = parseRecords(bytes);
      recovered.records = records;
      const behind = Math.floor(statSync(file).mtimeMs) - Date.now();
      if (behind > YOUNGER) recovered.behind = behind;
      recovered.damaged = bytes.length - length;
      if (recovered.damaged > 0) {
        let n = 1;
        while (existsSync(`${file}.damaged-${n}`)) n++;
        recovered.aside = `${file}.damaged-${n}`;
        writeFileSync(recovered.aside, bytes.subarray(length), { flush: true, mode: 0o600 });
      }
    }
    const journal = new Journal(file, -1);
    journal.rewrite(recovered.records);
    return { journal, recovered };
  }

  /**
   * Hands a record to the kernel. Throws when the disk is full: what was written of the record is written over by the next one, as
   * nothing behind a cut record would be found again.
   */
  append(record: JournalRecord): void {
    const line = Buffer.from(formatRecord(record));
    if (writeSync(this.fd, line, 0, line.length, this.length) !== line.length)
      throw new Error(`${this.file}: expected room for a record, got none; make room on the disk`);
    this.length += line.length;
    this.dirty = true;
    this.count++;
  }

  /** Returns when all that was appended is on the disk. */
  sync(): void {
    if (!this.dirty) return;
    fdatasyncSync(this.fd);
    this.dirty = false;
  }

  /** True when so much of the file is no longer in force that it is time for `rewrite`. @param inForce records that are */
  isLong(inForce: number): boolean {
    return this.count > COMPACT_RATIO * inForce + COMPACT_LEAST;
  }

  /** Replaces the file by one with these records: in one step, so that a crash leaves either the old or the new one. */
  rewrite(records: readonly JournalRecord[]): void {
    const next = `${this.file}.new`;
    const fd = openSync(next, 'w', 0o600);
    const text = Buffer.from(records.map(formatRecord).join(''));
    let folder = -1;
    try {
      for (let at = 0; at < text.length; ) at += writeSync(fd, text, at);
      fsyncSync(fd);
      folder = openSync(dirname(this.file), 'r');
      renameSync(next, this.file);
    } catch (error) {
      closeSync(fd);
      if (folder >= 0) closeSync(folder);
      rmSync(next, { force: true });
      throw error;
    }
    // From here on the file is the new one, whatever the disk says: what is appended to the old one nobody would find.
    if (this.fd >= 0) closeSync(this.fd);
    this.fd = fd;
    this.length = text.length;
    this.count = records.length;
    this.dirty = false;
    try {
      fsyncSync(folder);
    } finally {
      closeSync(folder);
    }
  }

  /** Gives the file back; nothing when that has been done. Throws when what was appended cannot be written. */
  close(): void {
    const { fd } = this;
    if (fd < 0) return;
    try {
      this.sync();
    } finally {
      this.fd = -1;
      closeSync(fd);
      rmSync(`${this.file}.lock`, { force: true });
    }
  }
}

/** A file with the process's number: taken over when that process is dead. */
function lock(file: string): void {
  const name = `${file}.lock`;
  const mine = String(process.pid);
  try {
    writeFileSync(name, mine, { flag: 'wx', mode: 0o600 });
    return;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
  const owner = Number(readFileSync(name, 'utf8'));
  if (owner > 0 && owner !== process.pid && isAlive(owner))
    throw new Error(`${file}: expected a lease file of its own, got one that process ${owner} has; stop it first`);
  writeFileSync(name, mine, { mode: 0o600 });
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}
