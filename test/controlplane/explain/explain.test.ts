/**
 * Explain: what it says, that it agrees with what the router then does, and that it touches nothing.
 */
import { describe, expect, it } from 'vitest';
import { copyTables } from '../../../controlplane/explain/copy.ts';
import { explainFrames } from '../../../controlplane/explain/explain.ts';
import { parseFlow } from '../../../controlplane/explain/flow.ts';
import { explainText } from '../../../controlplane/explain/text.ts';
import type { TableBuffers } from '../../../dataplane/tables.ts';
import { ACK, ethernet, icmp, ipv4, SYN, tcp, toHex, udp } from '../../lib/build.ts';
import { GATE_MAC, HOST, HOST_MAC, Home, LAN_MAC, ROUTER_WAN, SERVER, WAN_MAC } from '../../lib/home.ts';

const lan = (packet: Uint8Array): Uint8Array => ethernet({ src: HOST_MAC, dst: LAN_MAC }, packet);
const wan = (packet: Uint8Array): Uint8Array => ethernet({ src: GATE_MAC, dst: WAN_MAC }, packet);
const syn = (sport = 4000): Uint8Array =>
  ipv4({ src: HOST, dst: SERVER }, tcp({ sport, dport: 443, flags: SYN, seq: 100 }));

/** Every byte of a router's shared memory. */
function memory(buffers: TableBuffers): string {
  const sums: string[] = [];
  const add = (name: string, value: unknown): void => {
    if (value instanceof SharedArrayBuffer) {
      let hash = 0;
      for (const word of new Int32Array(value, 0, value.byteLength >> 2)) hash = (Math.imul(hash, 31) + word) | 0;
      sums.push(`${name} ${hash}`);
    } else if (typeof value === 'object' && value !== null)
      for (const [key, inner] of Object.entries(value)) add(`${name}.${key}`, inner);
  };
  add('', buffers);
  return sums.join('\n');
}

describe('explain', () => {
  it('walks every stage, names what was found and the place in the configuration, and touches nothing', () => {
    const home = new Home({ offload: { mode: 'on' } });
    home.lan(ipv4({ src: HOST, dst: SERVER }, udp({ sport: 9, dport: 9 }, 'x')));
    home.left('wan');
    // Later than anything was used last: a walk on the router's own tables would write that down.
    home.router.advance(5);
    const before = memory(home.router.tables.buffers);
    const explained = home.router.explain('lan', lan(syn()));
    expect(memory(home.router.tables.buffers)).toBe(before);
    expect(home.left('wan')).toEqual([]);
    expect(explained.verdict).toBe('forwarded');
    expect(explained.stages.map(({ stage }) => stage)).toEqual([
      'offload-lookup',
      'link-input',
      'ip-parse',
      'conntrack-in',
      'nat-prerouting',
      'route',
      'ttl',
      'mtu',
      'forward-filter',
      'nat-postrouting',
      'conntrack-confirm',
      'neighbour',
      'tx',
    ]);
    const step = (name: string) => explained.stages.find(({ stage }) => stage === name);
    expect(step('route')).toMatchObject({ found: '/0 via 203.0.113.254 dev wan', where: 'routes[0]' });
    expect(step('forward-filter')).toMatchObject({
      found: 'no rule; zone lan says forward: accept',
      where: 'zones.lan',
    });
    expect(step('nat-postrouting')).toMatchObject({
      decided: 'snat 192.168.1.10:4000 -> 203.0.113.1:4000',
      where: 'nat.masquerade[0]',
    });
    expect(step('neighbour')).toMatchObject({ found: 'PERMANENT 02:00:00:00:00:fe', where: 'neighbors[0]' });
    expect(explained.connection?.engine).toEqual({
      installed: false,
      why: 'no packet of the reply direction was seen yet',
    });
  });

  it('says what then leaves, byte for byte', () => {
    const home = new Home();
    for (const frame of [
      lan(syn()),
      lan(ipv4({ src: HOST, dst: SERVER, ttl: 1 }, udp({ sport: 1, dport: 2 }, 'too old'))),
      lan(ipv4({ src: HOST, dst: SERVER }, icmp({ type: 8, rest: 0x70001 }))),
    ]) {
      const { sent } = home.router.explain('lan', frame);
      home.router.inject('lan', frame);
      const left = ['lan', 'wan'].flatMap((port) => home.router.take(port).map((bytes) => `${port} ${toHex(bytes)}`));
      expect(sent.map((one) => `${one.port} ${one.frame}`)).toEqual(left);
      expect(left).toHaveLength(1);
    }
  });

  it('knows the connection of a flow, makes its next segment, and says why the engine has it or not', () => {
    const home = new Home({ offload: { mode: 'on', 'program-after': 2 } });
    home.lan(syn());
    home.wan(
      ipv4({ src: SERVER, dst: ROUTER_WAN }, tcp({ sport: 443, dport: 4000, flags: SYN | ACK, seq: 900, ack: 101 })),
    );
    const young = home.router.explainFlow('tcp 192.168.1.10:4000 > 198.51.100.7:443');
    expect(young.summary).toContain('A seq 101 ack 901');
    expect(young.connection).toMatchObject({
      direction: 'orig',
      engine: { installed: false, why: 'not considered yet: its next packet asks' },
    });
    for (let n = 0; n < 4; n++)
      home.lan(ipv4({ src: HOST, dst: SERVER }, tcp({ sport: 4000, dport: 443, flags: ACK, seq: 101, ack: 901 })));
    const carried = home.router.explainFlow('tcp 192.168.1.10:4000 > 198.51.100.7:443');
    expect(carried.connection?.engine.installed).toBe(true);
    expect(carried.stages[0]).toMatchObject({ stage: 'offload-lookup', found: 'an entry' });
    const reply = home.router.explainFlow(`tcp ${SERVER}:443 > ${ROUTER_WAN}:4000`);
    expect(reply).toMatchObject({ port: 'wan', verdict: 'forwarded', connection: { direction: 'reply' } });
  });

  it('explains several frames on one copy, one after the other', () => {
    const home = new Home();
    const frames = [
      lan(syn()),
      wan(ipv4({ src: SERVER, dst: ROUTER_WAN }, tcp({ sport: 443, dport: 4000, flags: SYN | ACK, seq: 1, ack: 101 }))),
    ];
    const first = explainFrames(home.router, 'lan', [frames[0], frames[0]]);
    expect(first.packets.map(({ connection }) => connection?.orig.packets)).toEqual([1, 2]);
    expect(explainText(first)).toContain('explained on a copy of the running state: 0 connections');
    // The answer alone belongs to nobody.
    expect(home.router.explain('wan', frames[1])).toMatchObject({ verdict: 'dropped' });
  });

  it('survives whatever is given to it', () => {
    const home = new Home();
    for (const length of [0, 1, 13, 14, 20, 33, 34, 53]) {
      const frame = lan(syn()).slice(0, length);
      expect(home.router.explain('lan', frame).reason).toMatch(/PKT_TOO_SMALL|IP_INHDR|L4_TRUNCATED/);
    }
    expect(() => home.router.explain('nowhere', lan(syn()))).toThrow('port: expected one of lan, wan, got "nowhere"');
  });
});

