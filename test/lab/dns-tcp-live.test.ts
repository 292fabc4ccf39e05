/**
 * DNS over TCP with real programs: dig asks the router by UDP and TCP, over both families; dnsmasq behind it truncates by UDP and
 * says all by TCP; tshark reads the router's segments and must find nothing wrong with them.
 *
 *   dig ── lan [sluice run] wan ── dnsmasq
 */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { waitFor } from '../../controlplane/lab/namespace.ts';
import { type LiveLab, startLive } from './live-lab.ts';
import { labReady } from './need.ts';

const CONFIG = `
ports:
  lan: { kind: tap, ifname: sl-lan, zone: lan, addresses: [10.0.0.1/24, "2001:db8:53:1::1/64"] }
  wan: { kind: tap, ifname: sl-wan, zone: wan, addresses: [203.0.113.1/24, "2001:db8:53:2::1/64"] }
zones: { lan: { forward: accept, input: accept }, wan: { forward: drop, input: accept } }
dns: { ports: [lan], servers: ["2001:db8:53:2::2", 203.0.113.2] }`;
const MANY = 150;

describe.skipIf(!labReady(['dig', 'dnsmasq', 'tshark', 'tcpdump', 'ping'], { tun: true }))('DNS over TCP, live', () => {
  let live: LiveLab;

  beforeAll(async () => {
    live = await startLive(CONFIG, [
      {
        label: 'host',
        device: 'sl-lan',
        addresses: ['10.0.0.9/24', '2001:db8:53:1::9/64'],
        via: ['10.0.0.1', '2001:db8:53:1::1'],
      },
      {
        label: 'isp',
        device: 'sl-wan',
        addresses: ['203.0.113.2/24', '2001:db8:53:2::2/64'],
        via: ['203.0.113.1', '2001:db8:53:2::1'],
      },
    ]);
    const records = Array.from({ length: MANY }, (_, n) => `--host-record=big.example,198.51.100.${n}`);
    const files = [
      '--conf-file=/dev/null',
      '--pid-file=',
      '--no-hosts',
      '--no-resolv',
      '--keep-in-foreground',
      '--user=root',
    ];
    const server = live.lab.spawn(live.ns('isp'), 'dnsmasq', [
      ...files,
      '--edns-packet-max=1232',
      '--host-record=small.example,198.51.100.7',
      ...records,
    ]);
    await waitFor('dnsmasq to answer', async () => {
      if (!server.running()) throw new Error(`dnsmasq ended: ${server.stdout()}${server.stderr()}`);
      return (
        await live.lab.run(live.ns('isp'), 'dig', ['+short', '+tries=1', '@203.0.113.2', 'small.example'])
      ).stdout.includes('198.51.100.7');
    });
  }, 60_000);
  afterAll(() => live?.close());

  const dig = async (...args: string[]) =>
    (await live.lab.run(live.ns('host'), 'dig', ['+tries=1', '+time=20', ...args], { timeout: 60_000 })).stdout;

  it('dig +tcp, by both families; a truncated answer is fetched whole; no segment is wrong', {
    timeout: 180_000,
  }, async () => {
    const file = join(live.folder, 'dns.pcap');
    const capture = live.lab.spawn(live.ns('host'), 'tcpdump', [
      '-i',
      'sl-lan',
      '-U',
      '--immediate-mode',
      '-Z',
      'root',
      '-w',
      file,
      'tcp port 53',
    ]);
    await waitFor('tcpdump to listen', () => /listening/.test(capture.stderr()));
    for (const server of ['@10.0.0.1', '@2001:db8:53:1::1']) {
      expect(await dig('+tcp', server, 'small.example')).toMatch(/ANSWER: 1,[\s\S]*198\.51\.100\.7[\s\S]*\(TCP\)/);
      expect(await dig('+ignore', server, 'big.example')).toMatch(/flags:[^;]* tc[^;]*;/);
      // dig asks again by TCP by itself when it is told that an answer is truncated.
      expect(await dig(server, 'big.example')).toMatch(new RegExp(`ANSWER: ${MANY},[\\s\\S]*\\(TCP\\)`));
    }
    // Several questions on one connection.
    const names = Array.from({ length: 20 }, (_, n) => `n${n}.example`);
    const kept = await dig('+tcp', '+keepopen', '@10.0.0.1', ...names.flatMap((name) => [name, 'A']));
    expect(kept.match(/status: \w+/g)?.length).toBe(20);
    const tshark = (filter: string) =>
      spawnSync('tshark', ['-r', file, '-o', 'tcp.check_checksum:TRUE', '-Y', filter], {
        encoding: 'utf8',
        timeout: 60_000,
      }).stdout.trim();
    await waitFor(
      'the capture to be complete',
      () => tshark('tcp.flags.fin == 1 && tcp.srcport == 53').split('\n').length >= 5,
      { timeout: 30_000 },
    );
    await capture.stop('SIGTERM');
    expect(
      tshark(
        'tcp.srcport == 53 && (tcp.checksum.status == 0 || _ws.malformed || tcp.analysis.flags || tcp.flags.reset == 1)',
      ),
    ).toBe('');
    expect(tshark('tcp.flags.syn == 1 && tcp.flags.ack == 1').split('\n').length).toBe(5);
  });
});
