/**
 * `show conntrack` beside `conntrack -L -o extended`: the same programs talk through the kernel as router and through
 * ours, and the lines must have the same words and fields in the same order. Numbers differ and are not compared.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { buildWorld, CLIENT4, CLIENT6, SERVER4, SERVER6, type World } from '../../controlplane/demo/world.ts';
import { askWho, startHttpServer } from '../../controlplane/lab/http.ts';
import { Lab, waitFor } from '../../controlplane/lab/namespace.ts';
import { type RouterConfig, ruleset } from './kernel/ruleset.ts';
import { labReady } from './need.ts';

const CONFIG = fileURLToPath(new URL('../../examples/demo.yaml', import.meta.url));

/** `ipv4 2 tcp 6 117 TIME_WAIT src=10.0.0.1 ...` → words and keys, numbers and ports as N, with the addresses. */
function shape(line: string): string {
  return line
    .trim()
    .replace(/\b(sport|dport|packets|bytes|id|mark|use)=\d+/g, '$1=N')
    .replace(/^(\S+ +\d+ \S+ +\d+) \d+ /, '$1 N ');
}

/** Shapes of the lines about the two hosts, without repetitions. */
function shapes(text: string): string[] {
  const lines = text.split('\n').filter((line) => line.includes(CLIENT4) || line.includes(CLIENT6));
  return [...new Set(lines.map(shape))].sort();
}

/** The same traffic for both: TCP, echo and UDP, answered and unanswered, in both families. */
async function talk(lab: Lab, client: string, server: string): Promise<void> {
  await startHttpServer(lab, server, 80);
  const source = `const socket = require('node:dgram').createSocket({ type: 'udp6' });
socket.on('message', (data, peer) => socket.send(data, peer.port, peer.address));
socket.bind(9999, () => console.log('ready'));`;
  const echo = lab.spawn(server, process.execPath, ['-e', source]);
  await waitFor('the UDP server', () => echo.stdout().includes('ready'));
  for (const host of [SERVER4, SERVER6]) {
    await askWho(lab, client, host, 80);
    await lab.run(client, 'ping', ['-n', '-c1', '-W10', host]);
    const type = host.includes(':') ? 'udp6' : 'udp4';
    for (const [port, ends] of [
      [9999, `socket.on('message', () => process.exit(0)); setTimeout(() => process.exit(1), 15000);`],
      [9998, `socket.on('error', () => {}); setTimeout(() => process.exit(0), 50);`],
    ] as const)
      await lab.run(client, process.execPath, [
        '-e',
        `const socket = require('node:dgram').createSocket('${type}'); ${ends} socket.send('x', ${port}, '${host}');`,
      ]);
  }
}

describe.skipIf(!labReady(['ping', 'curl', 'nft', 'conntrack'], { tun: true }))('conntrack lines', () => {
  let world: World | null = null;
  let kernel: Lab | null = null;
  let folder = '';

  afterEach(() => {
    world?.close();
    kernel?.close();
    rmSync(folder, { recursive: true, force: true });
  });

  it('have the same fields in the same order as those of the conntrack tool', async () => {
    // Without the engine: what it carries is printed as the kernel prints its own flowtable's, [OFFLOAD] and no timeout,
    // and the kernel beside has no flowtable.
    folder = mkdtempSync(join(tmpdir(), 'sluice-conntrack-'));
    const file = join(folder, 'slow.yaml');
    writeFileSync(file, `${readFileSync(CONFIG, 'utf8')}\noffload: { mode: "off" }\n`);
    world = await buildWorld({ config: file });
    await talk(world.lab, world.client, world.server);
    const ours = shapes((await world.show('conntrack')).text);
    world.close();

    const config = parse(readFileSync(CONFIG, 'utf8')) as RouterConfig;
    kernel = new Lab();
    const [client, router, server] = ['client', 'router', 'server'].map((label) => (kernel as Lab).namespace(label));
    kernel.sysctl(router, {
      'net.ipv4.ip_forward': 1,
      'net.ipv6.conf.all.forwarding': 1,
      'net.netfilter.nf_conntrack_acct': 1,
    });
    // Ports have their configured names, which is what the ruleset matches.
    kernel.shell(router, `nft -f - <<'END'\n${ruleset(config)}END`);
    const { lan, wan } = config.ports;
    kernel.veth(
      { ns: client, name: 'eth0', addresses: [`${CLIENT4}/24`, `${CLIENT6}/64`] },
      { ns: router, name: 'lan', addresses: lan.addresses },
    );
    kernel.veth(
      { ns: router, name: 'wan', addresses: wan.addresses },
      { ns: server, name: 'eth0', addresses: [`${SERVER4}/24`, `${SERVER6}/64`] },
    );
    for (const [ns, port] of [
      [client, lan],
      [server, wan],
    ] as const)
      for (const address of port.addresses) kernel.route(ns, 'default', address.split('/')[0]);
    kernel.apply();
    await talk(kernel, client, server);
    const dumps = ['ipv4', 'ipv6'].map((family) =>
      (kernel as Lab).runSync(router, 'conntrack', ['-L', '-f', family, '-o', 'extended']),
    );
    const theirs = shapes(dumps.map(({ stdout }) => stdout).join('\n'));

    expect(theirs.filter((line) => line.includes('TIME_WAIT'))).toHaveLength(2);
    expect(theirs.length).toBeGreaterThanOrEqual(8);
    expect(ours).toEqual(theirs);
  });
});
