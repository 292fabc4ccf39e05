/**
 * `sluice demo --gateway`: a home that comes up by itself behind a provider made of real programs.
 *
 *   namespace isp                            namespace router            namespace switch      namespaces host1, host2
 *   dnsmasq   DHCP, names              ═TAP═ wan  sluice run  lan  ═TAP═ a bridge ─── veth ─── kernel's SLAAC, dhcpcd
 *   kea-dhcp6 addresses, prefixes            no address but 192.168.1.1
 *   radvd     router advertisements
 *   a web server on two addresses behind it
 *
 * Nothing but 192.168.1.1/24 is configured: everything else the router and the hosts learn. Then the provider renumbers: its
 * DHCPv6 server starts anew with another pool, and the next renewal brings the home another prefix.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { draw } from '../lab/draw.ts';
import { startHttpServer } from '../lab/http.ts';
import { type Lab, type LabProcess, requirements, waitFor } from '../lab/namespace.ts';
import { packageRoot } from '../package-root.ts';
import { type Check, CheckError } from './check.ts';
import { type DemoLab, openLab, plug, startRouter, writeConfig } from './lab.ts';

/** Programs of the provider and of the hosts. */
export const GATEWAY_PROGRAMS = ['dnsmasq', 'kea-dhcp6', 'radvd', 'dhcpcd', 'ping', 'curl', 'dig'];

export const WEB4 = '198.51.100.80';
export const WEB6 = '2001:db8:80::80';
export const WEB_NAME = 'web.example';
export const FIRST_PREFIX = '2001:db8:100::';
export const SECOND_PREFIX = '2001:db8:200::';
/** fe80::/64 with the EUI-64 identifier of the WAN's MAC (examples/gateway.yaml): where what was delegated is sent. */
const WAN_LINK_LOCAL = 'fe80::ff:fe00:102';
/** Renewals every few seconds, so that renumbering can be watched; a provider says hours. */
const RENEW = 8;

export interface GatewayWorld {
  readonly lab: Lab;
  readonly isp: string;
  readonly host1: string;
  readonly host2: string;
  readonly router: LabProcess;
  readonly socket: string;
  readonly folder: string;
  kea: LabProcess;
  /** Milliseconds since the cables were plugged in. */
  elapsed(): number;
  close(): void;
}

/** What is missing for this demonstration, a sentence each; empty: nothing. */
export function gatewayObstacles(): string[] {
  return requirements(GATEWAY_PROGRAMS, { tun: true });
}

const RADVD = `
interface sl-wan {
  AdvSendAdvert on; AdvManagedFlag on; AdvOtherConfigFlag on;
  MinRtrAdvInterval 3; MaxRtrAdvInterval 10; AdvDefaultLifetime 1800;
  prefix 2001:db8:0:1::/64 { AdvOnLink on; AdvAutonomous off; };
};
`;

function keaConfig(prefix: string): string {
  return JSON.stringify({
    Dhcp6: {
      'interfaces-config': { interfaces: ['sl-wan'] },
      'lease-database': { type: 'memfile', persist: false },
      'server-id': { type: 'LL', htype: 1, identifier: '0200000000fe', persist: false },
      'renew-timer': RENEW,
      'rebind-timer': RENEW * 2,
      'preferred-lifetime': RENEW * 8,
      'valid-lifetime': RENEW * 10,
      'option-data': [{ name: 'dns-servers', data: '2001:db8:0:1::1' }],
      subnet6: [
        {
          id: 1,
          subnet: '2001:db8:0:1::/64',
          interface: 'sl-wan',
          pools: [{ pool: '2001:db8:0:1::1000 - 2001:db8:0:1::1fff' }],
          'pd-pools': [{ prefix, 'prefix-len': 40, 'delegated-len': 56 }],
        },
      ],
      loggers: [{ name: 'kea-dhcp6', severity: 'INFO', output_options: [{ output: 'stdout' }] }],
    },
  });
}

