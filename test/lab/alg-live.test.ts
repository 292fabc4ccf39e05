/**
 * Real programs through a live router: vsftpd with curl and lftp in every mode, through masquerade, through the IPv6 firewall and
 * with the server inside; tftp-hpa; sipp. Fifty megabytes each way, equal checksums.
 *
 *   client 192.168.1.10, 2001:db8:1::10 ── lan [sluice run] wan ── server 203.0.113.10, 2001:db8:2::10
 *
 * vsftpd refuses a PORT that names another address than its peer's, and a data connection from elsewhere: so every active
 * transfer that works has been translated right. Nothing here is started by the system: the lab owns every process.
 */
import { createHash } from 'node:crypto';
import { chmodSync, chownSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  buildWorld,
  CLIENT4,
  CLIENT6,
  ROUTER_WAN4,
  SERVER4,
  SERVER6,
  type World,
} from '../../controlplane/demo/world.ts';
import { waitFor } from '../../controlplane/lab/namespace.ts';
import { labReady } from './need.ts';

const CONFIG = `
ports:
  lan: { kind: tap, ifname: sl-lan, zone: lan, mac: "02:00:00:00:01:01", addresses: [192.168.1.1/24, "2001:db8:1::1/64"] }
  wan: { kind: tap, ifname: sl-wan, zone: wan, mac: "02:00:00:00:01:02", addresses: [203.0.113.1/24, "2001:db8:2::1/64"] }
zones:
  lan: { forward: accept, input: accept }
  wan: { forward: drop, input: drop }
nat:
  masquerade: [ { out: wan, from: 192.168.1.0/24 } ]
  forward: [ { in: wan, proto: tcp, port: 2121, to: 192.168.1.10:21 } ]
alg: { ftp: { ports: [21, 2121] }, tftp: {}, sip: {} }
`;

const MEGABYTES = 50;
const digest = (file: string) => createHash('sha256').update(readFileSync(file)).digest('hex');
const WATCH = { timeout: 70_000 };

