/**
 * Configuration: the text that a running router was configured with, and its replacement by another without losing
 * sessions.
 *
 * With `confirm`, a new configuration is on probation: unless it is confirmed in time, the one before comes back. So a
 * change that cuts off whoever made it mends itself. There is one probation at a time; another apply during it replaces
 * the configuration on probation, and what comes back is still the last confirmed one.
 */
import { type Config, ConfigError, parseConfig } from '../config/index.ts';
import { differences } from './difference.ts';
import { Refusal } from './http.ts';

/** Makes a configuration that has no fault the running one. Returns what changed, a line each; throws RangeError for what cannot change live. */
export type Applier = (config: Config) => readonly string[];

export interface ApplyAnswer {
  /** Lines of the configuration's text that differ, as `diff -u` writes them; empty: none. */
  diff: string;
  /** What the router changed; empty for a mere comparison. */
  changes: readonly string[];
  warnings: readonly string[];
  applied: boolean;
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
  private readonly applier: Applier | null;
  private readonly log: (level: 'info' | 'warn', message: string) => void;
  private probation: { before: Version; timer: NodeJS.Timeout; until: number } | null = null;

  /** @param text what `config` was read from */
  constructor(
    text: string,
    config: Config,
    applier: Applier | null,
    log: (level: 'info' | 'warn', message: string) => void = () => {},
  ) {
    this.current = { text, config };
    this.applier = applier;
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
   * @throws Refusal 400 with every fault of the text, 409 for what cannot change while the router runs
   */
  apply(text: string, name: string, options: { only: boolean; confirm: number }): ApplyAnswer {
    let config: Config;
    try {
      config = parseConfig(text, name);
    } catch (error) {
      if (error instanceof ConfigError) throw new Refusal(400, error.message);
      throw error;
    }
    const diff = differences(this.current.text, text, this.current.config.file || 'running', name);
    const answer = { diff, warnings: config.warnings };
    if (options.only) return { ...answer, changes: [], applied: false, confirm: this.left() };
    const before = this.probation?.before ?? this.current;
    const changes = this.install({ text, config });
    this.endProbation();
    if (options.confirm > 0) {
      const timer = setTimeout(() => this.comeBack(), options.confirm * 1000);
      timer.unref();
      this.probation = { before, timer, until: performance.now() + options.confirm * 1000 };
    }
    this.log('info', `configuration: ${name} applied, ${changes.length} changes`);
    return { ...answer, changes, applied: true, confirm: this.left() };
  }

  private install(next: Version): readonly string[] {
    if (this.applier === null) throw new Refusal(501, 'apply: expected a router that can change while it runs');
    try {
      const changes = this.applier(next.config);
      this.current = next;
      return changes;
    } catch (error) {
      if (error instanceof RangeError) throw new Refusal(409, error.message);
      throw error;
    }
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

  private comeBack(): void {
    const { before } = this.probation!;
    this.probation = null;
    try {
      this.install(before);
      this.log('warn', 'configuration: not confirmed in time, the one before is back');
    } catch (error) {
      this.log(
        'warn',
        `configuration: not confirmed in time, and the one before is refused: ${(error as Error).message}`,
      );
    }
  }

  /** Forgets the timer: the router stops. */
  close(): void {
    this.endProbation();
  }
}
