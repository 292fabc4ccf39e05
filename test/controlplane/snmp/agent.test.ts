/**
 * The SNMP agent as Debian's snmpwalk and snmpget see it: v2c and v3, tables that agree with `show link`, what is refused,
 * and datagrams that are none.
 */
import { execFile } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseConfig } from '../../../controlplane/config/index.ts';
import { VIEWS } from '../../../controlplane/show/index.ts';
import type { LinkJson } from '../../../controlplane/show/link.ts';
import { SnmpAgent } from '../../../controlplane/snmp/agent.ts';
import { labReady } from '../../lab/need.ts';
import { ipv4, udp } from '../../lib/build.ts';
import { HOST, Home, SERVER } from '../../lib/home.ts';

const CONFIG = `
ports: { lan: { kind: memory } }
snmp:
  listen: "127.0.0.1:1161"
  community: lab
  location: rack 7
  users:
    - { name: ann, auth: sha256, auth-key: correct-horse, privacy: aes, privacy-key: battery-staple }
    - { name: bob, auth: sha, auth-key: only-signed-here }
`;
const V2 = ['-v2c', '-c', 'lab'];
const ANN = [
  '-v3',
  '-l',
  'authPriv',
  '-u',
  'ann',
  '-a',
  'SHA-256',
  '-A',
  'correct-horse',
  '-x',
  'AES',
  '-X',
  'battery-staple',
];
const BOB = ['-v3', '-l', 'authNoPriv', '-u', 'bob', '-a', 'SHA', '-A', 'only-signed-here'];

const IF = '.1.3.6.1.2.1.2';
const IFX = '.1.3.6.1.2.1.31.1.1.1';
const IP = '.1.3.6.1.2.1.4';
const NAT = '.1.3.6.1.2.1.234.2';

