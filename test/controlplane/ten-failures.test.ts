/**
 * Ten classic failures (test/lib/failures.ts), each injected, each named alike by `explain` (before it happens), by the
 * comment of the capture, and by its counter. The tenth is none: the engine leaves a packet to the slow path, and all three
 * say why.
 */
import { describe, expect, it } from 'vitest';
import { explainFrames } from '../../controlplane/explain/explain.ts';
import { createRouter, type Router } from '../../controlplane/router.ts';
import { VIEWS } from '../../controlplane/show/index.ts';
import { commentsOn, EXCEPTION, FAILURES, failuresConfig, question } from '../lib/failures.ts';

const MEMORY = { kind: 'memory' };

function start(): Router {
  return createRouter(failuresConfig({ lan: MEMORY, wan: MEMORY }), { slots: { small: 512, large: 16 } });
}

describe('ten classic failures', () => {
  it.each(FAILURES)('$name', (failure) => {
    const { before = [], failed, arrival, reason, stage, found, where, sentence, counts = 1 } = failure;
    const router = start();
    for (const one of before) router.inject(...one);
    if (failed !== undefined) router.advance(5000);
    const explained = explainFrames(router, arrival[0], question(failure)).packets.at(-1);
    expect(explained).toMatchObject({ verdict: 'dropped', reason, stage });
    const step = explained?.stages.find((one) => one.stage === stage);
    expect(step?.found).toMatch(found);
    expect(step?.decided).toContain(`drop ${reason}`);
    expect(explained?.where).toBe(where);
    expect(explained?.why).toMatch(new RegExp(`^${reason} at ${stage}: `));

    const counted = router.counters.dropped[reason] ?? 0;
    const capture = router.capture({ drops: true });
    router.inject(...arrival);
    if (failed !== undefined) router.advance(5000);
    expect(router.counters.dropped[reason]).toBe(counted + counts);
    const said = commentsOn(capture.read());
    expect(said).toHaveLength(1);
    const opening = `drop ${reason} at ${stage}: `;
    expect(said[0].slice(0, opening.length)).toBe(opening);
    expect(said[0].slice(opening.length)).toMatch(sentence);
  });

  it('offload exception', () => {
    const router = start();
    for (const one of [...EXCEPTION.before, EXCEPTION.data, EXCEPTION.data]) router.inject(...one);
    const before = router.counters.offload.hits;
    expect(before).toBeGreaterThan(0);
    expect(router.explain(...EXCEPTION.arrival).stages[0]).toMatchObject(EXCEPTION.explained);
    const capture = router.capture();
    router.inject(...EXCEPTION.arrival);
    expect(router.counters.offload.hits).toBe(before);
    expect(commentsOn(capture.read())[0]).toBe(EXCEPTION.comment);
    expect(VIEWS.offload(router, {}).json).toMatchObject({ counters: { [EXCEPTION.counter]: expect.any(Number) } });
  });
});
