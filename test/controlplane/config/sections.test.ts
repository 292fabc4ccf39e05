/** Configuration: each section's values, defaults and cross-checks, and the example files. */
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { type Config, type ConfigError, loadConfig, parseConfig } from '../../../controlplane/config/index.ts';
import { ALLOW_ARP, ALLOW_IPV4, ALLOW_IPV6 } from '../../../dataplane/interfaces.ts';
import { formatAddress } from '../../../dataplane/wire/address.ts';

const example = (name: string) => fileURLToPath(new URL(`../../../examples/${name}`, import.meta.url));
const MACHINE = { memory: 8 * 2 ** 30, cores: 4 };
const parse = (text: string): Config => parseConfig(text, 'x', MACHINE);
const TWO = `ports:
  lan: { zone: lan, addresses: [192.168.1.1/24, "2001:db8:1::1/64"] }
  wan: { zone: wan, addresses: [203.0.113.1/24, "2001:db8:2::1/64"] }
`;

/** The messages without place, of a text that must be refused. */
function faults(text: string): string[] {
  try {
    parse(text);
  } catch (error) {
    return (error as ConfigError).problems.map(
      (problem) =>
        `${problem.path}: ${problem.expected} / ${problem.got}${problem.hint === '' ? '' : ` / ${problem.hint}`}`,
    );
  }
  throw new Error('expected a ConfigError, got a configuration');
}

describe('examples', () => {
  it('home.yaml is complete and without warnings', () => {
    const config = loadConfig(example('home.yaml'), MACHINE);
    expect(config.warnings).toEqual([]);
    expect(config.ports.map((port) => [port.name, port.kind, port.ifname, port.zoneName, port.mtu])).toEqual([
      ['lan', 'tap', 'sl-lan', 'lan', 1500],
      ['wan', 'tap', 'sl-wan', 'wan', 1500],
    ]);
    expect(config.ports[0].mac).toEqual({ lo: 0x00000002, hi: 0x0101, text: '02:00:00:00:01:01' });
    expect(config.routes.map((route) => [route.to.text, route.via?.text, route.port])).toEqual([
      ['0.0.0.0/0', '203.0.113.254', 1],
      ['::/0', '2001:db8:ffff::fe', 1],
    ]);
    expect(config.zones.map((zone) => [zone.name, zone.ipv4.forward, zone.ipv6.input])).toEqual([
      ['lan', 'accept', 'accept'],
      ['wan', 'drop', 'drop'],
    ]);
    const { masquerade, forward, dmz } = config.nat;
    expect(masquerade[0]).toMatchObject({
      family: 4,
      ports: [[1024, 65535]],
      portsGiven: true,
      keepPort: true,
      to: null,
    });
    expect(masquerade[0].out).toEqual({ kind: 'zone', name: 'wan', number: 1, ports: [1] });
    expect(forward[0]).toMatchObject({
      protocols: [6],
      port: [8080, 8080],
      toPort: [80, 80],
      to: { text: '192.168.1.10' },
    });
    expect(dmz[0].to.words).toEqual([0x1401a8c0, 0, 0, 0]);
    expect(config.rules[0]).toMatchObject({
      family: 6,
      protocols: [6],
      port: [[443, 443]],
      states: ['new'],
      verdict: 'accept',
    });
    // `where` names the line that a reader finds it on.
    expect(config.rules[0].where).toEqual({ line: 42, column: 5, path: 'rules[0]' });
    expect(
      Object.values(config.alg)
        .filter((alg) => alg.enabled)
        .map((alg) => alg.name),
    ).toEqual(['ftp', 'pptp', 'tftp', 'sip', 'rtsp']);
  });

  it('capture.yaml translates IPv4 of any source, and lets only the inside open connections', () => {
    const config = loadConfig(example('capture.yaml'), MACHINE);
    expect(config.warnings).toEqual([]);
    expect(config.nat.masquerade).toHaveLength(1);
    expect(config.nat.masquerade[0]).toMatchObject({ family: 4, from: [], keepPort: true });
    expect(config.routes.map((route) => [route.to.prefixLength, config.ports[route.port].name])).toEqual([
      [0, 'wan'],
      [0, 'wan'],
    ]);
    expect(config.zones.map((zone) => [zone.name, zone.ipv4.forward, zone.ipv6.forward])).toEqual([
      ['lan', 'accept', 'accept'],
      ['wan', 'drop', 'drop'],
    ]);
    // All that open something; `dns` only shortens timeouts.
    expect(Object.values(config.alg).every((alg) => alg.enabled || alg.name === 'dns')).toBe(true);
  });
});

