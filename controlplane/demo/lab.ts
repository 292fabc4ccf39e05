/**
 * Lab: what the demo's worlds have in common. A lab and a folder that go together, `sluice run` in a namespace, and the
 * kernel's end of its TAP devices where a cable would lead: a TAP stays attached to its descriptor wherever the device goes.
 */
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Lab, LabError, type LabProcess, type LinkEnd, waitFor } from '../lab/namespace.ts';
import { packageRoot } from '../package-root.ts';

/** The built command: workers and child processes need compiled files. Throws LabError. */
export function commandFile(): string {
  const file = join(packageRoot(), 'dist', 'controlplane', 'cli', 'main.js');
  if (!existsSync(file)) throw new LabError(file, 'the built package', 'nothing', 'run "npm run build"');
  return file;
}

/** A new folder of temporary files, and what removes it; at the process's exit it goes too. Throws LabError. */
export function temporaryFolder(): { folder: string; sweep: () => void } {
  let folder: string;
  try {
    folder = mkdtempSync(join(tmpdir(), 'sluice-demo-'));
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new LabError(tmpdir(), 'to make a folder there', `${code}`, 'set TMPDIR to a folder that you may write');
  }
  const remove = (): void => rmSync(folder, { recursive: true, force: true });
  process.once('exit', remove);
  const sweep = (): void => {
    remove();
    process.off('exit', remove);
  };
  return { folder, sweep };
}

export interface DemoLab {
  readonly lab: Lab;
  readonly folder: string;
  /** Takes both down; may be called again. */
  close(): void;
}

/** A lab with a folder, and what `build` makes of it. Nothing is left behind when that fails. Errors: LabError. */
export async function openLab<T>(build: (opened: DemoLab) => Promise<T>): Promise<T> {
  commandFile(); // said before anything is made
  const { folder, sweep } = temporaryFolder();
  let lab: Lab | null = null;
  const close = (): void => {
    lab?.close();
    sweep();
  };
  try {
    lab = new Lab();
    return await build({ lab, folder, close });
  } catch (error) {
    close();
    throw error;
  }
}

/** Writes the configuration with a control socket of its own: a router that runs on this machine is not in the way. */
export function writeConfig({ folder }: DemoLab, yaml: string): { file: string; socket: string } {
  const [file, socket] = [join(folder, 'router.yaml'), join(folder, 'control.sock')];
  writeFileSync(file, `${yaml}\ncontrol: { socket: ${JSON.stringify(socket)} }\n`);
  return { file, socket };
}

/** Starts `sluice run` in a namespace; resolves when it runs. Errors: LabError. */
export async function startRouter({ lab }: DemoLab, ns: string, file: string): Promise<LabProcess> {
  const router = lab.spawn(ns, process.execPath, [commandFile(), 'run', file]);
  await waitFor('the router to run', () => router.stderr().includes('sluice: running') || !router.running(), {
    timeout: 60_000,
    detail: () => router.stderr(),
  });
  if (!router.running()) throw new LabError('router', 'it to run', 'its end', router.stderr().trim());
  return router;
}

/** Moves the kernel's end of a TAP from the router's namespace to where the cable leads, and configures it there. */
export function plug(lab: Lab, router: string, end: LinkEnd): void {
  lab.runSync(router, 'ip', ['link', 'set', end.name, 'netns', end.ns]);
  lab.device(end);
}
