/** `sluice top`: rates are differences of totals by the router's own clock; in a pipe it is plain text and ends by itself. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { ApiServer } from '../../../controlplane/api/server.ts';
import { summarize } from '../../../controlplane/api/summary.ts';
import { main } from '../../../controlplane/cli/main.ts';
import { short, topLines } from '../../../controlplane/cli/top.ts';
import { ipv4, udp } from '../../lib/build.ts';
import { HOST, Home, SERVER } from '../../lib/home.ts';

describe('sluice top', () => {
  it('writes three digits', () => {
    expect([0, 7, 12.34, 999, 1000, 12_345, 1_234_567, 999_900_000].map(short)).toEqual([
      '0',
      '7',
      '12.3',
      '999',
      '1.00 k',
      '12.3 k',
      '1.23 M',
      '1.00 G',
    ]);
  });

  it('shows what has happened between two summaries, per second', () => {
    const home = new Home();
    const before = summarize(home.router);
    // Ten frames of 14 + 20 + 8 + 58 = 100 bytes in two seconds.
    for (let n = 0; n < 10; n++)
      home.lan(ipv4({ src: HOST, dst: SERVER }, udp({ sport: 4000, dport: 53 }, 'x'.repeat(58))));
    for (let n = 0; n < 4; n++) home.wan(ipv4({ src: SERVER, dst: '203.0.113.1' }, udp({ sport: 1, dport: 2 }, '')));
    home.router.advance(2000);
    const lines = topLines(summarize(home.router), before);
    expect(lines[0]).toMatch(/up 00:00:02 {3}7 frames\/s in, 5 forwarded/);
    expect(lines).toContainEqual(expect.stringMatching(/^connections {2}\[\.{20}\] 1 of 4096$/));
    expect(lines).toContainEqual(expect.stringMatching(/^udp ports {4}\[\.{20}\] 1 of 64512 of 203\.0\.113\.1$/));
    // 10 × 100 bytes × 8 / 2 s = 4 kbit/s.
    expect(lines).toContainEqual(expect.stringMatching(/^lan +lan +UP +4\.00 k +5 +0 +0 +0$/));
    expect(lines).toContainEqual(expect.stringMatching(/^ +2 +4 {2}INPUT_DROP \(input\): /));
  });

  it('does not take a restart of the router for a negative rate', () => {
    const old = new Home();
    old.router.advance(60_000);
    const fresh = new Home();
    fresh.lan(ipv4({ src: HOST, dst: SERVER }, udp({ sport: 4000, dport: 53 }, '')));
    expect(topLines(summarize(fresh.router), summarize(old.router)).join('\n')).not.toContain('-1');
  });

  describe('as a command', () => {
    let folder = '';
    let said = '';
    beforeEach(() => {
      folder = mkdtempSync(join(tmpdir(), 'sluice-top-'));
      said = '';
      for (const stream of [process.stdout, process.stderr])
        vi.spyOn(stream, 'write').mockImplementation((words) => {
          said += words;
          return true;
        });
    });
    afterEach(() => {
      vi.restoreAllMocks();
      rmSync(folder, { recursive: true, force: true });
    });

    it('prints blocks into a pipe, and ends when it has printed as many as were asked for', async () => {
      const socket = join(folder, 'control.sock');
      const server = await ApiServer.listen(socket);
      server.serve(new Home().router);
      expect(await main(['top', '--count', '1', '--socket', socket])).toBe(0);
      expect(said).toMatch(/^sluice .*\n\nconnections [\s\S]*\nPORT /);
      // No control sequence goes into a pipe.
      expect(said.includes('\x1b')).toBe(false);
      await server.close();
      expect(await main(['top', '--socket', socket])).toBe(1);
      expect(await main(['top', '--count', 'many'])).toBe(2);
    });

    it('fits a terminal of 80 columns, and takes one that does not know its size for that', async () => {
      const socket = join(folder, 'control.sock');
      const server = await ApiServer.listen(socket);
      server.serve(new Home().router);
      const { isTTY, columns, rows } = process.stdout;
      Object.assign(process.stdout, { isTTY: true, columns: 0, rows: 0 });
      try {
        expect(await main(['top', '--count', '1', '--socket', socket])).toBe(0);
      } finally {
        Object.assign(process.stdout, { isTTY, columns, rows });
        await server.close();
      }
      const lines = said.replaceAll('\x1b[K', '').split(/\r\n|\x1b\[[HJ]/);
      expect(lines).toContainEqual(expect.stringMatching(/^PORT .* DROPPED$/));
      expect(lines).toContainEqual(expect.stringMatching(/^connections .* of 4096$/));
      expect(Math.max(...lines.filter((line) => /^(PORT|lan|wan) /.test(line)).map(({ length }) => length))).toBe(79);
      expect(said.endsWith('\x1b[?25h\x1b[?1049l')).toBe(true);
    });
  });
});
