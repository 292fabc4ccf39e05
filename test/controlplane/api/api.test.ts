/**
 * The API as strangers meet it: both doors, every refusal, the description, server-sent events, the metrics. The router
 * behind it is an inline one with a little traffic.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { type IncomingHttpHeaders, request } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ask, askEvents } from '../../../controlplane/api/client.ts';
import type { ExplainAnswer } from '../../../controlplane/api/explain.ts';
import { ROUTES } from '../../../controlplane/api/routes.ts';
import { ApiServer } from '../../../controlplane/api/server.ts';
import type { Summary } from '../../../controlplane/api/summary.ts';
import type { ApiConfig } from '../../../controlplane/config/index.ts';
import { metricsText } from '../../../controlplane/metrics/prometheus.ts';
import { createRouter } from '../../../controlplane/router.ts';
import { VIEW_NAMES } from '../../../controlplane/show/index.ts';
import { ethernet, ipv4, ipv6, udp } from '../../lib/build.ts';
import { GATE_MAC, HOST, HOST_MAC, HOST6, Home, LAN_MAC, SERVER, SERVER6, WAN_MAC } from '../../lib/home.ts';

const TOKEN = 'a-token-of-twenty-or-so';
const API: ApiConfig = {
  listen: { family: 4, address: '127.0.0.1', port: 0, loopback: true },
  token: TOKEN,
  hosts: ['router.lan'],
  where: { line: 0, column: 0, path: 'api' },
};

interface Reply {
  status: number;
  headers: IncomingHttpHeaders;
  body: string;
}

let folder = '';
let path = '';
let server: ApiServer;
let base = '';
let home: Home;

/** A request over TCP; the token is sent unless `headers` says otherwise. */
function get(
  target: string,
  headers: Record<string, string> = {},
  options: { method?: string; body?: string | Buffer } = {},
): Promise<Reply> {
  return new Promise((resolve, reject) => {
    const all = { authorization: `Bearer ${TOKEN}`, ...headers };
    const asked = request(base + target.slice(1), { method: options.method ?? 'GET', headers: all, agent: false });
    asked.on('response', (response) => {
      let body = '';
      response.on('data', (part) => {
        body += part;
      });
      response.on('end', () => resolve({ status: response.statusCode!, headers: response.headers, body }));
    });
    asked.on('error', reject);
    asked.end(options.body);
  });
}

const refused = async (reply: Promise<Reply>): Promise<[number, string]> => {
  const { status, body } = await reply;
  return [status, (JSON.parse(body) as { error: string }).error];
};

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'sluice-api-'));
  path = join(folder, 'control.sock');
  server = await ApiServer.listen(path);
  base = await server.listenTcp(API);
  home = new Home();
  home.lan(ipv4({ src: HOST, dst: SERVER }, udp({ sport: 4000, dport: 53 }, 'question')));
  home.lan(ipv6({ src: HOST6, dst: SERVER6 }, udp({ sport: 4001, dport: 53 }, 'question')));
  home.wan(ipv4({ src: SERVER, dst: HOST }, udp({ sport: 1, dport: 2 }, 'stranger')));
  server.serve(home.router);
});

afterAll(async () => {
  await server.close();
  rmSync(folder, { recursive: true, force: true });
});

