/** The sections `api` and `snmp`: nothing opens without a secret, and every refusal says what to do. */
import { describe, expect, it } from 'vitest';
import { type Config, ConfigError, parseConfig } from '../../../controlplane/config/index.ts';

const PORTS = 'ports: { lan: { kind: memory } }\n';
const parse = (text: string): Config => parseConfig(PORTS + text, 'x', { memory: 8 * 2 ** 30 });

function faults(text: string): string[] {
  try {
    parse(text);
  } catch (error) {
    if (error instanceof ConfigError) return error.message.split('\n');
    throw error;
  }
  return [];
}

describe('api', () => {
  it('is on the control socket only unless it says more', () => {
    expect(parse('').api).toBeNull();
    const api = parse('api: { listen: "[::1]:8080", token: 0123456789abcdef, hosts: Router.Lan }').api;
    expect(api).toMatchObject({
      listen: { family: 6, address: '::1', port: 8080, loopback: true },
      token: '0123456789abcdef',
      hosts: ['router.lan'],
    });
  });

  it.each([
    [
      'api: { listen: "127.0.0.1:8080" }',
      'x:2:1 api.token: expected a secret of 16 to 200 visible ASCII characters, got nothing; whoever',
    ],
    ['api: { listen: "127.0.0.1:8080", token: short }', 'api.token: expected a secret of 16 to 200'],
    ['api: { listen: "127.0.0.1:8080", token: "with a blank in the token" }', 'api.token: expected a secret'],
    ['api: { listen: 8080, token: 0123456789abcdef }', 'api.listen: expected an address and a port'],
    ['api: { listen: "localhost:80", token: 0123456789abcdef }', 'write the address instead of a name'],
    ['api: { listen: "::1:80", token: 0123456789abcdef }', 'api.listen: expected an address'],
    ['api: { listen: "127.0.0.1:65536", token: 0123456789abcdef }', 'api.listen: expected an address'],
    ['api: { listen: "224.0.0.1:80", token: 0123456789abcdef }', 'api.listen: expected an address'],
    ['api: { lisen: "127.0.0.1:80", token: 0123456789abcdef }', 'did you mean "listen"?'],
    ['api: {}', 'api.listen'],
    ['api: { listen: "127.0.0.1:80", token: 0123456789abcdef, hosts: "a b" }', 'api.hosts: expected a host name'],
  ])('refuses %s', (text, message) => {
    expect(faults(text).join('\n')).toContain(message);
  });

  it('warns of an address that is reachable from outside', () => {
    expect(parse('api: { listen: "0.0.0.0:8080", token: 0123456789abcdef }').warnings.join()).toContain(
      'api.listen: 0.0.0.0:8080 is reachable from outside',
    );
  });
});

describe('snmp', () => {
  it('takes a community, users, or both', () => {
    expect(parse('').snmp).toBeNull();
    expect(parse('snmp: { community: lab }').snmp).toMatchObject({
      listen: { address: '127.0.0.1', port: 161 },
      community: 'lab',
      users: [],
    });
    const user = 'name: ann, auth: sha256, auth-key: correct-horse';
    expect(parse(`snmp: { users: [{ ${user} }] }`).snmp?.users).toEqual([
      { name: 'ann', auth: 'sha256', authKey: 'correct-horse', privacy: null, privacyKey: '' },
    ]);
    expect(parse('snmp: { listen: "0.0.0.0:161", community: lab }').warnings.join()).toContain('snmp.community');
  });

  it.each([
    ['snmp: {}', 'snmp: expected a "community" (v2c), "users" (v3), or both, got neither'],
    ['snmp: { users: [{ name: ann }] }', 'snmp.users[0].auth: expected one of md5, sha'],
    ['snmp: { users: [{ name: ann, auth: sha }] }', 'snmp.users[0].auth-key: expected a secret of 8'],
    ['snmp: { users: [{ name: ann, auth: sha, auth-key: short }] }', 'snmp.users[0].auth-key: expected a secret of 8'],
    ['snmp: { users: [{ name: ann, auth: sha, auth-key: long-enough, privacy: aes }] }', 'snmp.users[0].privacy-key'],
    [
      'snmp: { users: [{ name: a, auth: sha, auth-key: 12345678a }, { name: a, auth: sha, auth-key: 12345678a }] }',
      'a name that is not taken',
    ],
    ['snmp: { users: { name: ann } }', 'snmp.users: expected a list'],
  ])('refuses %s', (text, message) => {
    expect(faults(text).join('\n')).toContain(message);
  });
});
