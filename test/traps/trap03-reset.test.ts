/**
 * Trap 3. A RST at the exact next sequence number closes; one in the window but inexact goes through and the state stays,
 * so that the endpoint's challenge ACK passes (RFC 5961 §3.2); one outside the window is dropped. And nothing that
 * conntrack calls invalid ever leaves untranslated: private addresses would leak.
 */
import { describe, expect, it } from 'vitest';
import * as B from '../lib/build.ts';
import * as H from '../lib/home.ts';

const PORT = 40_000;
type Fields = Omit<Parameters<typeof B.tcp>[0], 'sport' | 'dport'>;
const client = (f: Fields, data = '') =>
  B.ipv4({ src: H.HOST, dst: H.SERVER }, B.tcp({ sport: PORT, dport: 80, ...f }, data));
const server = (f: Fields, data = '') =>
  B.ipv4({ src: H.SERVER, dst: H.ROUTER_WAN }, B.tcp({ sport: 80, dport: PORT, ...f }, data));

/** An established connection: the client is at 1001, the server at 5001; windows of 1000 bytes. */
function established(extra: Record<string, unknown> = {}): H.Home {
  const home = new H.Home(extra);
  home.lan(client({ seq: 1000, flags: 'S', win: 1000 }));
  home.wan(server({ seq: 5000, ack: 1001, flags: 'SA', win: 1000 }));
  home.lan(client({ seq: 1001, ack: 5001, flags: 'A', win: 1000 }));
  expect([home.left('wan').length, home.left('lan').length]).toEqual([2, 1]);
  expect(state(home)).toBe('ESTABLISHED');
  return home;
}
const state = (home: H.Home) => /tcp +6 \d+ (\w+)/.exec(home.router.conntrack.lines()[0] ?? '')?.[1] ?? 'none';

describe('a RST from outside', () => {
  it('at the exact next sequence number: forwarded, and the connection is closed', () => {
    const home = established();
    home.wan(server({ seq: 5001, flags: 'R' }));
    expect(home.one('lan')).toMatchObject({ dst: H.HOST, dport: PORT });
    expect(state(home)).toBe('CLOSE');
  });

  it('in the window but inexact: forwarded, the state kept, and the challenge ACK passes', () => {
    const home = established();
    home.wan(server({ seq: 5001 + 500, flags: 'R' }));
    expect(home.left('lan').length).toBe(1);
    expect(state(home)).toBe('ESTABLISHED');
    home.lan(client({ seq: 1001, ack: 5001, flags: 'A' })); // the client's challenge
    expect(home.one('wan')).toMatchObject({ src: H.ROUTER_WAN, sport: PORT });
    home.wan(server({ seq: 5001, flags: 'R' })); // which a real peer answers exactly
    expect(home.left('lan').length).toBe(1);
    expect(state(home)).toBe('CLOSE');
  });

  it.each([5001 + 5000, 5001 - 5000, 5001 + 0x80000000])('outside the window (%i): dropped, the state kept', (seq) => {
    const home = established();
    home.wan(server({ seq: seq >>> 0, flags: 'R' }));
    expect(home.left('lan')).toEqual([]);
    expect(home.dropped).toEqual({ CT_INVALID: 1 });
    expect(state(home)).toBe('ESTABLISHED');
    home.lan(client({ seq: 1001, ack: 5001, flags: 'PA' }, 'still there'));
    expect(home.left('wan').length).toBe(1);
  });
});

describe('an invalid packet from inside never leaves', () => {
  const invalid: [string, () => Uint8Array][] = [
    ['a RST of no connection', () => client({ seq: 1, flags: 'R' })],
    ['a SYN/ACK of no connection', () => client({ seq: 1, ack: 1, flags: 'SA' })],
    ['flags that do not go together', () => client({ seq: 1, flags: 'SF' })],
    ['no flags', () => client({ seq: 1, flags: '' })],
    [
      'an ICMP error about nothing',
      () =>
        B.ipv4(
          { src: H.HOST, dst: H.SERVER },
          B.icmp({ type: 3, code: 3 }, B.ipv4({ src: H.SERVER, dst: H.HOST }, B.udp({ sport: 1, dport: 2 }))),
        ),
    ],
    [
      'an echo reply that nobody asked for',
      () => B.ipv4({ src: H.HOST, dst: H.SERVER }, B.icmp({ type: 0, id: 1, seq: 1 }, 'x')),
    ],
  ];

  it.each(invalid)('%s', (_, make) => {
    const home = new H.Home();
    home.lan(make());
    expect(home.left('wan')).toEqual([]);
    expect(home.dropped).toEqual({ CT_INVALID: 1 });
    expect(home.router.conntrack.count).toBe(0);
  });

  it('a segment far outside the window of a translated connection', () => {
    const home = established();
    home.lan(client({ seq: 900_000_000, ack: 5001, flags: 'PA' }, 'leak'));
    home.lan(client({ seq: 1001, ack: 900_000_000, flags: 'A' }));
    expect(home.left('wan')).toEqual([]);
    expect(home.dropped).toEqual({ CT_INVALID: 2 });
  });

  it('whatever a host of the LAN sends, no private source is seen outside (seed 3)', () => {
    const home = established();
    const random = new B.Random(3);
    for (let n = 0; n < 3000; n++) {
      const flags = random.int(0, 255);
      const fields = { seq: random.next(), ack: random.next(), flags, win: random.int(0, 65535) };
      const dst = random.pick([H.SERVER, H.GATE, '8.8.8.8']);
      const segment = random.chance(0.8)
        ? B.tcp({ sport: random.pick([PORT, 1, 2]), dport: 80, ...fields })
        : B.icmp({ type: random.int(0, 20), code: random.int(0, 5), id: 5 }, client({ seq: 1001 }));
      home.lan(B.ipv4({ src: H.HOST, dst }, segment));
      for (const seen of home.left('wan')) expect(seen.src).toBe(H.ROUTER_WAN);
      home.left('lan');
    }
  });
});