describe('the TCP door', () => {
  it('asks for the token, whatever the path is', async () => {
    for (const authorization of ['', 'Bearer', `Bearer ${TOKEN}x`, `Basic ${TOKEN}`, `bearer  ${TOKEN}`, TOKEN]) {
      const reply = await get('/v1/summary', { authorization });
      expect([authorization, reply.status]).toEqual([authorization, 401]);
      expect(reply.headers['www-authenticate']).toBe('Bearer realm="sluice"');
    }
    expect((await get('/no/such/path', { authorization: '' })).status).toBe(401);
    expect((await get('/v1/summary', { authorization: `bearer ${TOKEN}` })).status).toBe(200);
    expect((await get('/openapi.json', { authorization: '' })).status).toBe(200);
  });

  it('refuses foreign names of this host (DNS rebinding) and pages of other origins', async () => {
    for (const host of ['evil.example', 'evil.example:80', 'localhost.evil.example', '127.0.0.1.evil.example', 'x y'])
      expect([host, (await get('/v1/summary', { host })).status]).toEqual([host, 421]);
    for (const host of ['localhost', 'localhost:9', 'router.lan', 'ROUTER.lan:80', '192.0.2.1', '[2001:db8::1]:80'])
      expect([host, (await get('/v1/summary', { host })).status]).toEqual([host, 200]);
    for (const origin of ['http://evil.example', 'null', 'http://localhost.evil.example', 'http://localhost:1'])
      expect([origin, (await get('/v1/summary', { origin, host: 'localhost' })).status]).toEqual([origin, 403]);
    expect((await get('/v1/summary', { origin: 'http://localhost:9', host: 'localhost:9' })).status).toBe(200);
    // The page itself too: what it would hand out is public, but it must not run under a foreign name.
    expect((await get('/openapi.json', { host: 'evil.example' })).status).toBe(421);
  });

  it('says on every answer that nothing foreign may run with it', async () => {
    for (const target of ['/openapi.json', '/v1/summary', '/nothing']) {
      const { headers } = await get(target);
      expect(headers['content-security-policy']).toContain("default-src 'none'");
      expect(headers['content-security-policy']).not.toContain('unsafe');
      expect(headers['x-content-type-options']).toBe('nosniff');
      expect(headers['access-control-allow-origin']).toBeUndefined();
    }
  });
});

describe('requests', () => {
  it('are refused in one form: where, expected, got', async () => {
    expect(await refused(get('/v2/show/link'))).toEqual([
      404,
      'path: expected one that /openapi.json names, got "/v2/show/link"',
    ]);
    expect(await refused(get('/v1/show/nothing'))).toEqual([
      404,
      expect.stringContaining('show: expected one of conntrack'),
    ]);
    expect((await get('/v1/show/..%2f..%2fetc%2fpasswd')).status).toBe(404);
    expect((await get('/v1/show/link', {}, { method: 'DELETE' })).headers.allow).toBe('GET');
    expect(await refused(get('/v1/show/link?colour=red'))).toEqual([400, expect.stringContaining('got "colour"')]);
    expect(await refused(get('/v1/summary?x=1'))).toEqual([400, 'query: expected none, got "x"']);
    expect(await refused(get('/v1/connections?limit=0'))).toEqual([
      400,
      'limit: expected a number from 1 to 1000, got "0"',
    ]);
    expect(await refused(get('/v1/events?kinds=link,gossip'))).toEqual([400, expect.stringContaining('got "gossip"')]);
    expect(
      await refused(get('/v1/apply', { 'content-type': 'application/yaml' }, { method: 'POST', body: '{}' })),
    ).toEqual([501, expect.stringContaining('got one that a program embeds')]);
  });

  it.each(['//[', 'http://[', '//a:b:c', '*'])(
    'a request for %s, which is no URL, ended the router',
    async (target) => {
      const heard = await new Promise<string>((resolve) => {
        let text = '';
        const asked = `GET ${target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`;
        const socket = connect(path, () => socket.write(asked));
        socket.on('data', (data) => {
          text += data;
        });
        socket.on('close', () => resolve(text));
      });
      expect(heard).toMatch(/^HTTP\/1\.1 400/);
      expect((await get('/v1/summary')).status).toBe(200);
    },
  );

  it('with a body of a form that any page may send, or of another type, are refused', async () => {
    for (const type of ['application/x-www-form-urlencoded', 'multipart/form-data', ''])
      expect((await get('/v1/confirm', { 'content-type': type }, { method: 'POST', body: '{}' })).status).toBe(415);
  });

  it('with a body over the limit are cut off, declared or not', async () => {
    const type = { 'content-type': 'application/json' };
    const long = Buffer.alloc(2000, 32);
    expect((await get('/v1/confirm', type, { method: 'POST', body: long })).status).toBe(413);
    const chunked = { ...type, 'transfer-encoding': 'chunked' };
    expect((await get('/v1/confirm', chunked, { method: 'POST', body: long })).status).toBe(413);
  });

  it('that are not HTTP, or never end, do not stay', async () => {
    const { port } = new URL(base);
    const talk = (text: string): Promise<string> =>
      new Promise((resolve) => {
        let heard = '';
        const socket = connect(Number(port), '127.0.0.1', () => socket.write(text));
        socket.on('data', (data) => {
          heard += data;
        });
        socket.on('error', () => {});
        socket.on('close', () => resolve(heard));
      });
    const [garbage, slow, header] = await Promise.all([
      talk('\x16\x03\x01 this is TLS\r\n\r\n'),
      talk('GET /v1/summary HTTP/1.1\r\nHost: localhost\r\nX-'),
      talk(`GET / HTTP/1.1\r\nHost: localhost\r\nX: ${'y'.repeat(20_000)}\r\n\r\n`),
    ]);
    expect(garbage).toMatch(/^HTTP\/1.1 400/);
    expect(slow).toMatch(/^HTTP\/1.1 408/);
    expect(header).toMatch(/^HTTP\/1.1 4\d\d/);
  });
});

