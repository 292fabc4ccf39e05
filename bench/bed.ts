/**
 * Bed: a client, a router and a server in namespaces; the router is Sluice, the kernel, or a peer.
 *
 *   client 10.77.1.10 ── lan 10.77.1.1 [router, masquerade] wan 203.0.113.1 ── server 203.0.113.10
 *
 * Generated traffic goes to 198.18.0.1 behind 203.0.113.254, whose MAC nobody has: the server's device counts the frames
 * and a program at its tc ingress hook drops them by their address, all of them alike. (Its stack would drop some by their
 * MAC; what is redirected into the peer's namespace is always PACKET_HOST, and would be routed first, at the price of a fifth
 * of the whole.) Neighbours are static. Everything is taken down by close().
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { findProgram, Lab, type LabProcess, waitFor } from '../controlplane/lab/namespace.ts';
import { attachIngress, closeDescriptor, loadProgram } from '../dataplane/ports/bpf.ts';
import { linkState } from '../dataplane/ports/links.ts';
import { inNetns } from '../dataplane/ports/netns.ts';
import { Assembler } from '../offload/kernel/assembler.ts';
import { BENCH } from './results.ts';
import type { SendTask } from './sender.ts';
import { COMPILED } from './workload.ts';

export const FLOWS = 1024;
const LAN_MAC = '02:00:00:00:01:01';
const WAN_MAC = '02:00:00:00:01:02';
const CLIENT_MAC = '02:00:00:00:00:10';
const SERVER_MAC = '02:00:00:00:00:20';
const SINK_MAC = '02:00:00:00:00:fe';
export const SERVER = '203.0.113.10';
/** Where generated traffic goes to (RFC 2544, appendix C.2.2). */
const SINK = [198, 18, 0, 1];
const FIRST_PORT = 2048;
const STARTING = 30_000;

const octets = (mac: string): number[] => mac.split(':').map((byte) => Number.parseInt(byte, 16));

export interface Bed {
  readonly title: string;
  readonly lab: Lab;
  readonly client: string;
  readonly server: string;
  /** Device of the client towards the router, and of the server. */
  readonly near: string;
  readonly far: string;
  /** The router's process; null: the kernel. */
  readonly router: LabProcess | null;
  /** The address at which the client reaches the server. */
  readonly target: string;
  /** A process in the server's namespace, whose /proc shows its counters. */
  readonly witness: LabProcess;
  close(): Promise<void>;
}

/** What Sluice runs on: TAP devices (bpf: with receive rings), AF_PACKET rings on veths, the kernel engine's programs on veths. */
export type Kind = 'tap' | 'bpf' | 'packet' | 'kernel';

const onTaps = (kind: Kind): boolean => kind === 'tap' || kind === 'bpf';

const CONFIG = (kind: Kind, socket: string): string => `
ports:
  lan: { kind: ${onTaps(kind) ? 'tap' : 'packet'}, ifname: sb-lan, zone: lan, mac: "${LAN_MAC}", addresses: [10.77.1.1/24] }
  wan: { kind: ${onTaps(kind) ? 'tap' : 'packet'}, ifname: sb-wan, zone: wan, mac: "${WAN_MAC}", addresses: [203.0.113.1/24] }
routes: [ { to: 0.0.0.0/0, via: 203.0.113.254 } ]
neighbors:
  - { port: lan, ip: 10.77.1.10, mac: "${CLIENT_MAC}" }
  - { port: wan, ip: ${SERVER}, mac: "${SERVER_MAC}" }
  - { port: wan, ip: 203.0.113.254, mac: "${SINK_MAC}" }
zones: { lan: { forward: accept, input: accept }, wan: { forward: drop, input: drop } }
nat: { masquerade: [ { out: wan, from: 10.77.1.0/24 } ] }
offload: { engine: ${kind === 'kernel' ? 'kernel' : 'emulated'} }
workers: 1
control: { socket: "${socket}" }
`;

const RULES = `
table ip nat { chain post { type nat hook postrouting priority 100; oifname "sb-wan" ip saddr 10.77.1.0/24 masquerade; }; }
table ip filter { chain forward { type filter hook forward priority 0; policy drop; ct state established,related accept; iifname "sb-lan" accept; }; }
`;

