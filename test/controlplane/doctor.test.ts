/**
 * The doctor, on machines that lack one thing or everything, and on the one that runs the tests.
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  type DoctorReport,
  doctor,
  doctorExitCode,
  formatDoctor,
  loadInChild,
  type Machine,
} from '../../controlplane/doctor.ts';

/** A machine with everything. */
const whole: Machine = {
  nodeVersion: '20.19.0',
  kernelRelease: '6.6.0-1-amd64',
  littleEndian: true,
  memory: 4096 * 1024 * 1024,
  isRoot: true,
  capabilities: (1n << 41n) - 1n,
  hasCommand: () => true,
  hasFile: () => true,
  openError: () => '',
  loadError: () => '',
  uringErrno: () => 0,
  kernelEngineError: () => '',
  receiveRingError: () => '',
};

const missing = (report: DoctorReport) => report.checks.filter((check) => check.state === 'missing');
const names = (report: DoctorReport) => missing(report).map((check) => check.name);

describe('doctor', () => {
  it('finds nothing on a machine with everything', () => {
    const report = doctor(whole);
    expect(names(report)).toEqual([]);
    expect(doctorExitCode(report)).toBe(0);
    expect(formatDoctor(report)).toContain('nothing is missing');
  });

  it('says of each missing thing what needs it and what mends it', () => {
    const nothing: Machine = {
      nodeVersion: '18.20.0',
      kernelRelease: '6.1.0-13-amd64',
      littleEndian: false,
      memory: 100 * 1024 * 1024,
      isRoot: false,
      capabilities: 0n,
      hasCommand: () => false,
      hasFile: () => false,
      openError: () => 'ENOENT',
      loadError: (name) => `Cannot find module '${name}'`,
      uringErrno: () => -1,
      kernelEngineError: () => 'kernel engine: expected a map of 8 entries (sluice_flows4), got EPERM',
      receiveRingError: () => 'port none (tap, --io bpf): expected a map of 1048576 entries (sluice_ring0), got EPERM',
    };
    const report = doctor(nothing);
    expect(missing(report)).toHaveLength(report.checks.length);
    for (const check of report.checks) {
      expect(check.neededFor, check.name).not.toBe('');
      expect(check.mend, check.name).not.toBe('');
    }
    expect(doctorExitCode(report)).toBe(1);
  });

  it('lets the basics alone decide the exit code', () => {
    const noLive = { ...whole, capabilities: 0n, openError: () => 'EACCES', uringErrno: () => 1 };
    expect(names(doctor(noLive))).toEqual([
      'CAP_NET_ADMIN',
      'CAP_NET_RAW',
      'CAP_SYS_ADMIN',
      '/dev/net/tun',
      'io_uring',
    ]);
    expect(doctorExitCode(doctor(noLive))).toBe(0);
    const noYaml = { ...whole, loadError: (name: string) => (name === 'yaml' ? 'Cannot find module' : '') };
    expect(names(doctor(noYaml))).toEqual(['package yaml']);
    expect(doctorExitCode(doctor(noYaml))).toBe(1);
  });

  it.each([
    ['20.19.0', true],
    ['20.18.3', false],
    ['22.0.0', true],
    ['18.99.0', false],
  ])('takes Node.js %s: %s', (nodeVersion, accepted) => {
    expect(doctor({ ...whole, nodeVersion }).ok).toBe(accepted);
  });

  it.each([
    ['6.6.0', true],
    ['6.10.3-amd64', true],
    ['6.5.13', false],
    ['5.15.0-100-generic', false],
    ['7.0', true],
  ])('finds TCX in kernel %s: %s', (kernelRelease, there) => {
    expect(names(doctor({ ...whole, kernelRelease }))).toEqual(there ? [] : ['kernel 6.6 (TCX)']);
  });

  it('tells the switched-off io_uring from the kernel without one', () => {
    expect(missing(doctor({ ...whole, uringErrno: () => 1 }))[0].mend).toContain('kernel.io_uring_disabled=0');
    expect(missing(doctor({ ...whole, uringErrno: () => 38 }))[0].mend).toContain('CONFIG_IO_URING');
  });

  it('speaks of receive rings where there can be TAP devices, with what the kernel said', () => {
    const refused = { ...whole, receiveRingError: () => 'expected a map, got EPERM' };
    expect(missing(doctor(refused))).toMatchObject([
      { name: 'receive rings (eBPF)', found: 'expected a map, got EPERM' },
    ]);
    expect(missing(doctor(refused))[0].mend).toContain('CAP_BPF');
    expect(doctorExitCode(doctor(refused))).toBe(0);
    expect(names(doctor({ ...refused, openError: () => 'ENOENT' }))).toEqual(['/dev/net/tun']);
  });

  it('names the Debian package of a missing tool, with sudo for those who need it', () => {
    const noConntrack = { ...whole, hasCommand: (name: string) => name !== 'nft' };
    expect(missing(doctor(noConntrack))[0].mend).toBe('apt-get install -y --no-install-recommends nftables');
    expect(missing(doctor({ ...noConntrack, isRoot: false }))[0].mend).toMatch(/^sudo apt-get install .* nftables$/);
  });

  it('agrees with this machine', () => {
    const report = doctor();
    const state = (name: string) => report.checks.find((check) => check.name === name)?.state;
    expect(report.ok).toBe(true); // the tests themselves run
    const runs = (command: string, ...args: string[]) => spawnSync(command, args).error === undefined;
    expect(state('ip') === 'ok').toBe(runs('ip', '-V'));
    expect(state('curl') === 'ok').toBe(runs('curl', '-V'));
    const capEff = BigInt('0x' + /^CapEff:\s+(\w+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))![1]);
    expect(state('CAP_NET_ADMIN') === 'ok').toBe(((capEff >> 12n) & 1n) === 1n);
    const text = formatDoctor(report);
    for (const check of report.checks) expect(text).toContain(check.name);
  });

  it('survives an addon that crashes while it loads', () => {
    const root = mkdtempSync(join(tmpdir(), 'sluice-doctor-'));
    try {
      const folder = join(root, 'node_modules', 'crasher');
      mkdirSync(folder, { recursive: true });
      writeFileSync(join(folder, 'index.js'), "process.kill(process.pid, 'SIGSEGV'); for (;;);");
      expect(loadInChild(root, 'crasher')).toBe('crashed (SIGSEGV)');
      expect(loadInChild(root, 'absent')).toMatch(/^Cannot find module 'absent'/);
    } finally {
      rmSync(root, { recursive: true });
    }
  });
});
