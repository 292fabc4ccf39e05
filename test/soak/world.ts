/**
 * A home gateway that carries established connections while something else goes on: the subject of the soak and attack
 * runs. Frames are made once and sent again and again; what leaves for them is remembered from the first time, and must
 * be the same, byte for byte, ever after.
 */
import { createRouter, type Router, type RouterOptions } from '../../controlplane/router.ts';
import type { FaultRates } from '../../dataplane/ports/fault.ts';
import { CLOCK } from '../../dataplane/tables.ts';
import { ethernet, get16, get32, icmp, ipv4, ipv6, tcp, toHex, udp } from '../lib/build.ts';
import * as H from '../lib/home.ts';

/** A frame in at a port, and what must leave for it. */
interface Exchange {
  port: 'lan' | 'wan';
  frame: Uint8Array;
  out: 'lan' | 'wan';
  expected: Uint8Array;
}

export const fromLan = (packet: Uint8Array, mac = H.HOST_MAC) => ethernet({ src: mac, dst: H.LAN_MAC }, packet);
export const fromWan = (packet: Uint8Array) => ethernet({ src: H.GATE_MAC, dst: H.WAN_MAC }, packet);

/** Longest time that a fault wrapper holds a frame. */
const HELD_MS = 17;

export class World {
  readonly router: Router;
  readonly exchanges: Exchange[] = [];
  injected = 0;
  lost = 0;

  constructor(extra: Record<string, unknown> = {}, options: RouterOptions = {}) {
    this.router = createRouter(H.homeConfig({ conntrack: { max: 8192 }, ...extra }), {
      slots: { small: 4096, large: 64 },
      ...options,
    });
  }

  /** Opens `count` TCP and as many UDP connections in both families, and learns what leaves for their packets. */
  establish(count: number): void {
    for (let n = 0; n < count; n++) {
      const six = n % 3 === 2;
      const [inside, outside, seen] = six ? [H.HOST6, H.SERVER6, H.HOST6] : [H.HOST, H.SERVER, H.ROUTER_WAN];
      const ip = six ? ipv6 : ipv4;
      const out = { src: inside, dst: outside };
      const back = { src: outside, dst: seen };
      const [a, b] = [0x10000000 + n * 7919, 0x60000000 + n * 104729];
      const c = { sport: 20000 + n, dport: 443 };
      const s = { sport: 443, dport: 20000 + n };
      const options = { mss: 1460, sackPermitted: true, wscale: 7 };
      this.put('lan', fromLan(ip(out, tcp({ ...c, seq: a, flags: 'S', options }))));
      this.put('wan', fromWan(ip(back, tcp({ ...s, seq: b, ack: a + 1, flags: 'SA', options }))));
      this.put('lan', fromLan(ip(out, tcp({ ...c, seq: a + 1, ack: b + 1, flags: 'A' }))));
      this.learn('lan', 'wan', fromLan(ip(out, tcp({ ...c, seq: a + 1, ack: b + 1, flags: 'PA' }, 'question'))));
      this.learn('wan', 'lan', fromWan(ip(back, tcp({ ...s, seq: b + 1, ack: a + 9, flags: 'PA' }, 'an answer'))));
      this.learn('lan', 'wan', fromLan(ip(out, udp(c, 'datagram'))));
      this.learn('wan', 'lan', fromWan(ip(back, udp(s, 'reply'))));
    }
    // UDP that still goes both ways after two seconds is ASSURED: a full table spares it.
    for (let n = 0; n < 2; n++) {
      this.work(3000);
      this.check('while establishing');
    }
  }

  private learn(port: 'lan' | 'wan', out: 'lan' | 'wan', frame: Uint8Array): void {
    this.drain();
    this.put(port, frame);
    const left = this.router.take(out);
    if (left.length !== 1) throw new Error(`world: expected one frame out of ${out}, got ${left.length}`);
    this.exchanges.push({ port, frame, out, expected: left[0] });
  }

  /** Puts a frame in and lets the router work. */
  put(port: 'lan' | 'wan', frame: Uint8Array): void {
    this.injected++;
    this.router.inject(port, frame);
  }

  /** Queues a frame; `work` takes it up. */
  push(port: 'lan' | 'wan', frame: Uint8Array): void {
    if (this.router.port(port).push(frame)) this.injected++;
  }

  /** Works off what is queued; time passes. */
  work(milliseconds = 1): void {
    this.router.advance(milliseconds);
    this.router.path.flush();
  }