/** The ends of client and server: their addresses and neighbours. */
function furnish(lab: Lab, client: string, server: string, near: string, far: string): void {
  lab.device({ ns: client, name: near, mac: CLIENT_MAC, addresses: ['10.77.1.10/24'] });
  lab.device({ ns: server, name: far, mac: SERVER_MAC, addresses: [`${SERVER}/24`] });
  lab.neighbour(client, near, '10.77.1.1', LAN_MAC);
  lab.neighbour(server, far, '203.0.113.1', WAN_MAC);
  lab.route(client, 'default', '10.77.1.1');
}

/** TCX_NEXT and TC_ACT_SHOT (linux/bpf.h, linux/pkt_cls.h). */
const NEXT = -1;
const SHOT = 2;

/**
 * Drops what is addressed to SINK where `device` receives, behind its counters; returns how to take it away. A
 * kernel without TCX (before 6.6) leaves the dropping to its stack: nothing is redirected there.
 */
function sink(ns: string, device: string): () => void {
  const [a, b, c, d] = SINK;
  const program = new Assembler().load(4, 'r2', 'r1', 76).load(4, 'r3', 'r1', 80); // data, data_end of struct __sk_buff
  program.mov('r4', 'r2').add('r4', 34).mov('r0', NEXT).when('r4', '>', 'r3', 'end');
  program.load(2, 'r3', 'r2', 30).when('r3', '!=', a | (b << 8), 'end');
  program.load(2, 'r3', 'r2', 32).when('r3', '!=', c | (d << 8), 'end');
  program.mov('r0', SHOT).label('end').exit();
  let code = -1;
  try {
    code = loadProgram('sluice_sink', program.assemble({}));
    const link = inNetns(ns, () => attachIngress(code, linkState(device, ns).ifindex, device));
    return () => closeDescriptor(link);
  } catch {
    return () => {};
  } finally {
    if (code >= 0) closeDescriptor(code);
  }
}

function finish(
  title: string,
  lab: Lab,
  ends: Pick<Bed, 'client' | 'server' | 'near' | 'far' | 'router'>,
  clean: () => void,
): Bed {
  const witness = lab.spawn(ends.server, 'sleep', ['3600']);
  const unsink = sink(ends.server, ends.far);
  return {
    title,
    lab,
    ...ends,
    target: SERVER,
    witness,
    async close() {
      await ends.router?.stop('SIGTERM', 3000);
      unsink();
      lab.close();
      clean();
    },
  };
}

/** Runs `build`; what it leaves half-made is taken down. */
async function safely(lab: Lab, clean: () => void, build: () => Promise<Bed>): Promise<Bed> {
  try {
    return await build();
  } catch (error) {
    lab.close();
    clean();
    throw error;
  }
}

async function until(router: LabProcess, pattern: RegExp, what: string): Promise<void> {
  const said = (): string => router.stdout() + router.stderr();
  await waitFor(what, () => pattern.test(said()) || !router.running(), { timeout: STARTING, detail: said });
  if (!router.running()) throw new Error(`${what}: expected it to run, got ${said().trim() || 'nothing'}`);
}

/** Sluice between two TAPs, or on two veths. `nodeOptions`: for the router's process, before the program. */
export function sluiceBed(kind: Kind, nodeOptions: readonly string[] = []): Promise<Bed> {
  const lab = new Lab();
  const folder = mkdtempSync(join(tmpdir(), 'sluice-bench-'));
  const clean = (): void => rmSync(folder, { recursive: true, force: true });
  return safely(lab, clean, async () => {
    const [client, host, server] = ['client', 'router', 'server'].map((label) => lab.namespace(label));
    const near = onTaps(kind) ? 'sb-lan' : 'near';
    const far = onTaps(kind) ? 'sb-wan' : 'far';
    if (!onTaps(kind)) {
      lab.veth({ ns: client, name: near }, { ns: host, name: 'sb-lan', mac: LAN_MAC });
      lab.veth({ ns: server, name: far }, { ns: host, name: 'sb-wan', mac: WAN_MAC });
      furnish(lab, client, server, near, far);
    }
    lab.apply();
    const file = join(folder, 'router.yaml');
    writeFileSync(file, CONFIG(kind, join(folder, 'control.sock')));
    const main = join(COMPILED, '..', 'controlplane', 'cli', 'main.js');
    const router = lab.spawn(host, process.execPath, [
      ...nodeOptions,
      main,
      'run',
      ...(kind === 'bpf' ? ['--io', 'bpf'] : []),
      file,
    ]);
    await until(router, /running/, 'sluice run');
    // What was to be measured is not there: that is no figure.
    if (kind === 'kernel' && /emulated engine/.test(router.stderr())) throw new Error(router.stderr().trim());
    if (onTaps(kind)) {
      lab.runSync(host, 'ip', ['link', 'set', 'sb-lan', 'netns', client]);
      lab.runSync(host, 'ip', ['link', 'set', 'sb-wan', 'netns', server]);
      furnish(lab, client, server, near, far);
      lab.apply();
    }
    return finish(`Sluice (${kind})`, lab, { client, server, near, far, router }, clean);
  });
}

