/** `sluice replay --in`: two captures through the home gateway; times, order, learning, broken captures, usage. */
import { spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { ethernet, ipv4, ipv6, type Segment, tcp, udp, verify } from '../../lib/build.ts';
import { directory, example, type Frame, pcapBytes, readPcap, see, sluice, writePcap } from '../replay/files.ts';

const HOME = example('home.yaml');
const LAN = '02:00:00:00:01:01';
const WAN = '02:00:00:00:01:02';
const HOST = '02:aa:00:00:00:10';
const PEER = '02:bb:00:00:00:fe';
const START = 1_700_000_000_123_456;

const up = (segment: Segment, o: { src?: string; dst?: string; to?: string } = {}) =>
  ethernet(
    { src: HOST, dst: o.to ?? LAN },
    ipv4({ src: o.src ?? '192.168.1.50', dst: o.dst ?? '198.51.100.7' }, segment),
  );
const down = (segment: Segment, o: { src?: string; dst?: string; to?: string } = {}) =>
  ethernet(
    { src: PEER, dst: o.to ?? WAN },
    ipv4({ src: o.src ?? '198.51.100.7', dst: o.dst ?? '203.0.113.1' }, segment),
  );

/** A handshake, a request and an answer, over NAT as it is seen from both links. */
function conversation(): { lan: Frame[]; wan: Frame[] } {
  const c = { sport: 40000, dport: 80 };
  const s = { sport: 80, dport: 40000 };
  return {
    lan: [
      { time: START, frame: up(tcp({ ...c, seq: 100, flags: 'S', options: { mss: 1460 } })) },
      { time: START + 20_001, frame: up(tcp({ ...c, seq: 101, ack: 501, flags: 'A' })) },
      { time: START + 20_500, frame: up(tcp({ ...c, seq: 101, ack: 501, flags: 'AP' }, 'GET /\r\n')) },
    ],
    wan: [
      { time: START + 10_000, frame: down(tcp({ ...s, seq: 500, ack: 101, flags: 'SA', options: { mss: 1460 } })) },
      { time: START + 30_000, frame: down(tcp({ ...s, seq: 501, ack: 108, flags: 'AP' }, 'hello')) },
    ],
  };
}

async function replay(...rest: string[]) {
  const out = directory();
  const outcome = await sluice('replay', HOME, '--out', out, '--json', ...rest);
  const frames = (port: string) => readPcap(join(out, `${port}.pcap`));
  return { ...outcome, out, frames, json: outcome.stdout === '' ? null : JSON.parse(outcome.stdout) };
}

function files(frames: { lan: Frame[]; wan: Frame[] }): string[] {
  const folder = directory();
  const lan = writePcap(join(folder, 'a.pcap'), frames.lan);
  const wan = writePcap(join(folder, 'b.pcap'), frames.wan);
  return ['--in', `lan=${lan}`, '--in', `wan=${wan}`];
}

describe('two captures', () => {
  test.each(['off', 'on', 'verify'])('a conversation passes in both directions (offload %s)', async (mode) => {
    const { code, json, stderr, frames } = await replay(...files(conversation()), '--offload', mode);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(json).toMatchObject({
      received: 5,
      forwarded: 5,
      delivered: 0,
      generated: 0,
      held: 0,
      dropped: {},
      connections: 1,
    });
    expect(Object.keys(json)).toEqual(
      'received forwarded delivered generated held dropped connections offload seconds packets_per_second'.split(' '),
    );
    expect(Object.keys(json.offload)).toEqual(['installed', 'hits', 'mismatches']);
    expect(json.offload.mismatches).toBe(0);
    if (mode === 'off') expect(json.offload).toEqual({ installed: 0, hits: 0, mismatches: 0 });
    const wan = frames('wan');
    const lan = frames('lan');
    expect(wan.map(({ frame }) => see(frame).src)).toEqual(['203.0.113.1', '203.0.113.1', '203.0.113.1']);
    expect(lan.map(({ frame }) => see(frame).dst)).toEqual(['192.168.1.50', '192.168.1.50']);
    expect(new TextDecoder().decode(see(lan[1].frame).payload)).toBe('hello');
    for (const { frame } of [...wan, ...lan]) expect(verify(frame)).toEqual([]);
    // Home hosts are learned from the captures; the gateway is named in the configuration.
    expect([...lan[0].frame.slice(0, 6)]).toEqual([2, 0xaa, 0, 0, 0, 0x10]);
    expect([...wan[0].frame.slice(0, 6)]).toEqual([2, 0, 0, 0, 0, 0xfe]);
  });

  test.each(['checksum', 'stale-mac'])('an engine with the fault %s: verify notices, exit code 1', async (fault) => {
    const frames = conversation();
    // Enough of it that the engine has something to forward.
    for (let n = 1; n <= 10; n++) {
      const [lan, wan] = [frames.lan[2], frames.wan[1]];
      frames.lan.push({ ...lan, time: lan.time + n * 100_000 });
      frames.wan.push({ ...wan, time: wan.time + n * 100_000 });
    }
    const right = await replay(...files(frames), '--offload', 'verify');
    expect(right).toMatchObject({ code: 0, json: { offload: { mismatches: 0 } } });
    expect(right.json.offload.hits).toBeGreaterThan(0);
    const wrong = await replay(...files(frames), '--offload', 'verify', '--engine-fault', fault);
    expect(wrong.code).toBe(1);
    expect(wrong.json.offload.mismatches).toBe(wrong.json.offload.hits);
    expect(wrong.stderr).toMatch(
      /expected the engine to forward as the slow path does, got \d+ mismatches; see .*mismatches\.pcapng/,
    );
    expect(existsSync(join(wrong.out, 'mismatches.pcapng'))).toBe(true);
    // What left is the slow path's.
    for (const port of ['lan', 'wan']) expect(wrong.frames(port)).toEqual(right.frames(port));
  });

  test('a frame has the virtual time at which it left: that of the frame that caused it, to the microsecond', async () => {
    const { frames } = await replay(...files(conversation()));
    expect(frames('wan').map(({ time }) => time - START)).toEqual([0, 20_001, 20_500]);
    expect(frames('lan').map(({ time }) => time - START)).toEqual([10_000, 30_000]);
  });

  test('a second run gives the same bytes; another seed may not change what is forwarded', async () => {
    const input = files(conversation());
    const first = await replay(...input);
    const second = await replay(...input);
    const other = await replay(...input, '--seed', '7');
    for (const port of ['lan', 'wan'])
      expect(readFileSync(join(second.out, `${port}.pcap`))).toEqual(readFileSync(join(first.out, `${port}.pcap`)));
    expect(other.json.forwarded).toBe(5);
  });

  test('ties go in the order of the options', async () => {
    // Two senders, one port behind masquerade: who comes first keeps it.
    const at = (src: string) => ({ time: START, frame: up(udp({ sport: 5000, dport: 53 }, src), { src }) });
    const folder = directory();
    const a = writePcap(join(folder, 'a.pcap'), [at('192.168.1.50')]);
    const b = writePcap(join(folder, 'b.pcap'), [at('192.168.1.51')]);
    const order = async (x: string, y: string) => {
      const { frames } = await replay('--in', `lan=${x}`, '--in', `lan=${y}`);
      return frames('wan').map(({ frame }) => new TextDecoder().decode(see(frame).payload));
    };
    expect(await order(a, b)).toEqual(['192.168.1.50', '192.168.1.51']);
    expect(await order(b, a)).toEqual(['192.168.1.51', '192.168.1.50']);
  });

  test('time that goes backwards counts as the same time', async () => {
    const frame = (n: number) => up(udp({ sport: 5000 + n, dport: 53 }, `${n}`));
    const input = files({
      lan: [
        { time: START + 1000, frame: frame(0) },
        { time: START - 5_000_000, frame: frame(1) },
        { time: START + 2000, frame: frame(2) },
      ],
      wan: [],
    });
    const { frames } = await replay(...input);
    const left = frames('wan');
    expect(left.map((one) => one.time - START)).toEqual([1000, 1000, 2000]);
    expect(left.map((one) => new TextDecoder().decode(see(one.frame).payload))).toEqual(['0', '1', '2']);
  });

  test('a gap of twenty years: the connection is long gone, the clock has not lost count', async () => {
    const years = 20 * 365 * 86_400 * 1e6;
    const input = files({
      lan: [
        { time: START, frame: up(udp({ sport: 5000, dport: 53 }, 'a')) },
        { time: START + years, frame: up(udp({ sport: 5001, dport: 53 }, 'b')) },
      ],
      wan: [{ time: START + years + 5, frame: down(udp({ sport: 53, dport: 5000 }, 'late')) }],
    });
    const { json, frames } = await replay(...input);
    // The first connection has expired: the late answer is unsolicited, and goes to the DMZ host, which nobody has seen.
    expect(json).toMatchObject({ received: 3, forwarded: 2, held: 1 });
    expect(frames('lan').every(({ frame }) => frame[12] === 8 && frame[13] === 6)).toBe(true);
    expect(frames('wan')[1].time - START).toBe(years);
  });

  test('--linger lets connections expire after the last frame', async () => {
    const input = files({ lan: [{ time: START, frame: up(udp({ sport: 5000, dport: 53 }, 'a')) }], wan: [] });
    expect((await replay(...input)).json.connections).toBe(1);
    expect((await replay(...input, '--linger', '600')).json.connections).toBe(0);
  });

  test('what is for nobody is counted, with its reason', async () => {
    const input = files({
      lan: [
        { time: START, frame: up(udp({ sport: 1, dport: 2 }, 'mine')) },
        { time: START + 1, frame: up(udp({ sport: 1, dport: 2 }), { to: '02:00:00:00:99:99' }) },
      ],
      wan: [{ time: START + 2, frame: down(tcp({ sport: 9, dport: 9, flags: 'A' })) }],
    });
    const { json, code } = await replay(...input);
    expect(code).toBe(0);
    expect(json.dropped.OTHERHOST).toBe(1);
    expect(json.received).toBe(3);
    const sum = Object.values(json.dropped as Record<string, number>).reduce((a, b) => a + b, 0);
    expect(json.forwarded + json.delivered + json.held + sum).toBe(3);
  });

  test('without --json: aligned text, every drop reason with its sentence', async () => {
    const folder = directory();
    const lan = writePcap(join(folder, 'a.pcap'), [
      { time: START, frame: up(udp({ sport: 1, dport: 2 }, 'mine')) },
      { time: START + 1, frame: up(udp({ sport: 1, dport: 2 }), { to: '02:00:00:00:99:99' }) },
    ]);
    const { code, stdout } = await sluice('replay', HOME, '--in', `lan=${lan}`, '--out', join(folder, 'out'));
    expect(code).toBe(0);
    expect(stdout).toMatch(/^received +2$/m);
    expect(stdout).toMatch(/^ {2}OTHERHOST +1 {2}The destination MAC is neither ours, broadcast nor multicast\.$/m);
  });
});

describe('what the configuration leaves open', () => {
  test("captures of somebody else's router: the port takes the MAC that packets beyond the link go to", async () => {
    const theirs = '00:11:22:33:44:55';
    const input = files({
      lan: [
        { time: START, frame: up(udp({ sport: 1, dport: 2 }, 'x'), { dst: '192.168.1.77', to: '02:cc:00:00:00:01' }) },
        {
          time: START + 1,
          frame: up(udp({ sport: 1, dport: 2 }, 'y'), { dst: '192.168.1.77', to: '02:cc:00:00:00:01' }),
        },
        { time: START + 2, frame: up(udp({ sport: 1, dport: 2 }, 'z'), { to: theirs }) },
      ],
      wan: [],
    });
    const { json, stderr, frames } = await replay(...input);
    expect(stderr).toContain(`port lan: no frame of its capture goes to ${LAN}; the port takes ${theirs}`);
    expect(json).toMatchObject({ forwarded: 1, dropped: { OTHERHOST: 2 } });
    expect(frames('wan')).toHaveLength(1);
  });

  test('a gateway that nothing names has the MAC that most packets from beyond came from; IPv6 too', async () => {
    const config = join(directory(), 'bare.yaml');
    writeFileSync(config, readFileSync(HOME, 'utf8').replace(/neighbors:\n(?: {2}-.*\n)+/, ''));
    const six = ethernet(
      { src: HOST, dst: LAN },
      ipv6({ src: '2001:db8:1::50', dst: '2001:db8:9::1' }, udp({ sport: 1, dport: 2 }, 'six')),
    );
    const folder = directory();
    const lan = writePcap(join(folder, 'a.pcap'), [
      { time: START, frame: up(udp({ sport: 1, dport: 2 }, 'four')) },
      { time: START + 1, frame: six },
    ]);
    const wan = writePcap(join(folder, 'b.pcap'), [
      { time: START + 10, frame: down(udp({ sport: 2, dport: 1 }), { src: '203.0.113.9', to: WAN }) },
      { time: START + 11, frame: down(udp({ sport: 2, dport: 1 }, 'four')) },
    ]);
    const out = join(folder, 'out');
    const { code } = await sluice('replay', config, '--in', `lan=${lan}`, '--in', `wan=${wan}`, '--out', out);
    expect(code).toBe(0);
    const left = readPcap(join(out, 'wan.pcap'));
    expect(left).toHaveLength(2);
    for (const { frame } of left) expect([...frame.slice(0, 6)]).toEqual([2, 0xbb, 0, 0, 0, 0xfe]);
    // Nobody at all on the outside: still forwarded, to a made-up MAC.
    const alone = join(folder, 'alone');
    await sluice('replay', config, '--in', `lan=${lan}`, '--out', alone);
    expect(readPcap(join(alone, 'wan.pcap'))).toHaveLength(2);
  });

  test('a port whose capture is not given has an empty output', async () => {
    const folder = directory();
    const lan = writePcap(join(folder, 'a.pcap'), []);
    const { code, json, frames } = await replay('--in', `lan=${lan}`);
    expect(code).toBe(0);
    expect(json.received).toBe(0);
    expect(frames('lan')).toEqual([]);
    expect(frames('wan')).toEqual([]);
  });

  test('raw IP captures get a link header', async () => {
    const folder = directory();
    const raw = writePcap(
      join(folder, 'raw.pcap'),
      [{ time: START, frame: up(udp({ sport: 1, dport: 2 }, 'raw')).slice(14) }],
      101,
    );
    const { json } = await replay('--in', `lan=${raw}`);
    expect(json.forwarded).toBe(1);
  });
});

describe('broken captures', () => {
  test('cut: file, offset, exit 1, and what precedes the fault is forwarded and written', async () => {
    const { lan, wan } = conversation();
    const folder = directory();
    const whole = pcapBytes(lan);
    const broken = join(folder, 'cut.pcap');
    writeFileSync(broken, whole.slice(0, whole.length - 3));
    const other = writePcap(join(folder, 'b.pcap'), wan.slice(0, 1));
    const { code, stderr, json, frames } = await replay('--in', `lan=${broken}`, '--in', `wan=${other}`);
    expect(code).toBe(1);
    const last = 16 + lan[2].frame.length;
    expect(stderr).toBe(
      `${broken}: at byte ${whole.length - last}: expected ${lan[2].frame.length} bytes of frame, got ${lan[2].frame.length - 3}\n`,
    );
    expect(json).toMatchObject({ received: 3, forwarded: 3 });
    expect(frames('wan')).toHaveLength(2);
  });

  test('no capture at all inside the file: exit 1, empty outputs', async () => {
    const file = join(directory(), 'text.pcap');
    writeFileSync(file, 'this is no capture\n');
    const { code, stderr, frames } = await replay('--in', `lan=${file}`);
    expect(code).toBe(1);
    expect(stderr).toMatch(/text\.pcap: at byte 0: expected a pcap, pcapng or gzip magic number, got 0x/);
    expect(frames('wan')).toEqual([]);
  });
});

describe('usage', () => {
  const some = () => writePcap(join(directory(), 'a.pcap'), []);
  test.each<[string, (out: string) => string[], RegExp]>([
    ['no file', (out) => ['--out', out], /expected a configuration file, got nothing/],
    ['no input', (out) => [HOME, '--out', out], /expected --in PORT=CAPTURE, or --capture with --inside, got neither/],
    ['no output', () => [HOME, '--in', `lan=${some()}`], /--out: expected a directory, got nothing/],
    ['unknown port', (out) => [HOME, '--in', `lam=${some()}`, '--out', out], /--in: .*got "lam"; did you mean "lan"\?/],
    ['no PORT=', (out) => [HOME, '--in', some(), '--out', out], /--in: expected PORT=CAPTURE, got/],
    [
      'no such capture',
      (out) => [HOME, '--in', 'lan=nowhere.pcap', '--out', out],
      /nowhere\.pcap: at byte 0: expected/,
    ],
    [
      'both forms',
      (out) => [HOME, '--in', `lan=${some()}`, '--capture', some(), '--out', out],
      /--in or --capture, got both/,
    ],
    ['capture alone', (out) => [HOME, '--capture', some(), '--out', out], /--capture: expected --inside CIDR with it/],
    [
      'inside alone',
      (out) => [HOME, '--in', `lan=${some()}`, '--inside', '10.0.0.0/8', '--out', out],
      /--inside: expected --capture/,
    ],
    [
      'keep-checksums alone',
      (out) => [HOME, '--in', `lan=${some()}`, '--keep-checksums', '--out', out],
      /--keep-checksums: expected --capture/,
    ],
    [
      'bad prefix',
      (out) => [HOME, '--capture', some(), '--inside', '10.0.0.0/33', '--out', out],
      /--inside: expected a prefix such as/,
    ],
    [
      'everything inside',
      (out) => [HOME, '--capture', some(), '--inside', '0.0.0.0/0', '--out', out],
      /--inside: expected a prefix such as/,
    ],
    [
      'bad mode',
      (out) => [HOME, '--in', `lan=${some()}`, '--offload', 'maybe', '--out', out],
      /--offload: expected on, off or verify, got "maybe"/,
    ],
    [
      'bad seed',
      (out) => [HOME, '--in', `lan=${some()}`, '--seed', 'x', '--out', out],
      /--seed: expected a whole number/,
    ],
    [
      'bad linger',
      (out) => [HOME, '--in', `lan=${some()}`, '--linger', '-1', '--out', out],
      /--linger: expected seconds such as 30, got "-1"/,
    ],
    [
      'unknown option',
      (out) => [HOME, '--ofload', 'on', '--out', out],
      /unknown option "--ofload": did you mean "--offload"\?/,
    ],
  ])('%s', async (_, argv, message) => {
    const { code, stdout, stderr } = await sluice('replay', ...argv(join(directory(), 'out')));
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
    expect(stderr).toMatch(message);
  });

  test('a folder in which none can be made: the command never returned', () => {
    // In a process of its own (the build), as it hung inside of Node, where nothing interrupts it.
    const main = fileURLToPath(new URL('../../../dist/controlplane/cli/main.js', import.meta.url));
    const args = [main, 'replay', HOME, '--in', `lan=${some()}`, '--out', '/proc/sluice/out'];
    const { status, stderr } = spawnSync(process.execPath, args, {
      encoding: 'utf8',
      timeout: 60_000,
      killSignal: 'SIGKILL',
    });
    expect(stderr).toMatch(/--out: expected a directory that can be made, got ENOENT/);
    expect(status).toBe(2);
  });

  test('--out is a file, or a folder below one', async () => {
    const file = some();
    for (const out of [file, join(file, 'out')]) {
      const { code, stderr } = await sluice('replay', HOME, '--in', `lan=${file}`, '--out', out);
      expect(stderr).toMatch(/--out: expected a directory that can be made, got (a file of that name|ENOTDIR)/);
      expect(code).toBe(2);
    }
  });

  test('a wrong configuration is told before anything is made', async () => {
    const folder = directory();
    const config = join(folder, 'bad.yaml');
    writeFileSync(config, 'ports: { lan: { kind: memory, mtu: big } }\n');
    const out = join(folder, 'out');
    const { code, stderr } = await sluice('replay', config, '--in', `lan=${some()}`, '--out', out);
    expect(code).toBe(2);
    expect(stderr).toMatch(/bad\.yaml:1:\d+ ports\.lan\.mtu: expected .*, got "big"/);
    expect(existsSync(out)).toBe(false);
  });

  test('an output never overwrites a capture that is read', async () => {
    const out = directory();
    const file = writePcap(join(out, 'wan.pcap'), conversation().lan);
    const before = readFileSync(file);
    mkdirSync(join(out, 'sub'));
    const { code, stderr } = await sluice(
      'replay',
      HOME,
      '--in',
      `lan=${join(out, 'sub', '..', 'wan.pcap')}`,
      '--out',
      out,
    );
    expect(code).toBe(2);
    expect(stderr).toMatch(/--out: expected another directory/);
    expect(readFileSync(file)).toEqual(before);
    copyFileSync(file, join(out, 'a.pcap'));
    expect((await sluice('replay', HOME, '--in', `lan=${join(out, 'a.pcap')}`, '--out', out)).code).toBe(0);
  });
});
