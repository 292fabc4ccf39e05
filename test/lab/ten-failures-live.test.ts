/**
 * The ten classic failures (test/lib/failures.ts) on a live router, all on the same one: each is injected as raw frames from
 * the host where it begins, and `sluice explain` (asked before it happens), the comment of a running `sluice capture` and
 * `sluice show drops` name it alike.
 *
 *   client sl-lan ══ [sluice run] ══ sl-wan server
 *
 * The frames are those of hosts that do not exist, with addresses and MACs that neither kernel has: nobody but the test
 * answers them. A frame has been dealt with once the capture has it.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { commandFile } from '../../controlplane/demo/lab.ts';
import type { Explained, Explanation } from '../../controlplane/explain/explain.ts';
import { type LabProcess, waitFor } from '../../controlplane/lab/namespace.ts';
import type { NeighJson } from '../../controlplane/show/neigh.ts';
import { type Arrival, commentsOn, EXCEPTION, FAILURES, failuresConfig, question } from '../lib/failures.ts';
import { RawSocket } from './kernel/raw-socket.ts';
import { type LiveLab, startLive } from './live-lab.ts';
import { labReady } from './need.ts';

const CONFIG = failuresConfig({ lan: { kind: 'tap', ifname: 'sl-lan' }, wan: { kind: 'tap', ifname: 'sl-wan' } });

describe.skipIf(!labReady(['ping'], { tun: true }))('ten classic failures on a live router', () => {
  let live: LiveLab;
  let file = '';
  let capture: LabProcess;
  const sockets = new Map<string, RawSocket>();
  /** Reasons and what their counters must say in the end. */
  const counted = new Map<string, number>();

  beforeAll(async () => {
    const sections = Object.entries({ ...CONFIG, workers: 1 }).map(
      ([key, value]) => `${key}: ${JSON.stringify(value)}`,
    );
    live = await startLive(sections.join('\n'), [
      { label: 'client', device: 'sl-lan', addresses: ['192.168.1.200/24'], via: ['192.168.1.1'], mtu: 2000 },
      // The router answers nobody there.
      { label: 'server', device: 'sl-wan', addresses: ['203.0.113.200/24'], via: [], mtu: 1300 },
    ]);
    sockets.set('lan', new RawSocket(live.lab, live.ns('client'), 'sl-lan'));
    sockets.set('wan', new RawSocket(live.lab, live.ns('server'), 'sl-wan'));
    file = join(live.folder, 'all.pcapng');
    const args = [commandFile(), 'capture', '-w', file, '--socket', live.socket];
    capture = live.lab.spawn(live.ns('client'), process.execPath, args);
    // It has begun once the file holds the section header.
    await waitFor('the capture to begin', () => existsSync(file) && readFileSync(file).length > 0, {
      timeout: 60_000,
      detail: () => capture.stderr(),
    });
  });

  afterAll(() => {
    for (const socket of sockets.values()) socket.close();
    live?.close();
  });

  function sluice<T>(...args: string[]): T {
    const command = [commandFile(), ...args, '-j', '--socket', live.socket];
    const done = spawnSync(process.execPath, command, { encoding: 'utf8' });
    expect(done.status, done.stderr).toBe(0);
    return JSON.parse(done.stdout) as T;
  }

  /** What explain says of the last of these frames. */
  function explain(port: string, frames: readonly Uint8Array[]): Explanation {
    const given = frames.flatMap((frame) => ['--frame', Buffer.from(frame).toString('hex')]);
    const last = sluice<Explained>('explain', '--port', port, ...given).packets.at(-1);
    if (last === undefined) throw new Error('explain: expected a packet, got none');
    return last;
  }

  /** Sends a frame from the host behind the port; what the capture says of it once the router has dealt with it. */
  async function inject([port, frame]: Arrival): Promise<string> {
    const before = commentsOn(readFileSync(file), frame).length;
    sockets.get(port)?.send(frame);
    return waitFor('the frame in the capture', () => commentsOn(readFileSync(file), frame)[before], {
      detail: () => capture.stderr(),
    });
  }

  async function drops(reason: string): Promise<number> {
    const all = (await live.show('drops')) as { reason: string; count: number }[];
    return all.find((one) => one.reason === reason)?.count ?? 0;
  }

  it.each(FAILURES)('$name', async (failure) => {
    const { before = [], failed, arrival, reason, stage, found, where, sentence, counts = 1 } = failure;
    for (const one of before) await inject(one);
    if (failed !== undefined)
      await waitFor(
        `${failed} to be given up`,
        async () => {
          const all = (await live.show('neigh')) as NeighJson[];
          return all.some(({ dst, state }) => dst === failed && state.includes('FAILED'));
        },
        { timeout: 30_000, every: 50 },
      );

    const explained = explain(arrival[0], question(failure));
    expect(explained).toMatchObject({ verdict: 'dropped', reason, stage });
    const step = explained.stages.find((one) => one.stage === stage);
    expect(step?.found).toMatch(found);
    expect(step?.decided).toContain(`drop ${reason}`);
    // In front of it: the file, the line and the column.
    expect(explained.where?.replace(/^.*router\.yaml:\d+:\d+ /, '')).toBe(where);
    expect(explained.why).toMatch(new RegExp(`^${reason} at ${stage}: `));

    const already = await drops(reason);
    const comment = await inject(arrival);
    const opening = `drop ${reason} at ${stage}: `;
    expect(comment.slice(0, opening.length)).toBe(opening);
    expect(comment.slice(opening.length)).toMatch(sentence);
    expect(await drops(reason)).toBe(already + counts);
    counted.set(reason, already + counts);
  });

  it('offload exception', async () => {
    for (const one of EXCEPTION.before) await inject(one);
    await waitFor('the engine to carry it', async () => (await inject(EXCEPTION.data)) === EXCEPTION.carried);
    expect(explain(EXCEPTION.arrival[0], [EXCEPTION.arrival[1]]).stages[0]).toMatchObject(EXCEPTION.explained);
    const left = async (): Promise<number> => {
      const { counters } = (await live.show('offload')) as { counters: Record<string, number> };
      return counters[EXCEPTION.counter] ?? 0;
    };
    const already = await left();
    expect(await inject(EXCEPTION.arrival)).toBe(EXCEPTION.comment);
    await waitFor('the exception to be counted', async () => (await left()) === already + 1);
  });

  it('show drops -j has counted each of them', () => {
    const all = sluice<{ reason: string; count: number }[]>('show', 'drops');
    const named = all.filter(({ reason }) => counted.has(reason)).map(({ reason, count }) => [reason, count] as const);
    expect(new Map(named)).toEqual(counted);
    expect(counted.size).toBe(FAILURES.length);
  });
});