it('warns of a rule for states that no rule is asked about', () => {
  const rules = (state: string) => parse(`ports: { lan: }\nrules:\n  - { state: ${state}, verdict: drop }\n`).warnings;
  expect(rules('[established, related]').join()).toContain('rules[0].state: never asked: established');
  expect(rules('invalid')).toHaveLength(1);
  expect([...rules('new'), ...rules('[new, established]')]).toEqual([]);
});

describe('defaults', () => {
  it('fill everything but ports', () => {
    const config = parse('ports: { lan: }\n');
    expect(config.ports[0]).toMatchObject({
      kind: 'tap',
      ifname: 'lan',
      mtu: 1500,
      up: true,
      offloads: true,
      ethertypes: ALLOW_IPV4 | ALLOW_ARP | ALLOW_IPV6,
      queues: 3,
      vlan: 0,
      parent: -1,
      zoneName: 'lan',
      zone: 0,
    });
    expect(config.zones).toEqual([
      expect.objectContaining({ name: 'lan', ipv4: { forward: 'accept', input: 'accept' }, ports: [0] }),
    ]);
    expect(config.nat).toEqual({
      profile: 'linux',
      masquerade: [],
      forward: [],
      dmz: [],
      bypass: [],
      trigger: [],
      nptv6: [],
      hairpin: true,
      inboundRefresh: false,
      reserved: [],
      log: '',
      timeouts: { udp: 300, tcpTransitory: 240, tcpEstablished: 7440, icmp: 60 },
    });
    expect(config.offload).toMatchObject({ mode: 'on', entries: 16384, programAfter: 2, engine: 'emulated' });
    expect(config.conntrack).toMatchObject({ max: 262144, tcpLiberal: false, checksum: true, timeouts: {} });
    expect([config.workers, config.logLevel, config.control.socket]).toEqual([3, 'info', '/run/sluice.sock']);
    // RFC 5382 REQ-9: ALGs off, FTP excepted; PPTP beside it (docs/configuration.md says why).
    expect(
      Object.values(config.alg)
        .filter((alg) => alg.enabled)
        .map((alg) => alg.name),
    ).toEqual(['ftp', 'pptp']);
  });

  it('let empty sections be empty', () => {
    expect(
      parse(`${TWO}rules:\nroutes:\nnat:\nalg:\nzones:\noffload:\nconntrack:\ncontrol:\nneighbors:\n`).rules,
    ).toEqual([]);
  });

  it('make MACs that are unicast, local, stable and different', () => {
    const names = ['lan', 'wan', 'dmz', 'a', 'b'];
    const config = parse(`ports: { ${names.map((name) => `${name}: { kind: memory }`).join(', ')} }`);
    const macs = config.ports.map((port) => port.mac!.text);
    expect(new Set(macs).size).toBe(names.length);
    for (const mac of macs) expect(Number.parseInt(mac.slice(0, 2), 16) & 3).toBe(2);
    expect(parse('ports: { lan: { kind: memory } }').ports[0].mac!.text).toBe(macs[0]);
    expect(parse('ports: { lan: { kind: packet } }').ports[0].mac).toBeNull();
  });
});

