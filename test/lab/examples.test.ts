/**
 * The labs of examples/, as far as they can be tried without their tools: the containerlab topology as namespaces and veth
 * pairs, the systemd unit read by systemd itself, and Sluice with two capabilities and no root.
 */
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { Lab, waitFor } from '../../controlplane/lab/namespace.ts';
import { labReady } from './need.ts';

const MAIN = fileURLToPath(new URL('../../dist/controlplane/cli/main.js', import.meta.url));
const example = (name: string): string => fileURLToPath(new URL(`../../examples/${name}`, import.meta.url));

interface Topology {
  topology: {
    nodes: Record<string, { exec?: string[]; binds?: string[]; cmd?: string }>;
    links: { endpoints: [string, string] }[];
  };
}

describe.skipIf(!labReady(['ping', 'setpriv'], { tun: true }))('the labs of examples/', () => {
  let lab: Lab;
  let folder = '';

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'sluice-examples-'));
    lab = new Lab();
  });
  afterEach(() => {
    lab.close();
    rmSync(folder, { recursive: true, force: true });
  });

  it('containerlab: the topology carries a ping through Sluice and its NAT', async () => {
    const { topology } = parse(readFileSync(example('container/sluice.clab.yml'), 'utf8')) as Topology;
    const spaces = new Map(Object.keys(topology.nodes).map((name) => [name, lab.namespace(name)]));
    const end = (text: string) => {
      const [node, name] = text.split(':');
      return { ns: spaces.get(node)!, name };
    };
    for (const { endpoints } of topology.links) lab.veth(end(endpoints[0]), end(endpoints[1]));
    lab.apply();
    for (const [name, { exec = [] }] of Object.entries(topology.nodes))
      for (const line of exec) {
        const [command, ...words] = line.split(' ');
        lab.runSync(spaces.get(name)!, command, words);
      }
    const { binds, cmd } = topology.nodes.router;
    expect(cmd).toContain('exec sluice run /etc/sluice/router.yaml');
    expect(binds).toEqual(['router.yaml:/etc/sluice/router.yaml:ro']);
    const file = join(folder, 'router.yaml');
    const socket = join(folder, 'control.sock');
    writeFileSync(file, `${readFileSync(example('container/router.yaml'), 'utf8')}control: { socket: "${socket}" }\n`);
    const router = lab.spawn(spaces.get('router')!, process.execPath, [MAIN, 'run', file]);
    await waitFor('the router to run', () => router.stderr().includes('running') || !router.running(), {
      timeout: 60_000,
    });
    expect(router.running(), router.stderr()).toBe(true);
    await waitFor('the server to answer', async () => {
      const ping = await lab.run(spaces.get('client')!, 'ping', ['-n', '-c1', '-W1', '203.0.113.10'], { check: false });
      return ping.status === 0;
    });
    const shown = spawnSync(process.execPath, [MAIN, 'show', 'conntrack', '--socket', socket], { encoding: 'utf8' });
    expect(shown.stdout).toMatch(/src=192\.168\.1\.10 dst=203\.0\.113\.10 .*src=203\.0\.113\.10 dst=203\.0\.113\.1 /);
    process.kill(router.pid, 'SIGTERM');
    expect(await router.exited, router.stderr()).toEqual({ code: 0, signal: null });
  });

  it('systemd: the unit is one, and two capabilities without root are enough', async () => {
    const unit = readFileSync(example('systemd/sluice.service'), 'utf8');
    const capabilities = /^AmbientCapabilities=(.*)$/m.exec(unit)![1];
    expect(capabilities).toBe('CAP_NET_ADMIN CAP_NET_RAW');
    expect(/^CapabilityBoundingSet=(.*)$/m.exec(unit)![1]).toBe(capabilities);
    const verified = spawnSync('systemd-analyze', ['verify', example('systemd/sluice.service')], { encoding: 'utf8' });
    if (verified.error === undefined) expect(verified.stderr).not.toContain('sluice.service');
    else console.warn('NOT VERIFIED: expected the program systemd-analyze, got none; apt-get install systemd');

    // Ports on interfaces that are there; /dev/net/tun is root's alone on some machines.
    const ns = lab.namespace('service');
    lab.veth({ ns, name: 'svc0', addresses: [] }, { ns, name: 'svc1', addresses: [] });
    lab.apply();
    const file = join(folder, 'router.yaml');
    const socket = join(folder, 'control.sock');
    writeFileSync(
      file,
      `ports: { lan: { kind: packet, ifname: svc0, addresses: 10.79.1.1/24 } }\nworkers: 1\ncontrol: { socket: "${socket}" }\n`,
    );
    // The service's own runtime directory.
    chmodSync(folder, 0o777);
    const caps = capabilities
      .split(' ')
      .map((name) => `+${name.slice(4).toLowerCase()}`)
      .join(',');
    const router = lab.spawn(ns, 'setpriv', [
      '--reuid=65534',
      '--regid=65534',
      '--clear-groups',
      `--bounding-set=-all,${caps}`,
      `--inh-caps=-all,${caps}`,
      `--ambient-caps=-all,${caps}`,
      '--no-new-privs',
      process.execPath,
      MAIN,
      'run',
      file,
    ]);
    await waitFor('the router to run', () => router.stderr().includes('running') || !router.running(), {
      timeout: 60_000,
    });
    expect(router.running(), router.stderr()).toBe(true);
    expect(readFileSync(`/proc/${router.pid}/status`, 'utf8')).toMatch(
      /^Uid:\t65534\t65534.*[\s\S]*^CapEff:\t0000000000003000$/m,
    );
    await waitFor('the port to be up', () => {
      const shown = spawnSync(process.execPath, [MAIN, 'show', 'link', '-j', '--socket', socket], { encoding: 'utf8' });
      return shown.stdout.includes('"operstate":"UP"');
    });
    process.kill(router.pid, 'SIGTERM');
    expect(await router.exited, router.stderr()).toEqual({ code: 0, signal: null });
  });
});
