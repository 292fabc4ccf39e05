/** The demo where no lab can be, its bundled capture, checks that notice what is wrong, and the embedding example. */
import { type SpawnSyncOptions, spawnSync } from 'node:child_process';
import { chownSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { CheckError, formatResult, runCheck } from '../../../controlplane/demo/check.ts';
import { hopsOf } from '../../../controlplane/demo/checks.ts';
import { type Played, playCapture, REPLAY } from '../../../controlplane/demo/replay.ts';
import { verify } from '../../lib/build.ts';
import { demoCapture } from './capture.ts';

const ROOT = fileURLToPath(new URL('../../../', import.meta.url));
const MAIN = join(ROOT, 'dist/controlplane/cli/main.js');
const demo = (args: readonly string[], options: SpawnSyncOptions = {}) =>
  spawnSync(process.execPath, [MAIN, 'demo', ...args], { timeout: 120_000, cwd: '/', ...options, encoding: 'utf8' });

describe('the bundled capture', () => {
  it('is what its generator makes, sound, and small', () => {
    const bytes = new Uint8Array(readFileSync(join(ROOT, 'examples/demo.pcap')));
    expect(Buffer.compare(bytes, demoCapture())).toBe(0);
    expect(bytes.length).toBeLessThan(100_000);
  });
});

describe('the replay', () => {
  it('passes every check, and what left is sound for an independent judge too', async () => {
    const played = playCapture();
    for (const check of REPLAY) expect(await runCheck(check, played)).toMatchObject({ passed: true });
    expect([...played.lan, ...played.wan].flatMap(({ bytes }) => verify(bytes))).toEqual([]);
    expect(played.lan.length + played.wan.length).toBe(played.input.length - 2);
  });

  it('notices a changed byte, a lost frame, a frame with the wrong source, and a guest that got in', async () => {
    const played = playCapture();
    const failing = async (world: Played) => {
      const failed: string[] = [];
      for (const check of REPLAY) if (!(await runCheck(check, world)).passed) failed.push(check.name);
      return failed;
    };
    const flip = (frames: Played['lan'], n: number, at: number) =>
      frames.map((frame, index) => {
        if (index !== n) return frame;
        const bytes = frame.bytes.slice();
        bytes[at] ^= 1;
        return { ...frame, bytes };
      });
    const long = played.lan.findIndex(({ bytes, view }) => view.family === 4 && bytes.length > 1000);
    expect(await failing({ ...played, lan: flip(played.lan, long, 700) })).toEqual(['checksums', 'HTTP over IPv4']);
    expect(await failing({ ...played, lan: played.lan.filter((_, n) => n !== long) })).toEqual(['HTTP over IPv4']);
    // Byte 29 ends an IPv4 source; the header's checksum no longer fits either.
    expect(await failing({ ...played, wan: flip(played.wan, 0, 29) })).toEqual(['masquerade', 'checksums']);
    const guest = played.input.filter(({ bytes, view }) => view.proto === 6 && bytes[view.l4 + 3] === 22);
    expect(guest).toHaveLength(2);
    expect(await failing({ ...played, lan: [...played.lan, ...guest] })).toEqual(['unsolicited inbound']);
    expect(await failing({ ...played, digests: ['a', 'b'] })).toEqual(['repeatable']);
    const report = { ...played.report, held: 1 };
    expect(await failing({ ...played, report })).toEqual(['forwarding']);
  });

  it('is what the command does with --replay, from any folder', () => {
    const done = demo(['--replay', '--json']);
    expect(done.status, done.stderr).toBe(0);
    const summary = JSON.parse(done.stdout);
    expect(summary).toMatchObject({ mode: 'replay', passed: true, reasons: [] });
    expect(summary.checks).toHaveLength(1 + REPLAY.length);
    expect(done.stderr).toContain('8 of 8 checks passed');
  });

  it('takes the place of the lab without root, and says so', (context) => {
    const nobody = 65534;
    const folder = mkdtempSync(join(tmpdir(), 'sluice-nobody-'));
    const reads = spawnSync(process.execPath, [MAIN, '--version'], { uid: nobody, gid: nobody, cwd: '/' });
    if (process.getuid?.() !== 0 || reads.status !== 0) {
      rmSync(folder, { recursive: true });
      console.warn('SKIPPED: this test is run as root, in a folder that others may read');
      context.skip();
    }
    chownSync(folder, nobody, nobody);
    const done = demo([], { uid: nobody, gid: nobody, env: { ...process.env, TMPDIR: folder } });
    expect(readdirSync(folder)).toEqual([]);
    rmSync(folder, { recursive: true });
    expect(done.status, done.stderr).toBe(0);
    expect(done.stdout).toMatch(
      /NO LAB ON THIS MACHINE[\s\S]*expected root, got user 65534[\s\S]*8 of 8 checks passed/,
    );
  });
});

describe('the command line', () => {
  it.each([
    [['--kep'], /sluice demo: unknown option "--kep": did you mean "--keep"/],
    [['lab'], /sluice demo: expected no operand, got "lab"/],
    [['--keep', '--replay'], /--keep: expected a lab, got --replay/],
  ])('refuses %j', (args, message) => {
    const done = demo(args);
    expect(done.status).toBe(2);
    expect(done.stderr).toMatch(message);
  });
});

describe('a check', () => {
  it('that fails says what was expected, what came and what to do', async () => {
    const result = await runCheck(
      { name: 'ping', run: () => Promise.reject(new CheckError('3 answers', 'none', 'look at show drops')) },
      null,
    );
    expect(result).toMatchObject({ passed: false, expected: '3 answers', got: 'none', advice: 'look at show drops' });
    expect(formatResult(result)).toMatch(
      /^ {2}FAIL +\d+\.\d\d s {2}ping\n +expected +3 answers\n +got +none\n +what to do +look at show drops$/,
    );
  });

  it('reads traceroute, stars included', () => {
    const text = `traceroute to 203.0.113.10 (203.0.113.10), 4 hops max, 60 byte packets
 1  192.168.1.1  0.512 ms
 2  *
 3  203.0.113.10  0.731 ms !X
`;
    expect(hopsOf(text)).toEqual(['192.168.1.1', '*', '203.0.113.10']);
  });
});

describe('examples/embed.mjs', () => {
  it('runs by the name of the package, and shows NAT, the way back and the clock', () => {
    const done = spawnSync(process.execPath, [join(ROOT, 'examples/embed.mjs')], { encoding: 'utf8', cwd: '/' });
    expect(done.stderr).toBe('');
    expect(done.status).toBe(0);
    const lines = done.stdout.trimEnd().split('\n');
    expect(lines.slice(0, 3)).toEqual([
      'left on wan: 203.0.113.1:40000 → 198.51.100.53:53 ttl 63 "who?"',
      'left on lan: 198.51.100.53:53 → 192.168.1.10:40000 ttl 63 "me!"',
      'left on lan: 0 frames; dropped: {"INPUT_DROP":1}',
    ]);
    expect(lines[3]).toMatch(/^connections: udp +17 .*src=198\.51\.100\.53 dst=203\.0\.113\.1 sport=53 dport=40000 /);
    expect(lines[4]).toBe('31 virtual seconds later: 0 connections');
  });
});
