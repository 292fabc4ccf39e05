/**
 * Live twin: the same real programs through the Linux kernel as a router and through a live Sluice, on the same links with the
 * same configuration. What the programs print, what both connection tables say afterwards, and what was captured on both sides,
 * as tshark judges it, must not differ.
 *
 *   client (eth0) ══ veth ══ (lan) router (wan) ══ veth ══ (eth0) server
 *
 * For Sluice the router's namespace has no addresses and does not forward: its ports are the veths, by AF_PACKET.
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { expectedDigest, startHttpServer } from '../../controlplane/lab/http.ts';
import { Lab, waitFor } from '../../controlplane/lab/namespace.ts';
import { type ConntrackEntry, parseConntrack } from './kernel/conntrack.ts';
import { type RouterConfig, ruleset } from './kernel/ruleset.ts';
import { labReady } from './need.ts';

const MAIN = fileURLToPath(new URL('../../dist/controlplane/cli/main.js', import.meta.url));
const PROGRAMS = [
  'curl',
  'lftp',
  'vsftpd',
  'iperf3',
  'ping',
  'tracepath',
  'dig',
  'dnsmasq',
  'conntrack',
  'nft',
  'tshark',
  'dumpcap',
  'ethtool',
];
const SERVER4 = '203.0.113.10';
const SERVER6 = '2001:db8:77:2::10';
const DOWNLOAD = 300_001;

const CONFIG: RouterConfig = {
  ports: {
    lan: { kind: 'packet', zone: 'lan', mac: '02:00:00:00:01:01', addresses: ['10.77.1.1/24', '2001:db8:77:1::1/64'] },
    wan: {
      kind: 'packet',
      zone: 'wan',
      mac: '02:00:00:00:01:02',
      addresses: ['203.0.113.1/24', '2001:db8:77:2::1/64'],
    },
  },
  zones: { lan: { forward: 'accept', input: 'accept' }, wan: { forward: 'drop', input: 'drop' } },
  nat: { masquerade: [{ out: 'wan', from: '10.77.1.0/24' }] },
  alg: { ftp: {} },
};

/** Seconds for what would otherwise be forgotten before the tables are looked at, by the kernel's names. */
const TIMEOUTS = { udp: 300, 'udp-stream': 300, icmp: 300, icmpv6: 300, 'tcp-close': 300, 'tcp-time-wait': 300 };

/** What one router did: the programs' words, its table, and the packets that tshark finds fault with. */
interface Run {
  said: Record<string, string>;
  table: string[];
  faults: string;
  packets: number;
}

/** What matters of an entry: ports that a program draws anew each time are left out, and so are the seconds. */
function essence(e: ConntrackEntry): string {
  const port = (n: number | string | undefined) => (typeof n === 'number' && n >= 1024 ? 'drawn' : (n ?? ''));
  const end = (t: ConntrackEntry['original']) =>
    `${t.src} ${port(t.sport)} > ${t.dst} ${port(t.dport)} ${t.type ?? ''}`;
  // iperf3 ends its data connection by FIN or by RST, as it happens.
  const state = e.original.dport === 5201 ? '' : (e.state ?? '');
  const flags = e.flags.filter((flag) => flag === 'ASSURED' || flag === 'UNREPLIED').join();
  return `${e.family} ${e.proto} ${state} ${end(e.original)} | ${end(e.reply)} ${flags}`;
}

