/**
 * Replay: real captures played through the router again and again, both sides emulated as `sluice replay --capture` does.
 *
 * The inside is the sender of the first frame. Every round starts with a new router (not timed), so that each connection
 * is new, seen by its helper and offloaded as in life; reading the capture and the emulated far end are timed with the
 * path, so the figure says how fast a replay is, not how fast the path is.
 */
import { normalizeConfig } from '../controlplane/config/index.ts';
import { CaptureInput, Timeline } from '../controlplane/replay/input.ts';
import { ipOffset, type PacketView, sourceAt, viewPacket } from '../controlplane/replay/packet.ts';
import { ReplaySession } from '../controlplane/replay/session.ts';
import { findSides, TwoSides } from '../controlplane/replay/two-sides.ts';
import { parseCidr } from '../dataplane/wire/address.ts';

export interface ReplayTask {
  file: string;
  /** Milliseconds of playing. */
  window: number;
}

export interface ReplayAnswer {
  /** Frames per second; 0: the capture has too few that could be played. */
  rate: number;
  frames: number;
  rounds: number;
}

/** Fewest frames of a capture that say anything. */
const FEWEST = 20;

function configuration(): ReturnType<typeof normalizeConfig> {
  return normalizeConfig({
    ports: {
      lan: { kind: 'memory', zone: 'lan', addresses: ['192.0.2.1/30', '2001:db8:1::1/64'] },
      wan: { kind: 'memory', zone: 'wan', addresses: ['203.0.113.1/24', '2001:db8:ffff::1/64'] },
    },
    routes: [
      { to: '0.0.0.0/0', via: '203.0.113.254' },
      { to: '::/0', via: '2001:db8:ffff::fe' },
    ],
    zones: { lan: { forward: 'accept', input: 'accept' }, wan: { forward: 'drop', input: 'drop' } },
    nat: { masquerade: [{ out: 'wan' }] },
    alg: { ftp: {}, pptp: {}, tftp: {}, sip: {}, rtsp: {} },
    conntrack: { max: 4096 },
    offload: { entries: 1024 },
  });
}

/** The sender of the first IP packet, as a prefix; '' when there is none. */
function firstSender(input: CaptureInput): string {
  let found = '';
  while (found === '' && input.next()) {
    const view: PacketView | null = viewPacket(input.frame, ipOffset(input.frame, input.length), input.length);
    if (view === null) continue;
    const bytes = input.frame.subarray(sourceAt(view), sourceAt(view) + (view.family === 4 ? 4 : 16));
    if (bytes.every((byte) => byte === 0)) continue;
    if (view.family === 4) found = `${bytes.join('.')}/32`;
    else {
      const groups: string[] = [];
      for (let n = 0; n < 16; n += 2) groups.push(((bytes[n] << 8) | bytes[n + 1]).toString(16));
      found = `${groups.join(':')}/128`;
    }
  }
  input.rewind();
  return found;
}

export function replay(task: ReplayTask): ReplayAnswer {
  const input = new CaptureInput(task.file, -1);
  const prefix = firstSender(input);
  const inside = prefix === '' ? null : parseCidr(prefix);
  if (inside === null) return { rate: 0, frames: 0, rounds: 0 };
  let seconds = 0;
  let frames = 0;
  let rounds = 0;
  const limit = performance.now() + task.window * 4;
  // The first rounds warm up; the last count.
  for (let warm = 2; seconds * 1000 < task.window && performance.now() < limit; warm--) {
    const config = configuration();
    input.rewind();
    const sides = new TwoSides(config, findSides(config, [inside]), [inside], input, false);
    const session = new ReplaySession(config, { seed: 1, target: () => null, resolution: 'micro', log: () => {} });
    session.onLeft = sides.left;
    sides.install(session.router);
    const begin = performance.now();
    const timeline = new Timeline([input]);
    let played = 0;
    for (let next = timeline.next(); next !== null; next = timeline.next()) {
      sides.play(session, next);
      played++;
    }
    const took = (performance.now() - begin) / 1000;
    session.close();
    played -= sides.skipped;
    if (played < FEWEST) return { rate: 0, frames: played, rounds: 0 };
    if (warm > 0) continue;
    seconds += took;
    frames += played;
    rounds++;
  }
  return { rate: rounds === 0 ? 0 : frames / seconds, frames, rounds };
}