describe.skipIf(!labReady(['vsftpd', 'lftp', 'curl', 'tftp', 'in.tftpd', 'sipp'], { tun: true }))(
  'helpers, live',
  () => {
    let world: World;
    let folder = '';
    let big = '';
    let sum = '';
    let files = 0;

    beforeAll(async () => {
      folder = mkdtempSync(join(tmpdir(), 'sluice-alg-'));
      chmodSync(folder, 0o755);
      const config = join(folder, 'router.yaml');
      writeFileSync(config, CONFIG);
      const content = Buffer.alloc(MEGABYTES * 1_000_000);
      for (let n = 0, x = 1; n + 4 <= content.length; n += 4) {
        x = (Math.imul(x, 1664525) + 1013904223) | 0;
        content.writeInt32LE(x, n);
      }
      mkdirSync(join(folder, 'ftp', 'up'), { recursive: true });
      mkdirSync(join(folder, 'empty'));
      chmodSync(join(folder, 'ftp', 'up'), 0o1777);
      big = join(folder, 'ftp', 'big');
      writeFileSync(big, content);
      sum = digest(big);
      world = await buildWorld({ config });
    });
    afterAll(() => {
      world?.close();
      if (folder !== '') rmSync(folder, { recursive: true, force: true });
    });

    /** vsftpd in the foreground, both families, anonymous reading and writing. */
    async function ftpServer(ns: string): Promise<void> {
      const file = join(folder, `vsftpd-${ns}.conf`);
      const settings = {
        background: 'NO',
        listen: 'NO',
        listen_ipv6: 'YES',
        anonymous_enable: 'YES',
        no_anon_password: 'YES',
        local_enable: 'NO',
        write_enable: 'YES',
        anon_upload_enable: 'YES',
        anon_umask: '022',
        anon_root: join(folder, 'ftp'),
        secure_chroot_dir: join(folder, 'empty'),
        connect_from_port_20: 'YES',
        isolate_network: 'NO',
        seccomp_sandbox: 'NO',
        xferlog_enable: 'NO',
      };
      writeFileSync(
        file,
        Object.entries(settings)
          .map(([key, value]) => `${key}=${value}\n`)
          .join(''),
      );
      const server = world.lab.spawn(ns, 'vsftpd', [file]);
      await waitFor(
        'vsftpd to listen',
        () => {
          if (!server.running()) throw new Error(`vsftpd ended: ${server.stdout()}${server.stderr()}`);
          return (
            world.lab.runSync(ns, 'ip', ['-V']) &&
            readFileSync(`/proc/${server.pid}/net/tcp6`, 'utf8').includes(':0015 ')
          );
        },
        WATCH,
      );
    }

    const uploaded = (name: string) => {
      const file = join(folder, 'ftp', 'up', name);
      const got = digest(file);
      rmSync(file);
      return got;
    };

    /** Down and up by curl; `port`: as the client names the server's control port. */
    async function curl(ns: string, host: string, port: number, ...options: string[]): Promise<void> {
      const url = `ftp://${host.includes(':') ? `[${host}]` : host}:${port}`;
      const base = ['-sS', '--max-time', '60', '--connect-timeout', '20', ...options];
      const here = join(folder, `down-${++files}`);
      await world.lab.run(ns, 'curl', [...base, '-o', here, `${url}/big`], WATCH);
      expect(digest(here)).toBe(sum);
      rmSync(here);
      await world.lab.run(ns, 'curl', [...base, '-T', big, `${url}/up/file-${files}`], WATCH);
      expect(uploaded(`file-${files}`)).toBe(sum);
    }

    async function lftp(ns: string, host: string, passive: boolean): Promise<void> {
      const here = join(folder, `down-${++files}`);
      const url = `ftp://anonymous:x@${host.includes(':') ? `[${host}]` : host}`;
      const set = [
        `ftp:passive-mode ${passive ? 'on' : 'off'}`,
        'ftp:ssl-allow no',
        'net:max-retries 1',
        'net:timeout 30',
        'ftp:fix-pasv-address no',
        'xfer:clobber on',
      ].map((s) => `set ${s}`);
      const commands = [...set, `open ${url}`, `get big -o ${here}`, `put ${big} -o up/file-${files}`].join('; ');
      await world.lab.run(ns, 'lftp', ['--norc', '-c', commands], { ...WATCH, env: { HOME: folder } });
      expect(digest(here)).toBe(sum);
      expect(uploaded(`file-${files}`)).toBe(sum);
      rmSync(here);
    }

    it('FTP outside: active and passive, in all four commands, IPv4 through masquerade and IPv6 through the firewall', {
      timeout: 180_000,
    }, async () => {
      await ftpServer(world.server);
      await curl(world.client, SERVER4, 21, '--disable-epsv'); // PASV
      await curl(world.client, SERVER4, 21); // EPSV
      await curl(world.client, SERVER4, 21, '--ftp-port', CLIENT4, '--disable-eprt'); // PORT
      await curl(world.client, SERVER4, 21, '--ftp-port', CLIENT4); // EPRT
      await curl(world.client, SERVER6, 21); // EPSV
      await curl(world.client, SERVER6, 21, '--ftp-port', CLIENT6); // EPRT
      await lftp(world.client, SERVER4, true);
      await lftp(world.client, SERVER4, false);
      await lftp(world.client, SERVER6, true);
      const connections = (await world.show('conntrack')).text;
      expect(connections).toMatch(/ src=192\.168\.1\.10 dst=203\.0\.113\.10 sport=\d+ dport=21 .*helper=ftp/);
      expect(connections).toMatch(
        / src=203\.0\.113\.10 dst=203\.0\.113\.1 sport=20 dport=\d+ .*src=192\.168\.1\.10 dst=203\.0\.113\.10 /,
      );
      expect((await world.show('expect')).text).toBe('');
      // Data goes through the engine: nearly all of a gigabyte.
      const engine = (await world.show('offload')).json as { counters: { hits: number } };
      expect(engine.counters.hits).toBeGreaterThan(5000);
    });

    it('without the helper there is no active FTP: the same lab, another port', { timeout: 180_000 }, async () => {
      // A control port that no helper follows: the server's connection back meets the firewall.
      const relay = `require('node:net').createServer((c) => { const s = require('node:net').connect(21, '127.0.0.1'); c.pipe(s).pipe(c); c.on('error', () => s.destroy()); s.on('error', () => c.destroy()); }).listen(4021, '::', () => console.log('ready'))`;
      const bridge = world.lab.spawn(world.server, process.execPath, ['-e', relay]);
      await waitFor('the relay', () => bridge.stdout().includes('ready'));
      const refused = await world.lab.run(
        world.client,
        'curl',
        [
          '-sS',
          '--max-time',
          '3',
          '--ftp-port',
          CLIENT4,
          '--disable-eprt',
          '-o',
          join(folder, 'none'),
          `ftp://${SERVER4}:4021/big`,
        ],
        { check: false },
      );
      expect(refused.status).not.toBe(0);
      await bridge.stop();
    });

    it('the FTP server inside, behind a port forward', { timeout: 180_000 }, async () => {
      await ftpServer(world.client);
      await curl(world.server, ROUTER_WAN4, 2121, '--disable-epsv', '--ftp-skip-pasv-ip');
      await curl(world.server, ROUTER_WAN4, 2121, '--disable-epsv', '--no-ftp-skip-pasv-ip');
      await curl(world.server, ROUTER_WAN4, 2121);
      await curl(world.server, ROUTER_WAN4, 2121, '--ftp-port', SERVER4, '--disable-eprt');
    });

    it('TFTP: reading and writing', async () => {
      const root = join(folder, 'tftp');
      mkdirSync(root);
      const content = readFileSync(big).subarray(0, 100_000);
      writeFileSync(join(root, 'file'), content);
      chmodSync(root, 0o777);
      chownSync(root, 65534, 65534);
      const server = world.lab.spawn(world.server, 'in.tftpd', [
        '--foreground',
        '--create',
        '--secure',
        '--user',
        'nobody',
        '--address',
        `${SERVER4}:69`,
        root,
      ]);
      await waitFor(
        'in.tftpd to listen',
        () => readFileSync(`/proc/${server.pid}/net/udp`, 'utf8').includes(':0045 '),
        WATCH,
      );
      const here = join(folder, 'tftp-down');
      await world.lab.run(world.client, 'tftp', ['-m', 'binary', SERVER4, '-c', 'get', 'file', here], WATCH);
      expect(readFileSync(here).equals(content)).toBe(true);
      await world.lab.run(world.client, 'tftp', ['-m', 'binary', SERVER4, '-c', 'put', here, 'written'], WATCH);
      await waitFor('the file', () => readFileSync(join(root, 'written')).equals(content), WATCH);
      await server.stop();
    });

    it('sipp: calls through NAT, media announced at the public address', { timeout: 180_000 }, async () => {
      const common = ['-nostdin', '-skip_rlimit', '-timeout', '60s', '-timeout_error'];
      const answers = world.lab.spawn(world.server, 'sipp', [
        '-sn',
        'uas',
        '-i',
        SERVER4,
        '-p',
        '5060',
        '-m',
        '3',
        '-trace_msg',
        '-message_file',
        join(folder, 'uas.log'),
        ...common,
      ]);
      await waitFor(
        'sipp to listen',
        () => readFileSync(`/proc/${answers.pid}/net/udp`, 'utf8').includes(':13C4 '),
        WATCH,
      );
      await world.lab.run(
        world.client,
        'sipp',
        ['-sn', 'uac', `${SERVER4}:5060`, '-i', CLIENT4, '-p', '5060', '-m', '3', '-r', '3', '-d', '200', ...common],
        WATCH,
      );
      expect(await answers.exited).toEqual({ code: 0, signal: null });
      const log = readFileSync(join(folder, 'uas.log'), 'utf8');
      expect(log.match(/^INVITE /gm)).toHaveLength(3);
      expect(log).toContain(`c=IN IP4 ${ROUTER_WAN4}`);
      expect(log).toContain(`Via: SIP/2.0/UDP ${ROUTER_WAN4}:5060`);
      // A Call-ID is only a name (RFC 3261 §8.1.1.4): Linux leaves it alone too.
      expect(log.replace(/^Call-ID:.*$/gm, '')).not.toContain(CLIENT4);
      expect((await world.show('conntrack', { proto: 'udp' })).text).toContain('helper=sip');
    });
  },
);
