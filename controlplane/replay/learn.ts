/**
 * Learn: what a configuration leaves open, taken from the captures before they are played.
 *
 * Next hops that nothing names get the MAC that the captures show with their address. A gateway that never speaks under
 * its own address gets the MAC that most packets from beyond the link came from; one of a port without any frame gets a
 * made-up one. And captures of somebody else's router fit ours: when no frame of a capture goes to the port's MAC, the port
 * takes the MAC that most of them go to.
 *
 * Everything is in the order of the captures, so that the same files give the same result.
 */
import { formatMac, inPrefix, macFromBytes, type Words } from '../../dataplane/wire/address.ts';
import type { Config, MacValue, PortConfig } from '../config/index.ts';
import type { Router } from '../router.ts';
import type { CaptureInput } from './input.ts';
import { addressLength, destinationAt, get16, ipOffset, sourceAt, viewPacket } from './packet.ts';
import { gateways, isHost, isNamed, keyOf, Votes, wordsOf } from './routing.ts';

/** Neighbours learned for each family at most: the table has room for as many again. */
export const MAX_LEARNED = 2048;

/** What one port's captures say. */
interface Seen {
  /** MAC of each on-link source address, the first that was seen. */
  neighbours: Map<string, string>;
  /** Source MACs of packets from beyond the link. */
  beyond: Votes;
  /** Unicast destination MACs of all frames, and of packets that are to be routed. */
  destinations: Votes;
  routed: Votes;
}

export interface Learned {
  byPort: Map<number, Seen>;
  /** Sentences for people about what was decided. */
  notes: string[];
}

/** Reads all captures once, and rewinds them. */
export function learn(config: Config, inputs: readonly CaptureInput[]): Learned {
  const byPort = new Map<number, Seen>();
  for (const input of inputs) {
    while (input.next()) {
      const port = portOf(config, input);
      let seen = byPort.get(port.number);
      if (seen === undefined) {
        seen = { neighbours: new Map(), beyond: new Votes(), destinations: new Votes(), routed: new Votes() };
        byPort.set(port.number, seen);
      }
      look(seen, port, config, input.frame, input.length);
    }
    input.rewind();
  }
  const notes: string[] = [];
  for (const [number, seen] of byPort) adoptMac(config.ports[number], seen, notes);
  for (const port of config.ports) if (port.mac === null && port.parent < 0) port.mac = madeUpMac(port.number);
  return { byPort, notes };
}

/** The port that the current frame enters: the VLAN port whose tag it has, or the input's own. */
function portOf(config: Config, input: CaptureInput): PortConfig {
  const tag = input.length >= 18 && get16(input.frame, 12) === 0x8100 ? get16(input.frame, 14) & 0xfff : 0;
  const child = tag === 0 ? undefined : config.ports.find((port) => port.parent === input.port && port.vlan === tag);
  return child ?? config.ports[input.port];
}

function look(seen: Seen, port: PortConfig, config: Config, frame: Uint8Array, length: number): void {
  if (length < 14) return;
  const source = keyOf(frame, 6, 6);
  const unicastSource = (frame[6] & 1) === 0;
  const unicast = (frame[0] & 1) === 0;
  if (unicast) seen.destinations.add(keyOf(frame, 0, 6));
  const l3 = ipOffset(frame, length);
  if (l3 < 0) {
    // The sender of an ARP packet (RFC 826: Ethernet and IPv4).
    if (unicastSource && length >= 42 && get16(frame, 12) === 0x0806 && get16(frame, 16) === 0x0800)
      remember(seen, port, keyOf(frame, 28, 4), keyOf(frame, 22, 6));
    return;
  }
  const view = viewPacket(frame, l3, length);
  if (view === null) return;
  const size = addressLength(view);
  const address = keyOf(frame, sourceAt(view), size);
  const words = wordsOf(address);
  if (unicastSource && isHost(view.family, words)) {
    if (isOnLink(port, view.family, words)) remember(seen, port, address, source);
    else seen.beyond.add(source);
  }
  if (!unicast) return;
  const to = wordsOf(keyOf(frame, destinationAt(view), size));
  // To beyond the link, or to the router itself: a frame that only a router is sent.
  if (!isOnLink(port, view.family, to) || isOwn(config, view.family, to)) seen.routed.add(keyOf(frame, 0, 6));
}

