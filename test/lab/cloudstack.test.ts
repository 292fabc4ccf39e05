/**
 * A cloud's pod as the CloudStack design for IPv6 has it: instances on one link with a /64, each with prefixes of /60 out of a
 * /40 delegated to it, and nobody believed who only says that a prefix is his.
 *
 *   one ─┐                                                              one, two: configured, dhcp6c asks for a prefix
 *   two ─┼─ a bridge ── pod [sluice] dc ── data centre (Kea, a host)    three: nobody knows it
 *   three┘
 *
 * In one form Sluice is the relay and Kea knows instances by the MAC in the remote-id option, in the other Sluice delegates
 * itself and knows them by DUID-LL. All programs are other people's: Kea, WIDE's dhcp6c, the kernel, ping; tshark reads it.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { askShow } from '../../controlplane/api/client.ts';
import { Lab, type LabProcess, waitFor } from '../../controlplane/lab/namespace.ts';
import { recordDhcp6, withoutRepeats } from './dhcp6-record.ts';
import { labReady } from './need.ts';

const MAIN = fileURLToPath(new URL('../../dist/controlplane/cli/main.js', import.meta.url));
const PROGRAMS = ['kea-dhcp6', 'dhcp6c', 'tshark', 'tcpdump', 'ping', 'ethtool'];

const INSTANCES = ['one', 'two', 'three'];
const macOf = (instance: string) => `52:54:00:00:00:0${INSTANCES.indexOf(instance) + 1}`;
/** fe80::/64 with the EUI-64 identifier of the MAC. */
const linkLocalOf = (instance: string) => `fe80::5054:ff:fe00:${INSTANCES.indexOf(instance) + 1}`;
const PREFIXES: Readonly<Record<string, string>> = { one: '2001:db8:fa00:10::/60', two: '2001:db8:fa00:20::/60' };
const OUTSIDE = '2001:db8:dc::100';
/** Seconds that a lease lasts: short, so that the end of one can be seen. */
const VALID = 12;

