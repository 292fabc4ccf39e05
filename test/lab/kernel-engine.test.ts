/**
 * The kernel engine in a live router, with real programs: nearly nothing comes to the process, every checksum is right, what
 * changes is followed, and a kill -9 in the middle leaves nothing.
 *
 *   client 192.168.1.10, 2001:db8:1::10 ═veth═ sl-lan [sluice run] sl-wan ═veth═ server 203.0.113.10, 2001:db8:2::10
 *                                                                                lo 198.51.100.9, behind the default route
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { release, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { ask, askShow } from '../../controlplane/api/client.ts';
import { commandFile } from '../../controlplane/demo/lab.ts';
import { buildWorld, SERVER4, SERVER6, type World } from '../../controlplane/demo/world.ts';
import { download, startHttpServer } from '../../controlplane/lab/http.ts';
import { Lab, type LabProcess, waitFor } from '../../controlplane/lab/namespace.ts';
import { packageRoot } from '../../controlplane/package-root.ts';
import type { LinkJson } from '../../controlplane/show/link.ts';
import { CaptureReader } from '../../dataplane/ports/capture-reader.ts';
import { addressOf, bind, close, ioctlPointer, send, socket, syscall6 } from '../../dataplane/ports/ffi.ts';
import { kernelEngineRefusal } from '../../dataplane/ports/kernel-engine.ts';
import { inNetns } from '../../dataplane/ports/netns.ts';
import { ethernet, ipv4, udp } from '../lib/build.ts';
import { labReady } from './need.ts';

const BEHIND = '198.51.100.9';
const CONFIG = readFileSync(join(packageRoot(), 'examples', 'kernel.yaml'), 'utf8');

const ECHO = `
const socket = require('node:dgram').createSocket('udp4');
let got = 0;
socket.on('message', (text, from) => { got++; socket.send(text, from.port, from.address); });
socket.bind(7, '${BEHIND}', () => console.log('ready'));
process.on('SIGUSR2', () => console.log('got ' + got));
`;
/** A number every few milliseconds, and how many answers came. */
const CHATTER = `
const socket = require('node:dgram').createSocket('udp4');
let answers = 0;
socket.on('message', () => answers++);
socket.on('error', () => {});
setInterval(() => socket.send('x', 7, '${BEHIND}', () => {}), 3);
process.on('SIGUSR2', () => console.log('answers ' + answers));
console.log('ready');
`;

const MAC = {
  lan: '02:00:00:00:01:01',
  wan: '02:00:00:00:01:02',
  client: '02:00:00:00:00:10',
  server: '02:00:00:00:00:20',
};

/** An AF_PACKET socket that sends on a device of the calling thread's namespace. */
function rawSocket(device: string): number {
  const fd = socket(17, 3, 0);
  const request = new Uint8Array(40);
  request.set(new TextEncoder().encode(device));
  expect(ioctlPointer(fd, 0x8933, request)).toBe(0); // SIOCGIFINDEX
  const address = new Uint8Array(20);
  address[0] = 17;
  address.set(request.subarray(16, 20), 4);
  expect(bind(fd, address, address.length)).toBe(0);
  return fd;
}

const TAGGED = (socket: string): string => `
ports:
  left: { kind: packet, ifname: sl-lan, mac: "${MAC.lan}" }
  right: { kind: packet, ifname: sl-wan, mac: "${MAC.wan}" }
  lan: { parent: left, vlan: 10, zone: lan, addresses: [192.168.1.1/24] }
  wan: { parent: right, vlan: 20, zone: wan, addresses: [203.0.113.1/24] }
neighbors:
  - { port: lan, ip: 192.168.1.10, mac: "${MAC.client}" }
  - { port: wan, ip: ${SERVER4}, mac: "${MAC.server}" }
zones: { lan: { forward: accept, input: accept }, wan: { forward: drop, input: drop } }
nat: { masquerade: [ { out: wan, from: 192.168.1.0/24 } ] }
offload: { engine: kernel }
control: { socket: "${socket}" }
`;

