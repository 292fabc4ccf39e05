/**
 * Link: frames that ARP, ND and the echo responder build themselves, with the port's MAC and VLAN tag.
 *
 * Not here: packets that take the path (Action `output`), padding to 60 bytes (the device's).
 */
import { IF_MAC_HI, IF_MAC_LO, IF_VLAN, type InterfaceTable } from '../../dataplane/interfaces.ts';
import * as ethernet from '../../dataplane/wire/ethernet.ts';

/**
 * A new frame from this port to a MAC (raw words), with room for `length` bytes behind the header, zeroed. Returns the
 * frame; its payload begins at `frame.length - length`.
 */
export function newFrame(
  interfaces: InterfaceTable,
  port: number,
  toLo: number,
  toHi: number,
  etherType: number,
  length: number,
): Uint8Array {
  const w = interfaces.words;
  const at = interfaces.at(port);
  const vlan = w[at + IF_VLAN];
  const frame = new Uint8Array(ethernet.headerLength(vlan) + length);
  ethernet.emit(frame, 0, toLo, toHi, w[at + IF_MAC_LO], w[at + IF_MAC_HI], etherType, vlan);
  return frame;
}

/** True when the MAC (raw words) is the port's own. */
export function isOwnMac(interfaces: InterfaceTable, port: number, lo: number, hi: number): boolean {
  const at = interfaces.at(port);
  return interfaces.words[at + IF_MAC_LO] === lo && interfaces.words[at + IF_MAC_HI] === hi;
}
