/**
 * Lab: network namespaces joined by veth pairs, real programs inside them, and nothing left behind.
 *
 *   const lab = new Lab();
 *   const client = lab.namespace('client');
 *   const server = lab.namespace('server');
 *   lab.veth({ ns: client, name: 'eth0', addresses: ['10.0.0.1/24'] }, { ns: server, name: 'eth0', addresses: ['10.0.0.2/24'] });
 *   lab.apply();                                     // queued until here, then a few batches: milliseconds, not seconds
 *   await lab.run(client, 'ping', ['-c1', '10.0.0.2']);
 *   lab.close();
 *
 * Who frees what: the lab owns every namespace it named, every device in it, and every process that it spawned. `close`
 * kills the processes (each in a process group of its own), deletes devices, then namespaces; it may be called any
 * number of times. It also runs when the process exits, ends by an exception, or gets SIGINT, SIGTERM or SIGHUP. After
 * a SIGKILL nothing can run: so every new Lab first removes namespaces of Sluice whose owner is dead.
 *
 * Namespaces are called sluice-PID-N-LABEL. What this file does not do: bridges, VLANs, traffic shaping; `ip` takes
 * any iproute2 line for those.
 */
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import {
  background,
  isAlive,
  isGone,
  killQuietly,
  LabError,
  type LabProcess,
  pause,
  type RunOptions,
  type RunResult,
  requirements,
  runProgram,
  runProgramSync,
  tool,
  waitFor,
} from './programs.ts';

export {
  findProgram,
  LabError,
  type LabProcess,
  type RunOptions,
  type RunResult,
  requirements,
  waitFor,
} from './programs.ts';

/** One end of a link. Addresses with their prefix length, `10.0.0.1/24` or `2001:db8::1/64`. */
export interface DeviceOptions {
  mac?: string;
  mtu?: number;
  addresses?: readonly string[];
  /** false: checksum and segmentation offloads off, so that every frame is complete and at most one MTU long. */
  offloads?: boolean;
  /** false: the device stays down. */
  up?: boolean;
}
export interface LinkEnd extends DeviceOptions {
  ns: string;
  name: string;
}

interface SketchDevice {
  name: string;
  addresses: readonly string[];
}
/** What `draw` shows. */
export interface Sketch {
  nodes: Map<string, { title: string; devices: SketchDevice[] }>;
  links: [string, string][];
}

const PREFIX = 'sluice-';
const STALE = /^sluice-(\d+)-\d+-/;
const labs = new Set<Lab>();
let labCount = 0;

function namespacesNow(): string[] {
  try {
    return readdirSync('/run/netns');
  } catch {
    return []; // the directory appears with the first namespace
  }
}

/**
 * Removes the namespaces that runs of Sluice left when they were killed (their process id is dead), and the programs
 * inside them. Returns their names.
 */
export function removeStale(): string[] {
  const stale = namespacesNow().filter((name) => {
    const match = STALE.exec(name);
    return match !== null && !isAlive(Number(match[1]));
  });
  for (const name of stale) {
    const pids = spawnSync('ip', ['netns', 'pids', name], { encoding: 'utf8', timeout: 20_000 }).stdout ?? '';
    for (const pid of pids.split('\n').filter((p) => p !== '')) killQuietly(Number(pid), 'SIGKILL');
    spawnSync('ip', ['netns', 'del', name], { timeout: 20_000 });
  }
  return stale;
}

function closeAll(): void {
  for (const lab of [...labs]) lab.close();
}

function onSignal(signal: NodeJS.Signals): void {
  closeAll();
  // The signal's usual effect, unless somebody else also listens and decides for himself.
  if (process.listenerCount(signal) === 0) process.kill(process.pid, signal);
}

const SIGNALS: readonly NodeJS.Signals[] = ['SIGINT', 'SIGTERM', 'SIGHUP'];

function watch(lab: Lab): void {
  if (labs.size === 0) {
    process.on('exit', closeAll);
    for (const signal of SIGNALS) process.on(signal, onSignal);
  }
  labs.add(lab);
}

