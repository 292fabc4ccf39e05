/** The lab itself: comes up quickly, carries real programs, and leaves nothing behind, however it ends. */
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';
import { afterEach, describe, expect, it } from 'vitest';
import { draw } from '../../controlplane/lab/draw.ts';
import { askWho, download, expectedDigest, startHttpServer } from '../../controlplane/lab/http.ts';
import { Lab, LabError, removeStale, waitFor } from '../../controlplane/lab/namespace.ts';
import { labReady } from './need.ts';

/** What a lab could leave beside namespaces: devices of this machine. */
function devices(): string[] {
  const links = spawnSync('ip', ['-br', 'link'], { encoding: 'utf8' }).stdout;
  return links.split('\n').map((l) => l.split(/\s+/)[0]);
}
function namespaces(pid = process.pid): string[] {
  const list = spawnSync('ip', ['netns', 'list'], { encoding: 'utf8' }).stdout;
  return list
    .split('\n')
    .map((l) => l.split(' ')[0])
    .filter((name) => name.startsWith(`sluice-${pid}-`));
}

/** client ── router ── server, the kernel forwards. */
function triangle(lab: Lab) {
  const client = lab.namespace('client');
  const router = lab.namespace('router');
  const server = lab.namespace('server');
  lab.sysctl(router, { 'net.ipv4.ip_forward': 1, 'net.ipv6.conf.all.forwarding': 1 });
  lab.veth(
    {
      ns: client,
      name: 'eth0',
      mac: '02:00:00:00:10:02',
      addresses: ['10.9.1.2/24', '2001:db8:1::2/64'],
      offloads: false,
    },
    { ns: router, name: 'lan', addresses: ['10.9.1.1/24', '2001:db8:1::1/64'], mtu: 1500 },
  );
  lab.veth(
    { ns: router, name: 'wan', addresses: ['10.9.2.1/24', '2001:db8:2::1/64'] },
    { ns: server, name: 'eth0', addresses: ['10.9.2.2/24', '2001:db8:2::2/64'] },
  );
  lab.route(client, 'default', '10.9.1.1');
  lab.route(client, 'default', '2001:db8:1::1');
  lab.route(server, 'default', '10.9.2.1');
  lab.route(server, 'default', '2001:db8:2::1');
  return { client, router, server };
}

/** The lab's sources as plain JavaScript in a directory of their own, for a child process that is not a test runner. */
function compiledLab(): string {
  const dir = mkdtempSync(join(tmpdir(), 'sluice-lab-'));
  writeFileSync(join(dir, 'package.json'), '{"type":"module"}');
  for (const name of ['namespace', 'programs']) {
    const source = readFileSync(fileURLToPath(new URL(`../../controlplane/lab/${name}.ts`, import.meta.url)), 'utf8');
    const { outputText } = ts.transpileModule(source, {
      compilerOptions: {
        target: ts.ScriptTarget.ES2023,
        module: ts.ModuleKind.ESNext,
        rewriteRelativeImportExtensions: true,
      },
    });
    writeFileSync(join(dir, `${name}.js`), outputText);
  }
  return dir;
}

