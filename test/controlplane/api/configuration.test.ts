/**
 * Apply, compare, confirm, and the return of what was not confirmed, on a real router; the same through the command.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { ask } from '../../../controlplane/api/client.ts';
import { Configuration, type Reconfigurable } from '../../../controlplane/api/configuration.ts';
import type { ReplayAnswer } from '../../../controlplane/api/replay.ts';
import { ApiServer } from '../../../controlplane/api/server.ts';
import { applyConfig, compareConfig } from '../../../controlplane/apply/index.ts';
import { main } from '../../../controlplane/cli/main.ts';
import { parseConfig } from '../../../controlplane/config/index.ts';
import { createRouter, type Router } from '../../../controlplane/router.ts';
import { VIEWS } from '../../../controlplane/show/index.ts';
import { CaptureWriter } from '../../../dataplane/ports/capture-writer.ts';

const PORTS = 'ports:\n  lan: { kind: memory, addresses: [192.168.1.1/24] }\n';
/** A route's next hop is what the versions differ in. */
const text = (hop: number): string => `${PORTS}routes: [{ to: 0.0.0.0/0, via: 192.168.1.${hop} }]\n`;

function world(): { router: Router; configuration: Configuration; via: () => string | undefined } {
  const router = createRouter(text(10));
  const { control } = router;
  const target: Reconfigurable = {
    compare: (next) => compareConfig(control, next),
    apply: (next) => applyConfig(control, next),
  };
  const via = (): string | undefined => /^default via (\S+)/m.exec(VIEWS.route(router, {}).text)?.[1];
  return { router, configuration: new Configuration(text(10), parseConfig(text(10), 'a.yaml'), target), via };
}

describe('a configuration on probation', () => {
  let configuration: Configuration;
  let via: () => string | undefined;

  beforeEach(() => {
    vi.useFakeTimers();
    ({ configuration, via } = world());
  });
  afterEach(() => {
    vi.useRealTimers();
  });

  it('is compared without being applied', async () => {
    const answer = await configuration.apply(text(11), 'b.yaml', { only: true, confirm: 0 });
    expect(answer).toMatchObject({ applied: false, ended: 0, confirm: null });
    expect(answer.lines.join('\n')).toMatch(/^- routes: .*192\.168\.1\.10.*\n\+ routes: .*192\.168\.1\.11/);
    expect(via()).toBe('192.168.1.10');
    expect(configuration.state().text).toBe(text(10));
  });

  it('comes back to the last confirmed one when nobody confirms', async () => {
    await configuration.apply(text(11), 'b.yaml', { only: false, confirm: 60 });
    await vi.advanceTimersByTimeAsync(30_000);
    expect(configuration.state()).toMatchObject({ confirm: 30, text: text(11) });
    expect(via()).toBe('192.168.1.11');
    await configuration.apply(text(12), 'c.yaml', { only: false, confirm: 60 });
    await vi.advanceTimersByTimeAsync(59_999);
    expect(via()).toBe('192.168.1.12');
    await vi.advanceTimersByTimeAsync(1);
    expect(via()).toBe('192.168.1.10');
    expect(configuration.state()).toEqual({ file: 'a.yaml', text: text(10), confirm: null });
    expect(() => configuration.confirm()).toThrow('confirm: expected a configuration that waits for it, got none');
  });

  it('stays once it is confirmed', async () => {
    await configuration.apply(text(11), 'b.yaml', { only: false, confirm: 10 });
    configuration.confirm();
    await vi.advanceTimersByTimeAsync(100_000);
    expect(via()).toBe('192.168.1.11');
    expect(configuration.state()).toEqual({ file: 'b.yaml', text: text(11), confirm: null });
  });

  it('a text with faults, or one that cannot be applied, changes nothing', async () => {
    const wrong = configuration.apply(text(256), 'b.yaml', { only: false, confirm: 5 });
    await expect(wrong).rejects.toThrow('b.yaml:3:27 routes[0].via: expected a unicast address');
    const sized = `${text(11)}conntrack: { max: 77 }\n`;
    const refused = configuration.apply(sized, 'b.yaml', { only: false, confirm: 5 });
    await expect(refused).rejects.toMatchObject({
      status: 409,
      message: expect.stringContaining('conntrack.max: expected'),
    });
    await expect(configuration.apply(sized, 'b.yaml', { only: true, confirm: 0 })).rejects.toMatchObject({
      status: 409,
    });
    expect(configuration.state()).toEqual({ file: 'a.yaml', text: text(10), confirm: null });
    expect(via()).toBe('192.168.1.10');
    // One that is refused does not end another's probation.
    await configuration.apply(text(11), 'b.yaml', { only: false, confirm: 5 });
    await expect(configuration.apply(sized, 'c.yaml', { only: false, confirm: 0 })).rejects.toThrow('conntrack.max');
    await vi.advanceTimersByTimeAsync(5000);
    expect(via()).toBe('192.168.1.10');
  });
});