  /** A circle of a live worker's: one millisecond, then what has come in, and what the control plane has to do about it. */
  circle(): void {
    const { tables, control, path } = this.router;
    tables.control[CLOCK] = (tables.control[CLOCK] + 1) | 0;
    if (control.next() === 0) control.tick();
    (this.router as unknown as { run(): void }).run();
    path.flush();
  }

  drain(): void {
    for (const port of ['lan', 'wan']) this.router.take(port);
  }

  /** Every established connection, both directions: throws when one of them does not carry its packet any more. */
  check(when: string): void {
    this.drain();
    // Answers first: a packet from inside would open anew what was lost, and hide it.
    for (const e of [...this.exchanges].sort((a, b) => (a.port === b.port ? 0 : a.port === 'wan' ? -1 : 1))) {
      this.put(e.port, e.frame);
      // Others may leave as well (probes of neighbours, answers that were due).
      const want = toHex(e.expected);
      if (!this.router.take(e.out).some((frame) => toHex(frame) === want)) {
        this.lost++;
        throw new Error(`${when}: nothing or another frame left for ${describe(e.frame)}`);
      }
    }
    this.drain();
  }

  /** Sends every packet of the established connections once, without looking. Returns how many. */
  carry(): number {
    for (const e of this.exchanges) this.push(e.port, e.frame);
    return this.exchanges.length;
  }

  /** Every frame is in exactly one counter, every slot in the arena or held; throws otherwise. */
  balance(when: string): void {
    const c = this.router.counters;
    const { frames, tables } = this.router;
    // What the wrappers have lost, doubled and hold has not entered the path; what they hold has not left.
    let entered = this.injected;
    let held = c.held;
    for (const port of this.router.faults) {
      entered += port.rx.duplicated - port.rx.lost - port.rx.held;
      held += port.rx.held + port.tx.held;
    }
    if (c.received !== entered) throw new Error(`${when}: expected ${entered} frames received, got ${c.received}`);
    const missing = tables.missing(0);
    if (missing !== 0)
      throw new Error(`${when}: expected every frame in one counter, got ${missing} in none: ${JSON.stringify(c)}`);
    const free = frames.freeSmallCount + frames.freeLargeCount;
    if (free !== frames.small + frames.large - held)
      throw new Error(`${when}: expected ${frames.small + frames.large - held} free slots, got ${free}`);
  }

  /** Other rates for the wrappers of all ports; null: none, and what they hold goes on. */
  faults(rates: FaultRates | null): void {
    for (const port of this.router.faults) for (const lane of [port.rx, port.tx]) lane.setRates(rates ?? {});
    if (rates === null && this.router.faults.some((port) => port.holds)) this.work(HELD_MS);
  }

  /** Puts another configuration in force; throws when the router refuses it, or finds that nothing has changed. */
  apply(config: Record<string, unknown>): void {
    const { lines, refused } = this.router.apply(config);
    if (refused.length > 0) throw new Error(`apply: expected no refusal, got ${refused.join('; ')}`);
    if (lines.length === 0) throw new Error('apply: expected another configuration, got the same');
  }

  /** No connection, expectation, mapping or engine entry is left; throws otherwise. */
  empty(when: string): void {
    const { conntrack, natMappings, flows } = this.router.tables;
    const left = {
      connections: conntrack.count,
      expectations: this.router.expectations.count,
      mappings: natMappings.count,
      entries: flows === null ? 0 : flows.liveCount(4) + flows.liveCount(6),
    };
    if (Object.values(left).some((count) => count !== 0))
      throw new Error(`${when}: expected every table to be empty, got ${JSON.stringify(left)}`);
  }

  /** The router itself answers: an echo to its LAN address comes back. */
  answers(): boolean {
    this.drain();
    const ping = icmp({ type: 8, id: 4242, seq: this.injected & 0xffff }, 'are you there?');
    this.put('lan', fromLan(ipv4({ src: H.HOST, dst: H.ROUTER_LAN }, ping)));
    return this.router.take('lan').some((f) => f[23] === 1 && f[34] === 0 && get16(f, 38) === 4242);
  }
}

function describe(frame: Uint8Array): string {
  const six = frame[12] === 0x86;
  const l4 = six ? 54 : 34;
  return `${six ? 'IPv6' : 'IPv4'} protocol ${frame[six ? 20 : 23]} ${get16(frame, l4)} > ${get16(frame, l4 + 2)}, ${get32(frame, l4 + 4)}`;
}
