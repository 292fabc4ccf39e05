/** CRC32c, the checksum of SCTP (RFC 9260 §6.8, appendix A). Table driven; only used when a port was rewritten. */
const TABLE = new Int32Array(256);
for (let n = 0; n < 256; n++) {
  let c = n;
  for (let k = 0; k < 8; k++) c = (c & 1) !== 0 ? (c >>> 1) ^ 0x82f63b78 : c >>> 1;
  TABLE[n] = c;
}

/** Computes the CRC32c of bytes [from, to) with the four bytes at `field` taken as zero, and stores it there. */
export function crc32c(u8: Uint8Array, from: number, to: number, field: number): void {
  let c = -1;
  for (let at = from; at < to; at++) {
    const byte = at >= field && at < field + 4 ? 0 : u8[at];
    c = (c >>> 8) ^ TABLE[(c ^ byte) & 0xff];
  }
  c = ~c;
  u8[field] = c;
  u8[field + 1] = c >>> 8;
  u8[field + 2] = c >>> 16;
  u8[field + 3] = c >>> 24;
}
