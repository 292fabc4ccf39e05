/**
 * RFC 7422, deterministic address mapping: outside address and ports follow from the inside address, and back, without a
 * log. Checked against the arithmetic of §2.2 written down once more, and through the command.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, it, vi } from 'vitest';
import { natCommand } from '../../controlplane/carrier/command.ts';
import { formatEvent } from '../../controlplane/carrier/log.ts';
import { findSubscriber, inverseDeterministic } from '../../controlplane/carrier/who.ts';
import { addressOf, endpoint, portOf, World } from '../conntrack/nat-world.ts';

const ENTRY = { out: 'wan', from: '100.64.0.0/22', to: ['198.18.0.0/30', '198.18.0.8'], deterministic: true };
const S1 = '198.51.100.1:53';

function world(): World {
  return new World({ profile: 'full-cone', masquerade: [ENTRY] }, { conntrack: { max: 65536 } });
}

/** §2.2 for ENTRY: 1,024 inside addresses on five outside ones. */
function expected(n: number): { address: string; low: number; high: number } {
  const ratio = Math.ceil(1024 / 5);
  const size = Math.floor((65535 - 1024 + 1) / ratio);
  const address = ['198.18.0.0', '198.18.0.1', '198.18.0.2', '198.18.0.3', '198.18.0.8'][Math.floor(n / ratio)];
  const low = 1024 + (n % ratio) * size;
  return { address, low, high: low + size - 1 };
}

describe('RFC 7422 §2.2', () => {
  it('a thousand subscribers: every packet leaves by the ports that the arithmetic says, and leads back', () => {
    const w = world();
    const [entry] = w.router.config.nat.masquerade;
    for (let n = 1; n < 1024; n++) {
      const inside = `100.64.${n >> 8}.${n & 255}`;
      const { address, low, high } = expected(n);
      for (const port of [40, 4000, 40_000]) {
        const seen = w.out(endpoint(inside, port), S1)!;
        expect(addressOf(seen)).toBe(address);
        expect(portOf(seen)).toBeGreaterThanOrEqual(low);
        expect(portOf(seen)).toBeLessThanOrEqual(high);
        expect(inverseDeterministic(entry, address, portOf(seen))).toMatchObject({ inside, ports: `${low}-${high}` });
      }
    }
  });

  it('needs no log: two routers agree, whatever came before', () => {
    const a = world();
    const b = world();
    for (let n = 1; n < 200; n++) b.out(endpoint(`100.64.1.${n}`, 999), S1);
    expect(addressOf(a.out('100.64.2.2:5000', S1)!)).toBe(addressOf(b.out('100.64.2.2:5000', S1)!));
    expect(a.router.control.blockLog.events).toEqual([]);
  });

  it('a subscriber’s ports end: refused, others unharmed', () => {
    const w = world();
    const { low, high } = expected(5);
    let got = 0;
    for (let k = 0; k < high - low + 50; k++) if (w.out(endpoint('100.64.0.5', 2000 + k), S1) !== null) got++;
    expect(got).toBe(high - low + 1);
    expect(w.out('100.64.0.6:2000', S1)).not.toBeNull();
  });

  it('ports and addresses that are nobody’s', () => {
    const { config } = world().router;
    expect(findSubscriber(config, [], '198.18.0.0', 80, 0)).toBeNull();
    expect(findSubscriber(config, [], '198.18.0.4', 5000, 0)).toBeNull();
    expect(findSubscriber(config, [], '198.18.0.8', 65535, 0)).toBeNull();
  });
});

describe('sluice nat who', () => {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-who-'));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  afterEach(() => vi.restoreAllMocks());

  async function run(...argv: string[]): Promise<[number, string]> {
    let text = '';
    vi.spyOn(process.stdout, 'write').mockImplementation((chunk) => {
      text += String(chunk);
      return true;
    });
    return [await natCommand(argv), text];
  }

  it('by a configuration', async () => {
    const file = join(folder, 'carrier.yaml');
    writeFileSync(
      file,
      `ports:\n  wan: { zone: wan, addresses: 203.0.113.1/24 }\nnat:\n  profile: full-cone\n  masquerade: [${JSON.stringify(ENTRY)}]\n`,
    );
    const { address, low, high } = expected(777);
    const [code, text] = await run('who', `${address}:${low + 3}`, '--config', file);
    expect([code, text]).toEqual([0, `${address}:${low + 3} 100.64.3.9 by deterministic, ports ${low}-${high}\n`]);
    expect(await run('who', `${address}:80`, '--config', file)).toEqual([1, `${address}:80 nobody\n`]);
  });

  it('by a log, at a time', async () => {
    const file = join(folder, 'blocks.log');
    const block = { outside: '203.0.113.5', low: 2048, high: 2559 };
    const line = (time: string, assigned: boolean, inside: string) =>
      formatEvent({ time: Date.parse(time), assigned, inside, ...block });
    writeFileSync(
      file,
      [
        line('2026-01-01T00:00:00Z', true, '100.64.0.7'),
        line('2026-01-01T01:00:00Z', false, '100.64.0.7'),
        line('2026-01-01T02:00:00Z', true, '100.64.0.9'),
        '',
      ].join('\n'),
    );
    const at = (time: string) => run('who', '203.0.113.5:2100', '--log', file, '--at', time, '--json');
    expect(JSON.parse((await at('2026-01-01T00:30:00Z'))[1])).toMatchObject({
      inside: '100.64.0.7',
      ports: '2048-2559',
      since: '2026-01-01T00:00:00.000Z',
      until: '2026-01-01T01:00:00.000Z',
    });
    expect(await at('2026-01-01T01:30:00Z')).toEqual([1, 'null\n']);
    expect(JSON.parse((await at(String(Date.parse('2026-01-01T09:00:00Z') / 1000)))[1]).inside).toBe('100.64.0.9');
  });

  it.each([
    [['who'], /expected "who ADDRESS:PORT"/],
    [['who', '203.0.113.5'], /expected ADDRESS:PORT such as/],
    [['who', '203.0.113.5:70000'], /expected ADDRESS:PORT such as/],
    [['who', '203.0.113.5:7', '--at', 'noon'], /--at: expected a time/],
  ])('refuses %j', async (argv, message) => {
    await expect(natCommand(argv)).rejects.toThrow(message);
  });

  it('a log that is not there: empty when the configuration names it, an error when the command does', async () => {
    const file = join(folder, 'logging.yaml');
    const log = join(folder, 'not-yet.log');
    writeFileSync(file, `ports:\n  wan: { zone: wan, addresses: 203.0.113.1/24 }\nnat: { log: ${log} }\n`);
    expect(await run('who', '203.0.113.5:7', '--config', file)).toEqual([1, '203.0.113.5:7 nobody\n']);
    const who = (...argv: string[]) => natCommand(['who', '203.0.113.5:7', ...argv]);
    await expect(who('--log', log)).rejects.toThrow(`${log}: expected a block log that can be read, got ENOENT`);
    await expect(who('--log', folder)).rejects.toThrow('got EISDIR');
    await expect(who('--config', log)).rejects.toThrow('expected a configuration file that can be read');
  });

  it('nobody runs there: 1', async () => {
    vi.spyOn(process.stderr, 'write').mockImplementation(() => true);
    expect((await run('who', '203.0.113.5:7', '--socket', join(folder, 'none.sock')))[0]).toBe(1);
  });
});