describe('ports', () => {
  it('take an MTU below 1280 only without IPv6', () => {
    const mtu = (rest: string) => parse(`ports: { lan: { mtu: 576, ${rest} } }`).ports[0].mtu;
    expect(mtu('addresses: 10.0.0.1/24')).toBe(576);
    expect(mtu('ethertypes: [ipv4, arp]')).toBe(576);
    for (const rest of ['', 'addresses: ["2001:db8::1/64"]', 'addresses: [10.0.0.1/24, "2001:db8::1/64"]'])
      expect(faults(`ports: { lan: { mtu: 576, ${rest} } }`)[0]).toContain(
        'ports.lan.mtu: a number from 1280 to 65535 / 576',
      );
  });

  it('are VLANs of their parent, in whatever order', () => {
    const config = parse(`ports:
  guest: { vlan: 20, parent: trunk, zone: guest }
  trunk: { kind: memory, mac: "02:00:00:00:00:09", mtu: 1496 }
`);
    expect(config.ports[0]).toMatchObject({ kind: 'vlan', vlan: 20, parent: 1, mtu: 1496, ifname: '' });
    expect(config.ports[0].mac!.text).toBe('02:00:00:00:00:09');
  });

  it.each([
    ['a: { vlan: 20, parent: b }', 'ports.a.parent: the name of a port / "b" / did you mean "a"?'],
    ['a: { vlan: 20 }', 'ports.a.parent: the port that carries the VLAN / nothing'],
    ['t: {}, a: { parent: t }', 'ports.a.vlan: a VLAN identifier beside "parent" / nothing'],
    ['t: {}, a: { vlan: 4095, parent: t }', 'ports.a.vlan: a number from 1 to 4094 / 4095'],
    [
      't: {}, a: { vlan: 5, parent: t }, b: { vlan: 6, parent: a }',
      'ports.b.parent: a port that is not a VLAN itself / "a"',
    ],
    [
      't: {}, a: { vlan: 5, parent: t }, b: { vlan: 5, parent: t }',
      'ports.b.vlan: a VLAN of t that no other port has / 5 / a has it',
    ],
    ['t: {}, a: { vlan: 5, parent: t, mtu: 1504 }', 'ports.a.mtu: at most the MTU of t, 1500 / 1504'],
    [
      't: {}, a: { vlan: 5, parent: t, kind: tap }',
      `ports.a.kind: no "kind" beside "vlan" and "parent" / tap / the parent's is used`,
    ],
    ['a: { ifname: eth0 }, b: { ifname: eth0 }', 'ports.b.ifname: a device that no other port has / "eth0" / a has it'],
    [
      'a: { ifname: sixteen-letters-x }',
      'ports.a.ifname: an interface name of 1 to 15 characters, without blanks, "/" and ":" / "sixteen-letters-x"',
    ],
    [
      'a-name-of-17-char: {}',
      'ports.a-name-of-17-char.ifname: an interface name / nothing / a-name-of-17-char is too long for one',
    ],
    ['sluice0: {}', 'ports.sluice0: a name that is free / "sluice0" / it is the way to the host kernel'],
    ['../x: {}', 'ports["../x"]: a name: a letter, then up to 31 letters, digits, "_", "-" or "." / "../x"'],
    [
      'a: { addresses: 10.0.0.0/24 }',
      'ports.a.addresses: a unicast address with its prefix length such as 192.168.1.1/24 / "10.0.0.0/24" / network and broadcast addresses are no host',
    ],
    [
      'a: { addresses: 10.0.0.255/24 }',
      'ports.a.addresses: a unicast address with its prefix length such as 192.168.1.1/24 / "10.0.0.255/24" / network and broadcast addresses are no host',
    ],
    [
      'a: { addresses: "ff02::1/64" }',
      'ports.a.addresses: a unicast address with its prefix length such as 192.168.1.1/24 / "ff02::1/64"',
    ],
    [
      'a: { addresses: 10.0.0.1/24 }, b: { addresses: 10.0.0.1/16 }',
      'ports.b.addresses[0]: an address that the router has once / "10.0.0.1" / x:1:15 ports.a.addresses[0] has it',
    ],
    [
      'a: { ethertypes: [ipv4, arp], addresses: "2001:db8::1/64" }',
      'ports.a.addresses[0]: addresses of families that "ethertypes" lets in / "2001:db8::1/64"',
    ],
    [
      'a: { kind: tap, file: x.pcap }',
      'ports.a.file: no "file" on a port of kind tap / one / kinds that have it: pcap',
    ],
    [
      'a: { kind: tap }, v: { parent: a, vlan: 7, mirror: v.pcapng }',
      'ports.v.mirror: no "mirror" on a port of kind vlan / one / kinds that have it: tap, packet, host, pcap, memory',
    ],
    ['a: { fault: { loss: 1.5 } }', 'ports.a.fault.loss: a number from 0 to 1, such as 0.05 / 1.5'],
    ['a: { kind: pcap, out: x }, b: { kind: pcap, out: x }', 'ports.b.out: a file that nothing else uses / "x"'],
  ])('refuse { %s }', (text, fault) => expect(faults(`ports: { ${text} }`)).toEqual([fault]));

  it('take /31 and /32 whole (RFC 3021), and the same link-local address twice', () => {
    expect(parse('ports: { a: { addresses: [10.0.0.0/31, 10.1.0.0/32] } }').ports[0].addresses).toHaveLength(2);
    expect(parse('ports: { a: { addresses: "fe80::1/64" }, b: { addresses: "fe80::1/64" } }').warnings).toEqual([]);
  });

  it('are at most 63', () => {
    const ports = (n: number) =>
      `ports:\n${Array.from({ length: n }, (_, k) => `  p${k}: { kind: memory }\n`).join('')}`;
    expect(parse(ports(63)).ports).toHaveLength(63);
    expect(faults(ports(64))).toEqual(['ports: at most 63 ports / 64']);
  });

  it('warn of overlapping prefixes', () => {
    expect(parse('ports: { a: { addresses: 10.0.0.1/8 }, b: { addresses: 10.1.0.1/16 } }').warnings).toEqual([
      'x:1:45 ports.b.addresses[0]: 10.1.0.1/16 overlaps 10.0.0.1/8 of port a',
    ]);
  });
});

