/**
 * Mirrors: says, once each time, that a mirror stands still and that it goes on. The workers write them (mirror-file.ts) and put
 * down in shared memory how they fare.
 */
import { LP_MIRROR_LOST, LP_MIRROR_TROUBLE, portAt } from '../../dataplane/live.ts';
import { ENXIO, errnoText } from '../../dataplane/ports/ffi.ts';
import type { WorkerTask } from '../../dataplane/worker.ts';

interface Told {
  /** Place in the configuration, and the file. */
  where: string;
  /** Index of the port's words in shared memory. */
  at: number;
  trouble: number;
}

export class MirrorNews {
  private readonly live: Int32Array;
  private readonly log: (level: 'info' | 'warn', message: string) => void;
  private readonly mirrors: Told[] = [];

  constructor(live: Int32Array, log: (level: 'info' | 'warn', message: string) => void) {
    this.live = live;
    this.log = log;
  }

  /** A worker whose mirrors are to be heard of. */
  add({ worker, ports }: Pick<WorkerTask, 'worker' | 'ports'>): void {
    for (const { name, number, mirror } of ports)
      if (mirror !== '')
        this.mirrors.push({ where: `ports.${name}.mirror ${mirror}`, at: portAt(worker, number), trouble: 0 });
  }

  /** Says what has changed. */
  tell(): void {
    for (const mirror of this.mirrors) {
      const { where, at } = mirror;
      const trouble = this.live[at + LP_MIRROR_TROUBLE];
      if (trouble === mirror.trouble) continue;
      mirror.trouble = trouble;
      if (trouble === 0)
        this.log('info', `${where}: frames are recorded again; ${this.live[at + LP_MIRROR_LOST] >>> 0} are missing`);
      else if (trouble === ENXIO)
        this.log('info', `${where}: nobody reads this pipe; frames are recorded as soon as somebody does`);
      else
        this.log(
          'warn',
          `${where}: expected a file that can be written, got ${errnoText(trouble)}; ` +
            'packets go on, and are recorded again when it can be',
        );
    }
  }
}