/** A TAP on one side, a veth on the other. */
const WITH_TAP = (socket: string): string => `
ports:
  lan: { kind: tap, ifname: sl-tap, zone: lan, addresses: [192.168.1.1/24] }
  wan: { kind: packet, ifname: sl-wan, zone: wan, mac: "${MAC.wan}", addresses: [203.0.113.1/24] }
zones: { lan: { forward: accept, input: accept }, wan: { forward: drop, input: drop } }
nat: { masquerade: [ { out: wan, from: 192.168.1.0/24 } ] }
offload: { engine: kernel }
control: { socket: "${socket}" }
`;

/** Programs at a device's tc ingress hook (BPF_PROG_QUERY, BPF_TCX_INGRESS). */
function programsOn(ns: string, device: string, world: World): number {
  const { ifindex } = JSON.parse(world.lab.runSync(ns, 'ip', ['-j', 'link', 'show', device]).stdout)[0];
  const attribute = new DataView(new ArrayBuffer(128));
  attribute.setUint32(0, ifindex, true);
  attribute.setUint32(4, 46, true);
  const number = process.arch === 'x64' ? 321 : 280;
  expect(inNetns(ns, () => syscall6(number, 16, addressOf(attribute.buffer), 128, 0, 0, 0))).toBe(0);
  return attribute.getUint32(24, true);
}

/** How many a program has seen by now. */
async function seen(who: LabProcess): Promise<number> {
  const lines = who.stdout().split('\n').length;
  process.kill(who.pid, 'SIGUSR2');
  await waitFor('the answer', () => who.stdout().split('\n').length > lines);
  return Number(who.stdout().trim().split(/\s/).at(-1));
}

/** Programs of `talk`: a test that fails leaves them, and its second attempt wants their port. */
const talking: LabProcess[] = [];

/** A client that talks without end, the echo that answers it, and looks at both. */
async function talk(world: World) {
  const { lab, client, server } = world;
  const echo = await answering(world, server);
  const chatter = lab.spawn(client, process.execPath, ['-e', CHATTER]);
  talking.push(echo, chatter);
  await waitFor('the talker', () => chatter.stdout().includes('ready'));
  const flowing = async (): Promise<void> => {
    const before = await seen(chatter);
    await waitFor('answers', async () => (await seen(chatter)) > before + 20, { timeout: 30_000 });
  };
  const inKernel = async (): Promise<void> => {
    const before = (await offload(world)).counters['kernel-hits'] ?? 0;
    await waitFor(
      'the kernel to forward it',
      async () => ((await offload(world)).counters['kernel-hits'] ?? 0) > before + 100,
      { timeout: 30_000 },
    );
  };
  return { echo, chatter, flowing, inKernel };
}

async function answering({ lab }: World, ns: string): Promise<LabProcess> {
  const echo = lab.spawn(ns, process.execPath, ['-e', ECHO]);
  await waitFor('the echo', () => echo.stdout().includes('ready'));
  return echo;
}

interface Offload {
  engine: string;
  counters: Record<string, number>;
  tables: { installed: number }[];
}

const offload = async (world: World) => (await world.show('offload')).json as Offload;

const [major, minor] = release().split('.').map(Number);
const tooOld = major < 6 || (major === 6 && minor < 6) ? `Linux 6.6 (TCX) is needed, this is ${release()}` : '';
const refusal = labReady(['ping']) ? tooOld || kernelEngineRefusal() : 'no lab';
if (refusal !== '') console.warn(`kernel engine, live: not run: ${refusal}`);