describe.skipIf(!labReady(['curl', 'ethtool', 'ping']))('lab', () => {
  const before = devices();
  let lab: Lab | undefined;
  afterEach(async () => {
    lab?.close();
    expect(namespaces()).toEqual([]);
    // Others may be making devices on this machine at the same time: theirs come and go.
    await waitFor('no device beyond those of before', () => devices().every((name) => before.includes(name)), {
      every: 50,
      detail: () => devices().join(' '),
    });
  });

  it('joins three namespaces, forwards between them in both families, and is drawn', async () => {
    lab = new Lab();
    const { client, router, server } = triangle(lab);
    lab.apply();
    expect(namespaces()).toHaveLength(3);
    for (const target of ['10.9.2.2', '2001:db8:2::2']) await lab.run(client, 'ping', ['-n', '-c1', '-W10', target]);
    const eth0 = await lab.run(client, 'ip', ['-br', 'link', 'show', 'eth0']);
    expect(eth0.stdout).toContain('02:00:00:00:10:02');
    expect((await lab.run(client, 'ethtool', ['-k', 'eth0'])).stdout).toMatch(/tcp-segmentation-offload: off/);
    expect((await lab.run(router, 'cat', ['/proc/sys/net/ipv4/ip_forward'])).stdout.trim()).toBe('1');
    expect((await lab.run(server, 'cat', ['/proc/sys/net/ipv4/ip_forward'])).stdout.trim()).toBe('0');
    expect(draw(lab)).toBe(
      [
        '┌───────────────────────┐    ┌──────────────────────┐    ┌───────────────────────┐',
        '│ client                │    │ router               │    │ server                │',
        '│ eth0 10.9.1.2/24      ├────┤ lan 10.9.1.1/24      ├────┤ eth0 10.9.2.2/24      │',
        '│      2001:db8:1::2/64 │    │     2001:db8:1::1/64 │    │      2001:db8:2::2/64 │',
        '│                       │    │ wan 10.9.2.1/24      │    │                       │',
        '│                       │    │     2001:db8:2::1/64 │    │                       │',
        '└───────────────────────┘    └──────────────────────┘    └───────────────────────┘',
      ].join('\n'),
    );
  });

  it('downloads known bytes with curl over both families, and the server sees the client', async () => {
    lab = new Lab();
    const { client, server } = triangle(lab);
    lab.apply();
    await startHttpServer(lab, server, 8080);
    await lab.listening(server, 8080);
    for (const host of ['10.9.2.2', '2001:db8:2::2']) {
      const got = await download(lab, client, host, 8080, 300_001);
      expect(got).toMatchObject({ intact: true, bytes: 300_001, digest: expectedDigest(300_001) });
    }
    expect((await askWho(lab, client, '10.9.2.2', 8080)).address).toBe('10.9.1.2');
    await expect(download(lab, client, '10.9.2.2', 8081, 10)).rejects.toThrow(/8081/);
  });

  it('waits with a bound, and says what it waited for', async () => {
    lab = new Lab();
    const ns = lab.namespace('alone');
    lab.apply();
    await expect(lab.listening(ns, 9, 'tcp', 60)).rejects.toThrow('listens on tcp port 9 in alone within 60 ms');
    let calls = 0;
    expect(await waitFor('the third call', () => (++calls === 3 ? 'done' : null))).toBe('done');
    await expect(lab.run(ns, 'sleep', ['30'], { timeout: 50 })).rejects.toThrow('no end after 50 ms');
    await expect(lab.run(ns, 'sh', ['-c', 'echo why >&2; exit 3'])).rejects.toThrow(/exit code 3; why/);
    expect(await lab.run(ns, 'sh', ['-c', 'cat; exit 4'], { check: false, input: 'in' })).toMatchObject({
      status: 4,
      stdout: 'in',
    });
  });

  it('a step that fails names its line and takes the whole lab down', () => {
    lab = new Lab();
    const ns = lab.namespace('one');
    lab.ip(ns, 'addr add 10.0.0.300/24 dev lo');
    expect(() => lab?.apply()).toThrow(LabError);
    expect(namespaces()).toEqual([]);
    lab.close();
  });

  it('an exception in the user of a lab takes it down at the end of its block', () => {
    const broken = () => {
      using inner = new Lab();
      triangle(inner);
      inner.apply();
      inner.spawn([...inner.sketch.nodes.keys()][0], 'sleep', ['60']);
      throw new Error('thrown inside');
    };
    expect(broken).toThrow('thrown inside');
    expect(namespaces()).toEqual([]);
  });

  it('close ends programs and their children, and may be called twice', async () => {
    lab = new Lab();
    const ns = lab.namespace('busy');
    lab.apply();
    const shell = lab.spawn(ns, 'sh', ['-c', 'sleep 61 & echo $!; wait']);
    const child = Number(await waitFor('the child', () => shell.stdout().trim()));
    lab.close();
    lab.close();
    await shell.exited;
    // The orphan is reaped by init a moment after it was killed.
    await waitFor('both to be gone', () => [shell.pid, child].every((pid) => ended(pid)));
  });

  for (const [how, script] of [
    ['SIGINT', 'console.log("up"); setInterval(() => {}, 1000);'],
    ['SIGTERM', 'console.log("up"); setInterval(() => {}, 1000);'],
    ['an uncaught exception', 'console.log("up"); setTimeout(() => { throw new Error("boom"); }, 20);'],
    ['process.exit', 'console.log("up"); setTimeout(() => process.exit(5), 20);'],
    ['SIGKILL, cleaned by the next lab', 'console.log("up"); setInterval(() => {}, 1000);'],
  ] as const)
    it(`leaves nothing after ${how}`, async () => {
      const dir = compiledLab();
      const main = `import { Lab } from './namespace.js';
        const lab = new Lab();
        const a = lab.namespace('a'), b = lab.namespace('b');
        lab.veth({ ns: a, name: 'x' }, { ns: b, name: 'y' });
        lab.apply();
        lab.spawn(a, 'sleep', ['62']);
        ${script}`;
      writeFileSync(join(dir, 'main.js'), main);
      const child = spawn(process.execPath, [join(dir, 'main.js')], { stdio: ['ignore', 'pipe', 'pipe'] });
      const closed = new Promise((resolve) => child.on('close', (code, signal) => resolve(signal ?? code)));
      try {
        let said = '';
        child.stderr.on('data', (text) => (said += text));
        child.stdout.on('data', (text) => (said += text));
        await waitFor('the child to hold a lab', () => said.includes('up'), { detail: () => said });
        const pid = child.pid ?? 0;
        const signal = /^SIG\w+/.exec(how)?.[0] as NodeJS.Signals | undefined;
        if (signal) {
          expect(namespaces(pid)).toHaveLength(2);
          child.kill(signal);
        }
        if (signal === 'SIGKILL') {
          // Nothing of it can run any more: its program sleeps on in a namespace whose owner is dead.
          child.stdout.destroy();
          child.stderr.destroy();
          expect(await closed).toBe('SIGKILL');
          expect(namespaces(pid)).toHaveLength(2);
          expect(removeStale().filter((name) => name.startsWith(`sluice-${pid}-`))).toHaveLength(2);
        } else expect(await closed).toBe(signal ?? (how === 'process.exit' ? 5 : 1));
        expect(namespaces(pid)).toEqual([]);
      } finally {
        child.kill('SIGKILL');
        rmSync(dir, { recursive: true });
      }
    });
});

