/**
 * A router with a lease file and clients that never pause: the process that gets killed. For each Reply that has left it
 * writes `client prefix` on its standard output; at the end a line `done` with its figures.
 *
 *   child.js FILE FIRST LAST
 */
import { writeSync } from 'node:fs';
import { prefixText } from '../../controlplane/dhcp6/leases.ts';
import { emitMessage, type Message, newMessage, parseMessage } from '../../controlplane/dhcp6/message.ts';
import { createRouter } from '../../controlplane/router.ts';
import * as build from '../lib/build.ts';

const BURST = 64;
const [file, first, last] = [process.argv[2], Number(process.argv[3]), Number(process.argv[4])];

const router = createRouter(
  {
    ports: {
      lan: {
        kind: 'memory',
        mac: '02:00:00:00:0a:01',
        addresses: '2001:db8:0:1::1/64',
        dhcp6: { server: { delegate: 'customers', preferred: 100_000, valid: 200_000, rate: 1_000_000 } },
      },
    },
    delegation: { file, pools: { customers: { prefix: '2001:db8:100::/40', length: 60 } } },
    offload: { mode: 'off' },
    conntrack: { max: 65_536 },
  },
  { unasked: true },
);
router.advance(3000);
router.take('lan');

function ask(client: number, message: Message): void {
  message.clientId = Uint8Array.of(0, 3, 0, 1, 2, 0, 0, client >> 16, client >> 8, client);
  const src = `fe80::${(client >> 16).toString(16)}:${(client & 0xffff).toString(16)}:1`;
  const packet = build.ipv6({ src, dst: 'ff02::1:2' }, build.udp({ sport: 546, dport: 547 }, emitMessage(message)));
  router.inject('lan', build.ethernet({ src: '02:00:00:00:0c:01', dst: '33:33:00:01:00:02' }, packet));
}

/** What the server sends, once it is on the disk. */
function answers(): Message[] {
  router.advance(1);
  return router
    .take('lan')
    .flatMap((frame) => (build.get16(frame, 56) === 546 ? [parseMessage(frame.slice(62))!] : []));
}

const started = performance.now();
for (let from = first; from < last; from += BURST) {
  const to = Math.min(last, from + BURST);
  for (let client = from; client < to; client++) {
    const solicit = newMessage(1, client);
    solicit.ias = [{ kind: 'pd', iaid: 1, t1: 0, t2: 0, addresses: [], prefixes: [], status: null }];
    ask(client, solicit);
  }
  for (const offer of answers())
    ask(offer.xid, Object.assign(newMessage(3, offer.xid), { serverId: offer.serverId, ias: offer.ias }));
  for (const { xid, ias } of answers()) {
    const [prefix] = ias[0].prefixes;
    writeSync(1, `${xid} ${prefixText(prefix.words, prefix.prefixLength)}\n`);
  }
}
const seconds = (performance.now() - started) / 1000;
const mebibytes = Math.round(process.memoryUsage().rss / 2 ** 20);
writeSync(
  1,
  `done ${Math.round((last - first) / seconds)} ${mebibytes} ${router.control.domains.dhcp6!.delegation.leases.size}\n`,
);
