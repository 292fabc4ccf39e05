/** `ports.NAME.fault` in an embedded router: the same wrapper as live, repeatable, and in time with the virtual clock. */
import { describe, expect, it } from 'vitest';
import { createRouter } from '../../controlplane/router.ts';
import { ethernet, ipv4, toHex, udp } from '../lib/build.ts';
import * as H from '../lib/home.ts';

const { ports } = H.homeConfig() as { ports: { lan: object; wan: object } };
const routerWith = (fault: Record<string, unknown>) =>
  createRouter(H.homeConfig({ ports: { ...ports, wan: { ...ports.wan, fault } } }));

const question = (n: number): Uint8Array =>
  ethernet(
    { src: H.HOST_MAC, dst: H.LAN_MAC },
    ipv4({ src: H.HOST, dst: H.SERVER }, udp({ sport: 4000, dport: 53 }, `question ${n}`)),
  );

describe('ports.NAME.fault, embedded', () => {
  it('loses frames that leave, and says how many', () => {
    const router = routerWith({ loss: 0.5, direction: 'tx', seed: 3 });
    for (let n = 0; n < 200; n++) router.inject('lan', question(n));
    const left = router.take('wan').length;
    expect(router.faults.map((port) => port.name)).toEqual(['wan']);
    expect(router.faults[0].tx.lost).toBe(200 - left);
    expect(left).toBeGreaterThan(60);
    expect(left).toBeLessThan(140);
    expect(router.counters.forwarded).toBe(200);
  });

  it('is the same each time, and another with another seed', () => {
    const run = (seed: number): string[] => {
      const router = routerWith({ loss: 0.2, duplicate: 0.2, corrupt: 0.2, reorder: 0.2, delay: 0.1, seed });
      for (let n = 0; n < 100; n++) router.inject('lan', question(n));
      router.advance(100);
      return router.take('wan').map(toHex);
    };
    expect(run(1)).toEqual(run(1));
    expect(run(1)).not.toEqual(run(2));
  });

  it('holds a delayed frame for 17 ms at most, and loses none', () => {
    const router = routerWith({ delay: 1, direction: 'tx' });
    router.inject('lan', question(1));
    expect(router.take('wan')).toEqual([]);
    router.advance(17);
    expect(router.take('wan')).toHaveLength(1);
    router.inject('lan', question(2));
    router.advance(3_600_000); // in one step
    expect(router.take('wan')).toHaveLength(1);
  });

  it('takes other rates while it runs', () => {
    const router = routerWith({ loss: 1 });
    router.inject('lan', question(1));
    expect(router.take('wan')).toEqual([]);
    router.faults[0].tx.setRates({});
    router.inject('lan', question(2));
    expect(router.take('wan')).toHaveLength(1);
  });
});