function ended(pid: number): boolean {
  try {
    return / [ZX] /.test(readFileSync(`/proc/${pid}/stat`, 'latin1'));
  } catch {
    return true;
  }
}

describe('draw', () => {
  const node = (title: string, ...devices: [string, string[]][]) =>
    [title, { title, devices: devices.map(([name, addresses]) => ({ name, addresses })) }] as const;

  it('two clients and a server around a router', () => {
    const nodes = new Map([
      node('a', ['eth0', ['10.0.0.2/24']]),
      node('b', ['eth0', ['10.0.0.3/24']]),
      node('sluice', ['lan', ['10.0.0.1/24']]),
      node('server', ['eth0', ['192.0.2.2/24']]),
    ]);
    const links: [string, string][] = [
      ['a', 'sluice'],
      ['b', 'sluice'],
      ['sluice', 'server'],
    ];
    expect(draw({ nodes, links })).toBe(
      [
        '┌──────────────────┐    ┌─────────────────┐    ┌───────────────────┐',
        '│ a                │    │ sluice          │    │ server            │',
        '│ eth0 10.0.0.2/24 ├────┤ lan 10.0.0.1/24 ├────┤ eth0 192.0.2.2/24 │',
        '└──────────────────┘    │                 │    │                   │',
        '┌──────────────────┐    │                 │    │                   │',
        '│ b                │    │                 │    │                   │',
        '│ eth0 10.0.0.3/24 ├────┤                 │    │                   │',
        '└──────────────────┘    └─────────────────┘    └───────────────────┘',
      ].join('\n'),
    );
  });

  it('a chain with two hosts at its end: every wire is one that is there', () => {
    const nodes = new Map([node('isp', ['wan', []]), node('a'), node('switch'), node('router'), node('b')]);
    const links: [string, string][] = [
      ['switch', 'a'],
      ['switch', 'b'],
      ['router', 'isp'],
      ['router', 'switch'],
    ];
    expect(draw({ nodes, links })).toBe(
      [
        '┌─────┐    ┌────────┐    ┌────────┐    ┌───┐',
        '│ isp │    │ router │    │ switch │    │ a │',
        '│ wan ├────┤        ├────┤        ├────┤   │',
        '│     │    │        │    │        │    └───┘',
        '│     │    │        │    │        │    ┌───┐',
        '│     │    │        │    │        │    │ b │',
        '│     │    │        │    │        ├────┤   │',
        '└─────┘    └────────┘    └────────┘    └───┘',
      ].join('\n'),
    );
  });

  it('stands upright where the terminal is narrow', () => {
    const nodes = new Map([node('a', ['eth0', []]), node('b', ['eth0', []])]);
    expect(draw({ nodes, links: [['a', 'b']] }, { width: 12 })).toBe(
      ['┌──────┐', '│ a    │', '│ eth0 │', '└───┬──┘', '    │', '┌───┴──┐', '│ b    │', '│ eth0 │', '└──────┘'].join(
        '\n',
      ),
    );
  });
});
