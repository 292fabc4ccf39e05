/**
 * NAT matrix: does a peer-to-peer application get through? Every pair of NATs, in one loop and no time.
 *
 *   node examples/nat-matrix.mjs        (in this repository after `npm run build`; elsewhere `npm install sluice` first)
 *
 * Two peers, each behind a router with a profile of its own, learn their outside endpoints from a STUN server and send to
 * each other's (UDP hole punching, RFC 5128 §3.3). The table says whether a datagram arrived. Put your own protocol where
 * `punch` is, and see it against every NAT that its users have.
 */
import { createRouter } from 'sluice';

const PROFILES = ['linux', 'full-cone', 'restricted-cone', 'port-restricted-cone', 'symmetric'];
const STUN = ['198.51.100.1', 3478];

/** A home with one host: `send` puts a datagram on its LAN, `receive` one on its WAN; both return what came out beyond. */
function home(profile, outside, seed) {
  const router = createRouter(
    {
      ports: {
        lan: { kind: 'memory', zone: 'lan', mac: '02:00:00:00:01:01', addresses: '192.168.1.1/24' },
        wan: { kind: 'memory', zone: 'wan', mac: '02:00:00:00:01:02', addresses: `${outside}/24` },
      },
      routes: [{ to: '0.0.0.0/0', via: outside.replace(/\d+$/, '254') }],
      neighbors: [
        { port: 'lan', ip: '192.168.1.10', mac: '02:00:00:00:00:10' },
        { port: 'wan', ip: outside.replace(/\d+$/, '254'), mac: '02:00:00:00:00:fe' },
      ],
      zones: { lan: { forward: 'accept', input: 'accept' }, wan: { forward: 'drop', input: 'drop' } },
      nat: { profile, masquerade: [{ out: 'wan' }] },
      conntrack: { max: 1024 },
      offload: { mode: 'off' },
    },
    { seed },
  );
  const through = (port, other, from, to) => {
    router.inject(port, frame(from, to, port === 'lan' ? '02:00:00:00:01:01' : '02:00:00:00:01:02'));
    return router.take(other).map(endpoints);
  };
  return {
    send: (from, to) => through('lan', 'wan', from, to),
    receive: (from, to) => through('wan', 'lan', from, to),
  };
}

/** Hole punching: [a gets b's, b gets a's]. */
function punch(profileA, profileB) {
  const a = home(profileA, '203.0.113.1', 1);
  const b = home(profileB, '192.0.2.1', 2);
  const host = ['192.168.1.10', 4000];
  // Both ask the server what they look like, and tell each other through it.
  const [{ from: seenA }] = a.send(host, STUN);
  const [{ from: seenB }] = b.send(host, STUN);
  // Each sends to where the other is said to be; from the first datagram on, to where that came from (as ICE does).
  const peer = { a: seenB, b: seenA };
  const heard = { a: false, b: false };
  for (let round = 0; round < 4; round++)
    for (const [me, other, sender, receiver] of [
      ['a', 'b', a, b],
      ['b', 'a', b, a],
    ])
      for (const { from, to } of sender.send(host, peer[me]))
        for (const arrived of receiver.receive(from, to)) {
          heard[other] = true;
          peer[other] = arrived.from;
        }
  return heard.a && heard.b;
}

console.log(`${''.padEnd(22)}${PROFILES.map((profile) => profile.padEnd(22)).join('')}`);
for (const a of PROFILES)
  console.log(a.padEnd(22) + PROFILES.map((b) => (punch(a, b) ? 'connected' : '-').padEnd(22)).join(''));

// --- frames ------------------------------------------------------------------------------------------------------------

function frame([source, sport], [destination, dport], mac) {
  const bytes = new Uint8Array(14 + 20 + 8 + 4);
  const view = new DataView(bytes.buffer);
  bytes.set(mac.split(':').map((part) => Number.parseInt(part, 16)));
  bytes.set([2, 0, 0, 0, 0, 0x10, 8, 0, 0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17], 6);
  bytes.set([...source.split('.'), ...destination.split('.')].map(Number), 26);
  let sum = 0;
  for (let at = 14; at < 34; at += 2) sum += view.getUint16(at);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  view.setUint16(24, ~sum & 0xffff);
  view.setUint16(34, sport);
  view.setUint16(36, dport);
  view.setUint16(38, 12); // no UDP checksum, which IPv4 allows (RFC 768)
  return bytes;
}

function endpoints(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  return {
    from: [bytes.subarray(26, 30).join('.'), view.getUint16(34)],
    to: [bytes.subarray(30, 34).join('.'), view.getUint16(36)],
  };
}
