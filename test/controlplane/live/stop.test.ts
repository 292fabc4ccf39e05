/** Signals, in a process of their own that runs the built file. */
import { type ChildProcess, spawn } from 'node:child_process';
import { afterEach, describe, expect, it } from 'vitest';
import { until } from '../../lib/until.ts';

const FILE = new URL('../../../dist/controlplane/live/stop.js', import.meta.url);
/** What the process tells. */
const TELL = `import { writeSync } from 'node:fs'; import { Signals } from '${FILE.href}';
const tell = (what) => writeSync(1, what + '\\n');
const idle = setInterval(() => {}, 1000);
const signals = new Signals();`;

describe('signals', () => {
  let child: ChildProcess | null = null;
  let closed = false;

  afterEach(() => {
    child?.kill('SIGKILL');
  });

  async function start(script: string): Promise<() => string> {
    let heard = '';
    closed = false;
    child = spawn(process.execPath, ['--input-type=module', '-e', TELL + script], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    child.stdout?.on('data', (bytes) => {
      heard += bytes;
    });
    child.once('close', () => {
      closed = true;
    });
    await until('the process to be ready', () => heard.includes('ready'), 60_000);
    return () => heard;
  }

  /** It has ended, and all that it said was heard. */
  const ended = (): Promise<unknown> => until('its end', () => closed, 60_000);

  it('the first one stops in order, also one that came before there was anything to stop', async () => {
    const heard = await start(`
      process.on('SIGTERM', () => setTimeout(async () => {
        const stop = async () => tell('stopped');
        const abandon = () => tell('abandoned');
        tell('by ' + await signals.until({ stop, abandon }, new Promise(() => {})));
        clearInterval(idle);
      }, 1));
      tell('ready');`);
    child?.kill('SIGTERM');
    await ended();
    expect([child?.exitCode, child?.signalCode, heard()]).toEqual([0, null, 'ready\nstopped\nby SIGTERM\n']);
  });

  it.each([
    [
      'while it stops',
      `signals.until({ stop: () => new Promise(() => tell('stopping')), abandon }, new Promise(() => {}));`,
    ],
    ['while it starts', `process.on('SIGINT', () => tell('stopping')); signals.abandon = abandon;`],
  ])('a second one %s ends the process by that signal, and takes back what would outlive it', async (_, script) => {
    const heard = await start(`const abandon = () => tell('abandoned'); ${script} tell('ready');`);
    child?.kill('SIGINT');
    await until('the first one to be heard', () => heard().includes('stopping'), 60_000);
    child?.kill('SIGTERM');
    await ended();
    expect([child?.exitCode, child?.signalCode, heard()]).toEqual([null, 'SIGTERM', 'ready\nstopping\nabandoned\n']);
  });
});
