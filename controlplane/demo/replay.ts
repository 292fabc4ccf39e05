/**
 * Replay: the demo where no lab can be. The bundled capture (examples/demo.pcap: downloads, echoes and a name lookup of
 * two hosts, and two uninvited guests) is played through the same router by `sluice replay`, and what left it is judged.
 *
 * The capture is made by test/controlplane/demo/capture.ts. Needs no privilege, no device and no network.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { openCapture } from '../../dataplane/ports/capture-reader.ts';
import { addressFromBytes, formatAddress } from '../../dataplane/wire/address.ts';
import { swap16 } from '../../dataplane/wire/bytes.ts';
import { fold, sum16 } from '../../dataplane/wire/checksum.ts';
import { packageRoot } from '../package-root.ts';
import {
  addressLength,
  get16,
  ICMP,
  ipOffset,
  type PacketView,
  payloadOf,
  sourceAt,
  TCP,
  viewPacket,
} from '../replay/packet.ts';
import type { ReplayReport } from '../replay/report.ts';
import { type Check, CheckError } from './check.ts';
import { commandFile, temporaryFolder } from './lab.ts';
import { CLIENT4, CLIENT6, ROUTER_WAN4 } from './world.ts';

interface Frame {
  bytes: Uint8Array;
  view: PacketView;
}

export interface Played {
  report: ReplayReport;
  /** What was played, and what left the router, by port. */
  input: Frame[];
  lan: Frame[];
  wan: Frame[];
  /** Digest of both output files, of each of two runs. */
  digests: [string, string];
}

export const CAPTURE = 'examples/demo.pcap';
const CONFIG = 'examples/demo.yaml';
const INSIDE = ['192.168.1.0/24', '2001:db8:1::/64'];

/** Plays the capture twice. Throws CheckError when the command fails. */
export function playCapture(capture = join(packageRoot(), CAPTURE)): Played {
  const { folder, sweep } = temporaryFolder();
  try {
    const first = run(capture, join(folder, 'first'));
    const second = run(capture, join(folder, 'second'));
    const frames = (port: string): Frame[] => readFrames(join(folder, 'first', `${port}.pcap`));
    return {
      report: first.report,
      input: readFrames(capture),
      lan: frames('lan'),
      wan: frames('wan'),
      digests: [first.digest, second.digest],
    };
  } finally {
    sweep();
  }
}

function run(capture: string, out: string): { report: ReplayReport; digest: string } {
  const args = ['replay', join(packageRoot(), CONFIG), '--capture', capture, '--out', out, '--json'];
  for (const cidr of INSIDE) args.push('--inside', cidr);
  const done = spawnSync(process.execPath, [commandFile(), ...args], { encoding: 'utf8', timeout: 60_000 });
  if (done.status !== 0)
    throw new CheckError(
      `"sluice ${args.join(' ')}" to succeed`,
      (done.stderr || String(done.error ?? `exit code ${done.status}`)).trim(),
      'run "sluice doctor"',
    );
  const hash = createHash('sha256');
  for (const port of ['lan', 'wan']) hash.update(readFileSync(join(out, `${port}.pcap`)));
  return { report: JSON.parse(done.stdout) as ReplayReport, digest: hash.digest('hex') };
}

function readFrames(file: string): Frame[] {
  if (!existsSync(file)) throw new CheckError(file, 'nothing', 'the package is incomplete: install it again');
  const reader = openCapture(file);
  const frames: Frame[] = [];
  while (reader.next()) {
    const bytes = reader.data.slice(reader.offset, reader.offset + reader.capturedLength);
    const view = viewPacket(bytes, ipOffset(bytes, bytes.length), bytes.length);
    if (view !== null) frames.push({ bytes, view });
  }
  if (reader.error !== null) throw reader.error;
  return frames;
}

/** Whether a receiver would take it: the IPv4 header's checksum and the transport's add up to all ones (RFC 1071). */
function isSound({ bytes, view }: Frame): boolean {
  if (view.family === 4 && fold(sum16(bytes, view.l3, view.l3 + (bytes[view.l3] & 15) * 4)) !== 0xffff) return false;
  // The sums are of bytes as they lie in memory, so host integers are swapped before they are added.
  const from = sourceAt(view);
  const pseudo =
    view.proto === ICMP
      ? 0
      : sum16(bytes, from, from + 2 * addressLength(view)) + (view.proto << 8) + swap16(view.end - view.l4);
  return fold(sum16(bytes, view.l4, view.end, pseudo)) === 0xffff;
}

