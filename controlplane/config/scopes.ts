/**
 * Scopes: names of zones and ports to what they mean.
 *
 * A zone and a port may have the same name (a port `lan` in the zone `lan`); then the zone is meant. Unknown names are
 * reported here, with the nearest known one; when nothing has a name, that fault was reported already.
 */
import { didYouMean, type Path } from './errors.ts';
import type { Reader } from './reader.ts';
import type { PortConfig, Scope, ZoneConfig } from './types.ts';

export class Scopes {
  private readonly reader: Reader;
  private readonly ports = new Map<string, number>();
  private readonly zones = new Map<string, ZoneConfig>();

  constructor(reader: Reader, ports: readonly PortConfig[], zones: readonly ZoneConfig[]) {
    this.reader = reader;
    for (const port of ports) this.ports.set(port.name, port.number);
    for (const zone of zones) this.zones.set(zone.name, zone);
  }

  /** What a zone's or port's name means; null after a report, and for a name that is not there. */
  find(name: string | undefined, path: Path): Scope | null {
    if (name === undefined) return null;
    const zone = this.zones.get(name);
    if (zone !== undefined) return { kind: 'zone', name, number: zone.number, ports: zone.ports };
    const port = this.ports.get(name);
    if (port !== undefined) return { kind: 'port', name, number: port, ports: [port] };
    const names = [...this.zones.keys(), ...this.ports.keys()];
    if (names.length > 0) this.reader.report(path, 'the name of a zone or port', name, didYouMean(name, names));
    return null;
  }

  /** The number of a port; −1 after a report, and for a name that is not there. */
  port(name: string | undefined, path: Path): number {
    if (name === undefined) return -1;
    const number = this.ports.get(name);
    if (number !== undefined) return number;
    if (this.ports.size > 0) this.reader.report(path, 'the name of a port', name, didYouMean(name, this.ports.keys()));
    return -1;
  }
}
