/** Configuration: every form of error with its place, the nearest key, all errors at once, and mutated texts. */

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import {
  type Config,
  ConfigError,
  loadConfig,
  normalizeConfig,
  parseConfig,
} from '../../../controlplane/config/index.ts';
import { Random } from '../../lib/build.ts';

const examples = fileURLToPath(new URL('../../../examples/', import.meta.url));
const HOME = readFileSync(`${examples}home.yaml`, 'utf8');
const MACHINE = { memory: 8 * 2 ** 30, cores: 4 };

/** The lines of the error that the text must cause. */
function faults(text: string, file = 'home.yaml'): string[] {
  try {
    parseConfig(text, file, MACHINE);
  } catch (error) {
    expect(error).toBeInstanceOf(ConfigError);
    return (error as ConfigError).message.split('\n');
  }
  throw new Error('expected a ConfigError, got a configuration');
}

function parse(text: string): Config {
  return parseConfig(text, 'x.yaml', MACHINE);
}

/** Two ports in two zones, one connected prefix of each family on either side. */
const TWO = `ports:
  lan: { zone: lan, addresses: [192.168.1.1/24, "2001:db8:1::1/64"] }
  wan: { zone: wan, addresses: [203.0.113.1/24, "2001:db8:2::1/64"] }
`;

