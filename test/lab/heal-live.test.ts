/**
 * Devices that are deleted and made again while the router runs: the port is down meanwhile, then it carries the same
 * connections as before, with every way in which a worker may hold a device.
 *
 *   client 10.77.1.10 ══ sl-lan [router: NAT] sl-wan ══ server 203.0.113.10
 */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { askShow } from '../../controlplane/api/client.ts';
import { commandFile } from '../../controlplane/demo/lab.ts';
import { Lab, type LabProcess, waitFor } from '../../controlplane/lab/namespace.ts';
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

interface Setting {
  name: string;
  lan: 'tap' | 'packet';
  wan: 'tap' | 'packet' | 'host';
  workers: number;
  engine?: 'kernel';
  io?: string;
  /** Why it cannot run here; '' when it can. */
  refusal?: () => string;
}

const SETTINGS: readonly Setting[] = [
  { name: 'a TAP by io_uring and an AF_PACKET ring, two workers', lan: 'tap', wan: 'packet', workers: 2 },
  { name: 'plain reads and writes', lan: 'tap', wan: 'tap', workers: 1, io: 'readwrite' },
  { name: 'receive rings', lan: 'tap', wan: 'packet', workers: 1, io: 'bpf', refusal: receiveRingRefusal },
  {
    name: 'the kernel engine',
    lan: 'packet',
    wan: 'packet',
    workers: 1,
    engine: 'kernel',
    refusal: kernelEngineRefusal,
  },
  { name: 'libpcap', lan: 'tap', wan: 'host', workers: 1, refusal: capRefusal },
];

describe.skipIf(!labReady(['ip'], { tun: true }))('a device that is deleted and made again', () => {
  let lab: Lab | null = null;
  let folder = '';

  afterEach(() => {
    lab?.close();
    lab = null;
    if (folder !== '') rmSync(folder, { recursive: true, force: true });
  });

  for (const setting of SETTINGS) {
    const refusal = setting.refusal?.() ?? '';
    if (refusal !== '') console.warn(`LAB TEST SKIPPED: ${setting.name}: ${refusal}`);
    it.skipIf(refusal !== '')(setting.name, async () => {
      await check(setting);
    });
  }

  async function check(setting: Setting): Promise<void> {
    folder = mkdtempSync(join(tmpdir(), 'sluice-heal-'));
    const world = new Lab();
    lab = world;
    const [client, router, server] = ['client', 'router', 'server'].map((label) => world.namespace(label));
    world.apply();
    const ends = {
      lan: { ns: client, address: '10.77.1.10/24', route: true },
      wan: { ns: server, address: '203.0.113.10/24', route: false },
    };
    const veth = (port: Port): string => `link add sl-${port} type veth peer name sl-${port} netns ${ends[port].ns}`;
    const batch = (ns: string, ...lines: string[]): void => {
      world.runSync(ns, 'sh', ['-c', `printf '%s\\n' "$@" | ip -batch -`, 'sh', ...lines]);
    };
    /** Makes the far end of a port what it is after a boot. */
    const plug = (port: Port): void => {
      const { ns, address, route } = ends[port];
      const addressed = [`address add ${address} dev sl-${port}`, `link set sl-${port} up`];
      batch(ns, ...addressed, ...(route ? ['route add default via 10.77.1.1'] : []));
    };
    for (const port of PORTS) if (setting[port] !== 'tap') batch(router, veth(port), `link set sl-${port} up`);
    const socket = join(folder, 'control.sock');
    const file = join(folder, 'router.yaml');
    writeFileSync(file, config(setting, socket));
    const io = setting.io === undefined ? [] : ['--io', setting.io];
    const running = world.spawn(router, process.execPath, [commandFile(), 'run', file, ...io]);
    const said = (): string => running.stderr();
    await waitFor('the router to run', () => said().includes('sluice: running') || !running.running(), {
      timeout: 60_000,
      detail: said,
    });
    for (const port of PORTS) {
      if (setting[port] === 'tap') batch(router, `link set sl-${port} netns ${ends[port].ns}`);
      plug(port);
    }
    const show = async (what: string, filters = {}): Promise<unknown> => (await askShow(socket, what, filters)).json;
    const states = async (): Promise<string[]> => ((await show('link')) as LinkJson[]).map((link) => link.operstate);
    const told = (text: string): number => said().split(text).length - 1;

    const echo = world.spawn(server, process.execPath, ['-e', SERVER]);
    await waitFor('the server', () => echo.stdout().includes('ready'));
    const talker = world.spawn(client, process.execPath, ['-e', CLIENT]);
    let lines = 0;
    /** Both connections carry something, there and back. */
    const carries = async (when: string): Promise<void> => {
      const before = answers(talker);
      process.kill(talker.pid, 'SIGUSR2');
      const line = `line ${++lines}\n`;
      const detail = (): string => said() + talker.stdout();
      await waitFor(`TCP ${when}`, () => talker.stdout().includes(line), { timeout: 60_000, detail });
      await waitFor(`UDP ${when}`, () => answers(talker) > before + 20, { timeout: 60_000, detail });
    };
    await waitFor('the connection', () => talker.stdout().includes('connected'), { timeout: 30_000, detail: said });
    await carries('at first');
    const tracked = async (): Promise<string[]> =>
      ((await show('conntrack')) as { proto: string; original: object; reply: object }[])
        .map((one) => JSON.stringify(one))
        .sort();
    console.log(await tracked());

    let losses = 0;
    for (const port of PORTS) {
      const isTap = setting[port] === 'tap';
      batch(isTap ? ends[port].ns : router, `link delete sl-${port}`);
      losses++;
      await waitFor('its end to be told', () => told('is gone; its port is down') === losses, { detail: said });
      if (!isTap) {
        expect((await states())[PORTS.indexOf(port)]).toBe('NOTPRESENT');
        batch(router, veth(port), `link set sl-${port} up`);
      }
      await waitFor('its return to be told', () => told('is back') === losses, { detail: said });
      if (isTap) batch(router, `link set sl-${port} netns ${ends[port].ns}`);
      plug(port);
      await waitFor('all ports to be up', async () => (await states()).every((state) => state === 'UP'), {
        detail: said,
      });
      await carries(`after ${port} was deleted`);
    }
    console.log(await tracked(), said());
    expect(talker.stdout()).not.toContain('broken');
  }
});

type Port = 'lan' | 'wan';
const PORTS: readonly Port[] = ['lan', 'wan'];

function config({ lan, wan, workers, engine }: Setting, socket: string): string {
  return `
ports:
  lan: { kind: ${lan}, ifname: sl-lan, zone: lan, addresses: [10.77.1.1/24] }
  wan: { kind: ${wan}, ifname: sl-wan, zone: wan, addresses: [203.0.113.1/24] }
zones: { lan: { forward: accept, input: accept }, wan: { forward: drop, input: drop } }
nat: { masquerade: [ { out: wan, from: 10.77.1.0/24 } ] }
workers: ${workers}
${engine === undefined ? '' : `offload: { engine: ${engine} }`}
control: { socket: ${JSON.stringify(socket)} }
`;
}

/** How many datagrams of the client's were answered by now, as far as it has told. */
function answers(talker: LabProcess): number {
  return Number(talker.stdout().match(/answers (\d+)\n(?![^]*answers)/)?.[1] ?? 0);
}

/** Why there can be no port of kind host. */
function capRefusal(): string {
  try {
    createRequire(import.meta.url)('cap');
    return '';
  } catch {
    return 'package cap is missing';
  }
}
