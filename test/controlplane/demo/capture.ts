/**
 * Makes examples/demo.pcap, the capture that the demo plays where no lab can be. Run as a program (from dist, after a
 * build) it writes the file; a test compares the file with what this makes.
 *
 *   node dist/test/controlplane/demo/capture.js
 *
 * A client's two downloads (IPv4 and IPv6), echoes in both families, a name lookup, and two uninvited connections to
 * port 22, which a firewall must drop. Everything is computed: no real traffic, and the same bytes every time.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { packageRoot } from '../../../controlplane/package-root.ts';
import { CaptureWriter } from '../../../dataplane/ports/capture-writer.ts';
import {
  concat,
  ethernet,
  icmp,
  icmpv6,
  ipv4,
  ipv6,
  Random,
  type Segment,
  tcp,
  toBytes,
  u16,
  udp,
} from '../../lib/build.ts';

const CLIENT_MAC = '02:00:00:00:00:10';
const ROUTER_MAC = '02:00:00:00:01:01';
const CLIENT = { 4: '192.168.1.10', 6: '2001:db8:1::10' } as const;
const SERVER = { 4: '198.51.100.80', 6: '2001:db8:f::80' } as const;
const GUEST = { 4: '198.51.100.66', 6: '2001:db8:f::66' } as const;
/** TCP payload per frame: an Ethernet MTU of 1500 with the timestamp option. */
const CHUNK = 1428;

type Family = 4 | 6;

class Script {
  readonly writer = new CaptureWriter(null, { resolution: 'micro' });
  private microseconds = 0;
  private id = 1;

  frame(way: 'out' | 'in', family: Family, far: string, segment: Segment): void {
    const [src, dst] = way === 'out' ? [CLIENT[family], far] : [far, CLIENT[family]];
    const packet =
      family === 4
        ? ipv4({ src, dst, id: this.id++ & 0xffff, df: true, ttl: way === 'out' ? 64 : 57 }, segment)
        : ipv6({ src, dst, hop: way === 'out' ? 64 : 57 }, segment);
    const [from, to] = way === 'out' ? [CLIENT_MAC, ROUTER_MAC] : [ROUTER_MAC, CLIENT_MAC];
    const bytes = ethernet({ src: from, dst: to }, packet);
    // 2024-01-01, a frame every 350 microseconds.
    this.microseconds += 350;
    this.writer.write(bytes, 0, bytes.length, bytes.length, 1_704_067_200, this.microseconds * 1000);
  }

  /** One GET from the handshake to the last ACK of the close. */
  download(family: Family, sport: number, body: Uint8Array): void {
    let [mine, theirs] = [1_000_000 * family, 7_000_000 * family];
    const far = SERVER[family];
    const say = (way: 'out' | 'in', flags: string, payload: Uint8Array = new Uint8Array(0)): void => {
      const out = way === 'out';
      const options = flags.includes('S') ? { mss: family === 4 ? 1460 : 1440, sackPermitted: true, wscale: 7 } : {};
      const numbers = { seq: out ? mine : theirs, ack: !flags.includes('A') ? 0 : out ? theirs : mine };
      const ports = out ? { sport, dport: 80 } : { sport: 80, dport: sport };
      this.frame(way, family, far, tcp({ ...ports, ...numbers, flags, win: 502, options }, payload));
      const length = payload.length + (/[SF]/.test(flags) ? 1 : 0);
      if (out) mine += length;
      else theirs += length;
    };
    say('out', 'S');
    say('in', 'SA');
    say('out', 'A');
    say('out', 'PA', toBytes(`GET /${body.length} HTTP/1.1\r\nHost: example.net\r\nConnection: close\r\n\r\n`));
    say('in', 'A');
    const answer = concat(toBytes(`HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\n\r\n`), body);
    for (let at = 0; at < answer.length; at += CHUNK) {
      say('in', 'PA', answer.subarray(at, at + CHUNK));
      say('out', 'A');
    }
    say('in', 'FA');
    say('out', 'FA');
    say('in', 'A');
  }

  echo(family: Family, id: number): void {
    const data = toBytes('sluice demo, echo request and reply');
    for (let seq = 1; seq <= 2; seq++)
      for (const way of ['out', 'in'] as const) {
        const type = family === 4 ? (way === 'out' ? 8 : 0) : way === 'out' ? 128 : 129;
        this.frame(way, family, SERVER[family], (family === 4 ? icmp : icmpv6)({ type, id, seq }, data));
      }
  }

  lookup(sport: number): void {
    const question = concat(toBytes('\x07example\x03net\0'), u16(1), u16(1));
    const header = (flags: number, answers: number) =>
      concat(u16(0x5153), u16(flags), u16(1), u16(answers), u16(0), u16(0));
    const answer = concat(u16(0xc00c), u16(1), u16(1), u16(0), u16(300), u16(4), Uint8Array.of(198, 51, 100, 80));
    const far = '198.51.100.53';
    this.frame('out', 4, far, udp({ sport, dport: 53 }, concat(header(0x0100, 0), question)));
    this.frame('in', 4, far, udp({ sport: 53, dport: sport }, concat(header(0x8180, 1), question, answer)));
  }

  uninvited(family: Family): void {
    const options = { mss: 1440, sackPermitted: true, wscale: 7 };
    this.frame('in', family, GUEST[family], tcp({ sport: 50022, dport: 22, seq: 77, flags: 'S', options }));
  }
}

/** The capture's bytes. */
export function demoCapture(): Uint8Array {
  const random = new Random(20240101);
  const script = new Script();
  script.lookup(53124);
  script.echo(4, 4711);
  script.echo(6, 4712);
  script.download(4, 40180, random.bytes(30_000));
  script.uninvited(4);
  script.download(6, 40680, random.bytes(30_000));
  script.uninvited(6);
  return script.writer.toBytes();
}

if (process.argv[1] === fileURLToPath(import.meta.url))
  writeFileSync(join(packageRoot(), 'examples', 'demo.pcap'), demoCapture());