describe('routes and neighbors', () => {
  it('find their port by the longest connected prefix', () => {
    const config = parse(`ports: { a: { addresses: 10.0.0.1/8 }, b: { addresses: 10.1.0.1/16 } }
routes: [{ to: 0.0.0.0/0, via: 10.1.2.3 }, { to: 1.0.0.0/8, via: 10.2.2.3 }, { to: 2.2.2.2, port: a, metric: 5, mtu: 600 }]
`);
    expect(config.routes.map((route) => [route.to.text, route.port, route.metric, route.mtu])).toEqual([
      ['0.0.0.0/0', 1, 0, 0],
      ['1.0.0.0/8', 0, 0, 0],
      ['2.2.2.2/32', 0, 5, 600],
    ]);
  });

  it('warn where the next router is on no connected prefix', () => {
    const config = parse(
      `${TWO}routes: [{ to: 0.0.0.0/0, via: 9.9.9.9 }, { to: 1.0.0.0/8, via: 9.9.9.9, port: wan }]\n`,
    );
    expect(config.routes.map((route) => route.port)).toEqual([-1, 1]);
    expect(config.warnings).toEqual([
      'x:4:27 routes[0].via: no connected prefix covers 9.9.9.9: the route waits until one does',
      'x:4:60 routes[1].via: no prefix of port wan covers 9.9.9.9: it is taken to be on that link',
    ]);
  });

  it('let IPv4 go by IPv6 (RFC 8950), not the reverse', () => {
    expect(parse(`${TWO}routes: [{ to: 0.0.0.0/0, via: "fe80::1", port: wan }]`).routes[0].port).toBe(1);
    expect(faults(`${TWO}routes: [{ to: "::/0", via: 203.0.113.9 }]`)).toEqual([
      'routes[0].via: an IPv6 address, as "to" is / "203.0.113.9"',
    ]);
  });

  it.each([
    ['{ to: "::/0", via: "fe80::1" }', 'routes[0].port: the port that the link-local "via" is on / nothing'],
    [
      '{ to: 0.0.0.0/0 }',
      'routes[0].via: the address of the next router / nothing / or name a "port" whose link has the destination',
    ],
    ['{ to: 0.0.0.0/0, port: wann }', 'routes[0].port: the name of a port / "wann" / did you mean "wan"?'],
    [
      '{ to: 10.0.0.0/8, type: blackhole, via: 203.0.113.9 }',
      'routes[0].via: no "via" on a route of type blackhole / "203.0.113.9"',
    ],
    [
      '{ to: "2001:db8:9::/48", port: wan, mtu: 600 }',
      'routes[0].mtu: a number from 1280 to 65535 / 600 / the route is of IPv6 (RFC 8200)',
    ],
    [
      '{ to: 0.0.0.0/0, via: 224.0.0.1 }',
      'routes[0].via: a unicast address such as 192.168.1.10 or 2001:db8::10 / "224.0.0.1"',
    ],
    [
      '{ to: "::/0", via: "fe80::1%wan" }',
      'routes[0].via: a unicast address such as 192.168.1.10 or 2001:db8::10 / "fe80::1%wan" / name the port with the key "port" instead of "%"',
    ],
  ])('refuse %s', (route, fault) => expect(faults(`${TWO}routes: [${route}]`)).toEqual([fault]));

  it('refuse a neighbor twice and the router itself', () => {
    const mac = 'mac: "02:00:00:00:00:fe"';
    expect(
      faults(
        `${TWO}neighbors: [{ port: wan, ip: 203.0.113.9, ${mac} }, { port: wan, ip: 203.0.113.9, ${mac} }, { port: lan, ip: 192.168.1.1, ${mac} }]`,
      ),
    ).toEqual([
      'neighbors[1].ip: a neighbor that is not there yet / "203.0.113.9" / neighbors[0] is it',
      `neighbors[2].ip: the address of another node / "192.168.1.1" / it is this router's own`,
    ]);
  });
});

