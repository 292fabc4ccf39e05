/**
 * wire: routers of this package joined by cables, under one virtual clock. What one sends on a port the other receives in
 * the same millisecond; a tap on a cable keeps every frame. For protocols that need a real other side, not a script.
 */
import type { Router } from '../../controlplane/router.ts';
import { verify } from './build.ts';

export interface End {
  router: Router;
  port: string;
}

export interface Heard {
  at: number;
  from: Router;
  frame: Uint8Array;
}

export class Wire {
  private readonly routers: Router[] = [];
  private readonly cables: { ends: [End, End]; heard: Heard[]; up: boolean }[] = [];
  now = 0;

  /** Joins two ports; returns what goes over the cable, in order. */
  join(a: End, b: End): Heard[] {
    for (const { router } of [a, b]) if (!this.routers.includes(router)) this.routers.push(router);
    const heard: Heard[] = [];
    this.cables.push({ ends: [a, b], heard, up: true });
    return heard;
  }

  /** Lets time pass in steps of `grain` ms: the longest that a frame waits for its receiver. */
  advance(milliseconds: number, grain = 10): void {
    const end = this.now + milliseconds;
    this.carry();
    while (this.now < end) {
      const step = Math.min(grain, end - this.now);
      this.now += step;
      for (const router of this.routers) router.advance(step);
      this.carry();
    }
  }

  private carry(): void {
    for (let moved = 1, rounds = 0; moved > 0; rounds++) {
      if (rounds > 1000) throw new Error('wire: expected the routers to fall silent, got 1000 rounds of frames');
      moved = 0;
      for (const { ends, heard, up } of this.cables)
        for (const side of [0, 1] as const) {
          const [from, to] = [ends[side], ends[1 - side]];
          for (const frame of from.router.take(from.port)) {
            const faults = verify(frame);
            if (faults.length > 0) throw new Error(`wire: a frame from ${from.port}: ${faults.join('; ')}`);
            heard.push({ at: this.now, from: from.router, frame });
            if (up) to.router.inject(to.port, frame);
            moved++;
          }
        }
    }
  }
}
