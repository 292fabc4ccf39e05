/**
 * Devices that are deleted and made again while the router runs: the port is down meanwhile, then it carries the same
 * connections as before, in the ways in which a worker holds devices. Routers side by side:
 *
 *   client 10.77.1.10 ══ sl-lan [router: NAT] sl-wan ══ server 203.0.113.10
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { askShow } from '../../controlplane/api/client.ts';
import { commandFile } from '../../controlplane/demo/lab.ts';
import { Lab, waitFor } from '../../controlplane/lab/namespace.ts';
import type { LinkJson } from '../../controlplane/show/link.ts';
import { kernelEngineRefusal } from '../../dataplane/ports/kernel-engine.ts';
import { receiveRingRefusal } from '../../dataplane/ports/tap-ring.ts';
import { labReady } from './need.ts';

const SERVER = `
require('node:net').createServer((socket) => socket.pipe(socket)).listen(7, () => console.log('ready'));
const udp = require('node:dgram').createSocket('udp4');
udp.on('message', (text, from) => udp.send(text, from.port, from.address, () => {}));
udp.bind(7);
`;
/** One connection over TCP, on which it says a line at SIGUSR2; one over UDP, on which it talks without end. */
const CLIENT = `
const socket = require('node:net').connect(7, '203.0.113.10', () => console.log('connected'));
socket.on('data', (data) => process.stdout.write(data));
for (const end of ['close', 'error']) socket.on(end, () => console.log('broken'));
let lines = 0;
process.on('SIGUSR2', () => socket.write('line ' + ++lines + '\\n'));
const udp = require('node:dgram').createSocket('udp4');
let answers = 0;
udp.on('message', () => { if (++answers % 10 === 0) console.log('answers ' + answers); });
udp.on('error', () => {});
setInterval(() => udp.send('x', 7, '203.0.113.10', () => {}), 5);
`;

type Port = 'lan' | 'wan';
const PORTS: readonly Port[] = ['lan', 'wan'];

interface Setting {
  name: string;
  lan: 'tap' | 'packet';
  wan: 'packet';
  workers: number;
  engine: 'emulated' | 'kernel';
  io: 'auto' | 'bpf';
  /** Why it cannot run here; '' when it can. */
  refusal: string;
}

const ready = labReady([], { tun: true });
const rings = ready ? receiveRingRefusal() : '';
const kernel = ready ? kernelEngineRefusal() : '';
if (rings !== '') console.warn(`LAB TEST: without receive rings: ${rings}`);

const SETTINGS: readonly Setting[] = [
  {
    name: 'a TAP by io_uring and receive rings, a veth by AF_PACKET rings, two workers',
    ...{ lan: 'tap', wan: 'packet', workers: 2, engine: 'emulated', io: rings === '' ? 'bpf' : 'auto', refusal: '' },
  },
  {
    name: 'the kernel engine',
    ...{ lan: 'packet', wan: 'packet', workers: 1, engine: 'kernel', io: 'auto', refusal: kernel },
  },
];

describe.skipIf(!ready).concurrent('a device that is deleted and made again', () => {
  for (const setting of SETTINGS) {
    if (setting.refusal !== '') console.warn(`LAB TEST SKIPPED: ${setting.name}: ${setting.refusal}`);
    it.skipIf(setting.refusal !== '')(setting.name, async () => {
      const lab = new Lab();
      const folder = mkdtempSync(join(tmpdir(), 'sluice-heal-'));
      try {
        await check(setting, lab, folder);
      } finally {
        lab.close();
        rmSync(folder, { recursive: true, force: true });
      }
    });
  }
});

