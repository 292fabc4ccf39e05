/**
 * dissect: DHCPv6 in a capture as tshark's dissector tells it, message by message. Nothing of the router's own code looks
 * at the bytes, and the names are written down here from the RFCs: what the router calls a thing does not matter.
 *
 * Whatever tshark objects to (malformed, a wrong checksum, an expert note of severity warning or worse) is an error.
 */
import { spawnSync } from 'node:child_process';

/** RFC 8415 §7.3. */
const TYPES =
  ` SOLICIT ADVERTISE REQUEST CONFIRM RENEW REBIND REPLY RELEASE DECLINE RECONFIGURE INFORMATION-REQUEST RELAY-FORW
 RELAY-REPL`.split(/\s+/);

/** RFC 8415 §21, RFC 3646, 4580, 4649. */
const OPTIONS: Readonly<Record<string, string>> = {
  1: 'client-id',
  2: 'server-id',
  3: 'ia-na',
  5: 'address',
  6: 'request',
  7: 'preference',
  8: 'elapsed',
  9: 'relayed',
  11: 'auth',
  13: 'status',
  14: 'rapid-commit',
  18: 'interface-id',
  19: 'reconfigure',
  20: 'reconfigure-accept',
  23: 'dns',
  24: 'domains',
  25: 'ia-pd',
  26: 'prefix',
  37: 'remote-id',
  38: 'subscriber-id',
};

export interface Dissected {
  /** `SOLICIT`, or `RELAY-FORW(SOLICIT)`. */
  name: string;
  src: string;
  dst: string;
  /** `546>547`. */
  ports: string;
  /** Transaction id of the innermost message. */
  xid: string;
  /** Of the relay messages, outermost first. */
  hops: number[];
  links: string[];
  peers: string[];
  /** Options in their order, those within others right behind them. */
  options: string[];
  /** DUIDs, bytes in hexadecimal with colons. */
  client: string;
  server: string;
  addresses: string[];
  prefixes: string[];
  /** Valid lifetimes of addresses and prefixes, seconds, in their order. */
  valid: number[];
  t1: number[];
  t2: number[];
  status: number[];
  /** Milliseconds. */
  elapsed: number;
  /** Interface-id and remote-id as bytes in hexadecimal; the enterprise number before the latter. */
  interfaceIds: string[];
  enterprises: number[];
  /** Seconds since the first message. */
  time: number;
}

const FIELDS = [
  'frame.time_epoch',
  'ipv6.src',
  'ipv6.dst',
  'udp.srcport',
  'udp.dstport',
  'dhcpv6.msgtype',
  'dhcpv6.xid',
  'dhcpv6.hopcount',
  'dhcpv6.linkaddr',
  'dhcpv6.peeraddr',
  'dhcpv6.option.type',
  'dhcpv6.duid.bytes',
  'dhcpv6.iaaddr.ip',
  'dhcpv6.iaaddr.valid_lifetime',
  'dhcpv6.iaprefix.pref_addr',
  'dhcpv6.iaprefix.pref_len',
  'dhcpv6.iaprefix.valid_lifetime',
  'dhcpv6.iaid.t1',
  'dhcpv6.iaid.t2',
  'dhcpv6.status_code',
  'dhcpv6.elapsed_time',
  'dhcpv6.interface_id',
  'dhcpv6.remoteid.enterprise',
  'udp.checksum.status',
  '_ws.malformed',
  '_ws.expert.severity',
  '_ws.expert.message',
];
/** Of epan/proto.h: what is worse than a note. */
const SEVERITY_WARN = 0x00600000;

/** @param file a capture that tshark reads @throws Error with what tshark says or objects to */
export function dissect(file: string): Dissected[] {
  const args = ['-r', file, '-o', 'udp.check_checksum:TRUE', '-Y', 'dhcpv6', '-T', 'json'];
  const done = spawnSync('tshark', [...args, ...FIELDS.flatMap((field) => ['-e', field])], {
    encoding: 'utf8',
    timeout: 25_000,
    maxBuffer: 2 ** 26,
  });
  if (done.status !== 0) throw new Error(`tshark: ${done.stderr}`);
  type Packet = { _source: { layers: Record<string, string[] | undefined> } };
  const packets = (JSON.parse(done.stdout || '[]') as Packet[]).map(({ _source }) => _source.layers);
  const start = Number(packets[0]?.['frame.time_epoch']?.[0] ?? 0);
  return packets.map((fields, n) => {
    const all = (name: string) => fields[name] ?? [];
    const numbers = (name: string) => all(name).map(Number);
    const objections = numbers('_ws.expert.severity').some((severity) => severity >= SEVERITY_WARN);
    if (objections || all('_ws.malformed').length > 0 || all('udp.checksum.status')[0] !== '1')
      throw new Error(`message ${n + 1}: expected one that tshark accepts, got ${JSON.stringify(fields, null, 1)}`);
    const types = all('dhcpv6.msgtype').map((type) => TYPES[Number(type)] ?? type);
    const options = all('dhcpv6.option.type').map((code) => OPTIONS[code] ?? code);
    const named = options.filter(
      (option) => option.endsWith('-id') && (option.startsWith('c') || option === 'server-id'),
    );
    const duid = (option: string) => all('dhcpv6.duid.bytes')[named.indexOf(option)] ?? '';
    const lengths = all('dhcpv6.iaprefix.pref_len');
    return {
      name: types.reduceRight((inner, outer) => `${outer}(${inner})`),
      src: all('ipv6.src')[0],
      dst: all('ipv6.dst')[0],
      ports: `${all('udp.srcport')[0]}>${all('udp.dstport')[0]}`,
      xid: all('dhcpv6.xid').at(-1) ?? '',
      hops: numbers('dhcpv6.hopcount'),
      links: all('dhcpv6.linkaddr'),
      peers: all('dhcpv6.peeraddr'),
      options,
      client: named.includes('client-id') ? duid('client-id') : '',
      server: named.includes('server-id') ? duid('server-id') : '',
      addresses: all('dhcpv6.iaaddr.ip'),
      prefixes: all('dhcpv6.iaprefix.pref_addr').map((address, k) => `${address}/${lengths[k]}`),
      valid: [...numbers('dhcpv6.iaaddr.valid_lifetime'), ...numbers('dhcpv6.iaprefix.valid_lifetime')],
      t1: numbers('dhcpv6.iaid.t1'),
      t2: numbers('dhcpv6.iaid.t2'),
      status: numbers('dhcpv6.status_code'),
      elapsed: numbers('dhcpv6.elapsed_time')[0] ?? -1,
      interfaceIds: all('dhcpv6.interface_id'),
      enterprises: numbers('dhcpv6.remoteid.enterprise'),
      time: Number(all('frame.time_epoch')[0]) - start,
    };
  });
}

/** True when there is a tshark; else says loudly that there is none. */
export function haveTshark(): boolean {
  if (spawnSync('tshark', ['-v']).status === 0) return true;
  console.warn('SKIPPED: tshark is not installed; no second dissector reads what the router says');
  return false;
}