describe('error lines', () => {
  it('say where, expected, got', () => {
    expect(faults('ports:\n  lan:\n    mtu: big\n')).toEqual([
      'home.yaml:3:5 ports.lan.mtu: expected a number from 1280 to 65535, got "big"',
    ]);
  });

  it('name the nearest known key', () => {
    expect(faults('ports:\n  lan:\n    adresses: [192.168.1.1/24]\n')).toEqual([
      'home.yaml:3:5 ports.lan.adresses: unknown key "adresses": did you mean "addresses"?',
    ]);
    expect(faults('ports: { lan: {} }\nzzzzzzzz: 1\n')[0]).toMatch(
      /^home\.yaml:2:1 zzzzzzzz: unknown key "zzzzzzzz": expected one of ports, routes, [a-z, -]+$/,
    );
    expect(faults(`${TWO}conntrack: { timeouts: { tcp_timeout_established: 5 } }\n`)).toEqual([
      'home.yaml:4:26 conntrack.timeouts.tcp_timeout_established: unknown key "tcp_timeout_established": did you mean "tcp-established"?',
    ]);
  });

  it('say what to do where that is not plain', () => {
    expect(faults(`${TWO}routes: [{ to: 10.0.0.1/8, via: 203.0.113.254 }]\n`)).toEqual([
      'home.yaml:4:12 routes[0].to: expected an address or a prefix without host bits such as 10.0.0.0/8 or 2001:db8::/32, got "10.0.0.1/8"; did you mean "10.0.0.0/8"?',
    ]);
    expect(faults('ports: { lan: { kind: tup } }\n')).toEqual([
      'home.yaml:1:17 ports.lan.kind: expected one of tap, packet, host, pcap, memory, got "tup"; did you mean "tap"?',
    ]);
    expect(faults('ports: { lan: { addresses: [10.0.0.2/24, 10.0.1.1] } }\n')).toEqual([
      'home.yaml:1:42 ports.lan.addresses[1]: expected a unicast address with its prefix length such as 192.168.1.1/24, got "10.0.1.1"; add the prefix length, such as 10.0.1.1/24',
    ]);
  });

  it('name what is missing at the place where it should be', () => {
    expect(faults(`${TWO}rules:\n  - from: lan\n    to: wan\n`)).toEqual([
      'home.yaml:5:5 rules[0].verdict: expected one of accept, drop, reject, got nothing',
    ]);
    expect(faults('')).toEqual(['home.yaml:1:1 ports: expected at least one port, got nothing']);
  });

  it('quote values so that a terminal survives them', () => {
    const [line] = faults('ports: { lan: { mac: "\\e[2J\\u202e\\x85" } }\n');
    expect(line).toContain('got "\\u001b[2J\\u202e\\u0085"');
    expect(faults(`ports: { lan: { mac: ${'x'.repeat(5000)} } }\n`)[0].length).toBeLessThan(250);
  });

  it('come in the order of the text, all of them', () => {
    expect(
      faults(`ports:
  lan: { mtu: 20, zone: lann }
  wan: { zone: wan, addresses: 203.0.113.1/24, mac: "01:00:00:00:00:01" }
zones: { lan: {}, wan: { forwrd: accept } }
routes:
  - { to: 0.0.0.0/0, via: 203.0.113.1 }
  - nonsense
rules:
  - { from: wann, port: 80, verdict: acept }
nat: { forward: [{ in: wan, proto: tcp, port: 80-90, to: 192.168.1.1:100-105 }], masquerade: { out: wan } }
alg: { ftp: { portz: 3 }, sip: 3 }
workers: many
`),
    ).toEqual([
      'home.yaml:2:10 ports.lan.mtu: expected a number from 1280 to 65535, got 20; a port without IPv6 may go down to 68',
      'home.yaml:2:19 ports.lan.zone: expected the name of a zone, got "lann"; did you mean "lan"?',
      'home.yaml:3:48 ports.wan.mac: expected a unicast MAC address such as 02:00:00:00:01:01, got "01:00:00:00:00:01"',
      'home.yaml:4:26 zones.wan.forwrd: unknown key "forwrd": did you mean "forward"?',
      'home.yaml:6:22 routes[0].via: expected the address of another router, got "203.0.113.1"; it is this router\'s own',
      'home.yaml:7:5 routes[1]: expected a map with to, via, port, metric, mtu, type, weight, table, got "nonsense"',
      'home.yaml:9:7 rules[0].from: expected the name of a zone or port, got "wann"; did you mean "wan"?',
      'home.yaml:9:19 rules[0].port: expected "port" with protocols that have ports only, got no "proto"; add "proto: tcp"',
      'home.yaml:9:29 rules[0].verdict: expected one of accept, drop, reject, got "acept"; did you mean "accept"?',
      'home.yaml:10:54 nat.forward[0].to: expected one port, or a range of 11 as in "port", got 6 ports',
      'home.yaml:10:82 nat.masquerade: expected a list, got a map; put "-" before each element',
      'home.yaml:11:15 alg.ftp.portz: unknown key "portz": did you mean "ports"?',
      'home.yaml:11:27 alg.sip: expected a map, true or false, got 3',
      'home.yaml:12:1 workers: expected a number from 1 to 32, got "many"',
    ]);
  });

  it('are data too', () => {
    try {
      parse('ports: { lan: { mtu: 3.5 } }');
      expect.unreachable();
    } catch (error) {
      expect((error as ConfigError).problems).toEqual([
        {
          file: 'x.yaml',
          line: 1,
          column: 17,
          path: 'ports.lan.mtu',
          expected: 'a number from 1280 to 65535',
          got: '3.5',
          hint: 'a port without IPv6 may go down to 68',
        },
      ]);
    }
  });
});