describe.skipIf(!labReady(PROGRAMS, { tun: true }))('live twin', () => {
  const runs: Run[] = [];
  const folders: string[] = [];

  async function through(sluice: boolean): Promise<Run> {
    const folder = mkdtempSync(join(tmpdir(), 'sluice-twin-'));
    folders.push(folder);
    const lab = new Lab();
    try {
      const client = lab.namespace('client');
      const router = lab.namespace('router');
      const server = lab.namespace('server');
      const forwarding = sluice ? 0 : 1;
      lab.sysctl(router, { 'net.ipv4.ip_forward': forwarding, 'net.ipv6.conf.all.forwarding': forwarding });
      if (sluice) lab.sysctl(router, { 'net.ipv6.conf.default.disable_ipv6': 1 });
      else {
        for (const [name, seconds] of Object.entries(TIMEOUTS)) {
          const [protocol, ...state] = name.split('-');
          lab.sysctl(router, { [`net.netfilter.nf_conntrack_${[protocol, 'timeout', ...state].join('_')}`]: seconds });
        }
        lab.shell(router, `nft -f - <<'END'\n${ruleset(CONFIG)}END`);
      }
      for (const [ns, name, net4, net6] of [
        [client, 'lan', '10.77.1', '2001:db8:77:1'],
        [server, 'wan', '203.0.113', '2001:db8:77:2'],
      ]) {
        const { mac, addresses } = CONFIG.ports[name];
        lab.veth(
          { ns: router, name, mac, addresses: sluice ? [] : addresses, offloads: false },
          { ns, name: 'eth0', addresses: [`${net4}.10/24`, `${net6}::10/64`], offloads: false },
        );
        lab.route(ns, 'default', `${net4}.1`);
        lab.route(ns, 'default', `${net6}::1`);
      }
      lab.apply();
      const socket = join(folder, 'control.sock');
      if (sluice) {
        const ports = Object.fromEntries(
          Object.entries(CONFIG.ports).map(([name, port]) => [name, { ...port, ifname: name }]),
        );
        const file = join(folder, 'router.yaml');
        writeFileSync(
          file,
          JSON.stringify({ ...CONFIG, conntrack: { timeouts: TIMEOUTS }, ports, control: { socket }, workers: 1 }),
        );
        const process_ = lab.spawn(router, process.execPath, [MAIN, 'run', file]);
        await waitFor('the router to run', () => /running/.test(process_.stderr()) || !process_.running(), {
          timeout: 60_000,
        });
        expect(process_.running(), process_.stderr()).toBe(true);
      }
      for (const target of [SERVER4, SERVER6])
        await waitFor(`${target} to answer`, async () => {
          const done = await lab.run(client, 'ping', ['-n', '-c1', '-W1', target], { check: false });
          return done.status === 0;
        });
      const captures = [client, server].map((ns, n) => {
        const file = join(folder, `${n}.pcapng`);
        return { file, dumpcap: lab.spawn(ns, 'dumpcap', ['-q', '-i', 'eth0', '-w', file]) };
      });
      for (const { dumpcap } of captures) await waitFor('the capture to begin', () => /File:/.test(dumpcap.stderr()));

      mkdirSync(join(folder, 'ftp'));
      mkdirSync(join(folder, 'empty'));
      writeFileSync(join(folder, 'ftp', 'hello'), 'hello over FTP\n');
      const settings = `background=NO\nlisten=NO\nlisten_ipv6=YES\nanonymous_enable=YES\nno_anon_password=YES\nlocal_enable=NO\nanon_root=${folder}/ftp\nsecure_chroot_dir=${folder}/empty\nisolate_network=NO\nseccomp_sandbox=NO\nxferlog_enable=NO\n`;
      writeFileSync(join(folder, 'vsftpd.conf'), settings);
      await startHttpServer(lab, server, 80);
      lab.spawn(server, 'vsftpd', [join(folder, 'vsftpd.conf')]);
      lab.spawn(server, 'iperf3', ['-s']);
      lab.spawn(server, 'dnsmasq', [
        '-k',
        '-C',
        '/dev/null',
        '--no-resolv',
        '--no-hosts',
        `--address=/twin.test/${SERVER4}`,
      ]);
      for (const port of [21, 5201, 53]) await lab.listening(server, port);

      const said: Record<string, string> = {};
      const run = async (name: string, command: string, ...args: string[]) => {
        const done = await lab.run(client, command, args, { timeout: 60_000, check: false });
        said[name] = `${done.status} ${done.stdout}`;
      };
      for (const [name, host] of [
        ['curl', SERVER4],
        ['curl, IPv6', `[${SERVER6}]`],
      ]) {
        await run(name, 'sh', '-c', `curl -sS --max-time 40 http://${host}/${DOWNLOAD} | sha256sum`);
        await run(
          `lftp, active, ${name}`,
          'lftp',
          '-e',
          'set net:timeout 20; set net:max-retries 1; set ftp:passive-mode off; cat hello; bye',
          `ftp://${host}`,
        );
        await run(
          `lftp, passive, ${name}`,
          'lftp',
          '-e',
          'set net:timeout 20; set net:max-retries 1; cat hello; bye',
          `ftp://${host}`,
        );
      }
      await run('iperf3', 'sh', '-c', `iperf3 -c ${SERVER4} -n 2M -i 0 -J | grep -c '"bytes"'`);
      await run('dig', 'dig', '+short', '+tries=1', '+time=20', `@${SERVER4}`, 'www.twin.test');
      await run(
        'dig over TCP and IPv6',
        'dig',
        '+short',
        '+tcp',
        '+tries=1',
        '+time=20',
        `@${SERVER6}`,
        'www.twin.test',
      );
      await run('tracepath', 'sh', '-c', `tracepath -n -m 4 ${SERVER4} | sed 's/ *[0-9.]*ms.*//'`);
      await run('tracepath, IPv6', 'sh', '-c', `tracepath -n -m 4 ${SERVER6} | sed 's/ *[0-9.]*ms.*//'`);
      for (const [name, target] of [
        ['ping', SERVER4],
        ['ping, IPv6', SERVER6],
        ['ping the router', '10.77.1.1'],
        ['ping beyond', '198.51.100.1'],
      ])
        await run(name, 'sh', '-c', `for n in 1 2; do ping -n -c1 -W4 ${target} | sed 's/time.*//; s/rtt.*//'; done`);

      const text = sluice
        ? spawnSync(process.execPath, [MAIN, 'show', 'conntrack', '--socket', socket], { encoding: 'utf8' }).stdout
        : ['ipv4', 'ipv6']
            .map((family) => lab.runSync(router, 'conntrack', ['-L', '-f', family, '-o', 'extended']).stdout)
            .join('\n');
      // How many packets of tracepath went unanswered, and thus its entries, depends on its timing.
      const table = [...new Set(parseConntrack(text).map(essence))].sort();

      let faults = '';
      let packets = 0;
      for (const { file, dumpcap } of captures) {
        process.kill(dumpcap.pid, 'SIGINT');
        await dumpcap.exited;
        const checks = ['ip', 'tcp', 'udp'].flatMap((proto) => ['-o', `${proto}.check_checksum:TRUE`]);
        // RFC 1624 §3: a zero that an incremental update writes as ffff, as Linux does, is right.
        const bad =
          'ip.checksum.status==0 || (tcp.checksum.status==0 && tcp.checksum != 0xffff) || udp.checksum.status==0 || icmp.checksum.status==0 || icmpv6.checksum.status==0 || _ws.malformed';
        const tshark = (filter: string) =>
          spawnSync('tshark', ['-r', file, ...checks, '-Y', filter], { encoding: 'utf8' }).stdout;
        faults += tshark(bad);
        packets += tshark('ip || ipv6').split('\n').length;
      }
      return { said, table, faults, packets };
    } finally {
      lab.close();
    }
  }

  beforeAll(async () => {
    for (const sluice of [false, true]) runs.push(await through(sluice));
  }, 120_000);
  afterAll(() => {
    for (const folder of folders) rmSync(folder, { recursive: true, force: true });
  });

  it('the programs say the same', () => {
    const [kernel, sluice] = runs;
    expect(kernel.said['curl']).toContain(expectedDigest(DOWNLOAD));
    expect(kernel.said['lftp, active, curl']).toContain('hello over FTP');
    expect(sluice.said).toEqual(kernel.said);
  });

  it('the connection tables say the same', () => {
    const [kernel, sluice] = runs;
    expect(kernel.table.length).toBeGreaterThan(8);
    expect(sluice.table).toEqual(kernel.table);
  });

  it('tshark finds no fault in what was captured on either side', () => {
    for (const { faults, packets } of runs) {
      expect(packets).toBeGreaterThan(200);
      expect(faults).toBe('');
    }
  });
});
