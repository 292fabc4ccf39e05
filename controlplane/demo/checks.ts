/**
 * Checks: what the demo proves with real programs. Each is a few words and a function of the world; it fails with what was
 * expected, what came, and what to do about it.
 *
 * Numbers that belong to this machine (rates, times) are shown and never judged.
 */
import { askWho, type Download, download } from '../lab/http.ts';
import { findProgram, waitFor } from '../lab/namespace.ts';
import { echoes } from '../lab/ping.ts';
import { type Check, CheckError } from './check.ts';
import { CLIENT4, CLIENT6, ROUTER_LAN4, ROUTER_LAN6, ROUTER_WAN4, SERVER4, SERVER6, type World } from './world.ts';

/** Bytes of each big download. */
export const DOWNLOAD = 100_000_000;
const FORWARDED = 10_000_000;
const DOWNLOAD_TIMEOUT = 60_000;
/** How long an unsolicited connection may try. */
const REFUSED_AFTER = 1;

const SHOW = 'look at "sluice show drops", or run the demo with --keep and look around';

function ping(target: string): Check<World> {
  const family = target.includes(':') ? 'IPv6' : 'IPv4';
  return {
    name: `ping ${family}`,
    run: async ({ lab, client }) => {
      const { answers, average, said } = await echoes(lab, client, target, 3, { wait: 5 });
      if (answers !== 3) throw new CheckError(`3 answers from ${target}`, `${answers}: ${said.trim()}`, SHOW);
      return `${target} answered 3 of 3, ${average.toFixed(3)} ms on average`;
    },
  };
}

/** Hops as an array of addresses: `traceroute` prints one numbered line each, with -n and -q1 one address in it. */
export function hopsOf(text: string): string[] {
  return text.split('\n').flatMap((line) => {
    const match = /^\s*\d+\s+(\S+)/.exec(line);
    return match === null ? [] : [match[1]];
  });
}

function traceroute(way: 'UDP' | 'ICMP', target: string, hop: string): Check<World> {
  const family = target.includes(':') ? 'IPv6' : 'IPv4';
  return {
    name: `traceroute ${family}, ${way}`,
    run: async ({ lab, client }) => {
      if (findProgram('traceroute') === null)
        throw new CheckError('the program traceroute', 'nothing', 'run "apt-get install traceroute"');
      const args = ['-n', '-q1', '-w5', '-m4', ...(way === 'ICMP' ? ['-I'] : []), target];
      const done = await lab.run(client, 'traceroute', args, { check: false });
      const hops = hopsOf(done.stdout);
      if (hops.join(' ') !== `${hop} ${target}`)
        throw new CheckError(
          `two hops, ${hop} and ${target}`,
          hops.join(' ') || (done.stdout + done.stderr).trim(),
          'hop 1 is the Time Exceeded that the router makes itself, hop 2 the answer that it translates back',
        );
      return hops.join(' → ');
    },
  };
}

function translated(): Check<World> {
  return {
    name: 'masquerade',
    run: async ({ lab, client }) => {
      const four = await askWho(lab, client, SERVER4, 80);
      if (four.address !== ROUTER_WAN4)
        throw new CheckError(
          `the server to see ${ROUTER_WAN4}`,
          four.address,
          'see nat.masquerade in examples/demo.yaml and "sluice show nat"',
        );
      const six = await askWho(lab, client, SERVER6, 80);
      if (six.address !== CLIENT6)
        throw new CheckError(`the server to see ${CLIENT6}`, six.address, 'IPv6 is never translated');
      return `the server sees ${four.address} for ${CLIENT4}, and ${six.address} itself over IPv6`;
    },
  };
}

/** `1.23 Gbit/s` */
function rate(done: Download): string {
  const bits = (done.bytes * 8) / Math.max(done.seconds, 1e-6);
  return bits >= 1e9 ? `${(bits / 1e9).toFixed(2)} Gbit/s` : `${Math.round(bits / 1e6)} Mbit/s`;
}

