/**
 * TCP and SCTP against Linux: recorded connections (linux-tcp.txt, linux-sctp.txt), packet by packet. Whether it was
 * forwarded, the state, the time left, ASSURED and UNREPLIED must be what the kernel had.
 */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { stateName } from '../../conntrack/format.ts';
import { concat, hex, u16, u32 } from '../lib/build.ts';
import { Conversation, type Side } from './conversation.ts';

/** A recorded connection: its lines, each split at the bar. */
function recorded(file: string): { packet: string[]; linux: string }[][] {
  const text = readFileSync(new URL(file, import.meta.url), 'utf8');
  return text
    .split('\n\n')
    .slice(1)
    .map((block) =>
      block
        .trim()
        .split('\n')
        .map((line) => {
          const [packet, linux] = line.split(' | ');
          return { packet: packet.split(' '), linux };
        }),
    );
}

/** The record in the words of the recording, with `kernelSeconds` in place of our time when the two agree. */
function inWords(k: Conversation, proto: number, linux: string): string {
  if (!k.live) return `${k.passed ? 1 : 0} gone`;
  // Linux counts down while the recorder reads: up to two seconds less than was set.
  const kernelSeconds = Number(linux.split(' ')[2]);
  const late = k.left - kernelSeconds;
  const words = [k.passed ? '1' : '0', stateName(proto, k.state), late >= 0 && late <= 2 ? kernelSeconds : k.left];
  if (k.assured) words.push('assured');
  if (!k.replied) words.push('unreplied');
  if (k.openedByServer) words.push('from-server');
  return words.join(' ');
}

function tcpBytes([, flags, seq, ack, win, length, options]: string[]): Uint8Array {
  const o = options === '-' ? new Uint8Array(0) : hex(options);
  const offset = (5 + o.length / 4) << 4;
  const head = concat(u16(0), u16(0), u32(Number(seq)), u32(Number(ack)), Uint8Array.of(offset, Number(flags)));
  return concat(head, u16(Number(win)), u32(0), o, new Uint8Array(Number(length)));
}

function sctpBytes([, tag, chunks]: string[]): Uint8Array {
  return concat(u16(0), u16(0), u32(Number(tag)), u32(0), chunks === '-' ? new Uint8Array(0) : hex(chunks));
}

describe.each([
  ['TCP', 6, './linux-tcp.txt', tcpBytes, 1600],
  ['SCTP', 132, './linux-sctp.txt', sctpBytes, 300],
] as const)('%s as Linux tracks it', (_name, proto, file, build, atLeast) => {
  const connections = recorded(file);

  it('has enough to go by', () => {
    expect(connections.flat().length).toBeGreaterThan(atLeast);
  });

  it('every packet of every recorded connection', () => {
    const differences: string[] = [];
    for (const lines of connections) {
      const k = new Conversation();
      const log: string[] = [];
      for (const { packet, linux } of lines) {
        k.packet(packet[0] as Side, proto, build(packet as string[]));
        const ours = inWords(k, proto, linux);
        log.push(`${packet.join(' ')} | ${linux}`);
        if (ours !== linux) {
          differences.push(`${log.join('\n')}\n  here: ${ours} (${k.why})`);
          break;
        }
      }
    }
    expect(differences.join('\n\n')).toBe('');
  });
});