function unwatch(lab: Lab): void {
  labs.delete(lab);
  if (labs.size > 0) return;
  process.off('exit', closeAll);
  for (const signal of SIGNALS) process.off(signal, onSignal);
}

export class Lab {
  readonly sketch: Sketch = { nodes: new Map(), links: [] };
  private readonly id = ++labCount;
  private readonly names = new Map<string, string>();
  private readonly devices: { ns: string; name: string }[] = [];
  private readonly processes = new Set<LabProcess>();
  /** Process ids of what run() waits for. */
  private readonly running = new Set<number>();
  private made: string[] = [];
  private open = true;
  /** Queues of apply(), in its order: namespaces to add; settings that new devices inherit; links; the rest. */
  private newNamespaces: string[] = [];
  private defaults = new Map<string, string[]>();
  private hostLines: string[] = [];
  private shellLines = new Map<string, string[]>();
  private ipLines = new Map<string, string[]>();

  /** Throws LabError with every missing requirement. Removes what dead runs left. */
  constructor() {
    const missing = requirements();
    if (missing.length > 0) throw new LabError('lab', 'a machine that can run it', missing.join(' | '), '');
    removeStale();
    watch(this);
  }

  /**
   * A new namespace; returns its full name, which every other method takes. It comes with lo up, forwarding off, and
   * IPv6 that neither waits for duplicate address detection nor listens to router advertisements (`sysctl` changes that).
   */
  namespace(label: string): string {
    const name = `${PREFIX}${process.pid}-${this.id}-${label}`;
    if (this.names.has(name)) throw new LabError('lab', 'a new namespace label', `"${label}" twice`, '');
    this.names.set(name, label);
    this.newNamespaces.push(name);
    this.sketch.nodes.set(name, { title: label, devices: [] });
    const base: Record<string, number> = { 'net.ipv4.ip_forward': 0 };
    for (const scope of ['all', 'default']) {
      base[`net.ipv4.conf.${scope}.rp_filter`] = 0;
      base[`net.ipv6.conf.${scope}.accept_dad`] = 0;
      base[`net.ipv6.conf.${scope}.accept_ra`] = 0;
      base[`net.ipv6.conf.${scope}.router_solicitations`] = 0;
    }
    this.sysctl(name, base);
    this.ip(name, 'link set lo up');
    return name;
  }

  /** Something that is in the drawing but is no namespace: the router process. Returns the name for `linked`. */
  box(title: string, devices: readonly SketchDevice[] = []): string {
    this.sketch.nodes.set(title, { title, devices: [...devices] });
    return title;
  }

  /** A line in the drawing. */
  linked(a: string, b: string): void {
    this.sketch.links.push([a, b]);
  }

  /** Joins two namespaces with a veth pair and sets both ends up. */
  veth(a: LinkEnd, b: LinkEnd): void {
    const side = (end: LinkEnd) =>
      `name ${end.name}${end.mac ? ` address ${end.mac}` : ''} netns ${this.known(end.ns)}`;
    this.hostLines.push(`link add ${side(a)} type veth peer ${side(b)}`);
    this.devices.push({ ns: a.ns, name: a.name });
    this.linked(a.ns, b.ns);
    this.device(a);
    this.device(b);
  }

  /** Moves an existing device of the lab's own process (a TAP) into a namespace and configures it there. */
  move(end: LinkEnd): void {
    this.hostLines.push(`link set ${end.name} netns ${this.known(end.ns)}`);
    this.devices.push({ ns: end.ns, name: end.name });
    this.device(end);
  }

  /** Configures a device that is, or will be at apply(), in the namespace. */
  device(end: LinkEnd): void {
    if (end.offloads === false)
      this.shell(end.ns, `ethtool -K ${end.name} tx off rx off tso off gso off gro off >/dev/null`);
    if (end.mac) this.ip(end.ns, `link set ${end.name} address ${end.mac}`);
    if (end.mtu) this.ip(end.ns, `link set ${end.name} mtu ${end.mtu}`);
    if (end.up !== false) this.ip(end.ns, `link set ${end.name} up`);
    for (const address of end.addresses ?? [])
      this.ip(end.ns, `addr add ${address} dev ${end.name}${address.includes(':') ? ' nodad' : ''}`);
    this.sketch.nodes.get(end.ns)?.devices.push({ name: end.name, addresses: end.addresses ?? [] });
  }

