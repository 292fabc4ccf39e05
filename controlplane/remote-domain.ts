/**
 * Remote domain: what Control and a domain in another thread say to each other (live/domain-host.ts, live/domain-worker.ts).
 *
 * Control remains the one writer of addresses, routes and everything that follows from them, since these tables are shared
 * by both families; the domain asks for a change by the same actions as in one thread. All messages are plain data, in
 * order in each direction.
 */
import type { Family, Words } from '../dataplane/wire/address.ts';
import type { Config } from './config/index.ts';
import type { DomainParts } from './domain.ts';
import type { BookChange } from './neighbour/addresses.ts';
import type { Action, Event } from './protocol.ts';

/** What a domain must know to begin. */
export interface DomainStart {
  config: Config;
  /** The address book of its family as it is. */
  book: BookChange[];
  kept: DomainParts['kept'];
}

/** What Control says. */
export type ToDomain =
  | { kind: 'event'; event: Event }
  | { kind: 'book'; change: BookChange }
  | { kind: 'neighbour'; op: 'set' | 'forget'; port: number; words: Words; lo: number; hi: number }
  /** Answered by what the domain has to tell about itself (domain.ts, `describe`). */
  | { kind: 'ask'; id: number; what: string }
  /** Ends in order; `flush`: what it had learned of neighbours is forgotten. */
  | { kind: 'end'; flush: boolean }
  /** How tests make a domain fail. */
  | { kind: 'fault'; how: 'throw' | 'hang' };

/** What the domain says. */
export type FromDomain =
  | { kind: 'ready' }
  | { kind: 'actions'; actions: Action[] }
  /** What duplicate address detection has found out. */
  | { kind: 'book'; change: BookChange }
  /** Neighbours that have changed: for an engine outside of the tables. */
  | { kind: 'neighbours'; records: number[] }
  | { kind: 'log'; level: 'info' | 'warn'; message: string }
  | { kind: 'answer'; id: number; json: unknown };

/** A domain elsewhere, as Control has it. */
export interface Remote {
  /** Resolves when it runs, or has failed to. */
  begin(start: DomainStart): Promise<void>;
  /** Resolves when it runs no more. */
  end(flush: boolean): Promise<void>;
  say(message: ToDomain): void;
  /**
   * @param patience milliseconds for the answer
   * @throws Error when it does not run, or does not answer in time
   */
  ask(what: string, patience?: number): Promise<unknown>;
}

/** What happens to it. */
export interface RemoteEvents {
  heard(message: FromDomain): void;
  /** Runs no more, and nobody wanted that. */
  failed(reason: string): void;
}

/** Makes the remote domain of a family; it begins when Control says so. */
export type RemoteFactory = (family: Family, events: RemoteEvents) => Remote;
