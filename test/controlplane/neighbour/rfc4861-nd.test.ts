/** ND: answering (§7.2.4), learning (§7.2.3, §6.2.6), advertisements (§7.2.5), DAD (RFC 4862 §5.4). */
import { describe, expect, test } from 'vitest';
import { get16, hex, ipText, macText, toHex } from '../../lib/build.ts';
import { fragmentHeader, hopByHop } from '../../lib/build-more.ts';
import { advertisement, HOST, MACS, ndFrame, OTHER, type Sent, solicitation, World, words } from './world.ts';

/** `MAC > MAC, source > destination: ns|na target flags option`. */
function describeNd({ frame }: Sent): string {
  const way = `${macText(frame.subarray(6, 12))} > ${macText(frame.subarray(0, 6))}`;
  const ips = `${ipText(frame.subarray(22, 38))} > ${ipText(frame.subarray(38, 54))}`;
  const kind = frame[54] === 135 ? 'ns' : 'na';
  const flags = `${frame[58] & 0x80 ? 'R' : ''}${frame[58] & 0x40 ? 'S' : ''}${frame[58] & 0x20 ? 'O' : ''}`;
  const option = frame.length > 78 ? ` ${frame[78]}=${macText(frame.subarray(80, 86))}` : '';
  return `${way}, ${ips}: ${kind} ${ipText(frame.subarray(62, 78))}${flags && ` ${flags}`}${option}`;
}
const taken = (world: World) => world.take().map(describeNd);

const [US] = MACS;

describe('RFC 4861 §7.2.4: answering', () => {
  test('a multicast solicitation, byte for byte', () => {
    const world = new World();
    world.frame(0, solicitation({ to: '33:33:ff:00:00:01' }));
    const [{ frame }] = world.take();
    expect(toHex(frame.subarray(0, 56))).toBe(
      toHex(
        hex(`02000000000a 020000000100 86dd 60000000 0020 3a ff
             fe80000000000000 0000000000000001 fe80000000000000 000000000000000a 8800`),
      ),
    );
    // Router, solicited, override; target; target link-layer address.
    expect(toHex(frame.subarray(58))).toBe(toHex(hex('e0000000 fe80000000000000 0000000000000001 0201020000000100')));
    expect(world.entry(0, 'fe80::a')).toBe(`STALE ${HOST}`);
  });

  test('a unicast solicitation without option is answered to where it came from; nobody is learned', () => {
    const world = new World();
    world.frame(0, solicitation({ dst: '2001:db8::1', target: '2001:db8::1', src: '2001:db8::a', option: null }));
    expect(taken(world)).toEqual([`${US} > ${HOST}, 2001:db8::1 > 2001:db8::a: na 2001:db8::1 RSO 2=${US}`]);
    expect(world.neighbours.count).toBe(0);
  });

  test('from :: (a host tries our address): to all nodes, not solicited', () => {
    const world = new World();
    world.frame(0, solicitation({ src: '::', option: null }));
    expect(taken(world)).toEqual([`${US} > 33:33:00:00:00:01, fe80::1 > ff02::1: na fe80::1 RO 2=${US}`]);
    expect(world.neighbours.count).toBe(0);
  });

  test("only for this port's addresses", () => {
    const world = new World();
    world.frame(0, solicitation({ target: '2001:db8:1::1', dst: 'ff02::1:ff00:1' }));
    world.frame(0, solicitation({ target: 'fe80::99', dst: 'ff02::1:ff00:99' }));
    expect(world.take()).toEqual([]);
    expect(world.neighbours.count).toBe(0);
  });

  test('§7.2.8: a proxy answers without override, from its own address, never a probe', () => {
    const world = new World();
    world.addresses.addProxy(0, 6, words('2001:db8:7::'), 64);
    const asked = { target: '2001:db8:7::5', dst: 'ff02::1:ff00:5', src: '2001:db8::a' };
    world.frame(0, solicitation(asked));
    expect(taken(world)).toEqual([`${US} > ${HOST}, 2001:db8::1 > 2001:db8::a: na 2001:db8:7::5 S 2=${US}`]);
    world.frame(0, solicitation({ ...asked, src: '::', option: null }));
    expect(world.take()).toEqual([]);
  });

  test('a VLAN port answers with its tag', () => {
    const world = new World();
    world.setVlan(0, 7);
    world.frame(0, solicitation());
    const [{ frame }] = world.take();
    expect([get16(frame, 12), get16(frame, 14), get16(frame, 16)]).toEqual([0x8100, 7, 0x86dd]);
  });
});

