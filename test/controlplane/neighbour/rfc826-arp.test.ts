/** ARP: answering and learning (RFC 826), conflicts and announcements (RFC 5227), what a router must not believe. */
import { describe, expect, test } from 'vitest';
import { toHex } from '../../lib/build.ts';
import { arpFrame, HOST, MACS, OTHER, World, words } from './world.ts';

const hexOf = (world: World) => world.take().map((s) => `${s.port} ${toHex(s.frame)}`);

describe('RFC 826: answering', () => {
  test('a request for our address is answered, byte for byte', () => {
    const world = new World();
    world.frame(0, arpFrame({ op: 'request', from: '10.0.0.10', target: '10.0.0.1' }));
    // Ethernet; hardware, protocol, lengths, operation; sender; target.
    const expected = '02000000000a 020000000100 0806 0001 0800 0604 0002 020000000100 0a000001 02000000000a 0a00000a';
    expect(hexOf(world)).toEqual([`0 ${expected.replaceAll(' ', '')}`]);
  });

  test('on a VLAN port the reply carries the tag', () => {
    const world = new World();
    world.setVlan(0, 100);
    world.frame(0, arpFrame({ op: 'request', from: '10.0.0.10', target: '10.0.0.1', vlan: 100 }));
    const [reply] = world.take();
    expect(toHex(reply.frame.subarray(12, 20))).toBe('8100006408060001');
    expect(world.entry(0, '10.0.0.10')).toBe(`STALE ${HOST}`);
  });

  test("only for addresses of that port, not for another port's, nor for strangers'", () => {
    const world = new World();
    world.frame(0, arpFrame({ op: 'request', from: '10.0.0.10', target: '10.0.1.1' }));
    world.frame(0, arpFrame({ op: 'request', from: '10.0.0.10', target: '10.0.0.99' }));
    expect(world.take()).toEqual([]);
    expect(world.entry(0, '10.0.0.10')).toBe('none');
  });

  test('a tentative address is not answered for', () => {
    const world = new World();
    world.addresses.add(0, 4, words('10.0.0.2'), 24, 'tentative');
    world.frame(0, arpFrame({ op: 'request', from: '10.0.0.10', target: '10.0.0.2' }));
    expect(world.take()).toEqual([]);
  });

  test('RFC 1027: a proxied prefix is answered for, but not for who lives on that link, and not to a probe', () => {
    const world = new World();
    world.addresses.addProxy(0, 4, words('10.0.9.0'), 24);
    world.frame(0, arpFrame({ op: 'request', from: '10.0.0.10', target: '10.0.9.5' }));
    expect(world.take().length).toBe(1);
    world.frame(0, arpFrame({ op: 'request', from: '0.0.0.0', target: '10.0.9.5' }));
    world.arp.cache.learn(world.now, 0, words('10.0.9.6'), 2, 1);
    world.frame(0, arpFrame({ op: 'request', from: '10.0.0.10', target: '10.0.9.6' }));
    expect(world.take()).toEqual([]);
    world.addresses.removeProxy(0, 4, words('10.0.9.0'), 24);
    world.frame(0, arpFrame({ op: 'request', from: '10.0.0.10', target: '10.0.9.5' }));
    expect(world.take()).toEqual([]);
  });
});