describe.skipIf(refusal !== '' || !labReady(['ping', 'iperf3', 'curl'], { tun: true }))(
  'the kernel engine, live',
  () => {
    let world: World;
    let folder = '';

    beforeAll(async () => {
      folder = mkdtempSync(join(tmpdir(), 'sluice-kernel-'));
      world = await buildWorld({ engine: 'kernel' });
      const { lab, server } = world;
      lab.ip(server, `addr add ${BEHIND}/32 dev lo`);
      lab.apply();
      await startHttpServer(lab, server, 80);
      lab.spawn(server, 'iperf3', ['-s', '--forceflush']);
      await lab.listening(server, 5201);
    });
    afterEach(async () => {
      for (const one of talking.splice(0)) if (one.running()) await one.stop('SIGKILL', 1000);
    });
    afterAll(() => {
      world?.close();
      rmSync(folder, { recursive: true, force: true });
    });

    for (const [family, host] of [
      ['IPv4 through masquerade', SERVER4],
      ['IPv6', SERVER6],
    ])
      it(`iperf3, both directions, ${family}: what is established is forwarded by the kernel, and all is counted`, async () => {
        const { lab, client, show } = world;
        const before = await offload(world);
        let bytes = 0;
        for (const direction of [[], ['-R']]) {
          const args = ['-c', host, '-t', '1', '-J', ...direction];
          const done = await lab.run(client, 'iperf3', args, { timeout: 30_000 });
          bytes += JSON.parse(done.stdout).end.sum_received.bytes;
        }
        expect(bytes).toBeGreaterThan(2_000_000);
        // Connections that have ended have given back what they were counted for.
        await waitFor(
          'the connections to leave the engine',
          async () => (await offload(world)).tables[0].installed === 0,
        );
        const after = await offload(world);
        expect(after.engine).toBe('kernel');
        const inKernel = after.counters['kernel-hits'] - (before.counters['kernel-hits'] ?? 0);
        const missed = after.counters.miss - (before.counters.miss ?? 0);
        expect(inKernel).toBeGreaterThan(10 * missed);
        const lines = (await show('conntrack', { proto: 'tcp' })).text
          .split('\n')
          .filter((line) => line.includes('5201'));
        const counted = lines.flatMap((line) => [...line.matchAll(/bytes=(\d+)/g)].map(([, count]) => Number(count)));
        expect(counted.reduce((sum, one) => sum + one, 0)).toBeGreaterThan(bytes);
        const drops = (await show('drops')).json as { reason: string; count: number }[];
        expect(drops.filter(({ reason }) => /CSUM|INHDR|TOO_SMALL|TOO_BIG|CT_INVALID|GSO/.test(reason))).toEqual([]);
      });

    it.skipIf(!labReady(['tshark', 'tcpdump', 'ethtool']))(
      'without offloads: tshark finds every checksum right on both sides',
      async () => {
        const { lab, client, server } = world;
        const sides = [
          [client, 'sl-lan'],
          [server, 'sl-wan'],
        ];
        for (const [ns, device] of sides)
          lab.runSync(ns, 'ethtool', ['-K', device, 'tx', 'off', 'tso', 'off', 'gso', 'off', 'gro', 'off']);
        const captures: [LabProcess, string][] = [];
        for (const [ns, device] of sides) {
          const file = join(folder, `${device}.pcap`);
          const dump = lab.spawn(ns, 'tcpdump', ['-i', device, '-Z', 'root', '-U', '-w', file, 'tcp or udp']);
          captures.push([dump, file]);
          await waitFor('tcpdump', () => dump.stderr().includes('listening on'));
        }
        const before = await offload(world);
        for (const host of [SERVER4, SERVER6])
          expect(await download(lab, client, host, 80, 300_000)).toMatchObject({ intact: true });
        const hits = async () => ((await offload(world)).counters['kernel-hits'] ?? 0) - before.counters['kernel-hits'];
        await waitFor('the counters', async () => (await hits()) > 200);
        for (const [dump, file] of captures) {
          const prefs = ['ip.check_checksum', 'tcp.check_checksum', 'udp.check_checksum'].flatMap((one) => [
            '-o',
            `${one}:TRUE`,
          ]);
          const read = (filter: string) =>
            spawnSync('tshark', ['-n', '-r', file, ...prefs, '-Y', filter], { encoding: 'utf8' }).stdout.split('\n');
          // tcpdump writes what it was given a while later, and forgets the rest when it is told to stop.
          for (const family of ['ip', 'ipv6'])
            await waitFor('the capture', () => read(`tcp.checksum.status == "Good" && ${family}`).length > 100, {
              every: 200,
            });
          process.kill(dump.pid, 'SIGINT');
          await dump.exited;
          // Linux sends 0xFFFF for a TCP sum of 0 (skb_checksum_help): as good for its receiver (RFC 1624 §3), bad to tshark.
          const tcpBad = '(tcp.checksum.status == "Bad" && !(tcp.checksum == 0xffff && tcp.checksum_calculated == 0))';
          const bad = `ip.checksum.status == "Bad" || ${tcpBad} || udp.checksum.status == "Bad"`;
          expect(read(bad)).toEqual(['']);
        }
        for (const [ns, device] of sides)
          lab.runSync(ns, 'ethtool', ['-K', device, 'tx', 'on', 'tso', 'on', 'gso', 'on', 'gro', 'on']);
      },
    );

    it.skipIf(!labReady(['vsftpd']))(
      'FTP: the control connection stays with the helper, the data is the kernel’s',
      async () => {
        const { lab, client, server } = world;
        for (const name of ['ftp', 'empty']) mkdirSync(join(folder, name), { recursive: true });
        spawnSync('chmod', ['755', folder]);
        writeFileSync(join(folder, 'ftp', 'big'), Buffer.alloc(20_000_000, 'sluice'));
        const settings = [
          'background=NO',
          'listen=NO',
          'listen_ipv6=YES',
          'anonymous_enable=YES',
          'no_anon_password=YES',
        ];
        settings.push(
          'local_enable=NO',
          `anon_root=${join(folder, 'ftp')}`,
          `secure_chroot_dir=${join(folder, 'empty')}`,
        );
        settings.push('connect_from_port_20=YES', 'isolate_network=NO', 'seccomp_sandbox=NO', 'xferlog_enable=NO');
        const file = join(folder, 'vsftpd.conf');
        writeFileSync(file, settings.map((line) => `${line}\n`).join(''));
        lab.spawn(server, 'vsftpd', [file]);
        await lab.listening(server, 21);
        for (const [host, ...mode] of [[SERVER4], [SERVER4, '--ftp-port', '-', '--disable-eprt'], [`[${SERVER6}]`]]) {
          const before = (await offload(world)).counters['kernel-hits'] ?? 0;
          const here = join(folder, 'down');
          await lab.run(client, 'curl', ['-sS', '--max-time', '60', ...mode, '-o', here, `ftp://${host}/big`], {
            timeout: 70_000,
          });
          expect(readFileSync(here).equals(readFileSync(join(folder, 'ftp', 'big')))).toBe(true);
          await waitFor(
            'the counters',
            async () => ((await offload(world)).counters['kernel-hits'] ?? 0) > before + 50,
          );
        }
      },
    );

    it('a capture shows what the kernel would have forwarded; behind it, the kernel forwards again', async () => {
      const { lab, router, socket } = world;
      const { flowing, inKernel } = await talk(world);
      await flowing();
      await inKernel();
      const file = join(folder, 'watched.pcapng');
      const flow = ['--flow', `udp any > ${BEHIND}:7`, '--count', '40'];
      // It would not end by itself if only first packets came up.
      await lab.run(
        router,
        process.execPath,
        [commandFile(), 'capture', '-w', file, '--port', 'lan', ...flow, '--socket', socket],
        { timeout: 60_000 },
      );
      const reader = CaptureReader.fromBytes(file, readFileSync(file));
      const comments: string[] = [];
      while (reader.next()) comments.push(reader.comment);
      expect(comments.length).toBe(40);
      expect(comments.filter((comment) => comment.includes('forwarded by the engine')).length).toBeGreaterThan(10);
      await inKernel();
    });

    it('a route, a link, a neighbour: the flow follows each change, and nothing goes the old way any more', async () => {
      const { lab, server, socket } = world;
      const { echo, flowing, inKernel } = await talk(world);
      const apply = (text: string) =>
        ask(socket, '/v1/apply', {
          method: 'POST',
          body: `${text}\ncontrol: { socket: "${socket}" }\n`,
          type: 'application/yaml',
        });
      await flowing();
      await inKernel();

      // The route is gone once `apply` has answered: not one packet more arrives.
      await apply(CONFIG.replace('routes:\n', `routes:\n  - { to: ${BEHIND}/32, type: blackhole }\n`));
      // What the echo has not read yet was forwarded before.
      let last = -1;
      await waitFor('the echo to have read all', async () => last === (last = await seen(echo)), { every: 100 });
      await new Promise((resolve) => setTimeout(resolve, 300));
      expect(await seen(echo)).toBe(last);
      await apply(CONFIG);
      await flowing();
      await inKernel();

      // The server's MAC becomes another one; it says so (arp_notify), as a machine does that takes another's place.
      lab.sysctl(server, { 'net.ipv4.conf.sl-wan.arp_notify': 1 });
      lab.ip(server, 'link set sl-wan address 02:00:00:00:77:77');
      lab.apply();
      await flowing();
      await inKernel();
      expect((await world.show('neigh', { dev: 'wan' })).text).toMatch(/203\.0\.113\.10 .*lladdr 02:00:00:00:77:77/);

      // The cable is pulled and plugged in again.
      const state = async () => ((await world.show('link')).json as { operstate: string }[])[1].operstate;
      lab.runSync(server, 'ip', ['link', 'set', 'sl-wan', 'down']);
      await waitFor('the link to be down', async () => (await state()) === 'DOWN');
      const stopped = await seen(echo);
      lab.runSync(server, 'ip', ['link', 'set', 'sl-wan', 'up']);
      lab.route(server, 'default', '203.0.113.1');
      lab.apply();
      await flowing();
      expect(await seen(echo)).toBeGreaterThan(stopped);
      await inKernel();
    });
  },
);

