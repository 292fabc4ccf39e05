/**
 * Delegations over the lease file with kill -9: children take turns, each is killed in the midst of its work but the last.
 * Whatever a client was told must be in the file, to the letter; nothing may be there twice.
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { Leases, prefixText } from '../../controlplane/dhcp6/leases.ts';

export interface Delegations {
  told: number;
  kills: number;
  /** What was told and is not in the file. */
  lost: string[];
  /** Leases in the file, and different prefixes among them. */
  leases: number;
  prefixes: number;
  /** Of the last child: delegations a second (four messages each), MiB of memory, leases in force at its end. */
  rate: number;
  memory: number;
  inForce: number;
}

/** @param child the program, as a path of JavaScript; @param total clients; @param kills how often one is killed */
export async function delegate(child: string, total: number, kills: number): Promise<Delegations> {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-delegations-'));
  const file = join(folder, 'leases6');
  const told = new Map<number, string>();
  const figures = { rate: 0, memory: 0, inForce: 0 };
  try {
    for (let turn = 0; turn <= kills; turn++) {
      const process_ = spawn(process.execPath, [child, file, String(told.size), String(total)], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      const ended = new Promise<number | null>((resolve) => process_.once('exit', resolve));
      const until = Math.floor((total * (turn + 1)) / (kills + 1));
      for await (const line of createInterface({ input: process_.stdout })) {
        const [client, prefix, ...rest] = line.split(' ');
        if (client === 'done')
          Object.assign(figures, { rate: Number(prefix), memory: Number(rest[0]), inForce: Number(rest[1]) });
        else told.set(Number(client), prefix);
        if (turn < kills && told.size >= until) process_.kill('SIGKILL');
      }
      const code = await ended;
      if (turn === kills && code !== 0) throw new Error(`the last child: expected exit code 0, got ${code}`);
    }
    const leases = new Leases();
    leases.open(file, 0);
    const lost = [...told].filter(([client, prefix]) => {
      const name = [0, 3, 0, 1, 2, 0, 0, client >> 16, (client >> 8) & 255, client & 255];
      const duid = name.map((byte) => byte.toString(16).padStart(2, '0')).join(':');
      return !leases.of(`duid:${duid}`).some((lease) => prefixText(lease.words, lease.prefixLength) === prefix);
    });
    const prefixes = new Set([...leases].map((lease) => prefixText(lease.words, lease.prefixLength)));
    const result = { told: told.size, kills, lost: lost.map(String), leases: leases.size, prefixes: prefixes.size };
    leases.close();
    return { ...result, ...figures };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