describe('zones and rules', () => {
  it('give each family its own word', () => {
    const [lan] = parse(
      `${TWO}zones: { lan: { forward: drop, ipv6: { forward: reject, input: drop } }, wan: {} }`,
    ).zones;
    expect([lan.ipv4, lan.ipv6]).toEqual([
      { forward: 'drop', input: 'accept' },
      { forward: 'reject', input: 'drop' },
    ]);
  });

  it('put a port without a word into the zone of its name, with a warning when that is new', () => {
    const config = parse('ports: { lan: {}, extra: {} }\nzones: { lan: { input: drop } }');
    expect(config.ports.map((port) => port.zoneName)).toEqual(['lan', 'extra']);
    expect(config.warnings).toEqual([
      'x:1:19 ports.extra: the port names no zone: it is alone in zone extra, which accepts everything',
    ]);
  });

  it('prefer a zone to a port of the same name', () => {
    const config = parse('ports: { a: { zone: b }, b: { zone: c } }\nrules: [{ from: b, to: a, verdict: drop }]');
    expect(config.rules[0].from).toEqual({ kind: 'zone', name: 'b', number: 0, ports: [0] });
    expect(config.rules[0].to).toEqual({ kind: 'port', name: 'a', number: 0, ports: [0] });
  });

  it('read lists, ranges and numbers', () => {
    const [rule] = parse(`${TWO}rules:
  - { proto: [tcp, 17], src: [10.0.0.0/8, 1.2.3.4], port: [80, "8000-8010"], sport: 1024-65535, state: [new, related], verdict: reject, comment: why }
`).rules;
    expect(rule).toMatchObject({ protocols: [6, 17], family: 4, from: null, to: null, name: 'why', helper: null });
    expect(rule.port).toEqual([
      [80, 80],
      [8000, 8010],
    ]);
    expect(rule.sport).toEqual([[1024, 65535]]);
    expect(rule.src.map((prefix) => prefix.text)).toEqual(['10.0.0.0/8', '1.2.3.4/32']);
  });

  it.each([
    ['{ proto: icmp, family: ipv6, verdict: drop }', 'rules[0].proto: a protocol of IPv6 / icmp'],
    [
      '{ src: 10.0.0.0/8, dst: "2001:db8::/32", verdict: drop }',
      'rules[0].dst: addresses of IPv4, as "src" is / "2001:db8::/32"',
    ],
    ['{ family: ipv6, src: 10.0.0.0/8, verdict: drop }', 'rules[0].src: addresses of IPv6 / "10.0.0.0/8"'],
    [
      '{ proto: gre, port: 80, verdict: drop }',
      'rules[0].port: "port" with protocols that have ports only / gre / add "proto: tcp"',
    ],
    [
      '{ proto: tcp, icmp-type: 8, verdict: drop }',
      'rules[0].icmp-type: "icmp-type" with the protocol icmp or icmpv6 / tcp',
    ],
    [
      '{ proto: tcp, port: 90-80, verdict: drop }',
      'rules[0].port: a port from 1 to 65535 or a range such as 8000-8010 / "90-80"',
    ],
    [
      '{ proto: tcp, port: [80, 0], verdict: drop }',
      'rules[0].port[1]: a port from 1 to 65535 or a range such as 8000-8010 / 0',
    ],
    [
      '{ proto: 256, verdict: drop }',
      'rules[0].proto: a protocol: tcp, udp, icmp, icmpv6, sctp, dccp, udplite, gre, esp, ah or a number from 0 to 255 / 256',
    ],
    [
      '{ state: establishd, verdict: drop }',
      'rules[0].state: one of new, established, related, invalid / "establishd" / did you mean "established"?',
    ],
    [
      '{ helper: fpt, verdict: accept }',
      'rules[0].helper: one of ftp, pptp, tftp, sip, rtsp, h323, irc, dns / "fpt" / did you mean "ftp"?',
    ],
  ])('refuse %s', (rule, fault) => expect(faults(`${TWO}rules: [${rule}]`)).toEqual([fault]));
});

