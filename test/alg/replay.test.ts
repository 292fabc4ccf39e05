/**
 * Real captures of FTP, SIP, PPTP and TFTP replayed through NAT: the far end connects to what the router announced, and
 * acknowledges what really left. Expectations are hit and data connections RELATED wherever the capture has them; on
 * either side of the router tshark finds no checksum error and no TCP anomaly that the capture itself does not have.
 */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { loadConfig, normalizeConfig } from '../../controlplane/config/index.ts';
import { CaptureInput } from '../../controlplane/replay/input.ts';
import { ReplaySession } from '../../controlplane/replay/session.ts';
import { findSides, TwoSides } from '../../controlplane/replay/two-sides.ts';
import { parseCidr } from '../../dataplane/wire/address.ts';
import { captureFile, directory, example, type Frame, haveCaptures, writePcap } from '../controlplane/replay/files.ts';

const SOUND = ['ip', 'tcp', 'udp'].flatMap((name) => ['-o', `${name}.check_checksum:TRUE`]);

interface Judged {
  /** Frames with a wrong checksum, and malformed ones. */
  broken: number;
  /** What tshark says against the sequence numbers of each frame, as a sorted list. */
  anomalies: string[];
}

/** tshark's opinion of a capture, in one run. Null where it is not there. */
function judge(file: string): Judged | null {
  const sums = ['ip', 'tcp', 'udp'].map((name) => `${name}.checksum.status`);
  const bad = [...sums.map((sum) => `${sum} == "Bad"`), '_ws.malformed'].join(' || ');
  const odd = 'tcp.analysis.flags && !tcp.analysis.window_update';
  const fields = [...sums, '_ws.malformed', '_ws.expert.message'].flatMap((field) => ['-e', field]);
  const args = ['-n', '-r', file, ...SOUND, '-Y', `(${bad}) || (${odd})`, '-T', 'fields', ...fields];
  const run = spawnSync('tshark', args, { encoding: 'utf8' });
  if (run.error !== undefined) return null;
  expect(run.status, run.stderr).toBe(0);
  const judged: Judged = { broken: 0, anomalies: [] };
  for (const line of run.stdout.split('\n').filter((one) => one !== '')) {
    const [ip, tcp, udp, malformed, message] = line.split('\t');
    if (malformed !== '' || [ip, tcp, udp].some((status) => status.split(',').includes('0'))) judged.broken++;
    else {
      // What trails a frame on Ethernet is no part of the connection, and the router takes it away.
      const said = message.split(/,(?=[A-Z])/).filter((one) => !one.startsWith("Didn't find padding"));
      judged.anomalies.push(said.join());
    }
  }
  judged.anomalies.sort();
  return judged;
}

interface Played {
  /** Connections that fulfilled an expectation: protocol and the ORIGINAL destination port. */
  related: string[];
  created: number;
  /** Both directions of traffic as seen on a side. */
  lan: string;
  wan: string;
}

function play(file: string, inside: string, config = loadConfig(example('capture.yaml'))): Played {
  const cidr = parseCidr(inside.includes(':') ? `${inside}/128` : `${inside}/32`);
  if (cidr === null) throw new Error(`bad address ${inside}`);
  const input = new CaptureInput(captureFile(file), -1);
  const sides = new TwoSides(config, findSides(config, [cidr]), [cidr], input, false);
  const session = new ReplaySession(config, {
    seed: 1,
    target: () => null,
    resolution: 'micro',
    log: () => {},
    mismatch: () => {},
  });
  const views: Frame[][] = config.ports.map(() => []);
  let time = 0;
  const note = (port: number, frame: Uint8Array) => views[port].push({ time, frame });
  const inject = session.inject.bind(session);
  session.inject = (port, u8, length, seconds, nanoseconds) => {
    time = seconds * 1e6 + Math.floor(nanoseconds / 1000);
    note(port, u8.slice(0, length));
    inject(port, u8, length, seconds, nanoseconds);
  };
  session.onLeft = (port, u8, offset, length) => {
    note(port, u8.slice(offset, offset + length));
    sides.left(port, u8, offset, length);
  };
  sides.install(session.router);
  const related = new Set<string>();
  while (input.next()) {
    sides.play(session, input);
    for (const c of session.router.conntrack.list())
      if (c.status.includes('EXPECTED'))
        related.add(`${c.protocol} ${c.orig.sport ?? c.orig.srckey} ${c.orig.dport ?? c.orig.dstkey}`);
  }
  session.close();
  const folder = directory();
  const [lan, wan] = ['lan', 'wan'].map((name) => {
    const port = config.ports.find((p) => p.name === name);
    return writePcap(join(folder, `${name}.pcap`), views[port?.number ?? 0]);
  });
  return { related: [...related].sort(), created: session.router.tables.expectations.statistics().created, lan, wan };
}

