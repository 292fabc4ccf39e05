/** Records DHCPv6 on a device of a lab while real programs speak it; tshark reads the record (test/lib/dissect.ts). */
import { join } from 'node:path';
import { type Lab, waitFor } from '../../controlplane/lab/namespace.ts';
import { type Dissected, dissect } from '../lib/dissect.ts';

/**
 * @param complete of the returned function: says of the messages' names when all is there that the test waits for
 * @throws Error when tshark objects to a message
 */
export async function recordDhcp6(lab: Lab, ns: string, device: string, folder: string) {
  const file = join(folder, `${device}.pcap`);
  const args = ['-i', device, '-U', '--immediate-mode', '-Z', 'root', '-w', file, 'udp port 546 or udp port 547'];
  const capture = lab.spawn(ns, 'tcpdump', args);
  await waitFor('tcpdump to listen', () => /listening/.test(capture.stderr()));
  // tcpdump forgets what it has not read when it is told to stop: it is not told before all is there.
  return async (complete: (names: string[]) => boolean): Promise<Dissected[]> => {
    let messages: Dissected[] = [];
    await waitFor(
      'the record to be complete',
      () => {
        messages = dissect(file);
        return complete(messages.map(({ name }) => name));
      },
      { timeout: 30_000, every: 200, detail: () => messages.map(({ name }) => name).join(' ') },
    );
    await capture.stop('SIGTERM');
    return messages;
  };
}

/**
 * Without what was said again: of a client's repeated question the last stays, of the answers to it the first, which is
 * the one that the client goes by.
 */
export function withoutRepeats(messages: readonly Dissected[]): Dissected[] {
  return messages.filter(({ name, xid }, n) => {
    const neighbour = messages[/ADVERTISE|REPLY/.test(name) ? n - 1 : n + 1];
    return name !== neighbour?.name || xid !== neighbour.xid;
  });
}