describe('RFC 4861 §7.2.3: learning', () => {
  test('another MAC replaces the old one and is STALE; the same changes nothing', () => {
    const world = new World();
    world.resolve(0, 'fe80::a');
    world.frame(0, advertisement());
    expect(world.entry(0, 'fe80::a')).toBe(`REACHABLE ${HOST}`);
    world.frame(0, solicitation());
    expect(world.entry(0, 'fe80::a')).toBe(`REACHABLE ${HOST}`);
    world.frame(0, solicitation({ mac: OTHER }));
    expect(world.entry(0, 'fe80::a')).toBe(`STALE ${OTHER}`);
  });

  test('VU#472363: a source that is not on the link is answered, not remembered', () => {
    const world = new World();
    world.frame(0, solicitation({ src: '2001:db8:bad::1', target: '2001:db8::1' }));
    expect(world.take().length).toBe(1);
    expect(world.neighbours.count).toBe(0);
  });

  test('a group or zero MAC in the option is not learned', () => {
    const world = new World();
    world.frame(0, solicitation({ option: '33:33:00:00:00:01' }));
    world.frame(0, solicitation({ option: '00:00:00:00:00:00' }));
    expect(world.neighbours.count).toBe(0);
  });

  test('§6.2.6, §6.3.4: router solicitations and advertisements, with the router flag', () => {
    const world = new World();
    world.frame(0, ndFrame({ type: 134, dst: 'ff02::1', src: 'fe80::a' }));
    expect(world.entry(0, 'fe80::a')).toBe(`STALE ${HOST} router`);
    world.frame(0, ndFrame({ type: 133, dst: 'ff02::2', src: 'fe80::a' }));
    expect(world.entry(0, 'fe80::a')).toBe(`STALE ${HOST}`);
    world.frame(0, ndFrame({ type: 134, dst: 'ff02::1', src: 'fe80::a', option: null }));
    expect(world.entry(0, 'fe80::a')).toBe(`STALE ${HOST} router`);
    expect(world.take()).toEqual([]);
  });

  test('§8.2: a router learns nothing from a redirect', () => {
    const world = new World();
    world.frame(0, ndFrame({ type: 137, src: 'fe80::a' }));
    expect(world.neighbours.count).toBe(0);
  });

  test('hop-by-hop options are stepped over; RFC 6980: fragments are ignored', () => {
    const world = new World();
    world.frame(0, solicitation({ ext: [fragmentHeader({ offset: 0, more: false, id: 1 })] }));
    expect(world.take()).toEqual([]);
    world.frame(0, solicitation({ ext: [hopByHop()] }));
    expect(world.take().length).toBe(1);
  });

  test('our own frame, looped back, is ignored', () => {
    const world = new World();
    world.frame(0, solicitation({ mac: US }));
    expect([world.take(), world.neighbours.count]).toEqual([[], 0]);
  });
});

describe('RFC 4861 §7.2.2: asking', () => {
  test('to the solicited-node group, from an address of the same scope or subnet', () => {
    const world = new World();
    world.resolve(0, 'fe80::12:3456');
    world.resolve(0, '2001:db8::9');
    world.resolve(0, '2001:db8:ffff::9');
    expect(taken(world)).toEqual([
      `${US} > 33:33:ff:12:34:56, fe80::1 > ff02::1:ff12:3456: ns fe80::12:3456 1=${US}`,
      `${US} > 33:33:ff:00:00:09, 2001:db8::1 > ff02::1:ff00:9: ns 2001:db8::9 1=${US}`,
      `${US} > 33:33:ff:00:00:09, fe80::1 > ff02::1:ff00:9: ns 2001:db8:ffff::9 1=${US}`,
    ]);
  });
});

