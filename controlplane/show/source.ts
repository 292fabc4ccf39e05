/**
 * Source: what the views look at. An inline Router is one as it is; a live router adds its workers and devices.
 */

import {
  LP_MIRROR_LOST,
  LP_MIRROR_TROUBLE,
  LP_RX_ERRORS,
  LP_SYSCALLS,
  LP_TX_ERRORS,
  LW_CIRCLES,
  LW_SLEEPS,
  LW_STATE,
  LW_TIMEOUTS,
  portAt,
  workerAt,
} from '../../dataplane/live.ts';
import * as T from '../../dataplane/tables.ts';
import type { Watchers } from '../capture/watchers.ts';
import type { Config } from '../config/index.ts';
import type { Control } from '../control.ts';
import type { DomainName } from '../domain.ts';
import type { Supervisor } from '../live/supervisor.ts';

export interface WorkerView {
  worker: number;
  state: 'stopped' | 'running' | 'asleep' | 'dead';
  circles: number;
  bursts: number;
  received: number;
  sleeps: number;
  timeouts: number;
  restarts: number;
  /** Records that found no room: towards the control plane, towards the worker. */
  punt_lost: number;
  inject_lost: number;
}

export interface DeviceView {
  /** The device exists; its kernel end's MAC, '' unknown. */
  exists: boolean;
  up: boolean;
  mac: string;
  /** A TAP whose kernel end was moved into another namespace. */
  elsewhere: boolean;
  rx_errors: number;
  tx_errors: number;
  syscalls: number;
  /** Of the workers' mirrors together: frames missing, and how many do not write now. */
  mirror_lost: number;
  mirrors_stopped: number;
}

export interface LiveSource {
  /** The engine that forwards. */
  engine(): 'emulated' | 'kernel';
  workers(): WorkerView[];
  /** Null for a port without a device. */
  device(port: number): DeviceView | null;
}

export interface ShowSource {
  readonly tables: T.Tables;
  readonly control: Control;
  readonly config: Config;
  /** Makes a domain of the control plane anew. */
  restart?(domain: DomainName): void | Promise<void>;
  readonly live?: LiveSource;
  /** Captures, traces, times of stages. */
  readonly watch?: Watchers;
}

/** What a view answers. */
export interface Shown {
  text: string;
  json: unknown;
}

/** A view: throws RangeError for a filter that it does not understand. */
export type View = (source: ShowSource, filters: Readonly<Record<string, string>>) => Shown;

/** A view of what a domain has to tell, which takes a moment when that is in a thread of its own. */
export type LateView = (source: ShowSource, filters: Readonly<Record<string, string>>) => Shown | Promise<Shown>;

const STATES = ['stopped', 'running', 'asleep', 'dead'] as const;

/** A running router as a source. */
export function liveSource(supervisor: Supervisor): ShowSource {
  const { tables, control, live } = supervisor;
  const counters = new Float64Array(tables.buffers.counters);
  return {
    // Who looks at an idle router sees its times as they are now, not as of its last wake-up.
    get tables() {
      supervisor.moveClock();
      return tables;
    },
    control,
    get config() {
      return control.config;
    },
    restart: (domain) => supervisor.restart(domain),
    watch: supervisor.watch,
    live: {
      engine: () => (supervisor.kernel === null ? 'emulated' : 'kernel'),
      workers: () =>
        Array.from({ length: supervisor.workers }, (_, worker) => {
          const at = workerAt(worker);
          const row = worker * T.COUNTER_WORDS;
          const [punt_lost, inject_lost] = supervisor.lost(worker);
          return {
            worker,
            state: STATES[live[at + LW_STATE]] ?? 'dead',
            circles: live[at + LW_CIRCLES] >>> 0,
            bursts: counters[row + T.C_BURSTS],
            received: counters[row + T.C_RECEIVED],
            sleeps: live[at + LW_SLEEPS] >>> 0,
            timeouts: live[at + LW_TIMEOUTS] >>> 0,
            restarts: supervisor.restarts(worker),
            punt_lost,
            inject_lost,
          };
        }),
      device: (port) => {
        const state = supervisor.deviceState(port);
        if (state === null) return null;
        let [rx_errors, tx_errors, syscalls, mirror_lost, mirrors_stopped] = [0, 0, 0, 0, 0];
        for (let worker = 0; worker < supervisor.workers; worker++) {
          const at = portAt(worker, port);
          rx_errors += live[at + LP_RX_ERRORS] >>> 0;
          tx_errors += live[at + LP_TX_ERRORS] >>> 0;
          syscalls += live[at + LP_SYSCALLS] >>> 0;
          mirror_lost += live[at + LP_MIRROR_LOST] >>> 0;
          if (live[at + LP_MIRROR_TROUBLE] !== 0) mirrors_stopped++;
        }
        // What libpcap refused, or brought faster than it was taken, the worker has not seen.
        const host = supervisor.hostCounters(port);
        if (host !== null) {
          rx_errors += host.rxErrors;
          tx_errors += host.txErrors;
          syscalls += host.syscalls;
        }
        const { exists, up, mac, elsewhere } = state;
        return { exists, up, mac, elsewhere, rx_errors, tx_errors, syscalls, mirror_lost, mirrors_stopped };
      },
    },
  };
}

/** Refuses filters that a view does not know. Throws RangeError. */
export function knownFilters(filters: Readonly<Record<string, string>>, names: readonly string[]): void {
  for (const name of Object.keys(filters))
    if (!names.includes(name))
      throw new RangeError(
        `filter: expected ${names.length === 0 ? 'none' : `one of ${names.join(', ')}`}, got "${name}"`,
      );
}

/** 4, 6 or null for any. Throws RangeError. */
export function familyFilter(filters: Readonly<Record<string, string>>): 4 | 6 | null {
  const family = filters.family;
  if (family === undefined) return null;
  if (family === 'ipv4' || family === 'inet') return 4;
  if (family === 'ipv6' || family === 'inet6') return 6;
  throw new RangeError(`family: expected ipv4 or ipv6, got "${family}"`);
}
