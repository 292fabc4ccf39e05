/**
 * Configuration: the text that a running router was configured with, and its replacement by another without losing
 * sessions.
 *
 * With `confirm`, a new configuration is on probation: unless it is confirmed in time, the one before comes back. So a
 * change that cuts off whoever made it mends itself. There is one probation at a time; another apply during it replaces
 * the configuration on probation, and what comes back is still the last confirmed one. Changes happen one after the other.
 */
import type { Applied, Change } from '../apply/index.ts';
import { type Config, ConfigError, parseConfig } from '../config/index.ts';
import { Refusal } from './http.ts';

/** A router that can take another configuration: controlplane/apply. */
export interface Reconfigurable {
  compare(next: Config): Change;
  apply(next: Config): Applied | Promise<Applied>;
}

export interface ApplyAnswer {
  /** `- routes: …` and `+ routes: …`: what the two configurations say differently. */
  lines: readonly string[];
  warnings: readonly string[];
  applied: boolean;
  /** Connections that ended because of it. */
  ended: number;
  /** Seconds until the configuration before comes back; null: it does not. */
  confirm: number | null;
}

export interface ConfigurationState {
  file: string;
  text: string;
  /** Seconds left; null: nothing waits for a confirmation. */
  confirm: number | null;
}

interface Version {
  text: string;
  config: Config;
}

export class Configuration {
  private current: Version;
  private readonly target: Reconfigurable;
  private readonly log: (level: 'info' | 'warn', message: string) => void;
  private probation: { before: Version; timer: NodeJS.Timeout; until: number } | null = null;
  private last: Promise<unknown> = Promise.resolve();

  /** @param text what `config` was read from */
  constructor(
    text: string,
    config: Config,
    target: Reconfigurable,
    log: (level: 'info' | 'warn', message: string) => void = () => {},
  ) {
    this.current = { text, config };
    this.target = target;
    this.log = log;
  }

  state(): ConfigurationState {
    return { file: this.current.config.file, text: this.current.text, confirm: this.left() };
  }

  private left(): number | null {
    return this.probation === null ? null : Math.max(0, Math.ceil((this.probation.until - performance.now()) / 1000));
  }

  /**
   * Compares and, unless `only`, applies.
   *
   * @param name what messages call the new text   @param confirm seconds until the return; 0: for good
   * @throws Refusal 400 with every fault of the text, 409 with what cannot change while the router runs
   */
  async apply(text: string, name: string, options: { only: boolean; confirm: number }): Promise<ApplyAnswer> {
    let config: Config;
    try {
      config = parseConfig(text, name);
    } catch (error) {
      if (error instanceof ConfigError) throw new Refusal(400, error.message);
      throw error;
    }
    return this.inTurn(async () => {
      if (options.only) {
        const { lines, refused } = this.target.compare(config);
        if (refused.length > 0) throw new Refusal(409, refused.join('\n'));
        return { lines, warnings: config.warnings, applied: false, ended: 0, confirm: this.left() };
      }
      const before = this.probation?.before ?? this.current;
      const { lines, ended } = await this.install({ text, config });
      this.endProbation();
      if (options.confirm > 0) {
        const timer = setTimeout(() => void this.comeBack(), options.confirm * 1000);
        timer.unref();
        this.probation = { before, timer, until: performance.now() + options.confirm * 1000 };
      }
      this.log('info', `configuration: ${name} applied, ${lines.length} lines differ, ${ended} connections ended`);
      return { lines, warnings: config.warnings, applied: true, ended, confirm: this.left() };
    });
  }

  private inTurn<T>(work: () => Promise<T>): Promise<T> {
    const done = this.last.then(work);
    this.last = done.catch(() => {});
    return done;
  }

  private async install(next: Version): Promise<Applied> {
    const applied = await this.target.apply(next.config);
    if (applied.refused.length > 0) throw new Refusal(409, applied.refused.join('\n'));
    this.current = next;
    return applied;
  }

  /** Keeps what is on probation. @throws Refusal 409 when nothing is */
  confirm(): void {
    if (this.probation === null)
      throw new Refusal(409, 'confirm: expected a configuration that waits for it, got none');
    this.endProbation();
    this.log('info', 'configuration: confirmed');
  }

  private endProbation(): void {
    if (this.probation !== null) clearTimeout(this.probation.timer);
    this.probation = null;
  }

  private comeBack(): Promise<void> {
    const mine = this.probation;
    return this.inTurn(async () => {
      // Confirmed, or replaced, while this waited for its turn.
      if (mine === null || this.probation !== mine) return;
      this.probation = null;
      try {
        await this.install(mine.before);
        this.log('warn', 'configuration: not confirmed in time, the one before is back');
      } catch (error) {
        const { message } = error as Error;
        this.log('warn', `configuration: not confirmed in time, and the one before is refused: ${message}`);
      }
    });
  }

  /** Forgets the timer: the router stops. */
  close(): void {
    this.endProbation();
  }
}