describe.skipIf(!labReady(PROGRAMS, { tun: true }))('CloudStack: /60s of a /40 for instances', () => {
  let lab: Lab;
  let folder = '';
  let pod = '';
  let centre = '';
  let router: LabProcess;
  const spaces: Record<string, string> = {};

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'sluice-cloud-'));
  });
  afterEach(() => {
    lab?.close();
    rmSync(folder, { recursive: true, force: true });
  });

  /** @param dhcp6 of the port `pod`; @param more sections of the configuration */
  async function start(dhcp6: string, more: string): Promise<void> {
    lab = new Lab();
    const host = lab.namespace('router');
    pod = lab.namespace('pod');
    centre = lab.namespace('centre');
    lab.sysctl(pod, { 'net.ipv6.conf.default.disable_ipv6': 1 });
    lab.ip(pod, 'link add br0 type bridge mcast_snooping 0');
    lab.ip(pod, 'link set br0 up');
    for (const instance of INSTANCES) {
      spaces[instance] = lab.namespace(instance);
      // As an instance has it: SLAAC from the pod's /64.
      const settings: Record<string, number> = {};
      for (const scope of ['all', 'default']) {
        settings[`net.ipv6.conf.${scope}.accept_ra`] = 2;
        settings[`net.ipv6.conf.${scope}.router_solicitations`] = 3;
      }
      lab.sysctl(spaces[instance], settings);
      const end = { ns: spaces[instance], name: 'eth0', mac: macOf(instance), up: false, offloads: false };
      lab.veth(end, { ns: pod, name: `to-${instance}` });
      lab.ip(pod, `link set to-${instance} master br0`);
      // What an instance gives a prefix to: a network of containers.
      lab.ip(spaces[instance], 'link add inside type veth peer name inside2');
      lab.ip(spaces[instance], 'link set inside up');
    }
    lab.apply();
    const file = join(folder, 'router.yaml');
    writeFileSync(
      file,
      `ports:
  pod: { kind: tap, ifname: cs-pod, zone: pod, mac: "02:00:00:00:c5:01", addresses: "2001:db8:0:1::1/64", source-check: true, ra: {}, dhcp6: ${dhcp6} }
  dc: { kind: tap, ifname: cs-dc, zone: dc, mac: "02:00:00:00:c5:02", addresses: "2001:db8:dc::1/64" }
routes: [{ to: "::/0", via: "${OUTSIDE}" }]
zones: { pod: { forward: accept, input: accept }, dc: { forward: accept, input: accept } }
control: { socket: "${join(folder, 'control.sock')}" }
workers: 1
${more}`,
    );
    router = lab.spawn(host, process.execPath, [MAIN, 'run', file]);
    await waitFor('the router to run', () => /running/.test(router.stdout() + router.stderr()) || !router.running(), {
      timeout: 60_000,
    });
    expect(router.running(), router.stderr()).toBe(true);
    lab.runSync(host, 'ip', ['link', 'set', 'cs-pod', 'netns', pod]);
    lab.runSync(host, 'ip', ['link', 'set', 'cs-dc', 'netns', centre]);
    lab.ip(pod, 'link set cs-pod master br0');
    lab.ip(pod, 'link set cs-pod up');
    lab.device({ ns: centre, name: 'cs-dc', offloads: false, addresses: [`2001:db8:dc::547/64`, `${OUTSIDE}/64`] });
    // The /40 and the pod's /64 are routed to the router, once and for all.
    for (const to of ['2001:db8:fa00::/40', '2001:db8:0:1::/64']) lab.route(centre, to, '2001:db8:dc::1');
    for (const instance of INSTANCES) lab.ip(spaces[instance], 'link set eth0 up');
    lab.apply();
    await waitFor('SLAAC on the instances', () =>
      INSTANCES.every((instance) => addresses(instance).includes('2001:db8:0:1:5054:')),
    );
  }

  const addresses = (instance: string) => lab.runSync(spaces[instance], 'ip', ['-6', 'addr']).stdout;

  const show = async (what: string): Promise<string> => (await askShow(join(folder, 'control.sock'), what)).text;
  /** Who has which prefix, as the router's routes tell. */
  const routes = async (): Promise<string[]> =>
    (await show('route'))
      .split('\n')
      .filter((line) => line.includes('proto dhcp'))
      .sort();
  const routeOf = (instance: string) => `${PREFIXES[instance]} via ${linkLocalOf(instance)} dev pod proto dhcp`;

  /** dhcp6c on an instance, with the DUID-LL of its MAC in a file of its own: `ip netns exec` gives a mount namespace. */
  function client(instance: string): LabProcess {
    const config = join(folder, `${instance}.conf`);
    const association = `id-assoc pd 1 { prefix-interface inside { sla-id 1; sla-len 4; }; };`;
    writeFileSync(config, `interface eth0 { send ia-pd 1; };\n${association}\n`);
    const duid = `00 03 00 01 ${macOf(instance).replaceAll(':', ' ')}`
      .split(' ')
      .map((byte) => `\\0${Number.parseInt(byte, 16).toString(8)}`);
    const own = `mount -t tmpfs none /var/lib/dhcpv6 && printf '%b' '\\012\\0${duid.join('')}' > /var/lib/dhcpv6/dhcp6c_duid`;
    const pid = join(folder, `${instance}.pid`);
    return lab.spawn(spaces[instance], 'sh', ['-c', `${own}; exec dhcp6c -f -D -c ${config} -p ${pid} eth0`]);
  }

  const inside = (instance: string) => /2001:db8:fa00:[0-9a-f]+:[0-9a-f:]+/.exec(addresses(instance))?.[0] ?? '';
  const ping = (instance: string, source: string) =>
    lab.run(spaces[instance], 'ping', ['-n', '-c1', '-W4', '-I', source, OUTSIDE], { check: false });
  const spoofed = async () => Number(/IP_RPFILTER\D+(\d+)/.exec(await show('drops'))?.[1] ?? 0);

  /** Both have their prefixes and reach the world with them; a source that is another's, or nobody's, does not. */
  async function bothUseTheirs(): Promise<void> {
    await waitFor('both routes', async () => (await routes()).length === 2, {
      timeout: 30_000,
      detail: () => router.stderr(),
    });
    expect(await routes()).toEqual([routeOf('one'), routeOf('two')]);
    for (const instance of ['one', 'two']) {
      await waitFor(`dhcp6c to number ${instance}`, () => inside(instance) !== '');
      expect(inside(instance).startsWith(PREFIXES[instance].replace('0::/60', '1:'))).toBe(true);
      expect((await ping(instance, inside(instance))).status).toBe(0);
    }
    const stolen = [inside('two'), '2001:db8:fa00:70::1'];
    const before = await spoofed();
    for (const source of stolen) lab.ip(spaces.one, `addr add ${source}/128 dev lo nodad`);
    lab.apply();
    for (const done of await Promise.all(stolen.map((source) => ping('one', source)))) expect(done.status).toBe(1);
    expect(await spoofed()).toBe(before + 2);
  }

  it('Sluice as relay, Kea knows the MAC of the remote-id', { timeout: 180_000 }, async () => {
    await start('{ relay: { to: "2001:db8:dc::547", enterprise: 0 } }', '');
    const stop = await recordDhcp6(lab, centre, 'cs-dc', folder);
    const reservations = ['one', 'two'].map((instance) => ({
      'hw-address': macOf(instance),
      prefixes: [PREFIXES[instance]],
    }));
    const config = {
      Dhcp6: {
        'interfaces-config': { interfaces: ['cs-dc/2001:db8:dc::547'] },
        'server-id': { type: 'EN', 'enterprise-id': 32473, identifier: '0102', persist: false },
        'lease-database': { type: 'memfile', persist: false },
        'mac-sources': ['remote-id'],
        'host-reservation-identifiers': ['hw-address'],
        // The client makes its DUID itself; who is not in the list gets silence.
        'client-classes': [{ name: 'DROP', test: "member('UNKNOWN')" }],
        'preferred-lifetime': VALID - 2,
        'valid-lifetime': VALID,
        subnet6: [{ id: 1, subnet: '2001:db8:0:1::/64', 'pd-pools': [], reservations }],
        loggers: [{ name: 'kea-dhcp6', severity: 'INFO', output_options: [{ output: 'stdout' }] }],
      },
    };
    writeFileSync(join(folder, 'kea.json'), JSON.stringify(config));
    mkdirSync(join(folder, 'kea'));
    const env = { KEA_PIDFILE_DIR: join(folder, 'kea'), KEA_LOCKFILE_DIR: 'none' };
    const kea = lab.spawn(centre, 'kea-dhcp6', ['-c', join(folder, 'kea.json')], { env });
    await waitFor('Kea to start', () => kea.stdout().includes('DHCP6_STARTED') || !kea.running(), {
      detail: () => kea.stdout() + kea.stderr(),
    });
    const clients = Object.fromEntries(INSTANCES.map((instance) => [instance, client(instance)]));
    await bothUseTheirs();
    // Released, the route goes with the message; not renewed any more, at its end.
    await clients.one.stop('SIGTERM', 8000);
    await waitFor('the route of one to go', async () => (await routes()).join() === routeOf('two'), {
      detail: () => router.stderr(),
    });
    await clients.two.stop('SIGKILL');
    await waitFor('the route of two to end', async () => (await routes()).length === 0, {
      timeout: (VALID + 30) * 1000,
    });

    const messages = await stop((names) => names.some((name) => name.includes('RELEASE')));
    expect(messages.every(({ name }) => name.startsWith('RELAY-'))).toBe(true);
    const of = (instance: string) => withoutRepeats(messages.filter(({ peers }) => peers[0] === linkLocalOf(instance)));
    const names = of('one').map(({ name }) => name);
    expect(names.slice(0, 4)).toEqual([
      'RELAY-FORW(SOLICIT)',
      'RELAY-REPL(ADVERTISE)',
      'RELAY-FORW(REQUEST)',
      'RELAY-REPL(REPLY)',
    ]);
    expect(names).toContain('RELAY-FORW(RELEASE)');
    for (const message of messages) {
      expect([message.links, message.hops, message.ports]).toEqual([['2001:db8:0:1::1'], [0], '547>547']);
      if (message.name.startsWith('RELAY-FORW'))
        expect(message.options.slice(0, 2)).toEqual(['interface-id', 'remote-id']);
    }
    expect(of('one')[3].prefixes).toEqual([PREFIXES.one]);
    // Three asks, is relayed, and nobody answers.
    expect(new Set(of('three').map(({ name }) => name))).toEqual(new Set(['RELAY-FORW(SOLICIT)']));
  });

  it('Sluice as delegating router, knows the DUID-LL', { timeout: 180_000 }, async () => {
    const known = ['one', 'two'].map(
      (instance) =>
        `    - { duid: "00:03:00:01:${macOf(instance)}", prefixes: "${PREFIXES[instance]}", name: ${instance} }`,
    );
    await start(
      `{ server: { delegate: customers, clients: known, preferred: ${VALID}, valid: ${VALID} } }`,
      `delegation:
  file: "${join(folder, 'leases6')}"
  pools: { customers: { prefix: "2001:db8:fa00::/40", length: 60 } }
  clients:
${known.join('\n')}
`,
    );
    const stop = await recordDhcp6(lab, pod, 'cs-pod', folder);
    const clients = Object.fromEntries(INSTANCES.map((instance) => [instance, client(instance)]));
    await bothUseTheirs();
    await clients.one.stop('SIGTERM', 8000);
    await waitFor('the route of one to go', async () => (await routes()).join() === routeOf('two'), {
      detail: () => router.stderr(),
    });
    await clients.two.stop('SIGKILL');
    await waitFor('the route of two to end', async () => (await routes()).length === 0, {
      timeout: (VALID + 30) * 1000,
    });

    const messages = await stop((names) => names.includes('RELEASE'));
    const duidOf = (instance: string) => `00030001${macOf(instance).replaceAll(':', '')}`;
    const of = (instance: string) => withoutRepeats(messages.filter((m) => m.client === duidOf(instance)));
    const names = of('one').map(({ name }) => name);
    expect(names.slice(0, 4)).toEqual(['SOLICIT', 'ADVERTISE', 'REQUEST', 'REPLY']);
    expect(names.slice(-2)).toEqual(['RELEASE', 'REPLY']);
    expect(of('one')[3].prefixes).toEqual([PREFIXES.one]);
    expect(of('two')[3].prefixes).toEqual([PREFIXES.two]);
    expect(new Set(of('three').map(({ name }) => name))).toEqual(new Set(['SOLICIT']));
  });
});