describe('RFC 826: learning', () => {
  test('from a request to us: STALE, since it proves nothing', () => {
    const world = new World();
    world.frame(0, arpFrame({ op: 'request', from: '10.0.0.10', target: '10.0.0.1' }));
    expect(world.entry(0, '10.0.0.10')).toBe(`STALE ${HOST}`);
    const generation = world.generation(0, '10.0.0.10');
    world.frame(0, arpFrame({ op: 'request', from: '10.0.0.10', target: '10.0.0.1' }));
    expect(world.generation(0, '10.0.0.10')).toBe(generation);
    world.frame(0, arpFrame({ op: 'request', mac: OTHER, from: '10.0.0.10', target: '10.0.0.1' }));
    expect(world.entry(0, '10.0.0.10')).toBe(`STALE ${OTHER}`);
    expect(world.generation(0, '10.0.0.10')).toBe(generation + 1);
  });

  test('a sender from outside the subnets is answered, not remembered', () => {
    const world = new World();
    world.frame(0, arpFrame({ op: 'request', from: '172.16.0.1', target: '10.0.0.1' }));
    expect(world.take().length).toBe(1);
    expect(world.entry(0, '172.16.0.1')).toBe('none');
  });

  test('the reply to our question: REACHABLE', () => {
    const world = new World();
    world.resolve(0, '10.0.0.10');
    expect(hexOf(world)).toEqual([
      `0 ${'ffffffffffff 020000000100 0806 0001 0800 0604 0001 020000000100 0a000001 000000000000 0a00000a'.replaceAll(' ', '')}`,
    ]);
    world.frame(0, arpFrame({ op: 'reply', from: '10.0.0.10', target: '10.0.0.1' }));
    expect(world.entry(0, '10.0.0.10')).toBe(`REACHABLE ${HOST}`);
    expect(world.take()).toEqual([]);
  });

  test('a reply that nobody asked for makes no entry; a broadcast one is no proof', () => {
    const world = new World();
    world.frame(0, arpFrame({ op: 'reply', from: '10.0.0.10', target: '10.0.0.1' }));
    expect(world.entry(0, '10.0.0.10')).toBe('none');
    world.resolve(0, '10.0.0.10');
    world.frame(0, arpFrame({ op: 'reply', from: '10.0.0.10', target: '10.0.0.1', to: 'ff:ff:ff:ff:ff:ff' }));
    expect(world.entry(0, '10.0.0.10')).toBe(`STALE ${HOST}`);
  });

  test('of two different replies within a second the first wins; later ones are believed', () => {
    const world = new World();
    world.resolve(0, '10.0.0.10');
    world.frame(0, arpFrame({ op: 'reply', from: '10.0.0.10', target: '10.0.0.1' }));
    world.frame(0, arpFrame({ op: 'reply', mac: OTHER, from: '10.0.0.10', target: '10.0.0.1' }));
    expect(world.entry(0, '10.0.0.10')).toBe(`REACHABLE ${HOST}`);
    world.advance(1001);
    world.frame(0, arpFrame({ op: 'reply', mac: OTHER, from: '10.0.0.10', target: '10.0.0.1' }));
    expect(world.entry(0, '10.0.0.10')).toBe(`REACHABLE ${OTHER}`);
  });

  test('a request for somebody else updates who is known, and makes nobody', () => {
    const world = new World();
    world.frame(0, arpFrame({ op: 'request', from: '10.0.0.11', target: '10.0.0.99' }));
    expect(world.entry(0, '10.0.0.11')).toBe('none');
    world.resolve(0, '10.0.0.10');
    world.frame(0, arpFrame({ op: 'request', from: '10.0.0.10', target: '10.0.0.99' }));
    expect(world.entry(0, '10.0.0.10')).toBe(`STALE ${HOST}`);
  });

  test.each(['request', 'reply'] as const)('gratuitous ARP (%s) changes an entry at once, and makes none', (op) => {
    const world = new World();
    world.frame(0, arpFrame({ op, from: '10.0.0.10', target: '10.0.0.10', to: 'ff:ff:ff:ff:ff:ff' }));
    expect(world.entry(0, '10.0.0.10')).toBe('none');
    world.resolve(0, '10.0.0.10');
    world.frame(0, arpFrame({ op: 'reply', from: '10.0.0.10', target: '10.0.0.1' }));
    world.frame(0, arpFrame({ op, mac: OTHER, from: '10.0.0.10', target: '10.0.0.10', to: 'ff:ff:ff:ff:ff:ff' }));
    expect(world.entry(0, '10.0.0.10')).toBe(`STALE ${OTHER}`);
  });

  test('RFC 1812 §3.3.2: group and zero MACs, impossible senders', () => {
    const world = new World();
    for (const mac of ['01:00:5e:00:00:01', 'ff:ff:ff:ff:ff:ff', '00:00:00:00:00:00'])
      world.frame(0, arpFrame({ op: 'request', mac, from: '10.0.0.10', target: '10.0.0.1' }));
    for (const from of ['127.0.0.1', '224.0.0.1', '255.255.255.255', '0.0.0.1'])
      world.frame(0, arpFrame({ op: 'request', from, target: '10.0.0.1' }));
    expect(world.take()).toEqual([]);
    expect(world.neighbours.count).toBe(0);
  });

  test('a permanent entry is not changed by anybody', () => {
    const world = new World();
    world.arp.cache.setPermanent(world.now, 0, words('10.0.0.10'), 2, 0x0c00);
    for (const op of ['request', 'reply'] as const)
      world.frame(0, arpFrame({ op, from: '10.0.0.10', target: '10.0.0.1' }));
    world.frame(0, arpFrame({ op: 'reply', from: '10.0.0.10', target: '10.0.0.10' }));
    expect(world.entry(0, '10.0.0.10')).toBe('PERMANENT 02:00:00:00:00:0c');
    world.resolve(0, '10.0.0.10');
    world.use(0, '10.0.0.10');
    world.advance(3_600_000);
    expect(world.entry(0, '10.0.0.10')).toBe('PERMANENT 02:00:00:00:00:0c');
    expect(world.take().filter((s) => s.at > 1000)).toEqual([]);
  });
});

