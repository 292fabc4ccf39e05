/**
 * Socket: where the control socket of a running router is, for the server and its clients alike.
 *
 * The configuration's `control.socket`. Its default is in /run, where only root may write: any other user's router has a
 * name of its own in the directory of temporary files.
 */
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DEFAULTS } from '../config/index.ts';

/** The path to use for what the configuration says. */
export function socketPath(configured: string = DEFAULTS['control.socket']): string {
  const uid = process.getuid?.() ?? 0;
  return configured === DEFAULTS['control.socket'] && uid !== 0 ? join(tmpdir(), `sluice-${uid}.sock`) : configured;
}