describe('answers', () => {
  it('every view of show, over the socket and over TCP alike', async () => {
    for (const what of VIEW_NAMES) {
      if (what === 'who') continue;
      const own = await ask<{ text: string }>(path, `/v1/show/${what}`);
      expect(typeof own.text).toBe('string');
      expect(JSON.parse((await get(`/v1/show/${what}`)).body)).toEqual(own);
    }
  });

  it('the summary adds up with the views', async () => {
    const summary = await ask<Summary>(path, '/v1/summary');
    expect(summary.packets).toMatchObject({ received: 3, forwarded: 2 });
    expect(summary.conntrack).toEqual({ entries: 2, max: 4096 });
    expect(summary.zones.map(({ name, forward }) => [name, forward])).toEqual([
      ['lan', 'accept'],
      ['wan', 'drop'],
    ]);
    expect(summary.drops.map(({ reason, count }) => [reason, count])).toEqual(
      Object.entries(home.router.counters.dropped),
    );
    expect(summary.nat).toEqual([{ outside: '203.0.113.1', protocol: 'udp', used: 1, available: 64512 }]);
    expect(summary.ports).toEqual((await ask<{ json: unknown }>(path, '/v1/show/link')).json);
  });

  it('connections that hold every word', async () => {
    const search = async (words: string, limit = '10') =>
      await ask<{ total: number; matched: number; connections: { orig: { src: string }; in: string }[] }>(
        path,
        '/v1/connections',
        { query: { search: words, limit } },
      );
    expect(await search('')).toMatchObject({ total: 2, matched: 2 });
    expect(await search('', '1')).toMatchObject({ total: 2, matched: 2, connections: [{ in: 'lan' }] });
    expect((await search('UDP dport=53 2001:db8')).connections.map(({ orig }) => orig.src)).toEqual([HOST6]);
    expect(await search('tcp')).toMatchObject({ total: 2, matched: 0, connections: [] });
  });

  it('explains a flow, and frames; refuses what is no question', async () => {
    const explain = (question: unknown) =>
      ask<ExplainAnswer>(path, '/v1/explain', { method: 'POST', body: JSON.stringify(question) });
    const before = home.router.counters;
    const flow = await explain({ flow: `udp ${HOST}:7777 > ${SERVER}:53` });
    expect(flow.packets[0]).toMatchObject({ port: 'lan', verdict: 'forwarded', sent: [{ port: 'wan' }] });
    expect(flow.text).toContain('verdict: forwarded');
    const frame = Buffer.from(
      ethernet({ src: GATE_MAC, dst: WAN_MAC }, ipv4({ src: SERVER, dst: HOST }, udp({ sport: 1, dport: 2 }, ''))),
    ).toString('hex');
    const two = await explain({ port: 'wan', frames: [frame, frame] });
    expect(two.packets.map(({ verdict }) => verdict)).toEqual(['dropped', 'dropped']);
    expect(home.router.counters).toEqual(before);
    for (const [question, message] of [
      [[], 'body: expected an object'],
      [{}, 'expected one of flow, frame, frames'],
      [{ flow: 'x', frame: 'y' }, 'expected one of flow, frame, frames'],
      [{ flow: 'hello' }, 'flow: expected PROTO'],
      [{ flow: 7 }, 'flow: expected a text'],
      [{ frame }, 'port: expected the port'],
      [{ port: 'wan', frame: 'zz' }, 'frame: expected an Ethernet frame in hexadecimal'],
      [{ port: 'moon', frame }, 'port: expected one of lan, wan, got "moon"'],
      [{ port: 'wan', frames: [] }, 'frames: expected 1 to 256'],
      [{ prot: 'wan', frame }, 'got "prot"'],
    ] as const)
      await expect(explain(question)).rejects.toMatchObject({ status: 400, message: expect.stringContaining(message) });
  });

  it('the description names every route, and nothing else', async () => {
    const document = JSON.parse((await get('/openapi.json', { authorization: '' })).body) as {
      openapi: string;
      paths: Record<string, Record<string, { operationId: string; responses: object; parameters: { name: string }[] }>>;
    };
    expect(document.openapi).toMatch(/^3\.1\./);
    const described = Object.entries(document.paths).flatMap(([at, methods]) =>
      Object.keys(methods).map((method) => `${method.toUpperCase()} ${at}`),
    );
    expect(described.sort()).toEqual(ROUTES.map(({ method, path: at }) => `${method} ${at}`).sort());
    const operations = Object.values(document.paths).flatMap((methods) => Object.values(methods));
    expect(new Set(operations.map(({ operationId }) => operationId)).size).toBe(operations.length);
    for (const [at, methods] of Object.entries(document.paths))
      for (const { parameters } of Object.values(methods))
        for (const [, name] of at.matchAll(/\{(\w+)\}/g)) expect(parameters.map((one) => one.name)).toContain(name);
  });
});

