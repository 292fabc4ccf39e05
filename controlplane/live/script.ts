/**
 * Script: a program of the user's that hears what protocols tell each other (`gateway.script`), as DHCP clients have one.
 *
 * Started once for each event, one after the other and never two at once: its only argument is the event's name, the data
 * is JSON on its standard input and in SLUICE_DATA. What it says goes to the router's log. Bounded: a program that does not
 * end is ended, events that find the queue full are counted and left out.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import type { Told } from '../protocol.ts';

const MAX_WAITING = 256;
/** Milliseconds that one run may take. */
const LONGEST = 10_000;

export class EventScript {
  /** Events that found no room. */
  lost = 0;
  private readonly file: string;
  private readonly log: (level: 'info' | 'warn', message: string) => void;
  private readonly waiting: Told[] = [];
  private running = false;

  constructor(file: string, log: (level: 'info' | 'warn', message: string) => void) {
    this.file = file;
    this.log = log;
  }

  tell(told: Told): void {
    if (this.waiting.length >= MAX_WAITING) {
      this.lost++;
      return;
    }
    this.waiting.push(told);
    if (!this.running) this.run();
  }

  private run(): void {
    const told = this.waiting.shift();
    this.running = told !== undefined;
    if (told === undefined) return;
    const data = JSON.stringify(told.data);
    let over = false;
    const next = (fault: string): void => {
      if (over) return;
      over = true;
      if (fault !== '') this.log('warn', `gateway.script: ${this.file} ${told.name}: ${fault}`);
      this.run();
    };
    let child: ChildProcess;
    try {
      child = spawn(this.file, [told.name], {
        env: { ...process.env, SLUICE_EVENT: told.name, SLUICE_DATA: data },
        stdio: ['pipe', 'ignore', 'pipe'],
        timeout: LONGEST,
        killSignal: 'SIGKILL',
      });
    } catch (error) {
      // Some of what can be wrong with a file is thrown (ENOTDIR, ETXTBSY), some is told later: to us it is the same.
      setImmediate(next, (error as Error).message);
      return;
    }
    let said = '';
    // Without descriptors (EMFILE) it has no streams.
    child.stderr?.on('data', (part: Buffer) => {
      if (said.length < 1000) said += part.toString('utf8');
    });
    // A program that does not read its input is none the worse for it.
    child.stdin?.on('error', () => {});
    child.stdin?.end(data);
    child.on('error', (error) => next(error.message));
    child.on('close', (code, signal) =>
      next(code === 0 ? '' : `expected exit code 0, got ${signal ?? code}${said === '' ? '' : `: ${said.trim()}`}`),
    );
  }
}
