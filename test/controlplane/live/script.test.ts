/** gateway.script: one run for each event, in their order, with name and data; a bad one is told and does not stop the next. */
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { EventScript } from '../../../controlplane/live/script.ts';
import { until } from '../../lib/until.ts';

describe('EventScript', () => {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-script-'));
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  it('hears every event in order, one at a time, and survives a program that fails', async () => {
    const file = join(folder, 'hear');
    const out = join(folder, 'heard');
    writeFileSync(out, '');
    writeFileSync(
      file,
      `#!/bin/sh\necho "$1 $(cat) $SLUICE_EVENT" >> ${out}\n[ "$1" != bad ] || { echo no >&2; exit 3; }\n`,
    );
    chmodSync(file, 0o755);
    const logs: string[] = [];
    const script = new EventScript(file, (_level, message) => void logs.push(message));
    for (const name of ['dhcp4.bound', 'bad', 'gateway.state'])
      script.tell({ kind: 'event', name, data: { port: 'wan', "it's": '$(reboot)' } });
    await until('three runs', () => readFileSync(out, 'utf8').split('\n').length === 4);
    const data = `{"port":"wan","it's":"$(reboot)"}`;
    expect(readFileSync(out, 'utf8')).toBe(
      ['dhcp4.bound', 'bad', 'gateway.state'].map((name) => `${name} ${data} ${name}\n`).join(''),
    );
    expect(logs).toEqual([`gateway.script: ${file} bad: expected exit code 0, got 3: no`]);
  });

  it('a program that is not there is said, and events are bounded', async () => {
    const logs: string[] = [];
    const script = new EventScript(join(folder, 'nobody'), (_level, message) => void logs.push(message));
    for (let n = 0; n < 400; n++) script.tell({ kind: 'event', name: 'x', data: {} });
    expect(script.lost).toBeGreaterThan(100);
    await until('a complaint', () => logs.length > 0);
    expect(logs[0]).toContain('ENOENT');
  });

  it('what Node throws instead of telling it is said for every event: the first one stopped all others', async () => {
    const logs: string[] = [];
    const script = new EventScript('/etc/passwd/hook', (_level, message) => void logs.push(message));
    for (const name of ['one', 'two']) script.tell({ kind: 'event', name, data: {} });
    await until('both complaints', () => logs.length === 2);
    expect(logs).toEqual(['one', 'two'].map((name) => `gateway.script: /etc/passwd/hook ${name}: spawn ENOTDIR`));
  });
});