/** Starts kea-dhcp6 with this pool; all its files are in the folder. */
function startKea(lab: Lab, isp: string, folder: string, prefix: string): LabProcess {
  const file = join(folder, `kea-${prefix.replaceAll(':', '')}.json`);
  writeFileSync(file, keaConfig(prefix));
  const env = { KEA_PIDFILE_DIR: folder, KEA_LOCKFILE_DIR: 'none', KEA_LOGGER_DESTINATION: 'stdout' };
  return lab.spawn(isp, 'kea-dhcp6', ['-c', file], { env });
}

/** Provider up, router running, cables not yet plugged. */
async function build(opened: DemoLab, say: (text: string) => void): Promise<GatewayWorld> {
  const { lab, folder, close } = opened;
  const [isp, router, bridge, host1, host2] = ['isp', 'router', 'switch', 'host1', 'host2'].map((n) =>
    lab.namespace(n),
  );
  lab.sysctl(isp, {
    'net.ipv6.conf.all.forwarding': 1,
    'net.ipv6.conf.default.forwarding': 1,
    'net.ipv4.ip_forward': 1,
  });
  for (const host of [host1, host2]) {
    // As any host has it: detection, solicitations, advertisements believed.
    const settings: Record<string, number> = {};
    for (const scope of ['all', 'default']) {
      settings[`net.ipv6.conf.${scope}.accept_ra`] = 1;
      settings[`net.ipv6.conf.${scope}.accept_dad`] = 1;
      settings[`net.ipv6.conf.${scope}.router_solicitations`] = 3;
    }
    lab.sysctl(host, settings);
  }
  lab.ip(bridge, 'link add br0 type bridge');
  lab.ip(bridge, 'link set br0 up');
  lab.sysctl(bridge, { 'net.ipv6.conf.default.disable_ipv6': 1 });
  [host1, host2].forEach((host, n) => {
    lab.veth({ ns: host, name: 'eth0', up: false }, { ns: bridge, name: `port${n + 1}` });
    lab.ip(bridge, `link set port${n + 1} master br0`);
  });
  lab.ip(isp, `addr add ${WEB4}/32 dev lo`);
  lab.ip(isp, `addr add ${WEB6}/128 dev lo nodad`);
  lab.apply();
  say('five network namespaces');

  const { file, socket } = writeConfig(opened, readFileSync(join(packageRoot(), 'examples', 'gateway.yaml'), 'utf8'));
  const running = await startRouter(opened, router, file);
  say(`the router, process ${running.pid}: 192.168.1.1 on its LAN, and nothing else`);

  lab.linked(isp, router);
  lab.linked(router, bridge);
  plug(lab, router, { ns: isp, name: 'sl-wan', addresses: ['203.0.113.1/24', '2001:db8:0:1::1/64'] });
  for (const prefix of [FIRST_PREFIX, SECOND_PREFIX]) lab.route(isp, `${prefix}/40`, WAN_LINK_LOCAL, 'sl-wan');
  lab.apply();
  const dnsmasq = ['--keep-in-foreground', '--conf-file=/dev/null', '--user=root', '--no-resolv', '--no-hosts'];
  dnsmasq.push('--interface=sl-wan', '--bind-interfaces', '--no-ping', '--pid-file=', '--log-facility=-');
  dnsmasq.push('--dhcp-range=203.0.113.100,203.0.113.199,5m', `--dhcp-leasefile=${join(folder, 'leases')}`);
  dnsmasq.push(`--address=/${WEB_NAME}/${WEB4}`, `--address=/${WEB_NAME}/${WEB6}`);
  lab.spawn(isp, 'dnsmasq', dnsmasq);
  const radvd = join(folder, 'radvd.conf');
  writeFileSync(radvd, RADVD);
  lab.spawn(isp, 'radvd', ['-n', '-C', radvd, '-p', join(folder, 'radvd.pid'), '-m', 'stderr']);
  const kea = startKea(lab, isp, folder, FIRST_PREFIX);
  await startHttpServer(lab, isp, 80);
  say('the provider: dnsmasq, kea-dhcp6, radvd, and a web server behind them');
  plug(lab, router, { ns: bridge, name: 'sl-lan' });
  lab.ip(bridge, 'link set sl-lan master br0');
  lab.apply();
  const begin = performance.now();
  const elapsed = () => performance.now() - begin;
  for (const host of [host1, host2]) {
    lab.ip(host, 'link set eth0 up');
    lab.apply();
    // Leases and sockets of its own: `ip netns exec` gives a mount namespace. IPv6 on host1 is the kernel's alone.
    const mounts = `for d in /var/lib/dhcpcd /run/dhcpcd; do mkdir -p $d && mount -t tmpfs none $d; done`;
    const options = ['-B', '--nohook', 'resolv.conf', '--noarp', ...(host === host1 ? ['-4'] : [])];
    lab.spawn(host, 'sh', ['-c', `${mounts}; exec dhcpcd ${options.join(' ')} eth0`]);
  }
  say('two hosts, plugged in: DHCP by dhcpcd, IPv6 by the kernel on host1 and by dhcpcd on host2');
  return { lab, isp, host1, host2, router: running, socket, folder, kea, elapsed, close };
}

