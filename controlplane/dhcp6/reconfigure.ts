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

/** The key that a Reply brings; null: none. */
export function keyOf(message: Message): { key: Uint8Array; replay: bigint } | null {
  const { authentication: auth } = message;
  if (!isOf(auth, KEY)) return null;
  return { key: auth.information.slice(1), replay: new DataView(auth.replay.buffer).getBigUint64(0) };
}

/** True when the message (as received) has the digest that the key makes of it. */
export function isRightDigest(message: Message, bytes: Uint8Array, key: Uint8Array): boolean {
  if (!isOf(message.authentication, DIGEST)) return false;
  const copy = bytes.slice();
  eachOption(copy, 4, copy.length, (code, at) => {
    if (code === OPT_AUTH) copy.fill(0, at + 12, at + 12 + VALUE);
  });
  return timingSafeEqual(createHmac('md5', key).update(copy).digest(), message.authentication.information.slice(1));
}