describe('RFC 5227', () => {
  test('§2.1.1: a probe for our address is answered and teaches nothing', () => {
    const world = new World();
    world.frame(0, arpFrame({ op: 'request', from: '0.0.0.0', target: '10.0.0.1' }));
    const [reply] = world.take();
    expect(toHex(reply.frame.subarray(20))).toBe('00020200000001000a00000102000000000a00000000');
    expect(world.neighbours.count).toBe(0);
  });

  test('§2.4: somebody with our address: told, defended once in ten seconds, never learned', () => {
    const world = new World();
    const claim = arpFrame({ op: 'request', from: '10.0.0.1', target: '10.0.0.1' });
    for (let n = 0; n < 5; n++) {
      world.frame(0, claim);
      world.advance(1000);
    }
    expect(world.logs).toEqual([
      `arp: port 0: 10.0.0.1 is our address, but ${HOST} uses it too; give one of them another address`,
    ]);
    const [defence, ...more] = world.take();
    expect(more).toEqual([]);
    expect(toHex(defence.frame)).toBe(
      'ffffffffffff 020000000100 0806 0001 0800 0604 0001 020000000100 0a000001 000000000000 0a000001'.replaceAll(
        ' ',
        '',
      ),
    );
    expect(world.neighbours.count).toBe(0);
    world.advance(10_000);
    world.frame(0, claim);
    expect(world.logs.length).toBe(2);
  });

  test('our own frame, looped back, is no conflict', () => {
    const world = new World();
    world.frame(0, arpFrame({ op: 'request', mac: MACS[0], from: '10.0.0.1', target: '10.0.0.1' }));
    expect([world.logs, world.take()]).toEqual([[], []]);
  });

  test('§2.3: a link that comes back is announced on, except when quiet', () => {
    const world = new World();
    world.link(1, true);
    const arps = world.take().filter((s) => toHex(s.frame.subarray(12, 14)) === '0806');
    expect(arps.map((s) => [s.port, toHex(s.frame.subarray(28))])).toEqual([[1, '0a0001010000000000000a000101']]);
    const quiet = new World({ quiet: true });
    quiet.link(1, true);
    quiet.frame(0, arpFrame({ op: 'request', from: '10.0.0.1', target: '10.0.0.1' }));
    expect(quiet.take()).toEqual([]);
  });
});

describe('asking', () => {
  test('the source is the address of the same subnet, else the first, else that of another port', () => {
    const world = new World();
    world.own(0, '10.0.5.1/24');
    const source = () => toHex(world.take()[0].frame.subarray(28, 32));
    world.resolve(0, '10.0.5.77');
    expect(source()).toBe('0a000501');
    world.resolve(0, '172.16.0.9');
    expect(source()).toBe('0a000001');
    for (const a of ['10.0.0.1', '10.0.5.1']) world.addresses.remove(0, 4, words(a));
    world.resolve(0, '172.16.0.10');
    expect(source()).toBe('0a000101');
    world.addresses.remove(1, 4, words('10.0.1.1'));
    world.resolve(0, '172.16.0.11');
    expect(world.take()).toEqual([]);
  });

  test('nothing is asked on a port without link', () => {
    const world = new World();
    world.link(0, false);
    world.resolve(0, '10.0.0.10');
    expect([world.take(), world.neighbours.count]).toEqual([[], 0]);
  });
});
