/**
 * Fragments through a live router, as hosts really send them: a UDP datagram of 60,000 bytes and `ping -s 30000`, IPv4
 * through masquerade, IPv6 routed, both directions, in order and shuffled by the `fault` wrapper of both ports.
 *
 *   client 192.168.1.10, 2001:db8:1::10 ── lan [sluice run] wan ── server 203.0.113.10, 2001:db8:2::10
 *
 * The far end answers a datagram with its bytes turned round, so that a reply proves both ways. One that is cut at
 * 1,500 bytes is 41 fragments; each is overtaken by later ones with a probability of one half.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type LabProcess, waitFor } from '../../controlplane/lab/namespace.ts';
import { echoes } from '../../controlplane/lab/ping.ts';
import { type LiveLab, startLive } from './live-lab.ts';
import { labReady } from './need.ts';

const SIZE = 60_000;
const DATAGRAMS = 5;

const CONFIG = (fault: string): string => `
ports:
  lan: { kind: tap, ifname: sl-lan, zone: lan, addresses: [192.168.1.1/24, "2001:db8:1::1/64"]${fault} }
  wan: { kind: tap, ifname: sl-wan, zone: wan, addresses: [203.0.113.1/24, "2001:db8:2::1/64"]${fault} }
zones:
  lan: { forward: accept, input: accept }
  wan: { forward: drop, input: accept }
rules: [ { from: wan, to: lan, family: ipv6, proto: udp, port: 7, verdict: accept } ]
nat:
  profile: full-cone
  masquerade: [ { out: wan } ]
  forward: [ { in: wan, proto: udp, port: 7, to: 192.168.1.10 } ]
`;

/** Answers each datagram with its bytes turned round. */
const SERVER = `
const dgram = require('node:dgram');
for (const type of ['udp4', 'udp6']) {
  const socket = dgram.createSocket({ type, ipv6Only: type === 'udp6', recvBufferSize: 4194304, sendBufferSize: 4194304 });
  socket.on('message', (data, from) => socket.send(Buffer.from(data).reverse(), from.port, from.address));
  socket.bind(7, () => console.log('ready ' + type));
}`;

/** node CLIENT ADDRESS: datagrams of different content, one after the other; prints how many came back right. */
const CLIENT = `
const dgram = require('node:dgram');
const [address, size, count] = [process.argv[2], Number(process.argv[3]), Number(process.argv[4])];
const socket = dgram.createSocket({ type: address.includes(':') ? 'udp6' : 'udp4', recvBufferSize: 4194304, sendBufferSize: 4194304 });
let sent, n = 0, intact = 0;
function next() {
  if (n === count) { console.log(intact + ' of ' + count + ' intact'); process.exit(0); }
  sent = Buffer.alloc(size);
  for (let at = 0, x = ++n; at + 4 <= size; at += 4) sent.writeInt32LE(x = (Math.imul(x, 1664525) + 1013904223) | 0, at);
  socket.send(sent, 7, address);
}
socket.on('message', (data) => { if (data.reverse().equals(sent)) intact++; next(); });
setTimeout(() => { console.log(intact + ' of ' + count + ' intact, waiting for ' + n); process.exit(1); }, 25000);
socket.bind(0, next);`;

const ORDERS = { 'in order': '', shuffled: ', fault: { reorder: 0.5, seed: 7 }' };