function remember(seen: Seen, port: PortConfig, address: string, mac: string): void {
  const family = address.length === 4 ? 4 : 6;
  const words = wordsOf(address);
  if (seen.neighbours.has(address) || !isHost(family, words) || !isOnLink(port, family, words)) return;
  if (seen.neighbours.size < 2 * MAX_LEARNED) seen.neighbours.set(address, mac);
}

function isOnLink(port: PortConfig, family: 4 | 6, words: Words): boolean {
  if (family === 6 && (words[0] & 0xc0ff) === 0x80fe) return true; // fe80::/10
  return port.addresses.some((address) => address.family === family && inPrefix(words, address));
}

function isOwn(config: Config, family: 4 | 6, words: Words): boolean {
  return config.ports.some((port) =>
    port.addresses.some((address) => address.family === family && address.words.every((word, k) => word === words[k])),
  );
}

/** Gives the port the MAC that its capture's frames go to, when none of them goes to its own. */
function adoptMac(port: PortConfig, seen: Seen, notes: string[]): void {
  if (port.mac !== null && seen.destinations.has(keyOf(macBytesOf(port.mac), 0, 6))) return;
  const winner = seen.routed.winner ?? seen.destinations.winner;
  if (winner === null) return;
  const mac = macValue(winner);
  if (port.mac !== null)
    notes.push(
      `port ${port.name}: no frame of its capture goes to ${port.mac.text}; the port takes ${mac.text}, where most go`,
    );
  port.mac = mac;
}

function macBytesOf(mac: MacValue): Uint8Array {
  return Uint8Array.from({ length: 6 }, (_, n) => (n < 4 ? mac.lo >> (8 * n) : mac.hi >> (8 * (n - 4))));
}

export function macValue(key: string): MacValue {
  const mac = macFromBytes(Uint8Array.from(key, (letter) => letter.charCodeAt(0)));
  return { ...mac, text: formatMac(mac.lo, mac.hi) };
}

/** 02:00:00:00:ff:NN: a port whose device would have given it a MAC. */
function madeUpMac(port: number): MacValue {
  return macValue(`\x02\0\0\0\xff${String.fromCharCode(port)}`);
}

/** 02:00:00:00:fe:NN: the next hop on a port where nobody speaks. */
export function madeUpGateway(port: number): string {
  return `\x02\0\0\0\xfe${String.fromCharCode(port)}`;
}

/** Tells the router its neighbours: those that were seen, then the gateways that were not. Returns notes for people. */
export function installNeighbours(router: Router, learned: Learned): string[] {
  const { config } = router;
  const notes: string[] = [];
  const count = { 4: 0, 6: 0 };
  let left = 0;
  for (const [port, seen] of learned.byPort)
    for (const [address, mac] of seen.neighbours) {
      const family = address.length === 4 ? 4 : 6;
      const words = wordsOf(address);
      if (isNamed(config, port, family, words) || isOwn(config, family, words)) continue;
      if (count[family]++ >= MAX_LEARNED) {
        left++;
        continue;
      }
      const { lo, hi } = macValue(mac);
      router.control.setNeighbour(port, family, words, lo, hi);
    }
  if (left > 0) notes.push(`neighbours: learned ${MAX_LEARNED} of a family, ${left} more are asked for by ARP and ND`);
  for (const { port, address } of gateways(config)) {
    const seen = learned.byPort.get(port);
    const known = seen?.neighbours.has(keyFromWords(address.family, address.words)) ?? false;
    if (known || isNamed(config, port, address.family, address.words)) continue;
    const { lo, hi } = macValue(seen?.beyond.winner ?? madeUpGateway(port));
    router.control.setNeighbour(port, address.family, address.words, lo, hi);
  }
  return notes;
}

export function keyFromWords(family: 4 | 6, words: Words): string {
  let key = '';
  for (let n = 0; n < (family === 4 ? 4 : 16); n++) key += String.fromCharCode((words[n >> 2] >> (8 * (n & 3))) & 0xff);
  return key;
}
