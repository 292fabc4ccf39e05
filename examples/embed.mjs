/**
 * Embedding: a whole router inside a program, with a virtual clock and no privileges.
 *
 *   node examples/embed.mjs        (in this repository after `npm run build`; elsewhere `npm install sluice` first)
 *
 * A host behind the router asks a name server outside. What it sends is put on the port `lan`; what leaves on `wan` has
 * the router's address, and the answer finds its way back. Then half a minute passes, in no time.
 */
import { createRouter } from 'sluice';

const router = createRouter({
  ports: {
    lan: { kind: 'memory', zone: 'lan', mac: '02:00:00:00:01:01', addresses: ['192.168.1.1/24', '2001:db8:1::1/64'] },
    wan: { kind: 'memory', zone: 'wan', mac: '02:00:00:00:01:02', addresses: ['203.0.113.1/24', '2001:db8:2::1/64'] },
  },
  routes: [{ to: '0.0.0.0/0', via: '203.0.113.254' }],
  // Nobody answers ARP here, so the neighbours are named.
  neighbors: [
    { port: 'lan', ip: '192.168.1.10', mac: '02:00:00:00:00:10' },
    { port: 'wan', ip: '203.0.113.254', mac: '02:00:00:00:00:fe' },
  ],
  zones: { lan: { forward: 'accept', input: 'accept' }, wan: { forward: 'drop', input: 'drop' } },
  nat: { masquerade: [{ out: 'wan', from: '192.168.1.0/24' }] },
});

// --- what a host would do: build a frame, read a frame -----------------------------------------------------------------

const bytesOf = (text, separator, radix) => text.split(separator).map((part) => Number.parseInt(part, radix));

/** One's complement checksum over these bytes (RFC 1071). */
function checksum(bytes) {
  let sum = 0;
  for (let n = 0; n < bytes.length; n += 2) sum += (bytes[n] << 8) | (bytes[n + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

/** An Ethernet frame with a UDP datagram in IPv4; the UDP checksum is left out, which IPv4 allows (RFC 768). */
function udpFrame({ from, to, macs, data }) {
  const payload = new TextEncoder().encode(data);
  const frame = new Uint8Array(14 + 20 + 8 + payload.length);
  const view = new DataView(frame.buffer);
  frame.set([...bytesOf(macs[1], ':', 16), ...bytesOf(macs[0], ':', 16), 0x08, 0x00]);
  frame.set([0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 17, 0, 0, ...bytesOf(from[0], '.', 10), ...bytesOf(to[0], '.', 10)], 14);
  view.setUint16(16, 28 + payload.length);
  view.setUint16(24, checksum(frame.subarray(14, 34)));
  view.setUint16(34, from[1]);
  view.setUint16(36, to[1]);
  view.setUint16(38, 8 + payload.length);
  frame.set(payload, 42);
  return frame;
}

function describe(frame) {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
  const [from, to] = [26, 30].map((at) => frame.subarray(at, at + 4).join('.'));
  const data = new TextDecoder().decode(frame.subarray(42));
  return `${from}:${view.getUint16(34)} → ${to}:${view.getUint16(36)} ttl ${frame[22]} "${data}"`;
}

// --- and the router in the middle --------------------------------------------------------------------------------------

const host = { mac: '02:00:00:00:00:10', address: ['192.168.1.10', 40000] };
const nameServer = ['198.51.100.53', 53];

router.inject(
  'lan',
  udpFrame({ from: host.address, to: nameServer, macs: [host.mac, '02:00:00:00:01:01'], data: 'who?' }),
);
for (const frame of router.take('wan')) console.log('left on wan:', describe(frame));

const outside = ['203.0.113.1', 40000];
const macs = ['02:00:00:00:00:fe', '02:00:00:00:01:02'];
router.inject('wan', udpFrame({ from: nameServer, to: outside, macs, data: 'me!' }));
for (const frame of router.take('lan')) console.log('left on lan:', describe(frame));

// Somebody that nobody asked: dropped, and counted by its reason.
router.inject('wan', udpFrame({ from: ['198.51.100.66', 53], to: outside, macs, data: 'boo' }));
console.log('left on lan:', router.take('lan').length, 'frames; dropped:', JSON.stringify(router.counters.dropped));

console.log('connections:', router.conntrack.lines().join('\n'));
router.advance(31_000);
console.log('31 virtual seconds later:', router.conntrack.list().length, 'connections');
