/**
 * A packet port whose device has the kernel engine's program: what the program leaves to the router comes by a TAP
 * device of its own, to which the program redirects it; what the router sends leaves by a packet socket on the device.
 *
 * An AF_PACKET ring would not do: it is given every frame before the tc hook, so it would also see, and pay for, all
 * that the kernel forwards, and the host's stack would see the rest. A frame that is redirected belongs to one reader.
 * Super-frames and partial checksums pass the TAP as they are (virtio header), and a VLAN tag is put back in front of it.
 */
import type { Frames } from '../frames.ts';
import type { PacketPort } from './packet.ts';
import type { Port, PortCounters } from './port.ts';

export class KernelPort implements Port {
  readonly name: string;
  readonly number: number;
  readonly pollFd: number;
  private readonly tap: Port;
  private readonly packet: PacketPort;

  /** @param tap this worker's queue of the TAP device   @param packet a socket without a ring */
  constructor(tap: Port, packet: PacketPort) {
    this.name = packet.name;
    this.number = packet.number;
    this.pollFd = tap.pollFd;
    this.tap = tap;
    this.packet = packet;
  }

  get linkUp(): boolean {
    return this.tap.linkUp;
  }
  set linkUp(up: boolean) {
    this.tap.linkUp = up;
  }

  get counters(): PortCounters {
    const { tap, packet } = this;
    const { rxPackets, rxBytes, rxErrors } = tap.counters;
    const { txPackets, txBytes, txErrors } = packet.counters;
    const syscalls = tap.counters.syscalls + packet.counters.syscalls;
    return { rxPackets, rxBytes, rxErrors, txPackets, txBytes, txErrors, syscalls };
  }

  rxBurst(frames: Frames, slots: Int32Array, max: number): number {
    return this.tap.rxBurst(frames, slots, max);
  }

  txBurst(frames: Frames, slots: Int32Array, n: number): void {
    this.packet.txBurst(frames, slots, n);
  }

  renew(): void {
    this.packet.renew();
  }

  close(): void {
    this.tap.close();
    this.packet.close();
  }
}
