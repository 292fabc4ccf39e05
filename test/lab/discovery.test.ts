/** Router and neighbour discovery as another's tools see it: rdisc6 and ndisc6 ask the router, and print all that it says. */
import { afterEach, describe, expect, it } from 'vitest';
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

describe.skipIf(!labReady(['rdisc6', 'ndisc6'], { tun: true }))('rdisc6 and ndisc6', () => {
  let live: LiveLab | undefined;
  afterEach(() => live?.close());

  it('print the advertisement and the link-layer address that are configured', { timeout: 60_000 }, async () => {
    const host = { label: 'host', device: 'nd-lan', addresses: ['2001:db8:d5:1::99/64'], via: ['2001:db8:d5:1::1'] };
    live = await startLive(CONFIG, [host]);
    const run = (command: string, ...args: string[]) =>
      live!.lab.run(live!.ns('host'), command, [...args, 'nd-lan'], { check: false });

    const { stdout: said } = await run('rdisc6', '-1', '-n', '-w', '5000');
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
      const asked = await live!.lab.run(live!.ns('host'), 'ndisc6', ['-1', '-n', '-q', address, 'nd-lan']);
      expect(asked.stdout.trim().toLowerCase()).toBe(MAC);
    }
    // Of an address that is not its own it says nothing.
    const nobody = await live!.lab.run(live!.ns('host'), 'ndisc6', ['-n', '-r', '1', '2001:db8:d5:1::77', 'nd-lan'], {
      check: false,
    });
    expect(nobody.status).not.toBe(0);
  });
});