describe('YAML', () => {
  it('reports syntax in the same form, every fault, and nothing that only follows from it', () => {
    expect(faults('ports: { lan: {}\nworkers: x')).toEqual([
      expect.stringMatching(/^home\.yaml:2:1 yaml: expected valid YAML, got a syntax error; Flow map .*}$/),
    ]);
    expect(faults('ports:\n\tlan: {}\n')[0]).toBe(
      'home.yaml:2:1 yaml: expected valid YAML, got a syntax error; Tabs are not allowed as indentation',
    );
    expect(faults('ports: {}\n---\nports: {}\n')).toEqual([
      'home.yaml:2:1 yaml: expected valid YAML, got a syntax error; Source contains multiple documents',
    ]);
    expect(faults('ports: !!binary aGk=\n')).toEqual([
      'home.yaml:1:8 yaml: expected a value without a tag, got "tag:yaml.org,2002:binary"',
    ]);
    expect(faults('%YAML 1.1\n---\nports: { lan: {} }\n')).toEqual([
      'home.yaml:1:1 yaml: expected YAML version 1.2, got 1.1',
    ]);
  });

  it('refuses a key twice, and names both lines', () => {
    expect(faults('ports:\n  lan: { mtu: 1400 }\n  lan: { mtu: 1500 }\n')).toEqual([
      'home.yaml:3:3 ports.lan: expected each key once, got "lan" again; it stands in line 2 too',
    ]);
  });

  it('follows aliases, with the places of what they stand for', () => {
    const config = parse('ports:\n  lan: &one { kind: memory, mtu: 1400 }\n  wan: *one\n');
    expect(config.ports.map((port) => [port.name, port.mtu])).toEqual([
      ['lan', 1400],
      ['wan', 1400],
    ]);
    expect(faults('ports:\n  lan: &one { mtu: x }\n  wan: *one\n')).toEqual([
      'home.yaml:2:15 ports.lan.mtu: expected a number from 1280 to 65535, got "x"',
      'home.yaml:2:15 ports.wan.mtu: expected a number from 1280 to 65535, got "x"',
    ]);
    expect(faults('ports: { lan: *gone }\n')[0]).toBe(
      'home.yaml:1:10 ports.lan: expected an alias of an anchor above it, got "*gone"',
    );
    expect(faults('ports: &self { lan: *self }\n')[0]).toContain('expected an alias of an anchor above it');
  });

  it('stops at bombs', () => {
    let bomb = 'a: &l0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n';
    for (let n = 1; n < 9; n++) bomb += `b${n}: &l${n} [${new Array(10).fill(`*l${n - 1}`).join(', ')}]\n`;
    expect(faults(bomb)).toEqual([
      expect.stringMatching(/yaml: expected at most 1000000 values, got more; aliases count as what they stand for$/),
    ]);
    expect(faults(`ports: ${'['.repeat(200)}${']'.repeat(200)}`)).toEqual([
      'home.yaml:1:40 yaml: expected at most 32 levels, got more; aliases count as what they stand for',
    ]);
    for (const deep of ['['.repeat(20_000), '{a: '.repeat(20_000), '- '.repeat(20_000), '? '.repeat(5000)])
      expect(faults(deep).length).toBeGreaterThan(0);
    expect(faults(`# ${'x'.repeat(4 * 1024 * 1024)}`)).toEqual([
      'home.yaml:1:1 yaml: expected a text of at most 4194304 characters, got 4194306',
    ]);
  });

  it('treats __proto__ and constructor as the keys that they are', () => {
    expect(faults('__proto__: { ports: { lan: {} } }\n')).toEqual([
      expect.stringContaining('__proto__: unknown key "__proto__"'),
      expect.stringContaining('ports: expected at least one port, got nothing'),
    ]);
    expect(faults('ports: { __proto__: { mtu: 1400 }, constructor: { __proto__: {} } }\n')).toEqual([
      expect.stringContaining('ports.__proto__: expected a name'),
      expect.stringContaining('ports.constructor.__proto__: unknown key "__proto__"'),
    ]);
    expect(({} as Record<string, unknown>).mtu).toBeUndefined();
  });
});

describe('files', () => {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-config-'));
  afterAll(() => rmSync(folder, { recursive: true }));

  it('are named as given when they cannot be read', () => {
    expect(() => loadConfig('missing.yaml')).toThrow(
      'missing.yaml file: expected a configuration file that can be read, got no such file',
    );
    expect(() => loadConfig(folder)).toThrow(
      `${folder} file: expected a configuration file that can be read, got a directory`,
    );
    const binary = join(folder, 'binary.yaml');
    writeFileSync(binary, Uint8Array.of(0x70, 0xff, 0xfe, 0x00));
    expect(() => loadConfig(binary)).toThrow(`${binary} file: expected a text in UTF-8, got other bytes`);
    expect(() => loadConfig('/dev/zero')).toThrow(ConfigError);
  });

  it('are read with a byte order mark and CRLF too', () => {
    const file = join(folder, 'windows.yaml');
    writeFileSync(file, `\ufeff${HOME.replaceAll('\n', '\r\n')}`);
    const config = loadConfig(file, MACHINE);
    expect(config.ports.map((port) => port.name)).toEqual(['lan', 'wan']);
    expect(config.rules[0].where).toEqual(parseConfig(HOME, 'home.yaml').rules[0].where);
  });
});