function judge(done: Download, length: number): string {
  if (!done.intact)
    throw new CheckError(
      `${length} bytes with the checksum of what was sent`,
      `${done.bytes} bytes, sha256 ${done.digest}`,
      'bytes were changed on the way: run "sluice replay" with --offload verify on a capture of it',
    );
  return `${length / 1e6} MB in ${done.seconds.toFixed(2)} s (${rate(done)}), sha256 ${done.digest.slice(0, 12)}… as sent`;
}

function big(target: string): Check<World> {
  return {
    name: target.includes(':') ? 'HTTP over IPv6' : 'HTTP over IPv4 through masquerade',
    run: async ({ lab, client }) =>
      judge(await download(lab, client, target, 80, DOWNLOAD, { timeout: DOWNLOAD_TIMEOUT }), DOWNLOAD),
  };
}

function portForward(): Check<World> {
  return {
    name: `port forward ${ROUTER_WAN4}:8080 → ${CLIENT4}:80`,
    run: async ({ lab, server }) => {
      const who = await askWho(lab, server, ROUTER_WAN4, 8080);
      if (who.address !== SERVER4)
        throw new CheckError(
          `the client to see ${SERVER4}`,
          who.address,
          'a port forward keeps the source: see show nat',
        );
      const done = await download(lab, server, ROUTER_WAN4, 8080, FORWARDED, { timeout: DOWNLOAD_TIMEOUT });
      return judge(done, FORWARDED);
    },
  };
}

/** Sum of the counters of drops that a firewall makes. */
async function filtered(world: World): Promise<number> {
  const drops = (await world.show('drops')).json as { reason: string; count: number }[];
  return drops
    .filter(({ reason }) => reason === 'FILTER_DROP' || reason === 'INPUT_DROP')
    .reduce((sum, { count }) => sum + count, 0);
}

/** `targets`: addresses and ports where a server listens, or a host that would refuse: neither may be reached. */
function unsolicited(family: string, targets: readonly (readonly [string, number])[]): Check<World> {
  return {
    name: `unsolicited inbound ${family}`,
    run: async (world) => {
      const before = await filtered(world);
      const tries = targets.map(async ([host, port]) => {
        const url = `http://${host.includes(':') ? `[${host}]` : host}:${port}/who`;
        const args = [
          '-sS',
          '-g',
          '--connect-timeout',
          String(REFUSED_AFTER),
          '--max-time',
          String(REFUSED_AFTER + 1),
          url,
        ];
        const done = await world.lab.run(world.server, 'curl', args, { check: false });
        // 7: refused or unreachable; 28: nobody answered. Everything else has talked to somebody.
        if (done.status !== 28 && done.status !== 7)
          throw new CheckError(
            `no connection from the server to ${host} port ${port}`,
            done.status === 0 ? `an answer: ${done.stdout.trim()}` : done.stderr.trim(),
            'zone wan forwards and takes what it should drop: see zones in examples/demo.yaml',
          );
      });
      await Promise.all(tries);
      const count = (await filtered(world)) - before;
      if (count < targets.length)
        throw new CheckError(
          `at least ${targets.length} packets dropped by the firewall`,
          `${count}`,
          'somebody else refused them: look at "sluice show drops" and "sluice show route"',
        );
      const list = targets.map(([host, port]) => `${host} port ${port}`).join(' and ');
      return `${list}: no answer, ${count} dropped by the firewall`;
    },
  };
}

function tracked(): Check<World> {
  return {
    name: 'connection table',
    run: async (world) => {
      const { text } = await world.show('conntrack');
      const wanted: [string, RegExp][] = [
        [
          'the IPv4 download, masqueraded',
          /^ipv4 .*tcp.* src=192\.168\.1\.10 dst=203\.0\.113\.10 .*dport=80 .*src=203\.0\.113\.10 dst=203\.0\.113\.1 /m,
        ],
        ['the IPv6 download, as it is', /^ipv6 .*tcp.* src=2001:db8:1::10 dst=2001:db8:2::10 .*dport=80 /m],
        [
          'the port forward',
          /^ipv4 .*tcp.* src=203\.0\.113\.10 dst=203\.0\.113\.1 .*dport=8080 .*src=192\.168\.1\.10 dst=203\.0\.113\.10 sport=80 /m,
        ],
        ['the echoes', /^ipv4 .*icmp/m],
      ];
      for (const [what, pattern] of wanted)
        if (!pattern.test(text)) throw new CheckError(`${what} in the table`, text || 'an empty table', SHOW);
      return `${text.split('\n').length} connections, NAT and IPv6 side by side`;
    },
  };
}

