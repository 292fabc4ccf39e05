/**
 * What a NAT is called by those who meet it: coturn's natdiscovery (RFC 5780) and the classic stun client (RFC 3489) in
 * front of a live router, a STUN server with two addresses behind it. They must say what was configured.
 *
 *   client 10.0.0.11 … 10.0.0.19 ── lan [sluice run] wan ── turnserver 203.0.113.201, 203.0.113.202
 *
 * One router has all nine combinations of mapping and filtering, one for each address of its client; one router for each
 * classic profile answers the stun client. All five run at once, since the tools spend their time waiting for answers
 * that a NAT keeps from them.
 */
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { waitFor } from '../../controlplane/lab/namespace.ts';
import { type LiveLab, startLive } from './live-lab.ts';
import { labReady } from './need.ts';

const SERVERS = ['203.0.113.201', '203.0.113.202'];

/** RFC 4787's words as the configuration and as natdiscovery write them. */
const BEHAVIOURS = [
  ['endpoint-independent', 'Endpoint Independent'],
  ['address-dependent', 'Address Dependent'],
  ['address-and-port-dependent', 'Address and Port Dependent'],
] as const;

const COMBINATIONS = BEHAVIOURS.flatMap(([mapping, mappingName], row) =>
  BEHAVIOURS.map(([filtering, filteringName], column) => ({
    mapping,
    filtering,
    mappingName,
    filteringName,
    host: 11 + row * 3 + column,
  })),
);

/** The classic names as profiles, and what the stun client calls them. */
const PROFILES = {
  'full-cone': 'Independent Mapping, Independent Filter, preserves ports, will hairpin',
  'restricted-cone': 'Independent Mapping, Address Dependent Filter, preserves ports, will hairpin',
  'port-restricted-cone': 'Independent Mapping, Port Dependent Filter, preserves ports, will hairpin',
  symmetric: 'Dependent Mapping, random port, will hairpin',
};
type Profile = keyof typeof PROFILES;

const CONFIG = (nat: string): string => `
ports:
  lan: { kind: tap, ifname: sl-lan, zone: lan, addresses: [10.0.0.1/24] }
  wan: { kind: tap, ifname: sl-wan, zone: wan, addresses: [203.0.113.1/24] }
zones:
  lan: { forward: accept, input: accept }
  wan: { forward: drop, input: accept }
nat:
${nat}`;

/** A router with this NAT between a client with these addresses and a STUN server that listens on both of its own. */
async function start(nat: string, clients: readonly string[]): Promise<LiveLab> {
  const live = await startLive(CONFIG(nat), [
    { label: 'client', device: 'sl-lan', addresses: clients.map((each) => `${each}/24`), via: ['10.0.0.1'] },
    { label: 'server', device: 'sl-wan', addresses: SERVERS.map((each) => `${each}/24`), via: ['203.0.113.1'] },
  ]);
  try {
    const listen = SERVERS.flatMap((address) => ['-L', address]);
    const files = [
      '--log-file',
      'stdout',
      '--pidfile',
      join(live.folder, 'turn.pid'),
      '-b',
      join(live.folder, 'turn.db'),
    ];
    const quiet = ['-n', '--stun-only', '--no-cli', '--no-tls', '--no-dtls', '--no-tcp'];
    const server = live.lab.spawn(live.ns('server'), 'turnserver', [...quiet, ...listen, ...files]);
    await waitFor('turnserver to answer', async () => {
      if (!server.running()) throw new Error(`turnserver ended: ${server.stdout()}${server.stderr()}`);
      const table = (await live.lab.run(live.ns('server'), 'cat', ['/proc/net/udp'])).stdout;
      return SERVERS.every((_, n) => table.includes(`${[201, 202][n].toString(16).toUpperCase()}7100CB:0D96`));
    });
    return live;
  } catch (error) {
    live.close();
    throw error;
  }
}

describe.skipIf(!labReady(['turnserver', 'turnutils_natdiscovery', 'stun', 'ping'], { tun: true }))(
  'NAT behaviour discovery, live',
  () => {
    const labs: LiveLab[] = [];
    const said = new Map<string, string>();

    async function discover(live: LiveLab, host: number): Promise<void> {
      for (const test of ['-m', '-f', '-H']) {
        const args = [test, '-L', `10.0.0.${host}`, SERVERS[0]];
        const { stdout } = await live.lab.run(live.ns('client'), 'turnutils_natdiscovery', args, { timeout: 30_000 });
        said.set(`${host} ${test}`, stdout);
      }
    }

    async function allCombinations(): Promise<void> {
      const entries = COMBINATIONS.map(
        ({ mapping, filtering, host }) =>
          `    - { out: wan, from: 10.0.0.${host}, to: 203.0.113.${host}, mapping: ${mapping}, filtering: ${filtering} }\n`,
      );
      const live = await start(
        `  profile: symmetric\n  masquerade:\n${entries.join('')}`,
        COMBINATIONS.map(({ host }) => `10.0.0.${host}`),
      );
      labs.push(live);
      await Promise.all(COMBINATIONS.map(({ host }) => discover(live, host)));
    }

    async function classic(profile: Profile): Promise<void> {
      const live = await start(`  profile: ${profile}\n  masquerade: [ { out: wan } ]\n`, ['10.0.0.11']);
      labs.push(live);
      const args = [SERVERS[0], '-i', '10.0.0.11', '-p', '20011'];
      // Its exit status is the type that it found.
      const { stdout } = await live.lab.run(live.ns('client'), 'stun', args, { check: false, timeout: 30_000 });
      said.set(profile, stdout);
    }

    beforeAll(async () => {
      const profiles = Object.keys(PROFILES) as Profile[];
      const runs = await Promise.allSettled([allCombinations(), ...profiles.map(classic)]);
      for (const run of runs) if (run.status === 'rejected') throw run.reason;
    });
    afterAll(() => {
      for (const live of labs) live.close();
    });

    it.each(COMBINATIONS)('natdiscovery: $mapping mapping, $filtering filtering, hairpin', (each) => {
      expect(said.get(`${each.host} -m`)).toContain(`NAT with ${each.mappingName} Mapping!`);
      expect(said.get(`${each.host} -f`)).toContain(`NAT with ${each.filteringName} Filtering!`);
      expect(said.get(`${each.host} -H`)).toContain('Received a request (maybe a successful hairpinning)');
      for (const test of ['-m', '-f']) {
        const outside = /UDP reflexive addr: ([\d.]+):/.exec(said.get(`${each.host} ${test}`) ?? '')?.[1];
        expect(outside).toBe(`203.0.113.${each.host}`);
      }
    });

    it.each(Object.entries(PROFILES))('stun: %s', (profile, name) => {
      expect(said.get(profile)).toContain(`Primary: ${name}`);
    });
  },
);