describe('objects', () => {
  it('give the same as the text', () => {
    const text = parse(`${TWO}zones: { lan: {}, wan: { forward: drop } }\nnat: { masquerade: [{ out: wan }] }\n`);
    const object = normalizeConfig(
      {
        ports: {
          lan: { zone: 'lan', addresses: ['192.168.1.1/24', '2001:db8:1::1/64'], mtu: undefined },
          wan: { zone: 'wan', addresses: ['203.0.113.1/24', '2001:db8:2::1/64'] },
        },
        zones: { lan: {}, wan: { forward: 'drop' } },
        nat: { masquerade: [{ out: 'wan' }] },
      },
      MACHINE,
    );
    const placeless = JSON.stringify(text, (key, value) => (key === 'line' || key === 'column' ? 0 : value));
    expect(JSON.stringify({ ...object, file: 'x.yaml' })).toBe(placeless);
  });

  it('are refused by path', () => {
    expect(() => normalizeConfig({ ports: { lan: { mtu: 'big', 'a b': 1 } } })).toThrow(
      'ports.lan.mtu: expected a number from 1280 to 65535, got "big"\nports.lan["a b"]: unknown key "a b": expected one of kind',
    );
    expect(() => normalizeConfig(7)).toThrow('configuration: expected a map with the section "ports", got 7');
    const loop: Record<string, unknown> = {};
    loop.ports = loop;
    expect(() => normalizeConfig(loop)).toThrow('does the object contain itself?');
    const trap = {
      ports: {},
      get routes() {
        throw new Error('no');
      },
    };
    expect(() => normalizeConfig(trap)).toThrow(ConfigError);
    expect(() => normalizeConfig({ ports: { lan: { mtu: 1500n, mac() {} } } })).toThrow('got a function');
  });
});

describe('any text', () => {
  it('is a configuration or a ConfigError whose lines have the one form, whatever is done to home.yaml', {
    timeout: 180_000,
  }, () => {
    const numbers = new Random(20);
    const next = () => numbers.next() / 0x100000000;
    const words = HOME.match(/[\w.:/-]+/g)!;
    const noise = [
      '{',
      '}',
      '[',
      ']',
      ':',
      ' ',
      '\n',
      '- ',
      '"',
      '&a ',
      '*a',
      '!x ',
      '#',
      'null',
      '~',
      '0',
      '-1',
      '1e9',
      '\t',
      '\0',
      '\ud800',
    ];
    const pick = <T>(list: readonly T[]): T => list[Math.floor(next() * list.length)];
    let refused = 0;
    for (let n = 0; n < 800; n++) {
      let text = HOME;
      for (let edits = 1 + Math.floor(next() * 4); edits > 0; edits--) {
        const at = Math.floor(next() * text.length);
        const kind = next();
        if (kind < 0.25) text = text.slice(0, at) + pick(noise) + text.slice(at);
        else if (kind < 0.5) text = text.slice(0, at) + text.slice(at + 1 + Math.floor(next() * 20));
        else if (kind < 0.6) text = text.slice(0, at);
        else {
          const word = pick(words);
          const found = text.indexOf(word, Math.max(0, at - 200));
          if (found >= 0)
            text = text.slice(0, found) + (next() < 0.5 ? pick(words) : pick(noise)) + text.slice(found + word.length);
        }
      }
      try {
        parseConfig(text, 'home.yaml', MACHINE);
      } catch (error) {
        refused++;
        if (!(error instanceof ConfigError)) throw new Error(`${String(error)} for:\n${text}`);
        expect(error.problems.length).toBeGreaterThan(0);
        for (const line of error.message.split('\n'))
          expect(line).toMatch(/^home\.yaml:\d+:\d+ \S.*: (expected .+, got .+|unknown key .+)/);
      }
    }
    // Most mutations matter; if none did, this test would say nothing.
    expect(refused).toBeGreaterThan(300);
  });
});