describe('nat', () => {
  it.each([
    ['linux', 'address-and-port-dependent', 'address-and-port-dependent', true],
    ['full-cone', 'endpoint-independent', 'endpoint-independent', false],
    ['restricted-cone', 'endpoint-independent', 'address-dependent', false],
    ['port-restricted-cone', 'endpoint-independent', 'address-and-port-dependent', false],
    ['symmetric', 'address-and-port-dependent', 'address-and-port-dependent', false],
  ])('profile %s is %s, %s (RFC 3489 §5, RFC 4787)', (profile, mapping, filtering, keepPort) => {
    const config = parse(
      `${TWO}nat: { profile: ${profile}, masquerade: [{ out: wan }, { out: wan, filtering: address-dependent }] }`,
    );
    expect(config.nat.masquerade[0]).toMatchObject({ mapping, filtering, keepPort, portsGiven: false });
    expect(config.nat.masquerade[1]).toMatchObject({ mapping, filtering: 'address-dependent' });
  });

  it('reads every form of a target', () => {
    const forwards = (entry: string) => parse(`${TWO}nat: { forward: [{ in: wan, ${entry} }] }`).nat.forward[0];
    const target = (entry: string) => {
      const { to, port, toPort, protocols } = forwards(entry);
      return [formatAddress(to.family, ...(to.words as [number, number, number, number])), port, toPort, protocols];
    };
    expect(target('port: 80, to: 192.168.1.10')).toEqual(['192.168.1.10', [80, 80], null, [6, 17]]);
    expect(target('proto: tcp, port: 5000-5010, to: 192.168.1.10:6000-6010')).toEqual([
      '192.168.1.10',
      [5000, 5010],
      [6000, 6010],
      [6],
    ]);
    expect(target('proto: tcp, port: 5000-5010, to: 192.168.1.10:22')).toEqual([
      '192.168.1.10',
      [5000, 5010],
      [22, 22],
      [6],
    ]);
    expect(target('proto: gre, to: 192.168.1.10')).toEqual(['192.168.1.10', null, null, [47]]);
  });

  it.each([
    [
      'forward: [{ in: wan, proto: tcp, to: 192.168.1.10 }]',
      'nat.forward[0].port: a port from 1 to 65535 or a range such as 8000-8010 / nothing',
    ],
    [
      'forward: [{ in: wan, proto: gre, port: 80, to: 192.168.1.10 }]',
      'nat.forward[0].port: no port with a protocol that has none / one',
    ],
    [
      'forward: [{ in: wan, proto: [tcp, gre], port: 80, to: 192.168.1.10 }]',
      'nat.forward[0].proto: protocols that all have ports, or none of them / both kinds / write two entries',
    ],
    [
      'forward: [{ in: wan, port: 80, to: 192.168.1.10:0 }]',
      'nat.forward[0].to: an address, with or without a port, such as 192.168.1.10 or 192.168.1.10:80 / "192.168.1.10:0"',
    ],
    [
      'forward: [{ in: wan, port: 80, to: "[192.168.1.10]:80" }]',
      'nat.forward[0].to: an address, with or without a port, such as 192.168.1.10 or 192.168.1.10:80 / "[192.168.1.10]:80"',
    ],
    [
      'forward: [{ in: wan, port: 80, to: 192.168.1.10, from: "2001:db8::/32" }]',
      'nat.forward[0].from[0]: addresses of IPv4, as "to" is / "2001:db8::/32"',
    ],
    [
      'masquerade: [{ out: wan, from: [10.0.0.0/8, "2001:db8::/32"] }]',
      'nat.masquerade[0].from[1]: addresses of IPv4 / "2001:db8::/32" / IPv6 is routed, not translated: let it in with a rule',
    ],
    [
      'masquerade: [{ out: wan, family: ipv6 }]',
      'nat.masquerade[0].family: ipv4 / "ipv6" / IPv6 is routed, not translated: let it in with a rule',
    ],
    ['masquerade: [{ out: want }]', 'nat.masquerade[0].out: the name of a zone or port / "want" / did you mean "wan"?'],
    [
      'dmz: { in: wan, to: 192.168.1.0/24 }',
      'nat.dmz.to: a unicast address such as 192.168.1.10 or 2001:db8::10 / "192.168.1.0/24"',
    ],
    [
      'bypass: [{}]',
      'nat.bypass[0]: "from", "to" or both / neither / an entry without them would switch off all translation',
    ],
    [
      'bypass: [{ from: 10.0.0.0/8, to: "2001:db8::/32" }]',
      'nat.bypass[0].to: addresses of IPv4, as "from" is / "2001:db8::/32"',
    ],
    [
      'forward: [{ in: wan, port: 80, to: "[2001:db8:1::10]:80" }]',
      'nat.forward[0].to: an address of IPv4 / "2001:db8:1::10" / IPv6 is routed, not translated: let it in with a rule',
    ],
    [
      'dmz: { in: wan, to: "2001:db8:1::10" }',
      'nat.dmz.to: an address of IPv4 / "2001:db8:1::10" / IPv6 is routed, not translated: let it in with a rule',
    ],
    [
      'masquerade: [{ out: wan, ports: [1024-2047, 4096-81910] }]',
      'nat.masquerade[0].ports[1]: a port from 1 to 65535 or a range such as 8000-8010 / "4096-81910"',
    ],
    // Ports far outside of the range were given out.
    [
      'masquerade: [{ out: wan, to: 203.0.113.32, ports: 1024-1535, blocks: { size: 1024 } }]',
      'nat.masquerade[0].blocks.size: a number from 1 to 512, the ports of 1024-1535 / 1024',
    ],
    // It was silently not deterministic.
    [
      'masquerade: [{ out: wan, from: 10.0.0.0/15, to: 203.0.113.32, deterministic: true }]',
      'nat.masquerade[0].deterministic: at most 64512 inside addresses: 64512 for each outside address, with a port each / 131072 / name more addresses in "to"',
    ],
    ['hairpin: maybe', 'nat.hairpin: true, false or internal / "maybe"'],
  ])('refuses %s', (nat, fault) => expect(faults(`${TWO}nat: { ${nat} }`)).toEqual([fault]));

  it('takes one DMZ or a list, and warns of what is never reached', () => {
    expect(parse(`${TWO}nat: { dmz: { in: wan, to: 192.168.1.20 } }`).nat.dmz).toHaveLength(1);
    const config = parse(`${TWO}nat:
  dmz: [{ in: wan, to: 192.168.1.20 }, { in: wan, to: 192.168.1.21 }]
  forward:
    - { in: wan, port: 1-1000, to: 192.168.1.20 }
    - { in: wan, proto: tcp, port: 80, to: 192.168.1.21 }
`);
    expect(config.warnings).toEqual([
      'x:5:3 nat.dmz: a second host for wan is never reached',
      'x:8:7 nat.forward[1]: never reached, line 7 takes it all',
    ]);
  });
});