/** Global addresses of a host's device as `ip` tells them. */
async function addressesOf(
  world: GatewayWorld,
  host: string,
): Promise<{ local: string; deprecated: boolean; family: string }[]> {
  const done = await world.lab.run(host, 'ip', ['-j', 'addr', 'show', 'dev', 'eth0', 'scope', 'global']);
  const [device] = JSON.parse(done.stdout || '[]') as {
    addr_info?: { local: string; family: string; deprecated?: boolean; tentative?: boolean }[];
  }[];
  return (device?.addr_info ?? [])
    .filter(({ local, tentative }) => local !== undefined && tentative !== true)
    .map(({ local, family, deprecated }) => ({ local, family, deprecated: deprecated === true }));
}

/** Waits until a host has an address that is not deprecated; returns it. */
async function addressWith(world: GatewayWorld, host: string, start: string, timeout: number): Promise<string> {
  let found = '';
  await waitFor(
    `an address ${start}… on ${host}`,
    async () => {
      found = (await addressesOf(world, host)).find((a) => a.local.startsWith(start) && !a.deprecated)?.local ?? '';
      return found !== '';
    },
    { timeout, every: 200, detail: () => world.router.stderr().trim().split('\n').slice(-12).join('\n') },
  );
  return found;
}

/** Runs a program with the router as the host's resolver: /etc/resolv.conf is mounted over in its own mount namespace. */
async function asHost(world: GatewayWorld, host: string, command: string) {
  const { folder } = world;
  const file = join(folder, 'resolv.conf');
  writeFileSync(file, 'nameserver 192.168.1.1\n');
  return world.lab.run(host, 'sh', ['-c', `mount --bind ${file} /etc/resolv.conf && ${command}`], { check: false });
}

async function reaches(world: GatewayWorld, host: string, family: 4 | 6): Promise<string> {
  const target = family === 4 ? WEB4 : WEB6;
  const ping = await world.lab.run(host, 'ping', ['-n', '-c2', '-i0.2', '-W5', target], { check: false });
  if (ping.status !== 0)
    throw new CheckError(
      `${target} to answer ${host}`,
      ping.stdout.trim().split('\n').slice(-2).join(' / '),
      'see the log',
    );
  const curl = await asHost(world, host, `curl -sS -${family} --max-time 20 http://${WEB_NAME}/who`);
  if (curl.status !== 0) throw new CheckError(`http://${WEB_NAME}/who`, curl.stderr.trim(), 'is the resolver right?');
  const time = /= [\d.]+\/([\d.]+)\//.exec(ping.stdout)?.[1] ?? '?';
  return `ping ${time} ms; http://${WEB_NAME}/ by name, from ${curl.stdout.trim().split(' ')[0]}`;
}

const at = (world: GatewayWorld) => `${(world.elapsed() / 1000).toFixed(1)} s after the cables`;