async function check(setting: Setting, lab: Lab, folder: string): Promise<void> {
  const [client, router, server] = ['client', 'router', 'server'].map((label) => lab.namespace(label));
  lab.apply();
  const ends = { lan: client, wan: server };
  const batch = (ns: string, ...lines: string[]): void => {
    lab.runSync(ns, 'sh', ['-c', `printf '%s\\n' "$@" | ip -batch -`, 'sh', ...lines]);
  };
  const veth = (port: Port): string[] => [
    `link add sl-${port} type veth peer name sl-${port} netns ${ends[port]}`,
    `link set sl-${port} up`,
  ];
  /** Makes the far end of a port what it is after a boot. */
  const plug = (port: Port): void => {
    const ns = ends[port];
    const address = port === 'lan' ? '10.77.1.10/24' : '203.0.113.10/24';
    const route = port === 'lan' ? ['route add default via 10.77.1.1'] : [];
    batch(ns, `address add ${address} dev sl-${port}`, `link set sl-${port} up`, ...route);
  };
  for (const port of PORTS) if (setting[port] !== 'tap') batch(router, ...veth(port));
  const socket = join(folder, 'control.sock');
  const file = join(folder, 'router.yaml');
  writeFileSync(file, config(setting, socket));
  const running = lab.spawn(router, process.execPath, [commandFile(), 'run', file, '--io', setting.io]);
  const said = (): string => running.stderr();
  await waitFor('the router to run', () => said().includes('sluice: running') || !running.running(), {
    timeout: 60_000,
    detail: said,
  });
  for (const port of PORTS) {
    if (setting[port] === 'tap') batch(router, `link set sl-${port} netns ${ends[port]}`);
    plug(port);
  }
  const show = async (what: string): Promise<unknown> => (await askShow(socket, what)).json;
  const links = async (): Promise<LinkJson[]> => (await show('link')) as LinkJson[];
  const states = async (): Promise<string[]> => (await links()).map((link) => link.operstate);
  const isUp = async (): Promise<boolean> => (await states()).every((state) => state === 'UP');
  const addresses = async (): Promise<string[]> => (await links()).map((link) => link.address);
  const told = (text: string): number => said().split(text).length - 1;
  /** What tells one connection from another. */
  const connections = async (): Promise<string[]> =>
    ((await show('conntrack')) as { id: number; protocol: string; reply: Record<string, string | number> }[])
      .filter(({ reply }) => reply.sport === 7)
      .map(({ id, protocol, reply }) => `${id} ${protocol} ${reply.dst} ${reply.dport}`)
      .sort();

  const echo = lab.spawn(server, process.execPath, ['-e', SERVER]);
  await waitFor('the server', () => echo.stdout().includes('ready'));
  const talker = lab.spawn(client, process.execPath, ['-e', CLIENT]);
  const detail = (): string => said() + talker.stdout();
  const answers = (): number => Number([...talker.stdout().matchAll(/answers (\d+)\n/g)].at(-1)?.[1] ?? 0);
  let lines = 0;
  /** Both connections carry something, there and back. */
  const carries = async (when: string): Promise<void> => {
    const before = answers();
    process.kill(talker.pid, 'SIGUSR2');
    const line = `line ${++lines}\n`;
    await waitFor(`TCP ${when}`, () => talker.stdout().includes(line), { timeout: 60_000, detail });
    await waitFor(`UDP ${when}`, () => answers() > before + 20, { timeout: 60_000, detail });
  };
  await waitFor('the connection', () => talker.stdout().includes('connected'), { timeout: 60_000, detail });
  await carries('at first');
  const before = await connections();
  expect(before).toHaveLength(2);
  const macs = await addresses();

  let losses = 0;
  for (const port of PORTS) {
    const isTap = setting[port] === 'tap';
    batch(isTap ? ends[port] : router, `link delete sl-${port}`);
    losses++;
    await waitFor('its end to be told', () => told('is gone; its port is down until') === losses, { detail });
    if (!isTap) {
      expect(await states()).toEqual(PORTS.map((one) => (one === port ? 'NOTPRESENT' : 'UP')));
      batch(router, ...veth(port));
    }
    await waitFor('its return to be told', () => told(`the device sl-${port} is back`) === 1, { detail });
    if (isTap) batch(router, `link set sl-${port} netns ${ends[port]}`);
    plug(port);
    await waitFor('all ports to be up', isUp, { detail });
    await carries(`when sl-${port} was back`);
  }
  // One that is made again before anybody has looked, some times.
  const again = Array.from({ length: 4 }, () => ['link delete sl-wan', ...veth('wan')]).flat();
  batch(router, ...again);
  plug('wan');
  await waitFor('the last one to be told', () => told('the device sl-wan is back') >= 2, { detail });
  await waitFor('all ports to be up', isUp, { detail });
  await carries('when sl-wan was there at once');

  expect(await connections()).toEqual(before);
  expect(await addresses()).toEqual(macs);
  expect(talker.stdout()).not.toContain('broken');
  expect(told('it starts again')).toBe(0);
  if (setting.engine === 'kernel') {
    const hits = async (): Promise<number> =>
      ((await show('offload')) as { counters: Record<string, number> }).counters['kernel-hits'] ?? 0;
    const now = await hits();
    await waitFor('the programs to forward', async () => (await hits()) > now + 20, { detail });
  }
  if (setting.io === 'bpf') {
    // A frame that came by the ring is one that the device counts as dropped.
    const dropped = (): number =>
      JSON.parse(lab.runSync(client, 'ip', ['-j', '-s', 'link', 'show', 'sl-lan']).stdout)[0].stats64.tx.dropped;
    const now = dropped();
    await waitFor('datagrams to come by the ring', () => dropped() > now + 20, { detail });
  }
  process.kill(running.pid, 'SIGTERM');
  expect(await running.exited).toEqual({ code: 0, signal: null });
}

function config({ lan, wan, workers, engine }: Setting, socket: string): string {
  return `
ports:
  lan: { kind: ${lan}, ifname: sl-lan, zone: lan, addresses: [10.77.1.1/24] }
  wan: { kind: ${wan}, ifname: sl-wan, zone: wan, addresses: [203.0.113.1/24] }
zones: { lan: { forward: accept, input: accept }, wan: { forward: drop, input: drop } }
nat: { masquerade: [ { out: wan, from: 10.77.1.0/24 } ] }
workers: ${workers}
offload: { engine: ${engine} }
control: { socket: ${JSON.stringify(socket)} }
`;
}
