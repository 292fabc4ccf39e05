/**
 * What a live router may still do once it runs: CAP_NET_ADMIN and CAP_NET_RAW, in every thread of it; and with that it does
 * all that it must: replace a dead worker, take its devices and rules away, keep its socket to its owner.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, it } from 'vitest';
import { Lab, type LabProcess, waitFor } from '../../controlplane/lab/namespace.ts';
import { bits, CAP_NET_ADMIN, CAP_NET_RAW, parsePrivileges } from '../../controlplane/live/privileges.ts';
import { labReady } from './need.ts';

const CHILD = fileURLToPath(new URL('../../dist/test/lab/live-child.js', import.meta.url));
const MAIN = fileURLToPath(new URL('../../dist/controlplane/cli/main.js', import.meta.url));

const CONFIG = (socket: string) => `
ports:
  lan: { kind: tap, ifname: sl-lan, zone: lan, mac: "02:00:00:00:01:01", addresses: [10.77.1.1/24, "2001:db8:77:1::1/64"] }
  wan: { kind: packet, ifname: wan0, zone: wan, addresses: [203.0.113.1/24] }
zones:
  lan: { forward: accept, input: accept }
  wan: { forward: drop, input: accept }
control: { socket: "${socket}" }
workers: 2
`;

describe.skipIf(!labReady(['ping', 'ip', 'setpriv'], { tun: true }))('privileges of a live router', () => {
  let lab: Lab;
  let folder = '';
  afterEach(() => {
    lab?.close();
    rmSync(folder, { recursive: true, force: true });
  });

  async function start(program: readonly string[]): Promise<{ router: LabProcess; ns: string; far: string }> {
    folder = mkdtempSync(join(tmpdir(), 'sluice-privileges-'));
    const file = join(folder, 'router.yaml');
    writeFileSync(file, CONFIG(join(folder, 'control.sock')));
    lab = new Lab();
    const ns = lab.namespace('router');
    const far = lab.namespace('far');
    lab.veth({ ns, name: 'wan0' }, { ns: far, name: 'eth0', addresses: ['203.0.113.9/24'] });
    lab.apply();
    const [command, ...words] = [...program, file];
    const router = lab.spawn(ns, command, words);
    await waitFor('the router to run', () => /running/.test(router.stdout() + router.stderr()) || !router.running(), {
      timeout: 60_000,
    });
    expect(router.running(), router.stderr()).toBe(true);
    return { router, ns, far };
  }

  const threads = (pid: number) =>
    readdirSync(`/proc/${pid}/task`).map((tid) =>
      parsePrivileges(readFileSync(`/proc/${pid}/task/${tid}/status`, 'latin1')),
    );

  it('keeps two capabilities in every thread, and needs no more', { timeout: 180_000 }, async () => {
    const { router, ns, far } = await start([process.execPath, MAIN, 'run']);
    const only = bits([CAP_NET_ADMIN, CAP_NET_RAW]);
    const all = threads(router.pid);
    // The main thread, two workers, and those of V8 and libuv.
    expect(all.length).toBeGreaterThan(4);
    for (const thread of all)
      expect(thread).toEqual({ permitted: only, effective: only, bounding: only, noNewPrivileges: true });

    // It works: the device by TAP is there, the one by AF_PACKET answers, and sluice0 has its rules.
    const ping = () => lab.run(far, 'ping', ['-n', '-c1', '-W1', '203.0.113.1'], { check: false });
    await waitFor('the router to answer', async () => (await ping()).status === 0);
    expect(lab.runSync(ns, 'ip', ['-4', 'rule', 'show']).stdout).toMatch(/10\.77\.1\.1 lookup 7700/);
    expect(statSync(join(folder, 'control.sock')).mode & 0o777).toBe(0o600);
    const show = spawnSync(process.execPath, [MAIN, 'show', 'link', '--socket', join(folder, 'control.sock')]);
    expect(show.status).toBe(0);

    process.kill(router.pid, 'SIGTERM');
    expect(await router.exited).toMatchObject({ code: 0 });
    expect(lab.runSync(ns, 'ip', ['-4', 'rule', 'show']).stdout).not.toMatch(/7700/);
    // The kernel lets go of an io_uring's files a moment after its process has ended.
    await waitFor('the devices to go', () => !/sl-lan|sluice0/.test(lab.runSync(ns, 'ip', ['link', 'show']).stdout));
    expect(existsSync(join(folder, 'control.sock'))).toBe(false);
  });

  it('with these two alone, dead workers are replaced, and devices that were deleted', {
    timeout: 180_000,
  }, async () => {
    const two = ['setpriv', '--bounding-set', '-all,+net_admin,+net_raw', '--no-new-privs', process.execPath, CHILD];
    const { router, ns, far } = await start(two);
    expect(threads(router.pid)[0].effective).toBe(bits([CAP_NET_ADMIN, CAP_NET_RAW]));
    const answers = () =>
      waitFor('the router to answer', async () => {
        const ping = await lab.run(far, 'ping', ['-n', '-c1', '-W1', '203.0.113.1'], { check: false });
        return ping.status === 0;
      });
    await answers();
    for (let deaths = 1; deaths <= 2; deaths++) {
      process.kill(router.pid, 'SIGUSR2');
      await waitFor('a worker to die', () => (router.stderr().match(/it starts again/g) ?? []).length >= deaths);
      await answers();
    }
    // The TAP the router makes again; the veth is another's.
    lab.runSync(ns, 'ip', ['link', 'delete', 'sl-lan']);
    lab.runSync(ns, 'ip', ['link', 'delete', 'wan0']);
    lab.runSync(ns, 'ip', ['link', 'add', 'wan0', 'type', 'veth', 'peer', 'name', 'eth0', 'netns', far]);
    lab.runSync(ns, 'ip', ['link', 'set', 'wan0', 'up']);
    lab.runSync(far, 'ip', ['address', 'add', '203.0.113.9/24', 'dev', 'eth0']);
    lab.runSync(far, 'ip', ['link', 'set', 'eth0', 'up']);
    for (const device of ['sl-lan', 'wan0'])
      await waitFor('the loss to be mended', () => router.stderr().includes(`the device ${device} is back`), {
        detail: () => router.stderr(),
      });
    await answers();
    process.kill(router.pid, 'SIGTERM');
    expect(await router.exited).toMatchObject({ code: 0 });
  });

  it('SLUICE_PRIVILEGES=keep leaves them', { timeout: 180_000 }, async () => {
    const { router } = await start(['env', 'SLUICE_PRIVILEGES=keep', process.execPath, MAIN, 'run']);
    const own = parsePrivileges(readFileSync('/proc/self/status', 'latin1'));
    for (const thread of threads(router.pid)) expect(thread.permitted).toBe(own.permitted);
  });
});