describe('alg, offload, conntrack', () => {
  it('switches ALGs by name, word or map', () => {
    const { alg } = parse(
      `${TWO}alg: { ftp: false, sip: , tftp: true, irc: { ports: [6667, 7000], enabled: false }, rtsp: { ports: 8554 } }`,
    );
    expect(Object.values(alg).map((entry) => [entry.name, entry.enabled, entry.ports])).toEqual([
      ['ftp', false, [21]],
      ['pptp', true, [1723]],
      ['tftp', true, [69]],
      ['sip', true, [5060]],
      ['rtsp', true, [8554]],
      ['h323', false, [1720]],
      ['irc', false, [6667, 7000]],
      ['dns', false, [53]],
    ]);
    expect(parse(`${TWO}alg: { ftp: { loose: true, bounce: true } }`).alg.ftp).toMatchObject({
      loose: true,
      bounce: true,
    });
    expect(faults(`${TWO}alg: { sip: { loose: true } }`)[0]).toContain('unknown key "loose"');
  });

  it('reads on and off, also as YAML 1.1 and JSON writers make them', () => {
    for (const [word, mode] of [
      ['on', 'on'],
      ['off', 'off'],
      ['true', 'on'],
      ['false', 'off'],
      ['verify', 'verify'],
    ])
      expect(parse(`${TWO}offload: { mode: ${word} }`).offload.mode).toBe(mode);
  });

  it('takes a table of 0 entries for off', () => {
    const config = parse(`${TWO}offload: { entries: 0 }`);
    expect(config.offload.mode).toBe('off');
    expect(config.warnings).toEqual(['x:4:12 offload.entries: a table of 0 entries means mode off']);
  });

  it('names the limit of tables, of the machine and of the format', () => {
    const small = { memory: 64 * 2 ** 20, cores: 1 };
    expect(() => parseConfig(`${TWO}conntrack: { max: 200000 }`, 'x', small)).toThrow(
      "x:4:14 conntrack.max: expected a number from 1 to 104857 (320 bytes each, in half of this machine's 64 MiB), got 200000",
    );
    // As many mappings as connections, where NAT keeps any.
    const mapped = `${TWO}conntrack: { max: 100000 }\nnat: { masquerade: [ { out: wan } ], profile: `;
    expect(parseConfig(`${mapped}linux }`, 'x', small).conntrack.max).toBe(100_000);
    expect(() => parseConfig(`${mapped}full-cone }`, 'x', small)).toThrow(
      "x:4:14 conntrack.max: expected a number from 1 to 74898 (448 bytes each, in half of this machine's 64 MiB), got 100000",
    );
    expect(() => parseConfig(`${TWO}offload: { entries: 400000 }\nconntrack: { max: 1000 }`, 'x', small)).toThrow(
      "x:4:12 offload.entries: expected a number from 0 to 209715 (160 bytes each, in half of this machine's 64 MiB), got 400000",
    );
    expect(faults(`${TWO}conntrack: { max: 99999999 }`)).toEqual([
      'conntrack.max: a number from 1 to 16777216 / 99999999',
    ]);
  });

  it("gives timeouts by the kernel's names, and zones to ports", () => {
    const config = parse(
      `${TWO}conntrack: { timeouts: { tcp-established: 7440, udp: 10, tcp-max-retrans: 200, tcp-retrans-count: 4 }, zones: { wan: 7, lan: 8 } }`,
    );
    expect(config.conntrack.timeouts).toEqual({
      tcp_timeout_established: 7440,
      udp_timeout: 10,
      tcp_timeout_max_retrans: 200,
      tcp_max_retrans: 4,
    });
    expect(config.ports.map((port) => port.conntrackZone)).toEqual([8, 7]);
    expect(faults(`${TWO}conntrack: { timeouts: { udp: 0 } }`)).toEqual([
      'conntrack.timeouts.udp: a number from 1 to 2000000 / 0',
    ]);
    expect(faults(`${TWO}conntrack: { zones: { lam: 1 } }`)).toEqual([
      'conntrack.zones.lam: the name of a zone or port / "lam" / did you mean "lan"?',
    ]);
  });
});