/** Reasons that only a defect gives: checksums, lengths and headers of what the hosts' own kernels sent. */
const DEFECTS = /CSUM|INHDR|TOO_SMALL|CT_INVALID|CT_CLASH|NAT_EXHAUSTED|GSO|NO_BUFFER|CHAIN|TOO_BIG/;

function clean(): Check<World> {
  return {
    name: 'drop reasons',
    run: async (world) => {
      const drops = (await world.show('drops')).json as { reason: string; count: number }[];
      const odd = drops.filter(({ reason, count }) => count > 0 && DEFECTS.test(reason));
      if (odd.length > 0)
        throw new CheckError(
          'no drop of a sound packet',
          odd.map(({ reason, count }) => `${reason} ${count}`).join(', '),
          'this is a defect of the router: please report it with the output of "sluice demo --json"',
        );
      const all = drops.filter(({ count }) => count > 0).map(({ reason, count }) => `${reason} ${count}`);
      return all.length === 0 ? 'none' : `${all.join(', ')}: what the firewall and the protocols ask for`;
    },
  };
}

/** Last: the router ends in order and takes its devices with it. */
function stops(): Check<World> {
  return {
    name: 'stop',
    run: async ({ lab, client, router, server, engine, process: child }) => {
      await child.stop('SIGTERM', 20_000);
      const { code, signal } = await child.exited;
      if (code !== 0)
        throw new CheckError(
          'exit code 0 at SIGTERM',
          signal ?? `${code}`,
          `its last words: ${child.stderr().slice(-500)}`,
        );
      // An io_uring lets go of its files a moment after the process has ended.
      // The lab's own veth pairs stay.
      const devices = engine === 'kernel' ? /sluice/ : /sl-|sluice0/;
      await waitFor('the devices to be gone', () =>
        [client, router, server].every((ns) => !devices.test(lab.runSync(ns, 'ip', ['-br', 'link']).stdout)),
      );
      return 'the router ended at SIGTERM with exit code 0, its devices are gone';
    },
  };
}

/** Packets that the kernel forwarded, of all that were. */
const MOST = 0.9;

/** What the process has not seen: the kernel's hits, which come back with aging's next look at the entries. */
export const KERNEL_FORWARDS: Check<World> = {
  name: 'the kernel forwards what is established',
  run: async ({ show, process }) => {
    let seen = '';
    await waitFor(
      'the counters of the kernel',
      async () => {
        const offload = (await show('offload')).json as { counters: Record<string, number> };
        const stages = (await show('stages')).json as { received?: number };
        const kernel = offload.counters['kernel-hits'] ?? 0;
        const all = stages.received ?? 0;
        seen = `${kernel} of ${all} packets never came to the process`;
        return all > 0 && kernel > all * MOST;
      },
      { timeout: 30_000, detail: () => `${seen}; the router said: ${process.stderr().trim()}` },
    );
    return seen;
  },
};

/** In this order. */
export const TRAFFIC: readonly Check<World>[] = [
  ping(SERVER4),
  ping(SERVER6),
  traceroute('UDP', SERVER4, ROUTER_LAN4),
  traceroute('UDP', SERVER6, ROUTER_LAN6),
  traceroute('ICMP', SERVER4, ROUTER_LAN4),
  translated(),
  big(SERVER4),
  big(SERVER6),
  portForward(),
  // Port 80 of the client has a server: only the router stands between. 2222 is a closed port of the router itself.
  unsolicited('IPv4', [
    [CLIENT4, 80],
    [ROUTER_WAN4, 2222],
  ]),
  unsolicited('IPv6', [[CLIENT6, 80]]),
  tracked(),
  clean(),
];

export const STOP: Check<World> = stops();