/** Nothing on either side that the capture itself does not have. */
function sound(file: string, played: Played): void {
  const original = judge(captureFile(file));
  for (const view of [played.lan, played.wan]) {
    const found = judge(view);
    if (original === null || found === null) {
      console.warn('tshark: expected in PATH, got nothing; sequence numbers and checksums were not judged');
      return;
    }
    // Checksums that a capture has wrong are put right first; what is malformed in it stays so.
    expect(found.broken).toBeLessThanOrEqual(original.broken);
    expect(without(found.anomalies, original.anomalies)).toEqual([]);
  }
}

/** What is in one multiset and not in the other. */
function without(found: readonly string[], allowed: readonly string[]): string[] {
  const left = [...allowed];
  return found.filter((one) => {
    const n = left.indexOf(one);
    if (n >= 0) left.splice(n, 1);
    return n < 0;
  });
}

describe.runIf(haveCaptures)('replayed through the helpers', () => {
  it.each([
    [
      'ftp-ipv4.pcap',
      '141.142.220.235',
      4,
      ['tcp 37604 56666', 'tcp 59378 56667', 'tcp 61918 37835', 'tcp 61920 33582'],
    ],
    [
      'ftp-ipv6.pcap',
      '2001:470:1f11:81f:c999:d94:aa7c:2e3e',
      5,
      ['tcp 49186 57086', 'tcp 49187 57087', 'tcp 49188 57088', 'tcp 55647 49190', 'tcp 55785 49189'],
    ],
    ['ftp-bigtransfer.pcap', '192.168.56.1', 2, ['tcp 59763 63988', 'tcp 59764 37150']],
    ['ftp-retr.pcap', '141.142.228.5', 1, ['tcp 50737 38141']],
    ['ftp-ipv6-violation.pcap', '2001:470:1f05:17a6:d69a:20ff:fefd:6b88', 0, []],
    ['tftp.pcap', '192.168.1.2', 1, ['udp 59557 44935']],
    ['tftp.pcap', '192.168.1.1', 0, []],
    ['pptp.pcap', '10.1.1.11', 4, ['gre 0 0']],
    ['sip.pcap', '192.168.1.2', -1, []],
  ] as const)('%s, inside %s', (file, inside, created, related) => {
    const played = play(file, inside);
    expect(played.related).toEqual(related);
    if (created >= 0) expect(played.created).toBe(created);
    sound(file, played);
  });

  it('ftp-ipv4.pcap with the server inside, behind a port forward', () => {
    const server = '199.233.217.249';
    const config = normalizeConfig({
      ports: {
        lan: { kind: 'pcap', zone: 'lan', mac: '02:00:00:00:01:01', addresses: ['10.255.0.1/24'] },
        wan: { kind: 'pcap', zone: 'wan', mac: '02:00:00:00:01:02', addresses: ['203.0.113.1/30'] },
      },
      routes: [{ to: '0.0.0.0/0', via: '203.0.113.2' }],
      zones: { lan: { forward: 'accept' }, wan: { forward: 'drop' } },
      nat: { masquerade: [{ out: 'wan' }], forward: [{ in: 'wan', proto: 'tcp', port: 21, to: server }] },
      alg: { ftp: {} },
    });
    const played = play('ftp-ipv4.pcap', server, config);
    expect(played.related).toEqual(['tcp 37604 56666', 'tcp 59378 56667', 'tcp 61918 37835', 'tcp 61920 33582']);
    sound('ftp-ipv4.pcap', played);
  });
});
