/** The session's clock: what a capture's time stamps may do to it. */
import { expect, it } from 'vitest';
import { loadConfig } from '../../../controlplane/config/index.ts';
import { ReplaySession } from '../../../controlplane/replay/session.ts';
import { CaptureReader } from '../../../dataplane/ports/capture-reader.ts';
import { ethernet, ipv4, udp } from '../../lib/build.ts';
import { example } from './files.ts';

/** A session of the home gateway's example, and the numbers of its ports. */
function home(): { session: ReplaySession; lan: number; wan: number } {
  const session = new ReplaySession(loadConfig(example('home.yaml')), {
    seed: 1,
    target: () => null,
    resolution: 'nano',
    log: () => {},
  });
  const lan = session.config.ports.findIndex((port) => port.name === 'lan');
  const wan = session.config.ports.findIndex((port) => port.name === 'wan');
  return { session, lan, wan };
}

it('a time stamp of a million years from now was lived through, day by day', () => {
  const { session, lan, wan } = home();
  const host = '02:aa:00:00:00:10';
  const ask = (sport: number) =>
    ethernet(
      { src: host, dst: '02:00:00:00:01:01' },
      ipv4({ src: '192.168.1.50', dst: '198.51.100.7' }, udp({ sport, dport: 53 }, 'x')),
    );
  const connections = () => session.router.conntrack.list().map((c) => c.orig.sport);
  session.inject(lan, ask(1000), 43, 1_700_000_000, 5);
  session.inject(lan, ask(1001), 43, 3_700_000_000, 7); // 63 years
  expect(connections()).toEqual([1001]);
  session.inject(lan, ask(1002), 43, 3_700_000_001, 9);
  expect(connections()).toEqual([1001, 1002]);
  session.inject(lan, ask(1003), 43, 3e13, 0);
  expect(connections()).toEqual([1003]);
  session.close();
  const written = CaptureReader.fromBytes('wan', session.writers[wan].toBytes());
  const times: number[][] = [];
  while (written.next()) times.push([written.seconds, written.nanoseconds]);
  expect(times.slice(0, 3)).toEqual([
    [1_700_000_000, 5],
    [3_700_000_000, 7],
    [3_700_000_001, 9],
  ]);
});

it('what the router sent in a pause that was cut short was stamped with the time behind it', () => {
  const { session, lan, wan } = home();
  const packet = ipv4({ src: '192.168.1.50', dst: '203.0.113.77' }, udp({ sport: 1000, dport: 53 }, 'x'));
  const frame = ethernet({ src: '02:aa:00:00:00:10', dst: '02:00:00:00:01:01' }, packet);
  session.inject(lan, frame, frame.length, 1_700_000_000, 0);
  session.inject(lan, frame, frame.length, 3_700_000_000, 0);
  session.close();
  const written = CaptureReader.fromBytes('wan', session.writers[wan].toBytes());
  const times: number[] = [];
  while (written.next()) times.push(written.seconds - 1_700_000_000);
  // Nobody has 203.0.113.77: it is asked for three times, a second apart, and again when the second frame comes.
  expect(times).toEqual([0, 1, 2, 2_000_000_000]);
});