describe('events', () => {
  it('a connection is announced, changed and ended; a link goes down; a summary comes each second', async () => {
    const seen: string[] = [];
    const summaries: Summary[] = [];
    const listening = askEvents(path, ['conntrack', 'link', 'summary'], (kind, data) => {
      if (kind === 'summary') {
        summaries.push(data as Summary);
        if (summaries.length === 1) {
          // The listener is there: now something happens.
          home.lan(ipv4({ src: HOST, dst: SERVER }, udp({ sport: 5000, dport: 53 }, 'one')));
          home.wan(ipv4({ src: SERVER, dst: '203.0.113.1' }, udp({ sport: 53, dport: 5000 }, 'two')));
          home.router.setLink('wan', false);
        }
      }
      if (kind === 'conntrack') seen.push((data as { line: string }).line);
      if (kind === 'link') seen.push(JSON.stringify(data));
      return summaries.length < 2 || seen.length < 3;
    });
    await listening;
    home.router.setLink('wan', true);
    const about = seen.filter((line) => line.includes('sport=5000'));
    expect(about[0]).toMatch(/^ {4}\[NEW\] ipv4 {5}2 udp .*\[UNREPLIED\]/);
    expect(about[1]).toMatch(/^ \[UPDATE\] ipv4/);
    expect(seen).toContain('{"ifname":"wan","operstate":"DOWN"}');
    expect(summaries[1].packets.received - summaries[0].packets.received).toBe(2);
    expect(summaries[1].ports[1].operstate).toBe('DOWN');
  });

  it('cost nothing when nobody listens', async () => {
    const { events, sizes } = home.router.tables.buffers;
    const words = new Int32Array(events);
    const each = words.length / (sizes.workers + 1);
    const listeningNow = (): number[] => [words[0], words[each]];
    const deadline = performance.now() + 20_000;
    while (listeningNow().some((flag) => flag !== 0) && performance.now() < deadline)
      await new Promise((resolve) => setTimeout(resolve, 10));
    expect(listeningNow()).toEqual([0, 0]);
  });
});