describe('a copy of the tables', () => {
  it('finds every connection under its number, whatever locks were held, and leaves free records free', () => {
    const home = new Home({ conntrack: { max: 512 } });
    for (let n = 0; n < 400; n++) home.lan(syn(1024 + n));
    home.left('wan');
    const { tables } = home.router;
    // A worker holds every lock at this moment.
    new Int32Array(tables.buffers.conntrack.control).fill(1, 2048);
    const copy = copyTables(tables);
    expect(copy.conntrack.count).toBe(400);
    for (let index = 0; index < tables.conntrack.highWater; index++) {
      if (!tables.conntrack.inUse(index, 0)) continue;
      const at = index * 48;
      const w = copy.conntrack.words;
      expect(copy.conntrack.find4(w[at + 4], w[at + 5], w[at + 6], w[at + 7], 0)).toBe(index << 1);
      expect(copy.conntrack.find4(w[at + 8], w[at + 9], w[at + 10], w[at + 7], 0)).toBe((index << 1) | 1);
    }
    const free = copy.conntrack.alloc(1, 0);
    expect(tables.conntrack.inUse(free, 0)).toBe(false);
  });
});

describe('flows in words', () => {
  it('reads both families, ports, and any', () => {
    expect(parseFlow('tcp 10.0.0.1:5 > 10.0.0.2:80')).toMatchObject({ proto: 6, family: 4, sport: 5, dport: 80 });
    expect(parseFlow('udp [2001:db8::1]:5 -> [2001:db8::2]:53')).toMatchObject({ proto: 17, family: 6, dport: 53 });
    expect(parseFlow('icmp 2001:db8::1 > 2001:db8::2')).toMatchObject({ proto: 58, family: 6, sport: -1 });
    expect(parseFlow('any any > 10.0.0.2')).toMatchObject({ proto: 0, src: null, family: 4 });
    expect(parseFlow('tcp any:* > any:443')).toMatchObject({ proto: 6, src: null, dst: null, dport: 443 });
  });

  it('refuses the rest by name', () => {
    expect(() => parseFlow('10.0.0.1 > 10.0.0.2')).toThrow(/^flow: expected PROTO SOURCE/);
    expect(() => parseFlow('gre 10.0.0.1 > 10.0.0.2')).toThrow('flow: expected one of tcp, udp, icmp');
    expect(() => parseFlow('tcp 10.0.0.1:5 > [::1]:80')).toThrow('two addresses of one family');
    expect(() => parseFlow('tcp 10.0.0.1:70000 > 10.0.0.2:80')).toThrow('got "10.0.0.1:70000"');
    expect(() => parseFlow('icmp 10.0.0.1:5 > 10.0.0.2')).toThrow('expected no ports with icmp');
  });
});