describe('sluice apply and confirm', () => {
  let folder = '';
  let socket = '';
  let server: ApiServer;
  let said = '';
  let via: () => string | undefined;

  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), 'sluice-apply-'));
    socket = join(folder, 'control.sock');
    server = await ApiServer.listen(socket);
    const made = world();
    via = made.via;
    server.serve(made.router, made.configuration);
    said = '';
    for (const stream of [process.stdout, process.stderr])
      vi.spyOn(stream, 'write').mockImplementation((words) => {
        said += words;
        return true;
      });
  });
  afterEach(async () => {
    vi.restoreAllMocks();
    await server.close();
    rmSync(folder, { recursive: true, force: true });
  });

  const run = async (words: string, content?: string): Promise<number> => {
    const file = join(folder, 'next.yaml');
    if (content !== undefined) writeFileSync(file, content);
    said = '';
    return main([...words.replace('FILE', file).split(' '), '--socket', socket]);
  };

  it('say what differs, apply, and keep', async () => {
    expect(await run('apply FILE --diff', text(11))).toBe(0);
    expect(said).toMatch(/^- routes: .*\n\+ routes: .*\n$/);
    expect(via()).toBe('192.168.1.10');
    expect(await run('apply FILE --confirm 5m')).toBe(0);
    expect(said).toContain('comes back in 300 s unless you say: sluice confirm');
    expect(via()).toBe('192.168.1.11');
    expect(await run('confirm')).toBe(0);
    expect(await run('confirm')).toBe(1);
    expect(said).toContain('confirm: expected a configuration that waits for it, got none');
    expect(await run('apply FILE')).toBe(0);
    expect(said).toContain('nothing differs');
  });

  it('refuse what is wrong: 2 for the file or the words, 1 for what needs a restart', async () => {
    expect(await run('apply FILE', 'ports: { lan: { mtu: big } }')).toBe(2);
    expect(said).toContain('next.yaml:1:17 ports.lan.mtu: expected a number from 1280 to 65535, got "big"');
    expect(await run('apply FILE', `${text(11)}workers: 3\n`)).toBe(1);
    expect(said).toContain('workers: expected');
    expect(await run('apply FILE --confirm soon')).toBe(2);
    expect(await run('apply FILE --diff --confirm 5')).toBe(2);
    expect(await run('apply nowhere.yaml')).toBe(2);
    expect(await run('apply')).toBe(2);
  });
});

describe('a replay', () => {
  it('of a broken capture was told from a good one by its notes alone, where the command ends with 1', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'sluice-apply-'));
    const path = join(folder, 'control.sock');
    const server = await ApiServer.listen(path);
    try {
      const { router, configuration } = world();
      server.serve(router, configuration);
      const play = (body: Uint8Array) =>
        ask<ReplayAnswer>(path, '/v1/replay', {
          method: 'POST',
          query: { port: 'lan' },
          body,
          type: 'application/octet-stream',
          timeout: 60_000,
        });
      const whole = new CaptureWriter(null).toBytes();
      expect(await play(whole)).toMatchObject({ ok: true, report: { received: 0 } });
      const cut = await play(whole.subarray(0, whole.length - 1));
      expect(cut).toMatchObject({ ok: false, report: { received: 0 } });
      expect(cut.notes).toContain('capture: at byte 0: expected a pcap header of 24 bytes, got 23 bytes');
    } finally {
      await server.close();
      rmSync(folder, { recursive: true });
    }
  });
});