describe('metrics', () => {
  it('are the ones that the page and the Grafana dashboard name', async () => {
    const router = new Home({ offload: { mode: 'on' } });
    router.lan(ipv4({ src: HOST, dst: SERVER }, udp({ sport: 1, dport: 53 }, '')));
    router.wan(ipv4({ src: SERVER, dst: HOST }, udp({ sport: 1, dport: 2 }, 'stranger')));
    const served = new Set([...(await metricsText(router.router)).matchAll(/^# TYPE (\w+)/gm)].map(([, name]) => name));
    const read = (file: string): string =>
      readFileSync(fileURLToPath(new URL(`../../../${file}`, import.meta.url)), 'utf8');
    const used = [...read('examples/grafana-dashboard.json').matchAll(/sluice_\w+/g)].map(([name]) => name);
    expect(used.length).toBeGreaterThan(10);
    // An inline router has no workers, and so no series of them.
    expect(used.filter((name) => !served.has(name) && !name.startsWith('sluice_worker_'))).toEqual([]);
    // The page writes families short: `sluice_a_b_total`, `_c_total`, and `sluice_a_{b,c}_total`.
    const told = new Set<string>();
    for (const [, cell] of read('docs/metrics.md').matchAll(/^\| (`sluice_[^|]*) \|/gm)) {
      const [first, ...rest] = [...cell.matchAll(/`([^`]+)`/g)].map(([, name]) => name);
      const braces = /^(.*)\{(.*)\}(.*)$/.exec(first);
      const full = braces === null ? [first] : braces[2].split(',').map((word) => braces[1] + word + braces[3]);
      for (const name of full) told.add(name);
      for (const name of rest)
        if (name.startsWith('sluice_')) told.add(name);
        else for (let n = 1; n < 5; n++) told.add(first.split('_').slice(0, -n).join('_') + name);
    }
    expect([...served].filter((name) => !told.has(name))).toEqual([]);
  });

  it('a sum over the ports without a VLAN tag counts a tagged frame once', async () => {
    const router = createRouter({
      ports: {
        trunk: { kind: 'memory', mac: LAN_MAC },
        office: { vlan: 10, parent: 'trunk', zone: 'lan', addresses: ['192.168.1.1/24'] },
      },
    });
    const packet = ipv4({ src: HOST, dst: SERVER }, udp({ sport: 1, dport: 53 }, ''));
    const frame = ethernet({ src: HOST_MAC, dst: LAN_MAC, vlan: 10 }, packet);
    router.inject('trunk', frame);
    const text = await metricsText(router);
    const bytes = [...text.matchAll(/^sluice_port_receive_bytes_total\{(.*)\} (\d+)$/gm)].map(([, labels, n]) => [
      labels,
      n,
    ]);
    expect(bytes).toEqual([
      ['port="trunk",zone="trunk"', `${frame.length}`],
      ['port="office",zone="lan",vlan="10"', `${frame.length}`],
    ]);
  });

  it('are in the text format, agree with show link, and name no address', async () => {
    const { headers, body } = await get('/metrics');
    expect(headers['content-type']).toBe('text/plain; version=0.0.4; charset=utf-8');
    const values = new Map<string, number>();
    const typed = new Set<string>();
    for (const line of body.trimEnd().split('\n')) {
      const type = /^# TYPE ([a-z0-9_]+) (counter|gauge)$/.exec(line);
      if (type !== null) {
        expect(typed.has(type[1])).toBe(false);
        expect(type[1].endsWith('_total')).toBe(type[2] === 'counter');
        typed.add(type[1]);
        continue;
      }
      if (line.startsWith('# HELP ')) continue;
      const sample = /^([a-z0-9_]+)(\{(?:[a-z_]+="(?:[^"\\\n]|\\.)*",?)*\})? (\d+(?:\.\d+)?)$/.exec(line);
      expect([line, sample === null]).toEqual([line, false]);
      expect(typed.has(sample![1])).toBe(true);
      expect(values.has(sample![1] + (sample![2] ?? ''))).toBe(false);
      values.set(sample![1] + (sample![2] ?? ''), Number(sample![3]));
    }
    const links = (await ask<{ json: Summary['ports'] }>(path, '/v1/show/link')).json;
    for (const { ifname, zone, stats64 } of links) {
      expect(values.get(`sluice_port_receive_packets_total{port="${ifname}",zone="${zone}"}`)).toBe(stats64.rx.packets);
      expect(values.get(`sluice_port_transmit_bytes_total{port="${ifname}",zone="${zone}"}`)).toBe(stats64.tx.bytes);
    }
    for (const [reason, count] of Object.entries(home.router.counters.dropped))
      expect(
        [...values].find(([name]) => name.startsWith('sluice_drops_total') && name.includes(`"${reason}"`))?.[1],
      ).toBe(count);
    expect(values.get('sluice_conntrack_entries')).toBe(home.router.conntrack.count);
    expect(body).not.toMatch(/\d+\.\d+\.\d+\.\d+|2001:db8/);
  });
});