describe.skipIf(!labReady(['ping', 'tcpdump'], { tun: true }))('fragments, live', () => {
  for (const [order, fault] of Object.entries(ORDERS))
    describe(order, () => {
      let live: LiveLab;
      let client = '';
      let wire: LabProcess;

      beforeAll(async () => {
        live = await startLive(CONFIG(fault), [
          {
            label: 'client',
            device: 'sl-lan',
            addresses: ['192.168.1.10/24', '2001:db8:1::10/64'],
            via: ['192.168.1.1', '2001:db8:1::1'],
          },
          {
            label: 'server',
            device: 'sl-wan',
            addresses: ['203.0.113.10/24', '2001:db8:2::10/64'],
            via: ['203.0.113.1', '2001:db8:2::1'],
          },
        ]);
        const server = join(live.folder, 'server.cjs');
        client = join(live.folder, 'client.cjs');
        writeFileSync(server, SERVER);
        writeFileSync(client, CLIENT);
        for (const host of ['client', 'server']) {
          const echo = live.lab.spawn(live.ns(host), process.execPath, [server]);
          await waitFor(`the echo server on ${host}`, () =>
            ['udp4', 'udp6'].every((type) => echo.stdout().includes(type)),
          );
        }
        wire = live.lab.spawn(live.ns('server'), 'tcpdump', [
          '-n',
          '-v',
          '-l',
          '-i',
          'sl-wan',
          'ip[6:2] & 0x3fff != 0',
        ]);
        await waitFor('tcpdump', () => wire.stderr().includes('listening on'));
      });
      afterAll(() => live?.close());

      it.each([
        ['out through masquerade', 'client', '203.0.113.10'],
        ['in through a port forward', 'server', '203.0.113.1'],
        ['out, IPv6', 'client', '2001:db8:2::10'],
        ['in, IPv6', 'server', '2001:db8:1::10'],
      ])(`${DATAGRAMS} datagrams of ${SIZE} bytes and their answers: %s`, async (_, from, to) => {
        const args = [client, to, String(SIZE), String(DATAGRAMS)];
        const done = await live.lab.run(live.ns(from), process.execPath, args, { check: false });
        expect(done.stdout).toBe(`${DATAGRAMS} of ${DATAGRAMS} intact\n`);
      });

      it.each([
        ['through masquerade', 'client', '203.0.113.10'],
        ['to the router itself, IPv4', 'server', '203.0.113.1'],
        ['routed, IPv6', 'client', '2001:db8:2::10'],
        ['to the router itself, IPv6', 'client', '2001:db8:1::1'],
      ])('ping -s 30000: %s', async (_, from, to) => {
        const { answers, said } = await echoes(live.lab, live.ns(from), to, 3, { size: 30_000 });
        const drops = ((await live.show('drops')) as { count: number }[]).filter(({ count }) => count > 0);
        expect(answers, `${said} ${JSON.stringify(drops)}`).toBe(3);
        expect(said.match(/^30008 bytes from/gm)).toHaveLength(3);
      });

      it(`the server's link carried IPv4 fragments ${order}`, async () => {
        // tcpdump reads what it was given in blocks, and some of it a while later.
        await waitFor('the fragments', () => wire.stdout().split(', offset ').length > 401);
        // Steps back within one datagram: id 7, offset 1480 behind id 7, offset 2960.
        let fragments = 0;
        let steps = 0;
        const last = new Map<string, number>();
        for (const [, id, offset] of wire.stdout().matchAll(/ id (\d+), offset (\d+),/g)) {
          fragments++;
          if (Number(offset) < (last.get(id) ?? 0)) steps++;
          last.set(id, Number(offset));
        }
        expect(fragments).toBeGreaterThanOrEqual(400);
        if (fault === '') expect(steps).toBe(0);
        else expect(steps).toBeGreaterThan(fragments / 10);
      });

      it('nothing was lost on the way, and the translation was one', async () => {
        const drops = (await live.show('drops')) as { reason: string; count: number }[];
        expect(drops.filter(({ reason, count }) => /^FRAG|CSUM|NO_BUFFER/.test(reason) && count > 0)).toEqual([]);
        const all = (await live.show('conntrack', { family: 'ipv4', proto: 'udp' })) as { status: string[] }[];
        expect(all.some(({ status }) => status.includes('SRC_NAT'))).toBe(true);
        expect(all.some(({ status }) => status.includes('DST_NAT'))).toBe(true);
      });
    });
});
