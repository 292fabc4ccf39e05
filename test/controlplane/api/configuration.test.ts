/** Apply, compare, confirm, and the return of what was not confirmed. The differences are judged by patch(1)'s own rules. */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Configuration } from '../../../controlplane/api/configuration.ts';
import { differences } from '../../../controlplane/api/difference.ts';
import { parseConfig } from '../../../controlplane/config/index.ts';

const text = (mtu: number): string => `ports:\n  lan: { kind: memory, mtu: ${mtu} }\n`;

describe('a configuration on probation', () => {
  let applied: number[] = [];
  let refuse = '';
  let configuration: Configuration;

  beforeEach(() => {
    vi.useFakeTimers();
    applied = [];
    refuse = '';
    const apply = (config: { ports: { mtu: number }[] }): string[] => {
      if (refuse !== '') throw new RangeError(refuse);
      applied.push(config.ports[0].mtu);
      return [`ports.lan.mtu ${config.ports[0].mtu}`];
    };
    configuration = new Configuration(text(1500), parseConfig(text(1500), 'a.yaml'), apply);
  });
  afterEach(() => {
    vi.useRealTimers();
  });

  it('is compared without being applied', () => {
    const answer = configuration.apply(text(1400), 'b.yaml', { only: true, confirm: 0 });
    expect(answer).toMatchObject({ applied: false, changes: [], confirm: null });
    expect(answer.diff).toContain('-  lan: { kind: memory, mtu: 1500 }\n+  lan: { kind: memory, mtu: 1400 }');
    expect(applied).toEqual([]);
    expect(configuration.state().text).toBe(text(1500));
  });

  it('comes back to the last confirmed one when nobody confirms', () => {
    configuration.apply(text(1400), 'b.yaml', { only: false, confirm: 60 });
    vi.advanceTimersByTime(30_000);
    expect(configuration.state()).toMatchObject({ confirm: 30, text: text(1400) });
    configuration.apply(text(1300), 'c.yaml', { only: false, confirm: 60 });
    vi.advanceTimersByTime(59_999);
    expect(applied).toEqual([1400, 1300]);
    vi.advanceTimersByTime(1);
    expect(applied).toEqual([1400, 1300, 1500]);
    expect(configuration.state()).toEqual({ file: 'a.yaml', text: text(1500), confirm: null });
    expect(() => configuration.confirm()).toThrow('confirm: expected a configuration that waits for it, got none');
  });

  it('stays once it is confirmed', () => {
    configuration.apply(text(1400), 'b.yaml', { only: false, confirm: 10 });
    configuration.confirm();
    vi.advanceTimersByTime(100_000);
    expect(applied).toEqual([1400]);
    expect(configuration.state()).toEqual({ file: 'b.yaml', text: text(1400), confirm: null });
  });

  it('a text with faults, or one that cannot be applied, changes nothing', () => {
    expect(() => configuration.apply('ports: { lan: { mtu: big } }', 'b.yaml', { only: false, confirm: 5 })).toThrow(
      'b.yaml:1:17 ports.lan.mtu: expected a number from 1280 to 65535, got "big"',
    );
    refuse = 'ports: expected the same ports, got others';
    expect(() => configuration.apply(text(1400), 'b.yaml', { only: false, confirm: 5 })).toThrow(refuse);
    expect(configuration.state()).toEqual({ file: 'a.yaml', text: text(1500), confirm: null });
    // One that is refused does not end another's probation.
    refuse = '';
    configuration.apply(text(1400), 'b.yaml', { only: false, confirm: 5 });
    refuse = 'no';
    expect(() => configuration.apply(text(1300), 'c.yaml', { only: false, confirm: 0 })).toThrow('no');
    refuse = '';
    vi.advanceTimersByTime(5000);
    expect(applied.at(-1)).toBe(1500);
  });
});

describe('differences', () => {
  /** What a unified diff makes of `before`; checks every line and every count on the way. */
  function patch(before: string, diff: string): string {
    const lines = before.split('\n').slice(0, -1);
    const out: string[] = [];
    let at = 0;
    const body = diff.split('\n').slice(2, -1);
    for (let n = 0; n < body.length; ) {
      const [, start, countA, , countB] = /^@@ -(\d+),(\d+) \+(\d+),(\d+) @@$/.exec(body[n++])!.map(Number);
      const first = countA === 0 ? start : start - 1;
      out.push(...lines.slice(at, first));
      at = first;
      let [a, b] = [countA, countB];
      while (a > 0 || b > 0) {
        const [edit, line] = [body[n][0], body[n++].slice(1)];
        if (edit !== '+') {
          expect(lines[at++]).toBe(line);
          a--;
        }
        if (edit !== '-') {
          out.push(line);
          b--;
        }
      }
    }
    return [...out, ...lines.slice(at), ''].join('\n');
  }

  it('turn one text into the other, whatever the two are', () => {
    let seed = 7;
    const random = (below: number): number => {
      seed = (Math.imul(seed, 1103515245) + 12345) & 0x7fffffff;
      return (seed >> 8) % below;
    };
    for (let run = 0; run < 300; run++) {
      const make = (): string => Array.from({ length: random(30) }, () => `${random(5)}\n`).join('');
      const [a, b] = [make(), make()];
      const diff = differences(a, b, 'a', 'b');
      if (a === b) expect(diff).toBe('');
      else expect(patch(a, diff)).toBe(b);
    }
  });

  it('keep three lines of context', () => {
    const before = Array.from({ length: 20 }, (_, n) => `line ${n}\n`).join('');
    const diff = differences(before, before.replace('line 10\n', ''), 'a', 'b');
    expect(diff.split('\n')).toEqual([
      '--- a',
      '+++ b',
      '@@ -8,7 +8,6 @@',
      ' line 7',
      ' line 8',
      ' line 9',
      '-line 10',
      ' line 11',
      ' line 12',
      ' line 13',
      '',
    ]);
  });
});