describe('RFC 4861 §7.2.5: advertisements', () => {
  /** An entry for fe80::a in the state that the test wants. */
  function entryIn(state: string): World {
    const world = new World();
    if (state === 'none') return world;
    if (state === 'STALE') world.frame(0, solicitation());
    else {
      world.resolve(0, 'fe80::a');
      if (state === 'REACHABLE') world.frame(0, advertisement());
      if (state === 'FAILED') world.advance(3500);
    }
    expect(world.entry(0, 'fe80::a').split(' ')[0]).toBe(state);
    world.take();
    return world;
  }

  // State, flags, MAC in the option (null: no option) → entry afterwards. HOST is known before, OTHER is news.
  test.each([
    ['none', 'SO', HOST, 'none'],
    ['FAILED', 'SO', HOST, 'FAILED'],
    ['INCOMPLETE', 'SO', HOST, `REACHABLE ${HOST}`],
    ['INCOMPLETE', 'S', HOST, `REACHABLE ${HOST}`],
    ['INCOMPLETE', 'RS', HOST, `REACHABLE ${HOST} router`],
    ['INCOMPLETE', '', HOST, `STALE ${HOST}`],
    ['INCOMPLETE', 'O', HOST, `STALE ${HOST}`],
    ['INCOMPLETE', 'SO', null, 'INCOMPLETE'],
    ['REACHABLE', '', OTHER, `STALE ${HOST}`],
    ['REACHABLE', 'RS', OTHER, `STALE ${HOST}`],
    ['REACHABLE', 'O', OTHER, `STALE ${OTHER}`],
    ['REACHABLE', 'SO', OTHER, `REACHABLE ${OTHER}`],
    ['REACHABLE', '', HOST, `REACHABLE ${HOST}`],
    ['REACHABLE', 'O', HOST, `REACHABLE ${HOST}`],
    ['REACHABLE', 'R', null, `REACHABLE ${HOST} router`],
    ['STALE', '', OTHER, `STALE ${HOST}`],
    ['STALE', 'S', OTHER, `STALE ${HOST}`],
    ['STALE', 'O', OTHER, `STALE ${OTHER}`],
    ['STALE', 'SO', OTHER, `REACHABLE ${OTHER}`],
    ['STALE', 'S', HOST, `REACHABLE ${HOST}`],
    ['STALE', 'S', null, `REACHABLE ${HOST}`],
    ['STALE', 'O', null, `STALE ${HOST}`],
  ])('%s, flags "%s", option %s: %s', (state, flags, option, expected) => {
    const world = entryIn(state);
    const to = flags.includes('S') ? 'fe80::1' : 'ff02::1';
    world.frame(0, advertisement({ flags, option, dst: to }));
    expect(world.entry(0, 'fe80::a')).toBe(expected);
    expect(world.take()).toEqual([]);
  });

  test('invalid ones change nothing', () => {
    const world = entryIn('INCOMPLETE');
    world.frame(0, advertisement({ hop: 254 }));
    world.frame(0, advertisement({ dst: 'ff02::1' })); // solicited, to a group
    world.frame(0, advertisement({ option: '01:00:00:00:00:01' }));
    const broken = advertisement();
    broken[broken.length - 1] ^= 1; // checksum
    world.frame(0, broken);
    expect(world.entry(0, 'fe80::a')).toBe('INCOMPLETE');
  });

  test('the same link-local address on two ports is two neighbours', () => {
    const world = new World();
    world.frame(0, solicitation());
    world.frame(1, solicitation({ mac: OTHER, to: MACS[1] }));
    expect([world.entry(0, 'fe80::a'), world.entry(1, 'fe80::a')]).toEqual([`STALE ${HOST}`, `STALE ${OTHER}`]);
  });

  test('somebody who advertises our address is reported once in a while and not learned', () => {
    const world = new World();
    for (let n = 0; n < 3; n++) world.frame(0, advertisement({ target: '2001:db8::1', dst: 'ff02::1', flags: 'O' }));
    world.frame(0, solicitation({ src: '2001:db8::1' }));
    expect(world.logs).toEqual([
      `nd: port 0: 2001:db8::1 is our address, but ${HOST} uses it too; give one of them another address`,
    ]);
    expect([world.take(), world.neighbours.count]).toEqual([[], 0]);
  });
});

describe('RFC 4862 §5.4: duplicate address detection', () => {
  const tentative = (world: World) => world.addresses.add(0, 6, words('2001:db8::77'), 64, 'tentative');

  test('one question from ::, then a second of silence, then the address is ours', () => {
    const world = new World();
    const own = tentative(world);
    world.advance(999);
    expect(taken(world)).toEqual([`${US} > 33:33:ff:00:00:77, :: > ff02::1:ff00:77: ns 2001:db8::77`]);
    world.frame(0, solicitation({ target: '2001:db8::77', dst: 'ff02::1:ff00:77' }));
    expect(world.take()).toEqual([]); // §5.4.3: not answered while tentative
    expect(own.state).toBe('tentative');
    world.advance(1);
    expect(own.state).toBe('preferred');
    world.frame(0, solicitation({ target: '2001:db8::77', dst: 'ff02::1:ff00:77' }));
    expect(world.take().length).toBe(1);
  });

  test.each([
    ['an advertisement', advertisement({ target: '2001:db8::77', dst: 'ff02::1', flags: 'O', src: '2001:db8::77' })],
    ['another probe', solicitation({ target: '2001:db8::77', dst: 'ff02::1:ff00:77', src: '::', option: null })],
  ])('a collision by %s: duplicate, and said so', (_name, frame) => {
    const world = new World();
    const own = tentative(world);
    world.advance(500);
    world.take();
    world.frame(0, frame);
    world.advance(10_000);
    expect(own.state).toBe('duplicate');
    expect(world.logs).toEqual([
      `nd: port 0: 2001:db8::77 is our address, but ${HOST} uses it; it stays unused until that is mended`,
    ]);
    world.frame(0, solicitation({ target: '2001:db8::77', dst: 'ff02::1:ff00:77' }));
    expect(world.take()).toEqual([]);
  });

  test('our own probe, looped back, is no collision', () => {
    const world = new World();
    const own = tentative(world);
    world.advance(100);
    world.frame(0, world.take()[0].frame);
    world.advance(1000);
    expect(own.state).toBe('preferred');
  });

  test('without a link it waits; quiet lets the address pass unasked', () => {
    const world = new World();
    world.link(0, false);
    const own = tentative(world);
    world.advance(5000);
    expect([own.state, world.take()]).toEqual(['tentative', []]);
    world.link(0, true);
    world.advance(1000);
    expect(own.state).toBe('preferred');
    const quiet = new World({ quiet: true });
    const other = tentative(quiet);
    quiet.advance(0);
    expect([other.state, quiet.take()]).toEqual(['preferred', []]);
  });

  test('an address that is removed meanwhile is forgotten', () => {
    const world = new World();
    tentative(world);
    world.advance(10);
    world.addresses.remove(0, 6, words('2001:db8::77'));
    world.advance(5000);
    expect(world.nd.next(world.now)).toBe(-1);
  });
});