function textAt({ bytes, view }: Frame, at: number): string {
  const words = addressFromBytes(view.family, bytes, at);
  return formatAddress(view.family, ...words);
}

/** Digest of the TCP payload sent from port 80, of one family. */
function bodyOf(frames: readonly Frame[], family: 4 | 6): { length: number; digest: string } {
  const hash = createHash('sha256');
  let length = 0;
  for (const { bytes, view } of frames) {
    if (view.family !== family || view.proto !== TCP || get16(bytes, view.l4) !== 80) continue;
    const payload = payloadOf(bytes, view);
    if (payload === null) continue;
    length += payload.to - payload.from;
    hash.update(bytes.subarray(payload.from, payload.to));
  }
  return { length, digest: hash.digest('hex') };
}

function forwarding(): Check<Played> {
  return {
    name: 'forwarding',
    run: async ({ report, lan, wan }) => {
      const dropped = Object.values(report.dropped).reduce((sum, n) => sum + n, 0);
      if (report.received === 0 || report.received !== report.forwarded + dropped || report.held !== 0)
        throw new CheckError(
          'every frame forwarded or dropped for a reason',
          JSON.stringify(report),
          'read the reasons under "dropped"',
        );
      return `${report.received} frames in, ${lan.length + wan.length} out, ${report.connections} connections`;
    },
  };
}

function masquerade(): Check<Played> {
  return {
    name: 'masquerade',
    run: async ({ wan }) => {
      const seen = new Set(wan.map((frame) => textAt(frame, sourceAt(frame.view))));
      const wanted = [ROUTER_WAN4, CLIENT6];
      if (wanted.length !== seen.size || !wanted.every((address) => seen.has(address)))
        throw new CheckError(`sources ${wanted.join(' and ')} on the wan`, [...seen].join(', '), `see ${CONFIG}`);
      return `${CLIENT4} leaves as ${ROUTER_WAN4}, ${CLIENT6} as itself`;
    },
  };
}

function checksums(): Check<Played> {
  return {
    name: 'checksums',
    run: async ({ lan, wan }) => {
      const all = [...lan, ...wan];
      const wrong = all.filter((frame) => !isSound(frame)).length;
      if (wrong > 0)
        throw new CheckError(
          'right checksums in every frame',
          `${wrong} wrong ones`,
          'this is a defect: please report it',
        );
      return `right in all ${all.length} frames that left`;
    },
  };
}

function download(family: 4 | 6): Check<Played> {
  return {
    name: `HTTP over IPv${family}`,
    run: async ({ input, lan }) => {
      const sent = bodyOf(input, family);
      const got = bodyOf(lan, family);
      if (sent.length === 0 || got.digest !== sent.digest)
        throw new CheckError(
          `${sent.length} bytes, sha256 ${sent.digest}`,
          `${got.length} bytes, sha256 ${got.digest}`,
          'bytes were lost or changed: this is a defect, please report it',
        );
      return `${got.length} bytes to the client, sha256 ${got.digest.slice(0, 12)}… as sent`;
    },
  };
}

function unsolicited(): Check<Played> {
  return {
    name: 'unsolicited inbound',
    run: async ({ report, lan }) => {
      const intruders = lan.filter(isIntruder);
      // IPv4 knocks at the router's own address, which is all that a guest can see; IPv6 at the client's.
      const count = (report.dropped['INPUT_DROP'] ?? 0) + (report.dropped['FILTER_DROP'] ?? 0);
      if (intruders.length > 0 || count !== 2)
        throw new CheckError(
          'both uninvited connections dropped by the firewall',
          `${count} drops, ${intruders.length} got through`,
          `see zones in ${CONFIG}`,
        );
      return 'IPv4 and IPv6, dropped by the firewall (INPUT_DROP, FILTER_DROP)';
    },
  };
}

/** The capture's two uninvited guests knock at port 22. */
function isIntruder({ bytes, view }: Frame): boolean {
  return view.proto === TCP && get16(bytes, view.l4 + 2) === 22;
}

function repeatable(): Check<Played> {
  return {
    name: 'repeatable',
    run: async ({ digests }) => {
      if (digests[0] !== digests[1])
        throw new CheckError(
          'the same bytes from a second run',
          digests.join(' and '),
          'this is a defect: please report it',
        );
      return `a second run wrote the same bytes, sha256 ${digests[0].slice(0, 12)}…`;
    },
  };
}

export const REPLAY: readonly Check<Played>[] = [
  forwarding(),
  masquerade(),
  checksums(),
  download(4),
  download(6),
  unsolicited(),
  repeatable(),
];
