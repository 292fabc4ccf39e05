/** rtnetlink: a change of a link is heard, by whoever listens in its namespace, also when more came than there is room for. */
import { execFileSync } from 'node:child_process';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { until } from '../../lib/until.ts';
import { addNetns, deleteNetns, ip, whyNotLive } from './lab.ts';

const skipped = whyNotLive();
if (skipped !== '') console.warn(`SKIPPED: rtnetlink tests (${skipped})`);

describe.skipIf(skipped !== '')('LinkNews', async () => {
  const { LinkNews } = await import('../../../dataplane/ports/rtnetlink.ts');
  const { inNetns } = await import('../../../dataplane/ports/netns.ts');

  let netns = '';
  let elsewhere = '';
  /** Only a change is told. */
  let mtu = 9000;
  const open: InstanceType<typeof LinkNews>[] = [];
  beforeEach(() => {
    [netns, elsewhere] = [addNetns(), addNetns()];
  });
  afterEach(() => {
    for (const news of open.splice(0)) news.dispose();
    for (const name of [netns, elsewhere]) deleteNetns(name);
  });

  /** Listens in these namespaces, and counts how often it was called. */
  function listener(...names: string[]) {
    const heard = { times: 0, fds: [] as number[], news: new LinkNews(() => heard.times++) };
    open.push(heard.news);
    for (const name of names) heard.fds.push(inNetns(name, () => heard.news.open()));
    for (const fd of heard.fds) expect(fd).toBeGreaterThanOrEqual(0);
    return heard;
  }

  /** Resolves when all signals of what has happened before are over: listeners are called in the order of their making. */
  async function fence(name: string): Promise<void> {
    const last = listener(name);
    ip(name, 'link', 'set', 'lo', 'mtu', String(mtu++));
    await until('the fence to be heard', () => last.times > 0);
  }

  it('tells what happens where it listens, and nothing of other namespaces', async () => {
    const [here, both] = [listener(netns), listener(netns, elsewhere)];
    await fence(elsewhere);
    expect(here.times).toBe(0);
    expect(both.times).toBeGreaterThan(0);
    for (const change of [
      ['link', 'add', 'l0', 'type', 'veth', 'peer', 'name', 'l1'],
      ['link', 'set', 'l0', 'up'],
      ['link', 'set', 'l0', 'mtu', '1400'],
      ['link', 'set', 'l0', 'address', '02:00:00:00:0a:0b'],
      ['link', 'set', 'l1', 'netns', elsewhere],
      ['link', 'delete', 'l0'],
    ]) {
      await fence(elsewhere);
      const before = [here.times, both.times];
      ip(netns, ...change);
      await until(`"${change.join(' ')}" to be heard`, () => here.times > before[0] && both.times > before[1]);
    }
  });

  it('an overflow is news, and what comes after it is heard', async () => {
    const heard = listener(netns);
    // No event loop runs meanwhile, and each change is a kilobyte and more.
    const lines = Array.from({ length: 1500 }, (_, n) => `link set lo mtu ${2000 + n}`).join('\n');
    execFileSync('ip', ['-n', netns, '-batch', '-'], { input: lines });
    await until('the many', () => heard.times > 0);
    await fence(elsewhere);
    const before = heard.times;
    ip(netns, 'link', 'set', 'lo', 'up');
    await until('the one after them', () => heard.times > before);
  });

  it('is silent once it is closed, socket by socket', async () => {
    const heard = listener(netns, elsewhere);
    heard.news.close(heard.fds[0]);
    await fence(netns);
    expect(heard.times).toBe(0);
    await fence(elsewhere);
    expect(heard.times).toBeGreaterThan(0);
    const before = heard.times;
    heard.news.dispose();
    await fence(elsewhere);
    expect(heard.times).toBe(before);
  });
});
