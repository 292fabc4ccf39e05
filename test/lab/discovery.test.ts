/**
 * Router and neighbour discovery as another's tools see it: rdisc6 and ndisc6 ask the router, and print all that it says; tcpdump
 * hears its last words.
 */
import { afterEach, describe, expect, it } from 'vitest';
import type { RaJson } from '../../controlplane/describe.ts';
import { waitFor } from '../../controlplane/lab/namespace.ts';
import { type LiveLab, startLive } from './live-lab.ts';
import { labReady } from './need.ts';

const MAC = '02:00:00:00:d5:01';
const CONFIG = `
ports:
  lan:
    kind: tap
    ifname: nd-lan
    zone: lan
    mac: "${MAC}"
    mtu: 1480
    addresses: ["2001:db8:d5:1::1/64", "2001:db8:d5:2::1/64"]
    ra:
      default: always
      other: true
      preference: high
      lifetime: 1200
      reachable-time: 30000
      retransmit-timer: 1500
      preferred: 1800
      valid: 3600
      rdnss: ["2001:db8:d5::53", "2001:db8:d5::54"]
      dnssl: [home.example, lab.example]
      routes: [{ to: "2001:db8:77::/48", preference: low, lifetime: 900 }]
zones: { lan: { forward: accept, input: accept } }
workers: 1
`;

describe.skipIf(!labReady(['rdisc6', 'ndisc6', 'tcpdump'], { tun: true }))('rdisc6, ndisc6 and tcpdump', () => {
  let live: LiveLab | undefined;
  afterEach(() => live?.close());

  it('print the advertisement and the link-layer address that are configured', { timeout: 180_000 }, async () => {
    const host = { label: 'host', device: 'nd-lan', addresses: ['2001:db8:d5:1::99/64'], via: ['2001:db8:d5:1::1'] };
    live = await startLive(CONFIG, [host]);
    const run = (command: string, ...args: string[]) =>
      live!.lab.run(live!.ns('host'), command, [...args, 'nd-lan'], { check: false });

    const { stdout: said } = await run('rdisc6', '-1', '-n', '-w', '20000');
    const lines = said.split('\n').map((line) => line.trim().replace(/\s+/g, ' '));
    const shown = (text: string) => expect(lines.find((line) => line.startsWith(text)) ?? said);
    shown('Hop limit').toMatch(/: 64 /);
    shown('Stateful address conf.').toMatch(/: No$/);
    shown('Stateful other conf.').toMatch(/: Yes$/);
    shown('Router preference').toMatch(/: high$/);
    shown('Router lifetime').toMatch(/: 1200 /);
    shown('Reachable time').toMatch(/: 30000 /);
    shown('Retransmit time').toMatch(/: 1500 /);
    shown('MTU').toMatch(/: 1480 bytes/);
    shown('Source link-layer address').toMatch(new RegExp(`: ${MAC}$`, 'i'));
    const servers = lines.filter((line) => line.startsWith('Recursive DNS server'));
    expect(servers.map((line) => line.split(' : ')[1])).toEqual(['2001:db8:d5::53', '2001:db8:d5::54']);
    shown('DNS search list :').toBe('DNS search list : home.example lab.example');
    // Both prefixes with their times, the route with its own.
    const prefixes = lines.filter((line) => line.startsWith('Prefix'));
    expect(prefixes).toEqual(['Prefix : 2001:db8:d5:1::/64', 'Prefix : 2001:db8:d5:2::/64']);
    expect(lines.filter((line) => /^Valid time : 3600 /.test(line)).length).toBe(2);
    expect(lines.filter((line) => /^Pref\. time : 1800 /.test(line)).length).toBe(2);
    shown('Route ').toBe('Route : 2001:db8:77::/48');
    expect(lines).toContain('Route preference : low');
    expect(said).toMatch(/from fe80::ff:fe00:d501/);

    for (const address of ['2001:db8:d5:1::1', 'fe80::ff:fe00:d501']) {
      const asked = await live!.lab.run(live!.ns('host'), 'ndisc6', [
        '-1',
        '-n',
        '-q',
        '-w',
        '10000',
        address,
        'nd-lan',
      ]);
      expect(asked.stdout.trim().toLowerCase()).toBe(MAC);
    }
    // Of an address that is not its own it says nothing.
    const nobody = await live!.lab.run(live!.ns('host'), 'ndisc6', ['-n', '-r', '1', '2001:db8:d5:1::77', 'nd-lan'], {
      check: false,
    });
    expect(nobody.status).not.toBe(0);
  });

  it('at SIGTERM hear three times that it is a router no more (RFC 4861 §6.2.5)', { timeout: 180_000 }, async () => {
    live = await startLive(CONFIG, [{ label: 'host', device: 'nd-lan', addresses: [], via: [] }]);
    const { lab, router } = live;
    const host = live.ns('host');
    // The router's device goes with it, and with a device what a capture on it has not read yet: a bridge stays.
    for (const step of ['link add br0 type bridge mcast_snooping 0', 'link set br0 up', 'link set nd-lan master br0'])
      lab.ip(host, step);
    lab.apply();
    const filter = 'icmp6 and ip6[40] == 134';
    const args = ['-i', 'br0', '-n', '-v', '-l', '--immediate-mode', '-Z', 'root', filter];
    const tcpdump = lab.spawn(host, 'tcpdump', args);
    await waitFor('tcpdump to listen', () => /listening/.test(tcpdump.stderr()));
    await waitFor('the first advertisement', () => /router lifetime 1200s/.test(tcpdump.stdout()), {
      timeout: 30_000,
      detail: () => tcpdump.stdout() + router.stderr(),
    });
    expect(((await live.show('ra')) as RaJson).senders).toEqual([
      { dev: 'lan', prefixes: ['2001:db8:d5:1::/64', '2001:db8:d5:2::/64'], withdrawn: [] },
    ]);
    process.kill(router.pid, 'SIGTERM');
    expect(await router.exited).toEqual({ code: 0, signal: null });
    const count = (pattern: RegExp): number => tcpdump.stdout().match(pattern)?.length ?? 0;
    await waitFor('the last words', () => count(/router lifetime 0s/g) >= 3 && count(/rdnss.*lifetime 0s/g) >= 3, {
      timeout: 30_000,
      detail: tcpdump.stdout,
    });
    // Nothing that it says later takes them back.
    expect(
      tcpdump
        .stdout()
        .match(/router lifetime \d+s/g)
        ?.slice(-3),
    ).toEqual(Array(3).fill('router lifetime 0s'));
    expect(count(/router lifetime 0s/g)).toBe(3);
  });
});