describe('what no host may have', () => {
  it('a reservation is an address of a host in a subnet that is served, of one client each', () => {
    const given = (reservations: string) =>
      `ports: { lan: { addresses: 192.168.1.1/24, dhcp4: { server: { range: 192.168.1.100-192.168.1.150, reservations: [${reservations}], relayed: [{ subnet: 10.1.0.0/24, range: 10.1.0.9-10.1.0.20 }] } } } }`;
    const mac = (n: number, address: string) => `{ mac: "02:00:00:00:00:0${n}", address: ${address} }`;
    expect(parse(given(`${mac(1, '192.168.1.9')}, ${mac(2, '10.1.0.77')}, ${mac(1, '10.1.0.78')}`)).warnings).toEqual(
      [],
    );
    const path = 'ports.lan.dhcp4.server.reservations';
    const wrong = [1, 2, 3, 4].map((n) => mac(n, ['10.9.9.9', '192.168.1.1', '192.168.1.255', '10.1.0.0'][n - 1]));
    expect(faults(given(wrong.join(', ')))).toEqual([
      `${path}[0].address: an address of 192.168.1.0/24 or 10.1.0.0/24 / "10.9.9.9"`,
      `${path}[1].address: the address of a client / "192.168.1.1" / it is this router's own`,
      `${path}[2].address: the address of a host / "192.168.1.255" / it is the network or broadcast address`,
      `${path}[3].address: the address of a host / "10.1.0.0" / it is the network or broadcast address`,
    ]);
    const twice = [mac(1, '192.168.1.9'), mac(2, '192.168.1.9'), mac(1, '192.168.1.10')];
    expect(faults(given(twice.join(', ')))).toEqual([
      `${path}[1].address: an address that is reserved once / "192.168.1.9"`,
      `${path}[2]: a client that has one reservation in a subnet / another one / reservations[0] is of the same client`,
    ]);
  });

  it('a next hop is no network or broadcast address of its link, by the most specific prefix', () => {
    const to = (via: string) => `${TWO}routes: [{ to: 10.0.0.0/8, via: ${via} }]\n`;
    for (const via of ['203.0.113.0', '203.0.113.255'])
      expect(faults(to(via))).toEqual([
        `routes[0].via: the address of a router / "${via}" / it is the network or broadcast address of its link`,
      ]);
    const point = 'ports: { a: { addresses: 10.0.0.1/8 }, b: { addresses: 10.255.255.254/31 } }\n';
    expect(parse(`${point}routes: [{ to: 0.0.0.0/0, via: 10.255.255.255 }]\n`).routes[0].port).toBe(1);
  });

  it('a route that is written twice is told', () => {
    const route = '{ to: 0.0.0.0/0, via: 203.0.113.4 }';
    expect(parse(`${TWO}routes: [${route}, ${route}]\n`).warnings).toEqual([
      expect.stringContaining('routes[1]: the same route as routes[0]'),
    ]);
    expect(parse(`${TWO}routes: [${route}, { to: 0.0.0.0/0, via: 203.0.113.5 }]\n`).warnings).toEqual([]);
  });

  it('names of dns.hosts are domain names', () => {
    expect(parse(`${TWO}dns: { hosts: { nas: 192.168.1.9, a_b.home.arpa: 192.168.1.9 } }\n`).warnings).toEqual([]);
    for (const name of ['a..b', 'nas.home.arpa.', 'x y', '-a', `${'a'.repeat(64)}.b`])
      expect(faults(`${TWO}dns: { hosts: { "${name}": 192.168.1.9 } }\n`)[0]).toMatch(/: a domain name without a dot/);
  });
});

it('a lease file is one server’s', () => {
  const server = (n: number, file: string) =>
    `{ addresses: 192.168.${n}.1/24, dhcp4: { server: { range: 192.168.${n}.100-192.168.${n}.199, file: ${file} } } }`;
  const text = (a: string, b: string, c: string) =>
    `ports:\n  lan: ${server(1, a)}\n  guest: ${server(2, b)}\ndelegation: { file: ${c} }\n`;
  expect(faults(text('/var/lib/a', '/var/lib/../lib/a', '/var/lib/a'))).toEqual([
    expect.stringMatching(
      /^ports\.guest\.dhcp4\.server\.file: a lease file that nothing else has .* x:2:\d+ ports\.lan\.dhcp4\.server\.file has it$/,
    ),
    expect.stringMatching(
      /^delegation\.file: a lease file that nothing else has .* ports\.lan\.dhcp4\.server\.file has it$/,
    ),
  ]);
  expect(parse(text('/var/lib/a', '/var/lib/b', '/var/lib/c')).delegation.file).toBe('/var/lib/c');
});
