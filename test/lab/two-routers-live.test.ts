/**
 * Two routers on one link (row V7), live: two radvd advertise default routes with lifetimes, and the router's `accept-ra`
 * port follows as one says goodbye, comes back, and dies without a word.
 *
 *   one (radvd) ─┐
 *                ├─ a bridge ── wan [sluice] lan ── a host
 *   two (radvd) ─┘
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import type { LabProcess } from '../../controlplane/lab/namespace.ts';
import { waitFor } from '../../controlplane/lab/namespace.ts';
import { type LiveLab, startLive } from './live-lab.ts';
import { labReady } from './need.ts';

const PROGRAMS = ['radvd', 'ping'];
/**
 * Seconds that a router is one after its last word. The first says when it stops, long before its lifetime is over; the
 * second does not: its is the shortest that radvd's shortest interval allows.
 */
const LIFETIMES = [60, 6];
const OUTSIDE = '2001:db8:77::77';
const LINK_LOCALS = ['fe80::ff:fe00:7e01', 'fe80::ff:fe00:7e02'];

const CONFIG = `ports:
  wan: { kind: tap, ifname: tr-wan, zone: wan, mac: "02:00:00:00:7e:11", accept-ra: {} }
  lan: { kind: tap, ifname: tr-lan, zone: lan, mac: "02:00:00:00:7e:12", addresses: "2001:db8:7e::1/64" }
zones: { lan: { forward: accept, input: accept }, wan: { forward: accept, input: accept } }
workers: 1`;

interface RouteShown {
  dst: string;
  protocol: string;
  gateway?: string;
  nexthops?: { gateway?: string }[];
}

describe.skipIf(!labReady(PROGRAMS, { tun: true }))('two routers on a link', () => {
  let live: LiveLab | undefined;

  afterEach(() => {
    live?.close();
    live = undefined;
  });

  it('both are used, and each only as long as it is there', { timeout: 180_000 }, async () => {
    live = await startLive(CONFIG, [
      { label: 'link', device: 'tr-wan', addresses: [], via: [] },
      { label: 'host', device: 'tr-lan', addresses: ['2001:db8:7e::10/64'], via: ['2001:db8:7e::1'] },
    ]);
    const { lab, folder, show } = live;
    const link = live.ns('link');
    lab.ip(link, 'link add br0 type bridge mcast_snooping 0');
    lab.ip(link, 'link set br0 up');
    lab.ip(link, 'link set tr-wan master br0');
    const spaces = ['one', 'two'].map((label, n) => {
      const ns = lab.namespace(label);
      lab.sysctl(ns, { 'net.ipv6.conf.all.forwarding': 1, 'net.ipv6.conf.default.forwarding': 1 });
      const mac = `02:00:00:00:7e:0${n + 1}`;
      lab.veth(
        { ns, name: 'eth0', mac, addresses: [`2001:db8:7e:a::${n + 1}/64`, `${OUTSIDE}/128`] },
        { ns: link, name: `to-${label}` },
      );
      lab.ip(link, `link set to-${label} master br0`);
      lab.route(ns, '2001:db8:7e::/64', 'fe80::ff:fe00:7e11', 'eth0');
      writeFileSync(
        join(folder, `${label}.conf`),
        `interface eth0 {
  AdvSendAdvert on; MinRtrAdvInterval 3; MaxRtrAdvInterval 4; AdvDefaultLifetime ${LIFETIMES[n]};
  prefix 2001:db8:7e:a::/64 { AdvOnLink on; AdvAutonomous on; AdvValidLifetime 3600; AdvPreferredLifetime 1800; };
};
`,
      );
      return ns;
    });
    lab.apply();
    const advertise = (n: number): LabProcess => {
      const label = ['one', 'two'][n];
      const files = ['-C', join(folder, `${label}.conf`), '-p', join(folder, `${label}.pid`)];
      return lab.spawn(spaces[n], 'radvd', ['-n', ...files, '-m', 'stderr']);
    };
    /** Link-local addresses of the default routers now, in order. */
    const routers = async (): Promise<string[]> => {
      const routes = (await show('route', { family: 'inet6' })) as RouteShown[];
      const defaults = routes.filter(({ dst, protocol }) => dst === 'default' && protocol === 'ra');
      const hops = defaults.flatMap(({ gateway, nexthops }) => nexthops?.map((hop) => hop.gateway) ?? [gateway]);
      return hops.filter((hop) => hop !== undefined).sort();
    };
    const become = (expected: string[], seconds: number) =>
      waitFor(
        `default routers ${expected.join(', ') || 'none'}`,
        async () => JSON.stringify(await routers()) === JSON.stringify(expected),
        { timeout: seconds * 1000, detail: () => live?.router.stderr() ?? '' },
      );
    const reaches = async (): Promise<boolean> =>
      (await lab.run(live!.ns('host'), 'ping', ['-n', '-c3', '-i0.2', '-W10', OUTSIDE], { check: false })).status === 0;

    const one = advertise(0);
    await become([LINK_LOCALS[0]], 30);
    const two = advertise(1);
    await become(LINK_LOCALS, 30);
    expect(await reaches()).toBe(true);

    // RFC 4861 §6.2.5: a router that stops says so, with a lifetime of zero.
    await one.stop('SIGTERM');
    await become([LINK_LOCALS[1]], 20);
    expect(await reaches()).toBe(true);

    // It comes back; the other one dies without a word, and is one no more when its lifetime is over (§6.3.5).
    advertise(0);
    await become(LINK_LOCALS, 30);
    await two.stop('SIGKILL');
    await become([LINK_LOCALS[0]], LIFETIMES[1] + 30);
    expect(await reaches()).toBe(true);
  });
});