/** The kernel: nftables masquerade over the same veths. */
export function kernelBed(): Promise<Bed> {
  const lab = new Lab();
  return safely(
    lab,
    () => {},
    async () => {
      const [client, host, server] = ['client', 'kernel', 'server'].map((label) => lab.namespace(label));
      lab.veth({ ns: client, name: 'near' }, { ns: host, name: 'sb-lan', mac: LAN_MAC, addresses: ['10.77.1.1/24'] });
      lab.veth({ ns: server, name: 'far' }, { ns: host, name: 'sb-wan', mac: WAN_MAC, addresses: ['203.0.113.1/24'] });
      lab.sysctl(host, { 'net.ipv4.ip_forward': 1 });
      lab.route(host, 'default', '203.0.113.254');
      lab.neighbour(host, 'sb-wan', '203.0.113.254', SINK_MAC);
      lab.neighbour(host, 'sb-wan', SERVER, SERVER_MAC);
      lab.neighbour(host, 'sb-lan', '10.77.1.10', CLIENT_MAC);
      furnish(lab, client, server, 'near', 'far');
      lab.apply();
      lab.runSync(host, 'nft', ['-f', '-'], { input: RULES });
      return finish('Linux nftables', lab, { client, server, near: 'near', far: 'far', router: null }, () => {});
    },
  );
}

/** The ceiling: a loop in C between two TAPs; `header`: with virtio's header in front of each frame, as Sluice has it. */
export function loopBed(header = false): Promise<Bed> {
  const lab = new Lab();
  return safely(
    lab,
    () => {},
    async () => {
      const [client, host, server] = ['client', 'loop', 'server'].map((label) => lab.namespace(label));
      lab.apply();
      const router = lab.spawn(host, compile('tap-loop'), ['sb-lan', 'sb-wan', ...(header ? ['header'] : [])]);
      await until(router, /ready/, 'tap-loop');
      lab.runSync(host, 'ip', ['link', 'set', 'sb-lan', 'netns', client]);
      lab.runSync(host, 'ip', ['link', 'set', 'sb-wan', 'netns', server]);
      furnish(lab, client, server, 'sb-lan', 'sb-wan');
      lab.apply();
      return finish(
        'C read/write loop (ceiling)',
        lab,
        { client, server, near: 'sb-lan', far: 'sb-wan', router },
        () => {},
      );
    },
  );
}

/** Client and server on one cable: what the devices and the yardstick themselves take. */
export function cableBed(): Promise<Bed> {
  const lab = new Lab();
  return safely(
    lab,
    () => {},
    async () => {
      const [client, server] = ['client', 'server'].map((label) => lab.namespace(label));
      lab.veth(
        { ns: client, name: 'near', addresses: ['203.0.113.1/24'] },
        { ns: server, name: 'far', addresses: [`${SERVER}/24`] },
      );
      lab.apply();
      return finish('a cable', lab, { client, server, near: 'near', far: 'far', router: null }, () => {});
    },
  );
}