export const GATEWAY_CHECKS: readonly Check<GatewayWorld>[] = [
  {
    name: 'IPv4 on the hosts',
    run: async (world) => {
      const list = [];
      for (const host of [world.host1, world.host2]) list.push(await addressWith(world, host, '192.168.1.', 20_000));
      return `${list.join(', ')} by DHCP, ${at(world)}`;
    },
  },
  {
    name: 'IPv6 on the hosts',
    run: async (world) => {
      const list = [];
      for (const host of [world.host1, world.host2])
        list.push(await addressWith(world, host, FIRST_PREFIX.slice(0, 10), 25_000));
      return `${list.join(', ')} from the delegated prefix, ${at(world)}`;
    },
  },
  { name: 'host1, IPv4', run: (world) => reaches(world, world.host1, 4) },
  { name: 'host1, IPv6', run: (world) => reaches(world, world.host1, 6) },
  { name: 'host2, IPv4', run: (world) => reaches(world, world.host2, 4) },
  { name: 'host2, IPv6', run: (world) => reaches(world, world.host2, 6) },
  {
    name: 'names over IPv6',
    run: async (world) => {
      const own = (await addressesOf(world, world.host1)).find(({ local }) => local.startsWith('fd'))?.local ?? '';
      if (own === '') throw new CheckError('a unique local address on host1', 'none', 'see the log');
      const server = `${own.split(':').slice(0, 4).join(':')}::1`;
      const dig = await world.lab.run(world.host1, 'dig', ['+short', '+time=10', `@${server}`, WEB_NAME, 'AAAA'], {
        check: false,
      });
      if (dig.stdout.trim() !== WEB6) throw new CheckError(WEB6, dig.stdout.trim() || 'nothing', 'see the log');
      return `${server} answers ${dig.stdout.trim()}`;
    },
  },
  {
    name: 'the provider renumbers',
    run: async (world) => {
      const begin = world.elapsed();
      await world.kea.stop();
      world.kea = startKea(world.lab, world.isp, world.folder, SECOND_PREFIX);
      const fresh = await addressWith(world, world.host1, SECOND_PREFIX.slice(0, 10), 30_000);
      const old = (await addressesOf(world, world.host1)).filter((a) => a.local.startsWith(FIRST_PREFIX.slice(0, 10)));
      if (old.some(({ deprecated }) => !deprecated))
        throw new CheckError('the old address deprecated', JSON.stringify(old), 'see the router advertisements');
      const seconds = ((world.elapsed() - begin) / 1000).toFixed(1);
      return `host1 has ${fresh} after ${seconds} s (renewals every ${RENEW} s), the old address is deprecated`;
    },
  },
  { name: 'host1, IPv6, renumbered', run: (world) => reaches(world, world.host1, 6) },
];

/** Lines of the router that tell how it provisioned itself. */
const STEP = /^(gateway|dhcp4|dhcp6|nd|ra): /;

/** Builds the lab, calls `run` with it, prints what the router says as it says it, and takes everything down. */
export async function withGateway(
  say: (text: string) => void,
  run: (world: GatewayWorld) => Promise<void>,
  cancelled: () => boolean,
): Promise<void> {
  say('Building the lab:');
  const world = await openLab((opened) => build(opened, (text) => say(`  ${text}`)));
  let told = 0;
  const tell = (): void => {
    const lines = world.router.stderr().split('\n');
    // The last one may not be whole.
    for (; told < lines.length - 1; told++)
      if (STEP.test(lines[told])) say(`  ${(world.elapsed() / 1000).toFixed(1).padStart(5)} s  ${lines[told]}`);
  };
  const timer = setInterval(() => {
    tell();
    if (cancelled()) world.close();
  }, 50);
  try {
    say(`\n${draw(world.lab)}\n`);
    say('What the router does by itself, with the seconds since the hosts were plugged in:');
    await run(world);
    tell();
  } finally {
    clearInterval(timer);
    world.close();
  }
}
