/**
 * Restarts of one domain of the control plane while packets of the other family go through a live router: every one is
 * counted. A sender numbers its datagrams, the echo server sends each back, and a number that does not return is a loss.
 *
 *   client 10.79.1.10, 2001:db8:79:1::10 ── sl-dom-lan [router] sl-dom-wan ── server 198.18.9.10, 2001:db8:79:2::10
 */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ask } from '../../controlplane/api/client.ts';
import type { DomainView } from '../../controlplane/domain.ts';
import { type LabProcess, waitFor } from '../../controlplane/lab/namespace.ts';
import { type LiveLab, startLive } from './live-lab.ts';
import { labReady } from './need.ts';

const MAIN = fileURLToPath(new URL('../../dist/controlplane/cli/main.js', import.meta.url));

const CONFIG = `
ports:
  lan: { kind: tap, ifname: sl-dom-lan, zone: lan, mac: "02:00:00:00:01:01", addresses: [10.79.1.1/24, "2001:db8:79:1::1/64"] }
  wan: { kind: tap, ifname: sl-dom-wan, zone: wan, mac: "02:00:00:00:01:02", addresses: [198.18.9.1/24, "2001:db8:79:2::1/64"] }
zones:
  lan: { forward: accept, input: accept }
  wan: { forward: drop, input: accept }
nat: { masquerade: [ { out: wan, from: 10.79.1.0/24 } ] }
workers: 1
`;

const ECHO = `
for (const type of ['udp4', 'udp6']) {
  const socket = require('node:dgram').createSocket({ type, ipv6Only: type === 'udp6', recvBufferSize: 4 << 20 });
  socket.on('message', (data, from) => socket.send(data, from.port, from.address));
  socket.bind(7, () => console.log('ready ' + type));
}`;

/**
 * node -e … ADDRESS: numbered datagrams, five every 5 ms, until SIGUSR2; then `sent N back N` once no more come back. No more
 * than a hundred are on their way, so that no queue overflows when some program does not get its turn for a while.
 */
const NUMBERED = `
const to = process.argv[1];
const socket = require('node:dgram').createSocket({ type: to.includes(':') ? 'udp6' : 'udp4', recvBufferSize: 4 << 20 });
const back = new Set();
let sent = 0;
socket.on('message', (data) => back.add(data.readUInt32BE(0)));
socket.bind(0, () => {
  console.log('started');
  const timer = setInterval(() => {
    for (let n = 0; n < 5 && sent - back.size < 100; n++) {
      const data = Buffer.alloc(200);
      data.writeUInt32BE(sent++);
      socket.send(data, 7, to);
    }
  }, 5);
  process.on('SIGUSR2', () => {
    clearInterval(timer);
    const end = Date.now() + 10000;
    const look = setInterval(() => {
      if (back.size < sent && Date.now() < end) return;
      clearInterval(look);
      console.log('sent ' + sent + ' back ' + back.size);
      socket.close();
    }, 20);
  });
});`;

describe.skipIf(!labReady(['ping'], { tun: true }))('domains of a live router', () => {
  let live: LiveLab;

  beforeAll(async () => {
    live = await startLive(CONFIG, [
      {
        label: 'client',
        device: 'sl-dom-lan',
        addresses: ['10.79.1.10/24', '2001:db8:79:1::10/64'],
        via: ['10.79.1.1', '2001:db8:79:1::1'],
      },
      {
        label: 'server',
        device: 'sl-dom-wan',
        addresses: ['198.18.9.10/24', '2001:db8:79:2::10/64'],
        via: ['198.18.9.1', '2001:db8:79:2::1'],
      },
    ]);
    const echo = live.lab.spawn(live.ns('server'), process.execPath, ['-e', ECHO]);
    await waitFor('both sockets of the echo server', () => (echo.stdout().match(/ready/g) ?? []).length === 2);
  });

  afterAll(() => live?.close());

  const domain = async (name: string): Promise<DomainView> =>
    ((await live.show('domains')) as DomainView[]).find((view) => view.domain === name)!;

  async function numbered(address: string): Promise<LabProcess> {
    // The first packet of a connection waits for the neighbour; counted are those that find it.
    const { status } = await live.lab.run(live.ns('client'), 'ping', ['-n', '-c1', '-W5', address], { check: false });
    expect(status).toBe(0);
    const sender = live.lab.spawn(live.ns('client'), process.execPath, ['-e', NUMBERED, address]);
    await waitFor('the sender to start', () => sender.stdout().includes('started'));
    return sender;
  }

  async function counted(sender: LabProcess): Promise<{ sent: number; back: number }> {
    process.kill(sender.pid, 'SIGUSR2');
    await waitFor('the sender to count', () => sender.stdout().includes('back'), { timeout: 30_000 });
    const [, sent, back] = /sent (\d+) back (\d+)/.exec(sender.stdout())!;
    return { sent: Number(sent), back: Number(back) };
  }

  const pause = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds));

  for (const [restarted, address, own] of [
    ['ipv6', '198.18.9.10', '2001:db8:79:2::10'],
    ['ipv4', '2001:db8:79:2::10', '198.18.9.10'],
  ])
    it(`three times restart ${restarted}: not one packet of the other family is lost`, async () => {
      const before = (await domain(restarted)).restarts;
      const sender = await numbered(address);
      for (let n = 0; n < 3; n++) {
        await pause(200);
        if (n > 0) {
          await ask(live.socket, `/v1/restart/${restarted}`, { method: 'POST', body: '{}' });
          continue;
        }
        const done = spawnSync(process.execPath, [MAIN, 'restart', restarted, '--socket', live.socket], {
          encoding: 'utf8',
        });
        expect([done.status, done.stderr]).toEqual([0, '']);
        expect(done.stdout).toContain(`${restarted}: running`);
      }
      await pause(200);
      const { sent, back } = await counted(sender);
      expect(sent).toBeGreaterThan(300);
      expect({ lost: sent - back, sent }).toEqual({ lost: 0, sent });
      expect((await domain(restarted)).restarts).toBe(before + 3);
      // And its own family answers.
      const ping = await live.lab.run(live.ns('client'), 'ping', ['-n', '-c1', '-W5', own], { check: false });
      expect(ping.status).toBe(0);
    });

  it('refuses what is no domain, and names those that there are', () => {
    const done = spawnSync(process.execPath, [MAIN, 'restart', 'ipv5', '--socket', live.socket], { encoding: 'utf8' });
    expect([done.status, done.stderr]).toEqual([
      2,
      'sluice restart: expected one of ipv4, ipv6, management, got "ipv5"\n',
    ]);
  });
});
