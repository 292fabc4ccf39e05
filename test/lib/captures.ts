/** The folder of real captures that some tests read: SLUICE_CAPTURES, else `shared/captures` beside the repository. */
import { dirname, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = resolve(dirname(fileURLToPath(import.meta.url)), '../..');

/** Absolute path; nothing says that it is there. */
export const CAPTURES = resolve(root, process.env.SLUICE_CAPTURES ?? '../shared/captures');
