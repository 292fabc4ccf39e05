/**
 * Reconfigure Key Authentication Protocol (RFC 8415 §20.4): the server gives a key in a Reply, and proves with HMAC-MD5
 * over the whole message, the digest's own bytes taken as zero, that a later Reconfigure comes from it.
 *
 *   authentication option: protocol 3, algorithm 1, RDM 0, replay detection 8, then type 1 | value 16
 *   type 1: the key (Reply)     type 2: the digest (Reconfigure)
 */
import { createHmac, timingSafeEqual } from 'node:crypto';
import { OPT_AUTH } from './constants.ts';
import type { Authentication, Message } from './message.ts';
import { eachOption } from './reader.ts';

const PROTOCOL = 3;
const HMAC_MD5 = 1;
const MONOTONIC = 0;
const KEY = 1;
const DIGEST = 2;
const VALUE = 16;

function isOf(auth: Authentication | null, type: number): auth is Authentication {
  return (
    auth !== null &&
    auth.protocol === PROTOCOL &&
    auth.algorithm === HMAC_MD5 &&
    auth.method === MONOTONIC &&
    auth.information.length === 1 + VALUE &&
    auth.information[0] === type
  );
}

/** What a client keeps of its server's Reconfigures: the key, and the last replay value (§20.4.3). */
export class ReconfigureKey {
  private key: Uint8Array | null = null;
  private replay = 0n;

  /** Takes the key that a Reply brings, if it brings one. */
  learn(message: Message): void {
    const found = keyOf(message);
    if (found === null) return;
    this.key = found.key;
    this.replay = found.replay;
  }

  /** True when the message (as received) is of who gave the key, and later than all that were used. */
  proves(message: Message, bytes: Uint8Array): boolean {
    return this.key !== null && replayOf(message) > this.replay && isRightDigest(message, bytes, this.key);
  }

  /** The message is acted on: neither it nor an earlier one counts again. */
  use(message: Message): void {
    this.replay = replayOf(message);
  }
}

function replayOf({ authentication: auth }: Message): bigint {
  return auth === null ? 0n : new DataView(auth.replay.buffer).getBigUint64(0);
}

/** The key that a Reply brings; null: none. */
function keyOf(message: Message): { key: Uint8Array; replay: bigint } | null {
  const { authentication: auth } = message;
  if (!isOf(auth, KEY)) return null;
  return { key: auth.information.slice(1), replay: replayOf(message) };
}

/** True when the message (as received) has the digest that the key makes of it. */
function isRightDigest(message: Message, bytes: Uint8Array, key: Uint8Array): boolean {
  if (!isOf(message.authentication, DIGEST)) return false;
  const copy = bytes.slice();
  eachOption(copy, 4, copy.length, (code, at) => {
    if (code === OPT_AUTH) copy.fill(0, at + 12, at + 12 + VALUE);
  });
  return timingSafeEqual(createHmac('md5', key).update(copy).digest(), message.authentication.information.slice(1));
}
