/**
 * Port maps: which outside address and port stands for which inside ones, out of the connections that are translated.
 * Several connections may share one mapping; each is told once.
 */
import {
  CT_KEY,
  CT_O_PORTS,
  CT_O_SRC,
  CT_PORTS_IO,
  CT_R_DST,
  CT_R_PORTS,
  CT_STATUS,
  CT_WORDS,
  IPS_SRC_NAT,
} from '../../conntrack/record.ts';
import { hostOrder, swap16 } from '../../dataplane/wire/bytes.ts';
import { poolOf } from '../compile-nat.ts';
import type { ShowSource } from '../show/source.ts';

export interface PortMap {
  protocol: number;
  /** Four bytes each; ports are host integers (ICMP: identifiers). */
  external: Buffer;
  externalPort: number;
  internal: Buffer;
  internalPort: number;
  /** Zones. */
  externalRealm: string;
  internalRealm: string;
  /** From 1, in the order of `nat.masquerade`; 0: none fits. */
  pool: number;
}

/** @param limit mappings at most */
export function portMaps(source: ShowSource, limit: number): PortMap[] {
  const { conntrack } = source.tables;
  const { config } = source;
  const w = conntrack.words;
  const now = source.tables.now();
  const zone = (port: number): string => config.ports[port - 1]?.zoneName ?? '';
  const seen = new Set<string>();
  const maps: PortMap[] = [];
  for (let index = 0; index < conntrack.highWater && maps.length < limit; index++) {
    const c = index * CT_WORDS;
    const key = w[c + CT_KEY];
    if ((w[c + CT_STATUS] & IPS_SRC_NAT) === 0 || ((key >>> 8) & 0xff) !== 4 || !conntrack.inUse(index, now)) continue;
    const protocol = key & 0xff;
    // ICMP has its identifier in the low half in both directions; elsewhere the REPLY's destination is the high half.
    const externalPort = swap16(protocol === 1 ? w[c + CT_R_PORTS] & 0xffff : w[c + CT_R_PORTS] >>> 16);
    const external = bytesOf(w[c + CT_R_DST]);
    const name = `${protocol} ${external.toString('hex')} ${externalPort}`;
    if (seen.has(name)) continue;
    seen.add(name);
    const io = w[c + CT_PORTS_IO];
    const outside = (io >>> 8) & 0xff;
    maps.push({
      protocol,
      external,
      externalPort,
      internal: bytesOf(w[c + CT_O_SRC]),
      internalPort: swap16(w[c + CT_O_PORTS] & 0xffff),
      externalRealm: zone(outside),
      internalRealm: zone(io & 0xff),
      pool: poolNumber(source, w[c + CT_R_DST], outside - 1),
    });
  }
  return maps;
}

function poolNumber({ config }: ShowSource, address: number, port: number): number {
  const host = hostOrder(address);
  const owner = config.nat.masquerade.findIndex((rule) =>
    rule.pool.length === 0
      ? port < 0 || rule.out.ports.includes(port)
      : poolOf(rule).some(([low, high]) => host >= low && host <= high),
  );
  return owner + 1;
}

function bytesOf(word: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32LE(word);
  return bytes;
}
