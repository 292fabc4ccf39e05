/**
 * DHCPv6 with real programs: our client against Kea and WIDE's dhcp6s, WIDE's dhcp6c and perfdhcp against our server, our
 * LDRA between dhcp6c and Kea; every message read by tshark's dissector. Relays are in cloudstack.test.ts.
 *
 *   isp namespace ── wan [sluice] lan ── customer namespace
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, it } from 'vitest';
import { askShow } from '../../controlplane/api/client.ts';
import { Lab, type LabProcess, waitFor } from '../../controlplane/lab/namespace.ts';
import { recordDhcp6, withoutRepeats } from './dhcp6-record.ts';
import { labReady } from './need.ts';

const MAIN = fileURLToPath(new URL('../../dist/controlplane/cli/main.js', import.meta.url));
const PROGRAMS = ['ethtool', 'kea-dhcp6', 'perfdhcp', 'dhcp6c', 'dhcp6s', 'tshark', 'tcpdump'];

interface Dhcp6Shown {
  clients: { state: string; leases: { prefix: string }[]; dns: string[] }[];
  leases: { client: string; prefix: string }[];
  faults: Record<string, number>;
}

describe.skipIf(!labReady(PROGRAMS, { tun: true }))('DHCPv6 with real programs', () => {
  let lab: Lab;
  let folder = '';
  let isp = '';
  let customer = '';
  let host = '';
  let router: LabProcess;

  afterEach(() => {
    lab?.close();
    rmSync(folder, { recursive: true, force: true });
  });

  async function start(dhcp6: { wan?: string; lan?: string; more?: string }): Promise<void> {
    folder = mkdtempSync(join(tmpdir(), 'sluice-dhcp6-'));
    lab = new Lab();
    isp = lab.namespace('isp');
    customer = lab.namespace('customer');
    host = lab.namespace('router');
    lab.apply();
    await run(dhcp6);
  }

  /** Starts the router, and moves its devices to where a cable would lead. */
  async function run(dhcp6: { wan?: string; lan?: string; more?: string }): Promise<void> {
    const file = join(folder, 'router.yaml');
    writeFileSync(
      file,
      `ports:
  wan: { kind: tap, ifname: d6-wan, zone: wan, mac: "02:00:00:00:06:02"${dhcp6.wan ?? ''} }
  lan: { kind: tap, ifname: d6-lan, zone: lan, mac: "02:00:00:00:06:01", addresses: "2001:db8:6:1::1/64"${dhcp6.lan ?? ''} }
zones: { lan: { forward: accept, input: accept }, wan: { forward: drop, input: drop } }
control: { socket: "${join(folder, 'control.sock')}" }
workers: 1
${dhcp6.more ?? ''}`,
    );
    router = lab.spawn(host, process.execPath, [MAIN, 'run', file]);
    await waitFor('the router to run', () => /running/.test(router.stdout() + router.stderr()) || !router.running(), {
      timeout: 60_000,
    });
    expect(router.running(), router.stderr()).toBe(true);
    for (const [device, ns, address] of [
      ['d6-wan', isp, '2001:db8:6:ffff::1/64'],
      ['d6-lan', customer, '2001:db8:6:1::c/64'],
    ]) {
      lab.runSync(host, 'ip', ['link', 'set', device, 'netns', ns]);
      lab.device({ ns, name: device, addresses: [address], offloads: false });
    }
    lab.apply();
  }

  const view = (what: string) => askShow(join(folder, 'control.sock'), what);
  const shown = async (): Promise<Dhcp6Shown> => (await view('dhcp6')).json as Dhcp6Shown;
  const routes = async (): Promise<string> => (await view('route')).text;

  /** Kea with one subnet on its device; `more` over the settings of all. */
  function startKea(more: object): LabProcess {
    const config = {
      'interfaces-config': { interfaces: ['d6-wan'] },
      'server-id': { type: 'EN', 'enterprise-id': 32473, identifier: '0102', persist: false },
      'lease-database': { type: 'memfile', persist: false },
      'preferred-lifetime': 40,
      'valid-lifetime': 80,
      'option-data': [{ name: 'dns-servers', data: '2001:db8::53' }],
      subnet6: [
        {
          id: 1,
          subnet: '2001:db8:6:ffff::/64',
          interface: 'd6-wan',
          pools: [{ pool: '2001:db8:6:ffff::100-2001:db8:6:ffff::1ff' }],
          'pd-pools': [
            { prefix: '2001:db8:8000::', 'prefix-len': 40, 'delegated-len': 56 },
            { prefix: '2001:db8:9000::', 'prefix-len': 44, 'delegated-len': 60 },
          ],
        },
      ],
      loggers: [{ name: 'kea-dhcp6', severity: 'INFO', output_options: [{ output: 'stdout' }] }],
      ...more,
    };
    mkdirSync(join(folder, 'kea'), { recursive: true });
    writeFileSync(join(folder, 'kea.json'), JSON.stringify({ Dhcp6: config }));
    const env = { KEA_PIDFILE_DIR: join(folder, 'kea'), KEA_LOCKFILE_DIR: join(folder, 'kea') };
    return lab.spawn(isp, 'kea-dhcp6', ['-c', join(folder, 'kea.json')], { env });
  }

  const record = (ns: string, device: string) => recordDhcp6(lab, ns, device, folder);

  /** Client, bound, with a prefix; what the ISP's program must be told differs. */
  async function bound(server: LabProcess): Promise<Dhcp6Shown['clients'][0]> {
    await waitFor('the client to be bound', async () => (await shown()).clients[0].state === 'bound', {
      timeout: 60_000,
      detail: () => server.stdout() + server.stderr(),
    });
    return (await shown()).clients[0];
  }

  it('our client and Kea: an address, two prefixes, a renewal; then another server, found by a rebind', {
    timeout: 180_000,
  }, async () => {
    await start({ wan: ', dhcp6: { client: { ia-pd: [{}, { hint: "::/60" }] } }' });
    const stop = await record(isp, 'd6-wan');
    const settings = {
      'renew-timer': 3,
      'rebind-timer': 6,
      'lease-database': { type: 'memfile', name: join(folder, 'kea-leases.csv') },
    };
    const kea = startKea(settings);
    const client = await bound(kea);
    const prefixes = client.leases.map(({ prefix }) => prefix).sort();
    expect(prefixes.length).toBe(3);
    expect(prefixes[0]).toMatch(/^2001:db8:6:ffff::1[0-9a-f]{2}\/128$/);
    for (const prefix of prefixes.slice(1)) expect(await routes()).toContain(`unreachable ${prefix} proto dhcp`);
    expect(client.dns).toEqual(['2001:db8::53']);
    await waitFor('Kea to see a renewal', () => kea.stdout().includes('DHCP6_PD_LEASE_RENEW'), { timeout: 30_000 });
    // The same leases, but another server: it has no business with a Renew to the first, and answers a Rebind.
    await kea.stop('SIGTERM');
    const other = { type: 'EN', 'enterprise-id': 32473, identifier: '0304', persist: false };
    startKea({ ...settings, 'server-id': other });
    const messages = await stop((names) => names.includes('REBIND') && names.at(-1) === 'REPLY');
    expect((await shown()).clients[0].leases.map(({ prefix }) => prefix).sort()).toEqual(prefixes);
    const four = withoutRepeats(messages).slice(0, 6);
    expect(four.map(({ name }) => name)).toEqual(['SOLICIT', 'ADVERTISE', 'REQUEST', 'REPLY', 'RENEW', 'REPLY']);
    const [, advertise, request, reply, renew, renewed] = four;
    expect([request.server, request.addresses, request.prefixes]).toEqual([
      advertise.server,
      advertise.addresses,
      advertise.prefixes,
    ]);
    expect([...reply.prefixes, ...reply.addresses.map((address) => `${address}/128`)].sort()).toEqual(prefixes);
    expect([reply.t1, reply.t2]).toEqual([
      [3, 3, 3],
      [6, 6, 6],
    ]);
    expect([renew.server, renew.prefixes]).toEqual([reply.server, reply.prefixes]);
    expect(renewed.xid).toBe(renew.xid);
    const rebind = messages.find(({ name }) => name === 'REBIND')!;
    expect([rebind.server, rebind.dst, rebind.prefixes]).toEqual(['', 'ff02::1:2', reply.prefixes]);
    const rebound = messages.find(({ name, xid }) => name === 'REPLY' && xid === rebind.xid)!;
    expect(rebound.server).not.toBe(reply.server);
  });

  it("our LDRA between WIDE's dhcp6c and Kea: in the client's name, and back to it", async () => {
    await start({ lan: ', dhcp6: { ldra: { to: wan, interface-id: "line 7", enterprise: 32473 } }' });
    const near = await record(customer, 'd6-lan');
    const far = await record(isp, 'd6-wan');
    const kea = startKea({});
    await waitFor('Kea to start', () => kea.stdout().includes('DHCP6_STARTED'));
    writeFileSync(join(folder, 'dhcp6c.conf'), 'interface d6-lan { send ia-pd 1; };\nid-assoc pd 1 { };\n');
    const pid = join(folder, 'dhcp6c.pid');
    const dhcp6c = lab.spawn(customer, 'dhcp6c', ['-f', '-D', '-c', join(folder, 'dhcp6c.conf'), '-p', pid, 'd6-lan']);
    await waitFor('dhcp6c to have a prefix', () => dhcp6c.stderr().includes('create a prefix'), {
      timeout: 60_000,
      detail: () => kea.stdout() + dhcp6c.stderr(),
    });
    const inside = withoutRepeats(await near((names) => names.at(-1) === 'REPLY'));
    const outside = withoutRepeats(await far((names) => names.at(-1) === 'RELAY-REPL(REPLY)'));
    const names = ['SOLICIT', 'ADVERTISE', 'REQUEST', 'REPLY'];
    expect(inside.map(({ name }) => name)).toEqual(names);
    expect(outside.map(({ name }) => name)).toEqual(
      names.map((name, n) => `${n % 2 === 0 ? 'RELAY-FORW' : 'RELAY-REPL'}(${name})`),
    );
    const client = inside[0].src;
    for (const [n, message] of outside.entries()) {
      expect([message.links, message.peers, message.hops, message.ports]).toEqual([['::'], [client], [0], '547>547']);
      expect([message.src, message.dst][n % 2]).toBe(client);
      expect(Buffer.from(message.interfaceIds[0], 'hex').toString()).toBe('line 7');
      expect(message.xid).toBe(inside[n].xid);
    }
    expect(outside[0].options.slice(0, 3)).toEqual(['interface-id', 'remote-id', 'relayed']);
    // What Kea says comes to the client from Kea's own address, as if nobody were between them.
    expect(inside[3].src).toBe(outside[3].src);
    expect(inside[3].prefixes).toEqual(outside[3].prefixes);
    await dhcp6c.stop('SIGTERM', 8000);
  });

  it("our client and WIDE's dhcp6s, rapid commit", async () => {
    await start({ wan: ', dhcp6: { client: { ia-na: false, ia-pd: [{}], rapid-commit: true } }' });
    const stop = await record(isp, 'd6-wan');
    writeFileSync(
      join(folder, 'dhcp6s.conf'),
      `option domain-name-servers 2001:db8::53;
interface d6-wan { allow rapid-commit; };
host cpe { duid 00:03:00:01:02:00:00:00:06:02; prefix 2001:db8:7000::/56 600; };
`,
    );
    const dhcp6s = lab.spawn(isp, 'dhcp6s', [
      '-f',
      '-D',
      '-c',
      join(folder, 'dhcp6s.conf'),
      '-P',
      join(folder, 'dhcp6s.pid'),
      'd6-wan',
    ]);
    const client = await bound(dhcp6s);
    expect(client.leases.map(({ prefix }) => prefix)).toEqual(['2001:db8:7000::/56']);
    const [solicit, reply] = (await stop((names) => names.at(-1) === 'REPLY')).slice(-2);
    expect([solicit.name, reply.name]).toEqual(['SOLICIT', 'REPLY']);
    expect([solicit.options.includes('rapid-commit'), reply.options.includes('rapid-commit')]).toEqual([true, true]);
    expect([reply.xid, reply.prefixes]).toEqual([solicit.xid, ['2001:db8:7000::/56']]);
  });

  it("WIDE's dhcp6c and our server: address, prefix, route, release", async () => {
    await start({
      lan: ', dhcp6: { server: { addresses: "2001:db8:6:1::1000-2001:db8:6:1::1fff", delegate: customers, dns: "2001:db8::53" } }',
      more: 'delegation: { pools: { customers: { prefix: "2001:db8:8000::/40", length: 60 } } }\n',
    });
    const stop = await record(customer, 'd6-lan');
    lab.runSync(customer, 'ip', ['link', 'add', 'inside', 'type', 'veth', 'peer', 'name', 'inside2']);
    lab.runSync(customer, 'ip', ['link', 'set', 'inside', 'up']);
    writeFileSync(
      join(folder, 'dhcp6c.conf'),
      `interface d6-lan { send ia-pd 1; send ia-na 10; request domain-name-servers; };
id-assoc na 10 { };
id-assoc pd 1 { prefix-interface inside { sla-id 1; sla-len 4; }; };
`,
    );
    const dhcp6c = lab.spawn(customer, 'dhcp6c', [
      '-f',
      '-D',
      '-c',
      join(folder, 'dhcp6c.conf'),
      '-p',
      join(folder, 'dhcp6c.pid'),
      'd6-lan',
    ]);
    await waitFor('both leases', async () => (await shown()).leases.length === 2, {
      timeout: 60_000,
      detail: () => dhcp6c.stderr(),
    });
    const prefix = (await shown()).leases.find((lease) => lease.prefix.endsWith('/60'))!.prefix;
    expect(await routes()).toMatch(new RegExp(`${prefix} via fe80::[0-9a-f:]+ dev lan proto dhcp`));
    const addresses = () => lab.runSync(customer, 'ip', ['-6', 'addr']).stdout;
    await waitFor('dhcp6c to number its inside', () => /2001:db8:80[0-9a-f]{2}:[0-9a-f]+1:/.test(addresses()), {
      detail: addresses,
    });
    expect(addresses()).toMatch(/2001:db8:6:1::1[0-9a-f]{3}\/128/);
    await dhcp6c.stop('SIGTERM', 8000);
    await waitFor('the release', async () => (await shown()).leases.length === 0, {
      timeout: 30_000,
      detail: () => dhcp6c.stderr(),
    });
    expect(await routes()).not.toContain(prefix);
    const messages = withoutRepeats(
      await stop((names) => names.slice(-4).sort().join() === 'RELEASE,RELEASE,REPLY,REPLY'),
    );
    expect(messages.map(({ name }) => name).slice(0, 4)).toEqual(['SOLICIT', 'ADVERTISE', 'REQUEST', 'REPLY']);
    const [, advertise, request, reply] = messages;
    expect(request.server).toBe(advertise.server);
    expect([reply.prefixes, reply.xid]).toEqual([[prefix], request.xid]);
    // One release for each IA, as this client does it; each is answered with Success.
    const releases = messages.filter(({ name }) => name === 'RELEASE');
    expect(releases.flatMap(({ prefixes }) => prefixes)).toEqual([prefix]);
    for (const release of releases) {
      const answer = messages.find(({ name, xid }) => name === 'REPLY' && xid === release.xid)!;
      expect([release.server, answer.status[0]]).toEqual([reply.server, 0]);
    }
  });

  it('perfdhcp and our server: hundreds of leases, all there after kill -9', async () => {
    const dhcp6 = {
      lan: ', dhcp6: { server: { delegate: customers, preferred: 50000, valid: 80000 } }',
      more: '',
    };
    await start({});
    await router.stop('SIGKILL');
    dhcp6.more = `delegation: { file: "${join(folder, 'leases6')}", pools: { customers: { prefix: "2001:db8:8000::/40", length: 60 } } }\n`;
    await run(dhcp6);
    await waitFor(
      'the link',
      async () =>
        (await lab.run(customer, 'ping', ['-n', '-c1', '-W1', '2001:db8:6:1::1'], { check: false })).status === 0,
    );
    const args = [
      '-6',
      '-l',
      'd6-lan',
      '-e',
      'prefix-only',
      '-R',
      '500',
      '-r',
      '200',
      '-n',
      '500',
      '-W',
      '500000',
      '-s',
      '1',
    ];
    const perf = await lab.run(customer, 'perfdhcp', [...args, 'all'], { check: false, timeout: 60_000 });
    expect((await shown()).faults).toEqual({});
    expect(perf.stdout).toMatch(/received packets: [1-9]/);
    const before = (await shown()).leases.map(({ client, prefix }) => `${client} ${prefix}`).sort();
    expect(before.length).toBeGreaterThan(250);
    expect(new Set(before).size).toBe(before.length);
    await router.stop('SIGKILL');
    await run(dhcp6);
    expect((await shown()).leases.map(({ client, prefix }) => `${client} ${prefix}`).sort()).toEqual(before);
  });
});
