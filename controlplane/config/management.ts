/**
 * The sections `api` and `snmp`: who may ask the router from outside, and how they prove it. Nothing of either is on by
 * default, and neither can be switched on without a secret.
 */
import { DEFAULTS } from './defaults.ts';
import { type Path, quote } from './errors.ts';
import type { Reader } from './reader.ts';
import { apiSchema, snmpSchema, snmpUserSchema } from './schema.ts';
import type { ApiConfig, ListenValue, SnmpConfig, SnmpUserConfig } from './types.ts';
import { listenAddress } from './values.ts';

/** Null: the section is not there, or faulty. */
export function normalizeApi(reader: Reader, value: unknown): ApiConfig | null {
  if (value === undefined) return null;
  const path = ['api'];
  const given = reader.read(apiSchema, value ?? {}, path, { listen: '127.0.0.1:8080' });
  if (given === undefined) return null;
  const { listen, token, hosts = [] } = given;
  if (token === undefined) {
    if (!reader.faulty([...path, 'token']))
      reader.reportWords(
        [...path, 'token'],
        'a secret of 16 to 200 visible ASCII characters',
        'nothing',
        'whoever reaches the port could reconfigure the router; `openssl rand -hex 16` makes one',
      );
    return null;
  }
  if (!listen.loopback)
    reader.warn(
      [...path, 'listen'],
      `${text(listen)} is reachable from outside and HTTP is not encrypted: the token and all answers can be read on the way`,
    );
  return { listen, token, hosts, where: reader.where(path) };
}

/** Null: the section is not there, or faulty. */
export function normalizeSnmp(reader: Reader, value: unknown): SnmpConfig | null {
  if (value === undefined) return null;
  const path = ['snmp'];
  const given = reader.read(snmpSchema, value ?? {}, path);
  if (given === undefined) return null;
  const names = new Set<string>();
  const users: SnmpUserConfig[] = [];
  reader.list(given.users, [...path, 'users']).forEach((item, n) => {
    const user = normalizeUser(reader, item, [...path, 'users', n]);
    if (user === null) return;
    if (names.has(user.name)) reader.report([...path, 'users', n, 'name'], 'a name that is not taken', user.name);
    names.add(user.name);
    users.push(user);
  });
  const { community = '' } = given;
  const written = given.users !== undefined && given.users !== null;
  if (community === '' && !written && !reader.faulty([...path, 'community'])) {
    reader.reportWords(path, 'a "community" (v2c), "users" (v3), or both', 'neither');
    return null;
  }
  const listen = given.listen ?? (listenAddress.parse(DEFAULTS['snmp.listen']) as ListenValue);
  if (!listen.loopback && community !== '')
    reader.warn(
      [...path, 'community'],
      `${text(listen)} is reachable from outside and v2c is not encrypted: whoever reads it on the way can read the tables`,
    );
  return {
    listen,
    community,
    users,
    location: given.location ?? '',
    contact: given.contact ?? '',
    where: reader.where(path),
  };
}

function normalizeUser(reader: Reader, item: unknown, path: Path): SnmpUserConfig | null {
  const given = reader.read(snmpUserSchema, item, path, { name: '?' });
  if (given === undefined) return null;
  for (const kind of ['auth', 'privacy'] as const) {
    const [method, key] = [given[kind], given[`${kind}-key`]];
    if (method !== undefined && key === undefined)
      reader.report([...path, `${kind}-key`], 'a secret of 8 to 200 visible ASCII characters', key);
    if (method === undefined && key !== undefined)
      reader.report([...path, kind], 'the algorithm that the key is for', method);
  }
  // RFC 3414 knows users without authentication; an agent that answers them answers everybody.
  if (given.auth === undefined && given['auth-key'] === undefined)
    reader.reportWords(
      [...path, 'auth'],
      'one of md5, sha, sha224, sha256, sha384, sha512',
      'nothing',
      `user ${quote(given.name)} could be anybody`,
    );
  if (given.auth === undefined) return null;
  return {
    name: given.name,
    auth: given.auth,
    authKey: given['auth-key'] ?? '',
    privacy: given.privacy ?? null,
    privacyKey: given['privacy-key'] ?? '',
  };
}

function text(listen: ListenValue): string {
  return listen.family === 6 ? `[${listen.address}]:${listen.port}` : `${listen.address}:${listen.port}`;
}