describe.skipIf(refusal !== '' || !labReady(['ping', 'iperf3', 'curl'], { tun: true }))(
  'the kernel engine ends',
  () => {
    let world: World | null = null;
    afterEach(() => world?.close());

    it('kill -9 in the middle of traffic leaves no program, no device; a new start forwards again', async () => {
      world = await buildWorld({ engine: 'kernel' });
      const { lab, client, router, server } = world;
      await startHttpServer(lab, server, 80);
      lab.spawn(server, 'iperf3', ['-s', '--forceflush']);
      await lab.listening(server, 5201);
      for (const device of ['sl-lan', 'sl-wan']) expect(programsOn(router, device, world)).toBe(1);
      const traffic = lab.spawn(client, 'iperf3', ['-c', SERVER4, '-t', '20', '--forceflush', '-i', '0.2']);
      await waitFor('traffic', () => /bits\/sec/.test(traffic.stdout()));
      process.kill(world.process.pid, 'SIGKILL');
      await world.process.exited;
      const devices = () => lab.runSync(router, 'ip', ['-br', 'link']).stdout;
      await waitFor('the devices to be gone', () => !/sluice/.test(devices()));
      for (const device of ['sl-lan', 'sl-wan']) expect(programsOn(router, device, world)).toBe(0);
      await traffic.stop('SIGKILL', 1000);

      const again = lab.spawn(router, process.execPath, [
        commandFile(),
        'run',
        join(dirname(world.socket), 'router.yaml'),
      ]);
      await waitFor('the router to run', () => again.stderr().includes('sluice: running'), {
        timeout: 60_000,
        detail: () => again.stderr(),
      });
      for (const host of [SERVER4, SERVER6])
        await waitFor(`${host} to answer`, async () => {
          const ping = await lab.run(client, 'ping', ['-n', '-c1', '-W1', host], { check: false });
          return ping.status === 0;
        });
      for (const host of [SERVER4, SERVER6])
        expect(await download(lab, client, host, 80, 5_000_000)).toMatchObject({ intact: true });
      await waitFor(
        'the kernel to forward',
        async () => ((await offload(world as World)).counters['kernel-hits'] ?? 0) > 50,
      );
      process.kill(again.pid, 'SIGTERM');
      expect(await again.exited).toEqual({ code: 0, signal: null });
      for (const device of ['sl-lan', 'sl-wan']) expect(programsOn(router, device, world)).toBe(0);
    });

    it('the other end of a cable is moved into the router’s own namespace and back: every frame arrives there', async () => {
      world = await buildWorld({ engine: 'kernel' });
      const { lab, router, server } = world;
      lab.ip(server, `addr add ${BEHIND}/32 dev lo`);
      lab.apply();
      const { echo, chatter, flowing, inKernel } = await talk(world);
      await flowing();
      await inKernel();
      let last = echo;
      // There is a device of this name already where it goes.
      lab.ip(server, 'link set sl-wan down');
      lab.ip(server, 'link set sl-wan name far');
      lab.ip(router, `addr add ${BEHIND}/32 dev lo`);
      lab.apply();
      for (const [from, to] of [
        [server, router],
        [router, server],
      ]) {
        await last.stop('SIGTERM', 1000);
        lab.runSync(from, 'ip', ['link', 'set', 'far', 'netns', to]);
        lab.ip(to, `addr add ${SERVER4}/24 dev far`);
        lab.ip(to, 'link set far up');
        lab.route(to, 'default', '203.0.113.1');
        lab.apply();
        last = await answering(world, to);
        await flowing();
        await inKernel();
      }
      await chatter.stop('SIGTERM', 1000);
    });

    it.skipIf(!labReady(['tcpdump']))('VLANs: tagged frames in and out are the kernel’s, too', async () => {
      const folder = mkdtempSync(join(tmpdir(), 'sluice-kernel-'));
      const lab = new Lab();
      const sockets: number[] = [];
      try {
        const [client, router, server] = ['client', 'router', 'server'].map((label) => lab.namespace(label));
        lab.veth({ ns: client, name: 'sl-lan' }, { ns: router, name: 'sl-lan', mac: MAC.lan });
        lab.veth({ ns: server, name: 'sl-wan' }, { ns: router, name: 'sl-wan', mac: MAC.wan });
        lab.apply();
        const control = join(folder, 'control.sock');
        const file = join(folder, 'vlan.yaml');
        writeFileSync(file, TAGGED(control));
        const running = lab.spawn(router, process.execPath, [commandFile(), 'run', file]);
        await waitFor('the router to run', () => running.stderr().includes('sluice: running') || !running.running(), {
          timeout: 60_000,
          detail: () => running.stderr(),
        });
        expect(running.stderr()).not.toContain('emulated');
        // Whatever a second router did here, one of the two would hear nothing.
        const second = join(folder, 'second.yaml');
        writeFileSync(second, TAGGED(join(folder, 'second.sock')));
        const refused = lab.spawn(router, process.execPath, [commandFile(), 'run', second]);
        expect(await refused.exited).toEqual({ code: 1, signal: null });
        expect(refused.stderr()).toContain(
          "port left (packet): expected sl-lan to be no other router's, got programs of a kernel engine on it; stop the router",
        );
        const dump = lab.spawn(server, 'tcpdump', [
          '-enlt',
          '-i',
          'sl-wan',
          'vlan',
          '20',
          'and',
          'udp',
          'dst',
          'port',
          '4000',
        ]);
        await waitFor('tcpdump', () => dump.stderr().includes('listening on'));
        const seen = () =>
          dump
            .stdout()
            .split('\n')
            .filter((line) => line.includes('vlan 20')).length;
        // The kernel's own VLAN devices are a module that not every machine has: tagged frames by hand.
        const talk = (ns: string, device: string): ((frame: Uint8Array) => void) => {
          const fd = inNetns(ns, () => rawSocket(device));
          sockets.push(fd);
          return (frame) => expect(send(fd, addressOf(frame.slice().buffer), frame.length, 0)).toBe(frame.length);
        };
        const [ask, answer] = [talk(client, 'sl-lan'), talk(server, 'sl-wan')];
        const query = ethernet(
          { src: MAC.client, dst: MAC.lan, vlan: 10 },
          ipv4({ src: '192.168.1.10', dst: SERVER4 }, udp({ sport: 5000, dport: 4000 }, 'hello')),
        );
        const reply = ethernet(
          { src: MAC.server, dst: MAC.wan, vlan: 20 },
          ipv4({ src: SERVER4, dst: '203.0.113.1' }, udp({ sport: 4000, dport: 5000 }, 'hello')),
        );
        const installed = async () => ((await askShow(control, 'offload')).json as Offload).tables[0].installed;
        await waitFor(
          'both directions to be programmed',
          async () => {
            ask(query);
            answer(reply);
            return (await installed()) === 2;
          },
          { detail: () => dump.stdout() },
        );
        const before = seen();
        for (let n = 0; n < 50; n++) ask(query);
        await waitFor('all of them, tagged', () => seen() >= before + 50);
        const counters = async () => ((await askShow(control, 'offload')).json as Offload).counters;
        await waitFor('the kernel’s counters', async () => ((await counters())['kernel-hits'] ?? 0) >= 50);
      } finally {
        for (const fd of sockets) close(fd);
        lab.close();
        rmSync(folder, { recursive: true, force: true });
      }
    });

    it('verify: what the kernel has forwarded, super-frames and partial checksums too, is what the slow path makes of it', async () => {
      const folder = mkdtempSync(join(tmpdir(), 'sluice-kernel-'));
      try {
        const file = join(folder, 'verify.yaml');
        writeFileSync(file, CONFIG.replace('engine: kernel', 'engine: kernel, mode: verify'));
        world = await buildWorld({ engine: 'kernel', config: file });
        expect(world.process.stderr()).not.toContain('emulated');
        const { lab, client, server } = world;
        await startHttpServer(lab, server, 80);
        lab.spawn(server, 'iperf3', ['-s', '--forceflush']);
        await lab.listening(server, 5201);
        for (const host of [SERVER4, SERVER6]) {
          for (const more of [[], ['-R'], ['-u', '-b', '50M']])
            await lab.run(client, 'iperf3', ['-c', host, '-t', '1', ...more], { timeout: 30_000 });
          expect(await download(lab, client, host, 80, 1_000_000)).toMatchObject({ intact: true });
        }
        await waitFor(
          'the connections to leave the engine',
          async () => (await offload(world as World)).tables[0].installed <= 4,
        );
        const { counters, engine } = await offload(world);
        expect(engine).toBe('kernel');
        expect(counters['kernel-compared']).toBeGreaterThan(500);
        expect(counters['kernel-hits']).toBeGreaterThan(counters['kernel-compared']);
        expect(counters.mismatches ?? 0).toBe(0);
      } finally {
        rmSync(folder, { recursive: true, force: true });
      }
    });

    it('a TAP on a bridge of this namespace is the kernel’s too, until it is moved away', async () => {
      const folder = mkdtempSync(join(tmpdir(), 'sluice-kernel-'));
      const lab = new Lab();
      try {
        const [router, client, server] = ['router', 'client', 'server'].map((label) => lab.namespace(label));
        lab.veth({ ns: server, name: 'sl-wan', addresses: [`${SERVER4}/24`] }, { ns: router, name: 'sl-wan' });
        lab.apply();
        const control = join(folder, 'control.sock');
        const file = join(folder, 'tap.yaml');
        writeFileSync(file, WITH_TAP(control));
        const running = lab.spawn(router, process.execPath, [commandFile(), 'run', file]);
        await waitFor('the router to run', () => running.stderr().includes('sluice: running') || !running.running(), {
          timeout: 60_000,
          detail: () => running.stderr(),
        });
        await startHttpServer(lab, server, 80);
        const hits = async () => ((await askShow(control, 'offload')).json as Offload).counters['kernel-hits'] ?? 0;
        const fetch = async (): Promise<number> => {
          const before = await hits();
          expect(await download(lab, client, SERVER4, 80, 20_000_000)).toMatchObject({ intact: true });
          await waitFor(
            'the connection to leave the engine',
            async () => ((await askShow(control, 'offload')).json as Offload).tables[0].installed === 0,
          );
          return (await hits()) - before;
        };
        lab.veth({ ns: client, name: 'leg', addresses: ['192.168.1.10/24'] }, { ns: router, name: 'leg' });
        lab.ip(router, 'link add sl-bridge type bridge');
        for (const leg of ['sl-tap', 'leg']) lab.ip(router, `link set ${leg} master sl-bridge up`);
        lab.ip(router, 'link set sl-bridge up');
        // The router's addresses are this host's too (sluice0): it must not answer for them on the bridge.
        lab.sysctl(router, { 'net.ipv4.conf.all.arp_ignore': 1 });
        lab.route(client, 'default', '192.168.1.1');
        lab.apply();
        expect(await fetch()).toBeGreaterThan(200);
        lab.ip(client, 'link del leg');
        lab.runSync(router, 'ip', ['link', 'set', 'sl-tap', 'netns', client]);
        // Until it has heard of it, its programs take the TAP to be here.
        await waitFor(
          'the router to see that it was moved',
          async () => ((await askShow(control, 'link', { dev: 'lan' })).json as LinkJson[])[0].elsewhere,
        );
        lab.ip(client, 'addr add 192.168.1.10/24 dev sl-tap');
        lab.ip(client, 'link set sl-tap up');
        lab.apply();
        lab.runSync(client, 'ip', ['route', 'add', 'default', 'via', '192.168.1.1']);
        expect(await fetch()).toBe(0);
        process.kill(running.pid, 'SIGTERM');
        expect(await running.exited).toEqual({ code: 0, signal: null });
      } finally {
        lab.close();
        rmSync(folder, { recursive: true, force: true });
      }
    });

    it('no /dev/net/tun, as in a container: a warning that says why, and the emulated engine', async () => {
      const folder = mkdtempSync(join(tmpdir(), 'sluice-kernel-'));
      const lab = new Lab();
      try {
        const [client, router, server] = ['client', 'router', 'server'].map((label) => lab.namespace(label));
        lab.veth({ ns: client, name: 'sl-lan' }, { ns: router, name: 'sl-lan' });
        lab.veth({ ns: server, name: 'sl-wan' }, { ns: router, name: 'sl-wan' });
        lab.apply();
        const file = join(folder, 'router.yaml');
        writeFileSync(file, `${CONFIG}\ncontrol: { socket: "${join(folder, 'control.sock')}" }\n`);
        const script = 'mount --bind /dev/null /dev/net/tun && exec "$@"';
        const command = [process.execPath, commandFile(), 'run', file];
        const running = lab.spawn(router, 'unshare', ['--mount', 'sh', '-c', script, 'sh', ...command]);
        await waitFor('the router to run', () => running.stderr().includes('sluice: running') || !running.running(), {
          timeout: 60_000,
          detail: () => running.stderr(),
        });
        expect(running.stderr()).toMatch(/warning: offload\.engine: port sluice-up.*; the emulated engine is used/);
        expect((await askShow(join(folder, 'control.sock'), 'offload')).json).toMatchObject({ engine: 'emulated' });
        await running.stop('SIGTERM', 10_000);
      } finally {
        lab.close();
        rmSync(folder, { recursive: true, force: true });
      }
    });

    it('ports that it cannot sit on: a warning that says why, and the emulated engine', async () => {
      const folder = mkdtempSync(join(tmpdir(), 'sluice-kernel-'));
      try {
        const file = join(folder, 'tap.yaml');
        writeFileSync(file, CONFIG.replaceAll('kind: packet', 'kind: tap'));
        world = await buildWorld({ config: file });
        expect(world.process.stderr()).toContain(
          'offload.engine: expected ports of kind packet for the kernel engine, got none; the emulated engine is used',
        );
        await startHttpServer(world.lab, world.server, 80);
        expect(await download(world.lab, world.client, SERVER4, 80, 1_000_000)).toMatchObject({ intact: true });
        expect(await offload(world)).toMatchObject({ engine: 'emulated' });
      } finally {
        rmSync(folder, { recursive: true, force: true });
      }
    });
  },
);
