/**
 * The router's own connections beside those that it translates: what comes back to a port that NAT had to choose for them
 * reaches who asked, the host kernel behind sluice0 or a built-in protocol.
 */
import { expect, it } from 'vitest';
import { IF_FLAGS, IF_WORDS, IFF_HOST, IFF_PRESENT, IFF_PROMISC, IFF_UP } from '../../dataplane/interfaces.ts';
import { HOST_PORT } from '../../dataplane/tables.ts';
import { ethernet, icmp, ipv4, type Segment, tcp, udp } from '../lib/build.ts';
import { dissect, GATEWAY_MAC, LAN_MAC, OUTSIDE, WAN_MAC, World } from './nat-world.ts';

const FAR = '198.51.100.1';

/** A world whose third port is sluice0, as controlplane/live/hostport.ts sets it up. */
function hosted(profile: string): World {
  const world = new World(
    { profile },
    {
      ports: {
        lan: { kind: 'memory', zone: 'lan', mac: LAN_MAC, addresses: ['192.168.1.1/24'] },
        wan: { kind: 'memory', zone: 'wan', mac: WAN_MAC, addresses: [`${OUTSIDE}/24`] },
        host: { kind: 'memory', zone: 'lan', mac: '02:00:00:00:01:09' },
      },
    },
  );
  const { tables, config } = world.router;
  const { number } = config.ports[2];
  tables.interfaces.words[number * IF_WORDS + IF_FLAGS] = IFF_PRESENT | IFF_UP | IFF_HOST | IFF_PROMISC;
  tables.control[HOST_PORT] = number + 1;
  return world;
}

it.each([
  ['linux', 'udp'],
  ['linux', 'tcp'],
  ['linux', 'icmp'],
  ['full-cone', 'udp'],
  ['full-cone', 'tcp'],
] as const)('%s, %s: the answer to a port that NAT chose for the host kernel went to that port', (profile, kind) => {
  const world = hosted(profile);
  const there = (port: number): Segment =>
    kind === 'icmp'
      ? icmp({ type: 8, id: port, seq: 1 })
      : kind === 'tcp'
        ? tcp({ sport: port, dport: 53, flags: 'S', seq: 1 })
        : udp({ sport: port, dport: 53 }, 'question');
  const back = (port: number): Segment =>
    kind === 'icmp'
      ? icmp({ type: 0, id: port, seq: 1 })
      : kind === 'tcp'
        ? tcp({ sport: 53, dport: port, flags: 'SA', seq: 9, ack: 2 })
        : udp({ sport: 53, dport: port }, 'answer');
  // A host inside has the port first, towards the same far end.
  expect(world.fromInside('192.168.1.10', FAR, there(5000)).wan[0].src).toBe(`${OUTSIDE}:5000`);
  const { router } = world;
  router.inject(
    'host',
    ethernet({ src: '02:00:00:00:00:99', dst: '02:00:00:00:01:09' }, ipv4({ src: OUTSIDE, dst: FAR }, there(5000))),
  );
  const [own] = router.take('wan').map(dissect);
  const port = Number(own.src.split(':')[1]);
  expect(port).not.toBe(5000);
  router.inject('wan', ethernet({ src: GATEWAY_MAC, dst: WAN_MAC }, ipv4({ src: FAR, dst: OUTSIDE }, back(port))));
  expect(router.take('host').map(dissect)).toMatchObject([{ dst: `${OUTSIDE}:5000` }]);
  expect(router.counters.dropped).toEqual({});
  // The answer to the host inside still goes to that.
  router.inject('wan', ethernet({ src: GATEWAY_MAC, dst: WAN_MAC }, ipv4({ src: FAR, dst: OUTSIDE }, back(5000))));
  expect(router.take('lan').map(dissect)).toMatchObject([{ dst: '192.168.1.10:5000' }]);
});