/** slirp4netns or pasta: a network stack in user space between the client's namespace and sockets in the server's. */
export function userStackBed(program: 'slirp4netns' | 'pasta'): Promise<Bed> {
  const lab = new Lab();
  return safely(
    lab,
    () => {},
    async () => {
      const client = lab.namespace('client');
      const server = lab.namespace('server');
      // A pair with nobody behind it gives the server's side an address to be reached at and a default route to be copied.
      lab.ip(server, 'link add far type veth peer name nobody');
      lab.ip(server, `addr add ${SERVER}/24 dev far`);
      lab.ip(server, 'link set nobody up');
      lab.ip(server, 'link set far up');
      lab.ip(server, 'route add default via 203.0.113.254');
      lab.apply();
      const path = `/run/netns/${client}`;
      const args =
        program === 'slirp4netns'
          ? ['--configure', '--mtu=65520', '--netns-type=path', path, 'near']
          : [
              '--foreground',
              '--quiet',
              '--config-net',
              '--runas',
              '0',
              '--mtu',
              '65520',
              '--ns-ifname',
              'near',
              '--netns',
              path,
            ];
      const router = lab.spawn(server, program, args);
      const up = (): boolean => lab.runSync(client, 'ip', ['route', 'show', 'default'], { check: false }).stdout !== '';
      const said = (): string => router.stderr() || router.stdout();
      await waitFor(`${program}'s route`, () => up() || !router.running(), { timeout: 5000, every: 50, detail: said });
      if (!router.running()) throw new Error(`${program}: expected it to run, got ${said().trim() || 'nothing'}`);
      const bed = finish(program, lab, { client, server, near: 'near', far: 'far', router }, () => {});
      // slirp4netns' name for the loopback of its own side; pasta maps the gateway to it.
      return { ...bed, target: program === 'slirp4netns' ? '10.0.2.2' : '203.0.113.254' };
    },
  );
}

/** Compiles a program of bench/peers with gcc, once for each version of its source; returns its path. */
export function compile(name: string): string {
  const source = join(BENCH, 'peers', `${name}.c`);
  const folder = join(BENCH, 'build');
  // Named by what it was made of: times of files tell nothing behind a checkout.
  const version = createHash('sha256').update(readFileSync(source)).digest('hex').slice(0, 12);
  const target = join(folder, `${name}-${version}`);
  if (existsSync(target)) return target;
  if (findProgram('gcc') === null) throw new Error(`${name}: expected gcc in PATH, got nothing; install gcc`);
  mkdirSync(folder, { recursive: true });
  const done = spawnSync('gcc', ['-O2', '-Wall', '-o', target, source], { encoding: 'utf8' });
  if (done.status !== 0) throw new Error(`${name}: expected gcc to compile it, got ${done.stderr.trim()}`);
  return target;
}

const TRAFFIC = {
  flows: FLOWS,
  src: [10, 77, 1, 10],
  dst: SINK,
  srcPort: FIRST_PORT,
  dstPort: 4433,
  dstMac: octets(LAN_MAC),
  srcMac: octets(CLIENT_MAC),
  vary: 'src',
} as const;

const REPLIES = {
  flows: FLOWS,
  src: SINK,
  dst: [203, 0, 113, 1],
  srcPort: 4433,
  dstPort: FIRST_PORT,
  dstMac: octets(WAN_MAC),
  srcMac: octets(SINK_MAC),
  vary: 'dst',
} as const;

/** Starts a sender in the client's namespace (replies: in the server's). */
export function startSender(bed: Bed, task: Partial<SendTask>, replies = false): LabProcess {
  const device = replies ? bed.far : bed.near;
  const base = replies ? REPLIES : TRAFFIC;
  const whole = { ...base, device, lengths: [60], seconds: 10, rate: 0, count: 0, ...task };
  const args = [join(COMPILED, 'sender.js'), JSON.stringify(whole)];
  return bed.lab.spawn(replies ? bed.server : bed.client, process.execPath, args);
}

/** Makes all connections, answers them, and lets the engine take them. */
export async function prime(bed: Bed): Promise<void> {
  for (let round = 0; round < 4; round++)
    for (const replies of [false, true]) {
      const sender = startSender(bed, { count: FLOWS, rate: 20_000, seconds: 2 }, replies);
      const { code } = await sender.exited;
      if (code !== 0) throw new Error(`sender: expected exit code 0, got ${code}: ${sender.stderr().trim()}`);
    }
}

/** Frames that the server's device has received. */
export function receivedFrames(bed: Bed): { packets: number; bytes: number } {
  const table = readFileSync(`/proc/${bed.witness.pid}/net/dev`, 'latin1');
  for (const line of table.split('\n')) {
    const [name, ...counts] = line.trim().split(/[:\s]+/);
    if (name === bed.far) return { bytes: Number(counts[0]), packets: Number(counts[1]) };
  }
  return { packets: 0, bytes: 0 };
}

/** Busy CPU seconds of the whole machine since boot (USER_HZ is 100 on every Linux). */
export function busySeconds(): number {
  const first = readFileSync('/proc/stat', 'latin1').split('\n')[0].trim().split(/\s+/).slice(1).map(Number);
  const [user, nice, system, , , irq, softirq, steal] = first;
  return (user + nice + system + irq + softirq + steal) / 100;
}