  /** `to` is `default`, or a prefix; IPv6 by its colons, or by those of `via`. */
  route(ns: string, to: string, via: string, device?: string): void {
    const prefix = to !== 'default' ? to : via.includes(':') ? '::/0' : '0.0.0.0/0';
    this.ip(ns, `route replace ${prefix} via ${via}${device ? ` dev ${device}` : ''}`);
  }

  /** A static neighbour: no ARP and no ND for it. */
  neighbour(ns: string, device: string, address: string, mac: string): void {
    this.ip(ns, `neigh replace ${address} lladdr ${mac} dev ${device} nud permanent`);
  }

  /** Sysctls by their dotted names, or as a path below /proc/sys when a device's name has a dot in it. */
  sysctl(ns: string, values: Readonly<Record<string, number | string>>): void {
    for (const [key, value] of Object.entries(values)) {
      const path = key.includes('/') ? key : key.replaceAll('.', '/');
      // What names a device waits until there are links; everything else is set before them, so that they inherit it.
      const ofDevice = /\/(conf|neigh)\/(?!all\/|default\/)/.test(path);
      push(ofDevice ? this.shellLines : this.defaults, this.known(ns), `echo '${value}' > /proc/sys/${path}`);
    }
  }

  /** Queues a line of iproute2 (without `ip`) for the namespace. */
  ip(ns: string, line: string): void {
    push(this.ipLines, this.known(ns), line);
  }

  /** Queues a shell line for the namespace; it runs before the queued `ip` lines. */
  shell(ns: string, line: string): void {
    push(this.shellLines, this.known(ns), line);
  }

  /**
   * Carries out what is queued: namespaces, base settings, links, shell lines, `ip` lines. On failure everything of
   * this lab is taken down before the LabError is thrown.
   */
  apply(): void {
    if (!this.open) throw new LabError('lab', 'an open lab', 'one that is closed', 'make a new Lab');
    try {
      if (this.newNamespaces.length > 0) {
        const fresh = this.newNamespaces.splice(0);
        this.made.push(...fresh); // before they exist: a batch that fails half-way is still undone
        tool('lab namespaces', 'ip', ['-batch', '-'], fresh.map((ns) => `netns add ${ns}`).join('\n'));
      }
      this.flushShell(this.defaults);
      if (this.hostLines.length > 0) tool('lab links', 'ip', ['-batch', '-'], this.hostLines.splice(0).join('\n'));
      this.flushShell(this.shellLines);
      for (const [ns, lines] of this.ipLines) tool(this.where(ns), 'ip', ['-n', ns, '-batch', '-'], lines.join('\n'));
      this.ipLines.clear();
    } catch (error) {
      this.close();
      throw error;
    }
  }

  private flushShell(queue: Map<string, string[]>): void {
    for (const [ns, lines] of queue)
      tool(this.where(ns), 'ip', ['netns', 'exec', ns, 'sh', '-e', '-s'], lines.join('\n'));
    queue.clear();
  }

  /**
   * Runs a program in a namespace ('' : the lab's own) to its end. Rejects with LabError when it fails or takes too
   * long, unless `check: false`.
   */
  run(ns: string, command: string, args: readonly string[] = [], options: RunOptions = {}): Promise<RunResult> {
    return runProgram(this.where(ns), this.inside(ns, command, args), options, this.running);
  }

  /** The same, synchronously: for set-up, never while this process is also the router. */
  runSync(ns: string, command: string, args: readonly string[] = [], options: RunOptions = {}): RunResult {
    return runProgramSync(this.where(ns), this.inside(ns, command, args), options);
  }

  /** Starts a program in the background; it is ended by close() at the latest. */
  spawn(
    ns: string,
    command: string,
    args: readonly string[] = [],
    options: { env?: Record<string, string> } = {},
  ): LabProcess {
    const [file, ...all] = this.inside(ns, command, args);
    const child = background(file, all, options.env ?? {}, { ns, command: [command, ...args].join(' ') });
    this.processes.add(child);
    void child.exited.then(() => this.processes.delete(child));
    return child;
  }