describe.runIf(labReady(['snmpwalk', 'snmpget']))('the SNMP agent', { retry: 1 }, () => {
  let agent: SnmpAgent;
  let home: Home;

  beforeAll(async () => {
    const { snmp } = parseConfig(CONFIG, 'x', { memory: 2 ** 33 });
    home = new Home({ nat: { masquerade: [{ out: 'wan', ports: '2000-2999' }] } });
    for (let n = 0; n < 5; n++)
      home.lan(ipv4({ src: HOST, dst: SERVER }, udp({ sport: 4000 + n, dport: 53 }, 'x'.repeat(n * 100))));
    agent = await SnmpAgent.start({ ...snmp!, listen: { ...snmp!.listen, port: 0 } }, home.router);
  });
  afterAll(() => agent?.close());

  /**
   * What a tool prints, and how it ends. -On: numbers instead of names; -Oe: enumerations too. `seconds`: how long it
   * waits for an answer.
   */
  function run(tool: string, words: string[], oid: string, seconds = 15): Promise<{ code: number; out: string }> {
    const args = [
      '-r',
      '0',
      '-t',
      String(seconds),
      '-M',
      '',
      '-m',
      '',
      '-One',
      ...words,
      `127.0.0.1:${agent.port}`,
      oid,
    ];
    return new Promise((resolve) => {
      execFile(tool, args, (error, stdout, stderr) => {
        resolve({ code: error === null ? 0 : Number(error.code ?? -1), out: stdout + stderr });
      });
    });
  }

  /** OID below `oid` to value. */
  async function walk(oid: string, words = V2): Promise<Map<string, string>> {
    const { out } = await run('snmpwalk', words, oid);
    const found = new Map<string, string>();
    for (const line of out.split('\n')) {
      const match = /^(\.[\d.]+) = (?:[\w-]+: )?(.*)$/.exec(line);
      if (match !== null) found.set(match[1].slice(oid.length), match[2].trim().replace(/^"(.*)"$/, '$1'));
    }
    return found;
  }

  it.each([
    ['v2c', V2],
    ['v3 with authentication and privacy', ANN],
    ['v3 with authentication', BOB],
  ])('%s: interfaces agree with show link, to the packet', async (_, words) => {
    const links = VIEWS.link(home.router, {}).json as LinkJson[];
    const table = await walk(`${IF}.2.1`, words);
    const wide = await walk(IFX, words);
    expect(links).toHaveLength(2);
    for (const { ifindex, ifname, mtu, address, stats64 } of links) {
      const n = ifindex + 1;
      const cell = (column: number): string | undefined => table.get(`.${column}.${n}`);
      expect(wide.get(`.1.${n}`)).toBe(ifname);
      expect(cell(4)).toBe(String(mtu));
      expect(cell(6)?.toLowerCase().trim().replaceAll(' ', ':')).toBe(address);
      expect([cell(7), cell(8)]).toEqual(['1', '1']);
      expect([cell(10), cell(11), cell(16), cell(17)]).toEqual(
        [stats64.rx.bytes, stats64.rx.packets, stats64.tx.bytes, stats64.tx.packets].map(String),
      );
      expect([6, 7, 10, 11].map((column) => wide.get(`.${column}.${n}`))).toEqual([
        cell(10),
        cell(11),
        cell(16),
        cell(17),
      ]);
    }
  });

  it('follows what happens: counters, a link that goes down', async () => {
    const before = Number((await walk(IFX)).get('.7.1'));
    home.lan(ipv4({ src: HOST, dst: SERVER }, udp({ sport: 4000, dport: 53 }, '')));
    home.router.setLink('wan', false);
    await expect.poll(async () => Number((await walk(IFX)).get('.7.1'))).toBe(before + 1);
    expect((await walk(`${IF}.2.1`)).get('.8.2')).toBe('2');
    home.router.setLink('wan', true);
  });

  it('addresses, neighbours and the system', async () => {
    const addresses = await walk(`${IP}.34.1`);
    // Type 1, four bytes, the address; the value is the interface.
    expect(addresses.get('.3.1.4.192.168.1.1')).toBe('1');
    expect(addresses.get('.3.1.4.203.0.113.1')).toBe('2');
    expect([...addresses.keys()].some((key) => key.startsWith('.3.2.16.32.1.13.184'))).toBe(true);
    const neighbours = await walk(`${IP}.35.1`);
    expect(neighbours.get('.4.1.1.4.192.168.1.10')?.trim()).toBe('02 00 00 00 00 10');
    expect(neighbours.get('.6.1.1.4.192.168.1.10')).toBe('4');
    const system = await walk('.1.3.6.1.2.1.1');
    expect(system.get('.1.0')).toMatch(/^Sluice \d/);
    expect(system.get('.6.0')).toBe('rack 7');
    expect((await walk(`${IF}.1`)).get('.0')).toBe('2');
  });

  it('NAT: the instance, ports by protocol, the pool, and every mapping', async () => {
    const nat = await walk(NAT);
    expect([3, 4, 5, 6].map((column) => nat.get(`.1.1.${column}.1`))).toEqual(['2', '2', '1', '2']);
    expect(nat.get('.1.1.8.1')).toBe('5');
    expect(nat.get('.2.1.3.1.17')).toBe('5');
    expect([5, 6, 8].map((column) => nat.get(`.3.1.${column}.1.1`))).toEqual(['2000', '2999', '5']);
    const maps = [...nat].filter(([key]) => key.startsWith('.6.1.12.1.17.'));
    expect(maps.map(([, port]) => port).sort()).toEqual(['4000', '4001', '4002', '4003', '4004']);
    for (const json of home.router.conntrack.list())
      expect(maps).toContainEqual([
        expect.stringMatching(new RegExp(`\\.1\\.4\\.203\\.0\\.113\\.1\\.${json.reply.dport}$`)),
        String(json.orig.sport),
      ]);
  });

  it('refuses whoever it does not know, and every write', async () => {
    const strangers = [
      ['-v2c', '-c', 'public'],
      ['-v1', '-c', 'public'],
      [...ANN.slice(0, -1), 'wrong-password'],
      ['-v3', '-l', 'authNoPriv', '-u', 'ann', '-a', 'SHA-256', '-A', 'wrong-password'],
      ['-v3', '-l', 'noAuthNoPriv', '-u', 'bob'],
      ['-v3', '-l', 'noAuthNoPriv', '-u', 'nobody'],
    ];
    // Most get no answer at all: that is waited for.
    const answers = await Promise.all(strangers.map((words) => run('snmpget', words, '.1.3.6.1.2.1.1.1.0', 1)));
    answers.forEach(({ code, out }, n) => {
      const words = strangers[n];
      expect([words.join(' '), code === 0 && out.includes('Sluice')]).toEqual([words.join(' '), false]);
    });
    const args = [
      '-r',
      '0',
      '-t',
      '15',
      '-M',
      '',
      '-m',
      '',
      ...V2,
      `127.0.0.1:${agent.port}`,
      '.1.3.6.1.2.1.1.6.0',
      's',
      'mine',
    ];
    const denied = await new Promise<string>((resolve) => {
      execFile('snmpset', args, (_, stdout, stderr) => resolve(stdout + stderr));
    });
    expect(denied).toMatch(/noAccess|notWritable|authorizationError|readOnly/i);
    expect((await walk('.1.3.6.1.2.1.1')).get('.6.0')).toBe('rack 7');
  });

  it('goes on after datagrams that are none', async () => {
    // GET sysDescr.0, community lab; the request identifier is four bytes from the fifteenth on.
    const request = Buffer.from(
      '302602010104036c6162a01c02040a0b0c0d020100020100300e300c06082b060102010101000500',
      'hex',
    );
    const socket = createSocket('udp4');
    try {
      let answered = (_: Buffer): void => {};
      socket.on('message', (answer) => answered(answer));
      let seed = 11;
      for (let n = 1; n <= 300; n++) {
        const bytes = Buffer.from(request);
        for (let k = 0; k <= n % 4; k++) {
          seed = (Math.imul(seed, 1103515245) + 12345) & 0x7fffffff;
          bytes[(seed >> 16) % bytes.length] = seed >> 8;
        }
        // One at a time: more than a socket's buffer holds would be lost before the agent ever sees it.
        request.writeUInt32BE(0x0a0b0000 + n, 14);
        const identifier = request.subarray(12, 18);
        const answer = new Promise<void>((resolve) => {
          answered = (bytes) => {
            if (bytes.includes(identifier) && bytes.includes('Sluice')) resolve();
          };
        });
        socket.send(bytes.subarray(0, 1 + (seed % bytes.length)), agent.port, '127.0.0.1');
        socket.send(request, agent.port, '127.0.0.1');
        await answer;
      }
    } finally {
      socket.close();
    }
    expect((await walk('.1.3.6.1.2.1.1')).get('.1.0')).toMatch(/^Sluice/);
  });
});