  /** Waits until something listens on a TCP or UDP port of the namespace (any address, either family). */
  async listening(ns: string, port: number, proto: 'tcp' | 'udp' = 'tcp', timeout = 20_000): Promise<void> {
    const inode = statSync(`/run/netns/${this.known(ns)}`).ino;
    const suffix = `:${port.toString(16).toUpperCase().padStart(4, '0')}`;
    const state = proto === 'tcp' ? '0A' : '07';
    await waitFor(
      `a program that listens on ${proto} port ${port} in ${this.names.get(ns)}`,
      async () => {
        const tables: string[] = [];
        // A process that is in the namespace shows its tables without another program being started.
        const witness = [...this.processes].find((p) => p.running() && netnsOf(p.pid) === inode);
        if (witness) for (const t of [proto, `${proto}6`]) tables.push(readTable(witness.pid, t));
        else tables.push((await this.run(ns, 'cat', [`/proc/net/${proto}`, `/proc/net/${proto}6`])).stdout);
        return tables.some((table) =>
          table.split('\n').some((line) => {
            const [, local, , st] = line.trim().split(/\s+/);
            return local?.endsWith(suffix) && st === state;
          }),
        );
      },
      {
        timeout,
        every: 10,
        detail: () =>
          [...this.processes]
            .filter((p) => p.ns === ns)
            .map((p) => p.stderr())
            .join(''),
      },
    );
  }

  /** Takes everything down: processes, devices, namespaces. Synchronous; may be called again; never throws. */
  close(): void {
    if (!this.open) return;
    this.open = false;
    for (const p of this.processes) killQuietly(p.pid, 'SIGKILL', true);
    for (const pid of this.running) killQuietly(pid, 'SIGKILL', true);
    const pids = [...this.processes].map((p) => p.pid).concat([...this.running]);
    for (let n = 0; n < 500 && !pids.every(isGone); n++) pause(2);
    this.processes.clear();
    // A veth end deleted here is gone at once on both sides; the kernel empties a deleted namespace later, by itself.
    const existing = new Set(namespacesNow());
    const byNamespace = new Map<string, string[]>();
    for (const d of this.devices) if (existing.has(d.ns)) push(byNamespace, d.ns, `link del ${d.name}`);
    const options = { encoding: 'utf8' as const, timeout: 30_000 };
    for (const [ns, lines] of byNamespace)
      spawnSync('ip', ['-force', '-n', ns, '-batch', '-'], { ...options, input: lines.join('\n') });
    const dying = this.made.filter((ns) => existing.has(ns)).map((ns) => `netns del ${ns}`);
    if (dying.length > 0) spawnSync('ip', ['-force', '-batch', '-'], { ...options, input: dying.join('\n') });
    this.made = [];
    unwatch(this);
  }

  /** `using lab = new Lab()` closes it at the end of the block. */
  [Symbol.dispose](): void {
    this.close();
  }

  private known(ns: string): string {
    if (!this.names.has(ns))
      throw new LabError('lab', 'a namespace of this lab', `"${ns}"`, 'use what namespace() returned');
    return ns;
  }

  private inside(ns: string, command: string, args: readonly string[]): string[] {
    return ns === '' ? [command, ...args] : ['ip', 'netns', 'exec', this.known(ns), command, ...args];
  }

  private where(ns: string): string {
    return `lab ${this.names.get(ns) ?? 'host'}`;
  }
}

function push(map: Map<string, string[]>, key: string, line: string): void {
  const lines = map.get(key);
  if (lines) lines.push(line);
  else map.set(key, [line]);
}

/** A table of /proc/net as a process sees it; '' when that has just ended. */
function readTable(pid: number, table: string): string {
  try {
    return readFileSync(`/proc/${pid}/net/${table}`, 'latin1');
  } catch {
    return '';
  }
}

function netnsOf(pid: number): number {
  try {
    return statSync(`/proc/${pid}/ns/net`).ino;
  } catch {
    return -1;
  }
}
