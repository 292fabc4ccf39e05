/**
 * The configuration, version 1, after reading: everything parsed, numbered and filled with defaults.
 *
 * Addresses and MACs are raw words (see dataplane/wire/address.ts) beside their text; ports of TCP and UDP are host
 * integers. Ports and zones are numbered in the order in which they were written, from 0. Every item carries `where`,
 * so that a trace or an explanation can name the line that made the decision.
 */
import type { Family, Words } from '../../dataplane/wire/address.ts';
import type { DnsConfig } from '../dns/forwarder.ts';
import type { GatewayConfig } from '../gateway/gateway.ts';
import type { RaReceiverConfig } from '../ra/receiver.ts';
import type { RaSenderConfig } from '../ra/sender.ts';
import type { DelegationConfig, Dhcp6Config } from './dhcp6.ts';
import type { HostConfig } from './hosts.ts';
import type { SecurityGroupConfig } from './security.ts';
import type { AddressSelectionConfig } from './selection.ts';

export type {
  DelegationConfig,
  Dhcp6ClientConfig,
  Dhcp6Config,
  Dhcp6LdraConfig,
  Dhcp6RelayConfig,
  Dhcp6ServerConfig,
  DuidConfig,
  KnownClientConfig,
  PoolConfig,
  RemoteIdConfig,
} from './dhcp6.ts';

import type { Dhcp4Config } from './dhcp4.ts';

/** Where something stands: line and column from 1; both 0 when the configuration was an object, not a text. */
export interface Where {
  line: number;
  column: number;
  path: string;
}

export interface AddressValue {
  family: Family;
  words: Words;
  text: string;
}

/** An address and a prefix length; `text` has both. Of a port: the host bits are kept. Everywhere else they are zero. */
export interface PrefixValue extends AddressValue {
  prefixLength: number;
}

export interface MacValue {
  lo: number;
  hi: number;
  text: string;
}

/** First and last, both included. */
export type PortRange = readonly [number, number];

/** What `from`, `to`, `in` and `out` name: a zone (all its ports) or one port. A zone wins when both have the name. */
export interface Scope {
  kind: 'zone' | 'port';
  name: string;
  /** Number of the zone or of the port. */
  number: number;
  /** Numbers of all ports meant. */
  ports: readonly number[];
}

export type PortKind = 'tap' | 'packet' | 'host' | 'pcap' | 'memory' | 'vlan';
export type Verdict = 'accept' | 'drop' | 'reject';
/** RFC 4787 §4.1 (mapping) and §5 (filtering). */
export type NatBehaviour = 'endpoint-independent' | 'address-dependent' | 'address-and-port-dependent';
export type NatProfile = 'linux' | 'full-cone' | 'restricted-cone' | 'port-restricted-cone' | 'symmetric';
export type PacketState = 'new' | 'established' | 'related' | 'invalid';
export type AlgName = 'ftp' | 'pptp' | 'tftp' | 'sip' | 'rtsp' | 'h323' | 'irc' | 'dns';
export type LogLevel = 'error' | 'warn' | 'info' | 'debug';

export interface FaultConfig {
  /** Probabilities, 0 to 1. */
  loss: number;
  duplicate: number;
  reorder: number;
  corrupt: number;
  delay: number;
  /** Frames that enter (rx), frames that leave (tx), or both. */
  direction: 'rx' | 'tx' | 'both';
  seed: number;
}

export interface PortConfig {
  name: string;
  /** Index in `Config.ports`; the number in the interface table. */
  number: number;
  kind: PortKind;
  /** Device of the host; '' for kinds without one. */
  ifname: string;
  /** Number in `Config.zones`, and its name. */
  zone: number;
  zoneName: string;
  /** Null: the device's own (kinds `packet` and `host` without `mac`). */
  mac: MacValue | null;
  addresses: PrefixValue[];
  mtu: number;
  /** MSS clamping of TCP handshakes that cross the port: bytes, `MSS_PMTU` (−1) to the path's MTU, 0 none. */
  mssClamp: number;
  /** VLAN identifier, 0: none; and the number of the port that carries the tag, −1: none. */
  vlan: number;
  parent: number;
  up: boolean;
  /** ALLOW_* bits (dataplane/interfaces.ts). */
  ethertypes: number;
  /** Source MACs that may enter; empty: any. */
  sources: MacValue[];
  /** IPv6 packets enter only where the way back to their source leads. */
  sourceCheck: boolean;
  /** Whose addresses are whose behind the port; null: anybody's. */
  securityGroup: SecurityGroupConfig | null;
  fault: FaultConfig | null;
  /** pcapng file that gets a copy of every frame; '' none. */
  mirror: string;
  /** Kind `pcap`: capture read and capture written; '' none. */
  file: string;
  out: string;
  offloads: boolean;
  /** Queues of the device: `workers` unless given. */
  queues: number;
  /** Conntrack zone of packets that enter here. */
  conntrackZone: number;
  /** What router advertisements the port sends, and what it takes from those it hears. Null: none, nothing. */
  ra: RaSenderConfig | null;
  acceptRa: RaReceiverConfig | null;
  /** Null: no DHCPv6 on the port. */
  dhcp6: Dhcp6Config | null;
  /** Null: no DHCPv4 on the port. */
  dhcp4: Dhcp4Config | null;
  where: Where;
}

export interface RouteConfig {
  to: PrefixValue;
  type: 'unicast' | 'blackhole' | 'unreachable' | 'prohibit';
  via: AddressValue | null;
  /** Egress port number. −1: none (not unicast), or unknown as no connected prefix covers `via`. */
  port: number;
  metric: number;
  /** Share of the load, beside others of the same metric. */
  weight: number;
  /** Number in `Config.routeTables` + 1; 0: the main table. */
  table: number;
  /** 0: the port's. */
  mtu: number;
  where: Where;
}

/** Who asks a table beside the main one. Lists that are empty match anything. */
export interface RoutingRuleConfig {
  from: Scope | null;
  family: Family | null;
  protocols: number[];
  src: PrefixValue[];
  dst: PrefixValue[];
  sport: PortRange[];
  port: PortRange[];
  dscp: number[];
  table: number;
  where: Where;
}

export interface NeighborConfig {
  port: number;
  ip: AddressValue;
  mac: MacValue;
  where: Where;
}

/** A zone's verdicts on new connections: through the router, and to the router itself. */
export interface ZoneVerdicts {
  forward: Verdict;
  input: Verdict;
}

export interface ZoneConfig {
  name: string;
  number: number;
  ipv4: ZoneVerdicts;
  ipv6: ZoneVerdicts;
  /** Numbers of its ports. */
  ports: number[];
  where: Where;
}

/** Lists that are empty match anything. */
export interface RuleConfig {
  /** Ingress. Null: any. */
  from: Scope | null;
  /** Egress. Null: any, and the router itself; a rule with `to` is about forwarded packets only. */
  to: Scope | null;
  /** Null: both. */
  family: Family | null;
  protocols: number[];
  src: PrefixValue[];
  dst: PrefixValue[];
  /** Names of `Config.hosts`, beside `src` and `dst` (controlplane/hosts.ts has their addresses). */
  srcHosts: string[];
  dstHosts: string[];
  sport: PortRange[];
  port: PortRange[];
  icmpTypes: number[];
  states: PacketState[];
  verdict: Verdict;
  name: string;
  /** ALG to attach to the connection; null: by port, as usual. */
  helper: AlgName | null;
  where: Where;
}

/** The built-in rules for IPv6, behind `rules` (controlplane/ipv6-policy.ts). */
export interface FirewallConfig {
  /** RFC 6092; the zones alone; or everything passes (its REC-49). */
  ipv6: 'simple-security' | 'zones' | 'transparent';
  /** RFC 4890. */
  icmpv6: boolean;
}

/** NAT is of IPv4: entries that name IPv6 are refused. */
export interface MasqueradeConfig {
  out: Scope;
  family: 4;
  /** Sources meant; empty: any. */
  from: PrefixValue[];
  /** The address to use, the first of several; null: the egress port's own. */
  to: AddressValue | null;
  /** All addresses to use; empty: the egress port's own. */
  pool: PrefixValue[];
  mapping: NatBehaviour;
  filtering: NatBehaviour;
  /** Ports to choose from, ascending and apart. */
  ports: PortRange[];
  /** True when `ports` was written: then a source port outside of it is never kept. */
  portsGiven: boolean;
  /** True: a dependent mapping keeps the source port while the tuple is free (profile `linux`); false: it takes a new one. */
  keepPort: boolean;
  /** Keep the source port when it is free, or never. */
  allocation: 'preserve' | 'random';
  /** RFC 4787 REQ-4: even ports for even ones. */
  parity: boolean;
  /** RFC 4787 REQ-2: one inside host keeps one outside address. */
  pooling: 'paired' | 'arbitrary';
  /** Blocks of ports for each inside address; null: single ports. */
  blocks: { size: number; max: number } | null;
  /** RFC 7422: address and block follow from the inside address. */
  deterministic: boolean;
  /** Sessions that one inside address may have; 0: any number. */
  sessions: number;
  where: Where;
}

export interface ForwardConfig {
  in: Scope;
  protocols: number[];
  /** Destination ports as received; null when the protocol has none. */
  port: PortRange | null;
  /** Unspecified where `toHost` names the host instead; '': it does not. */
  to: AddressValue;
  toHost: string;
  /**
   * Destination ports inside; null: as received. As long as `port`: counted from its first (8000-8010 to 9000-9010);
   * one port: that one for all.
   */
  toPort: PortRange | null;
  /** Senders meant; empty: any. */
  from: PrefixValue[];
  where: Where;
}

export interface DmzConfig {
  in: Scope;
  /** As in a forward. */
  to: AddressValue;
  toHost: string;
  where: Where;
}

/** Connections from and to these are not translated. Empty: any. */
export interface BypassConfig {
  from: PrefixValue[];
  to: PrefixValue[];
  where: Where;
}

/** Port triggering: a host of `from` that sends to `port` gets what comes to `open.port`, for `timeout` seconds. */
export interface TriggerConfig {
  from: Scope;
  protocols: number[];
  port: PortRange;
  open: { protocols: number[]; port: PortRange };
  timeout: number;
  where: Where;
}

/** RFC 6296: the prefixes have one length. */
export interface Nptv6Config {
  out: Scope;
  internal: PrefixValue;
  external: PrefixValue;
  where: Where;
}

export interface NatConfig {
  profile: NatProfile;
  masquerade: MasqueradeConfig[];
  forward: ForwardConfig[];
  dmz: DmzConfig[];
  bypass: BypassConfig[];
  trigger: TriggerConfig[];
  nptv6: Nptv6Config[];
  /** `internal`: the inside source stays. */
  hairpin: boolean | 'internal';
  /** RFC 4787 REQ-6: packets from outside also keep a mapping alive. */
  inboundRefresh: boolean;
  /** Outside ports that no mapping may have. */
  reserved: PortRange[];
  /** File that gets a line for each block assigned or released; '' none. */
  log: string;
  /** Lifetimes of mappings, seconds. */
  timeouts: { udp: number; tcpTransitory: number; tcpEstablished: number; icmp: number };
}

export interface AlgConfig {
  name: AlgName;
  enabled: boolean;
  /** Destination ports of the control connection. */
  ports: number[];
  /** FTP: the server may name another host in its replies to PASV and EPSV; others false. */
  loose: boolean;
  /** FTP: the client may name another host in PORT and EPRT (RFC 2577 §3); others false. */
  bounce: boolean;
  where: Where;
}

export interface OffloadConfig {
  mode: 'off' | 'on' | 'verify';
  entries: number;
  /** Packets of a connection, both directions together, before it is programmed. */
  programAfter: number;
  /** Entries that the modelled hardware programs a second; 0: any number. */
  rate: number;
  /** Milliseconds until a programmed entry is used. */
  latency: number;
  /** Packets of a connection that are inspected before it is programmed; 0: none. */
  inspectFirst: number;
  engine: 'emulated' | 'kernel';
  /** Entries of the software flow cache below the engine; 0: none. */
  flowCacheEntries: number;
  where: Where;
}

export interface ConntrackConfig {
  max: number;
  tcpLiberal: boolean;
  /** Verify transport checksums; a wrong one makes the packet INVALID. */
  checksum: boolean;
  /** Only what was written, by the kernel's names, in seconds: for conntrack/timeouts.ts. */
  timeouts: Record<string, number>;
  where: Where;
}

/** Where a server of the control plane listens. */
export interface ListenValue {
  family: Family;
  address: string;
  /** 0: any free one. */
  port: number;
  loopback: boolean;
}

export type SnmpAuth = 'md5' | 'sha' | 'sha224' | 'sha256' | 'sha384' | 'sha512';
export type SnmpPrivacy = 'des' | 'aes' | 'aes256b' | 'aes256r';

/** The API on TCP; on its socket it is always there. */
export interface ApiConfig {
  listen: ListenValue;
  token: string;
  /** Names that a request may call this host by, beside its addresses and `localhost`. */
  hosts: string[];
  where: Where;
}

export interface SnmpUserConfig {
  name: string;
  /** There always is one: noAuthNoPriv is refused. */
  auth: SnmpAuth;
  authKey: string;
  /** null: authNoPriv. */
  privacy: SnmpPrivacy | null;
  privacyKey: string;
}

export interface SnmpConfig {
  listen: ListenValue;
  /** '': no v2c. */
  community: string;
  users: SnmpUserConfig[];
  location: string;
  contact: string;
  where: Where;
}

export interface Config {
  /** Name of the file, '' for an object. */
  file: string;
  ports: PortConfig[];
  routes: RouteConfig[];
  /** Names of the tables beside the main one, and the rules that lead to them. */
  routeTables: string[];
  routingRules: RoutingRuleConfig[];
  neighbors: NeighborConfig[];
  zones: ZoneConfig[];
  /** Stations with names. */
  hosts: HostConfig[];
  rules: RuleConfig[];
  firewall: FirewallConfig;
  nat: NatConfig;
  /** Every ALG, enabled or not. */
  alg: Record<AlgName, AlgConfig>;
  offload: OffloadConfig;
  conntrack: ConntrackConfig;
  workers: number;
  logLevel: LogLevel;
  control: { socket: string };
  /** Null: the router answers no questions for names. */
  dns: DnsConfig | null;
  /** Null: nothing provisions itself. What it means for the ports is in them. */
  gateway: GatewayConfig | null;
  /** Null: on the control socket only. */
  api: ApiConfig | null;
  /** Null: no agent. */
  snmp: SnmpConfig | null;
  /** What is given to clients of DHCPv6. */
  delegation: DelegationConfig;
  /** Which addresses the router uses for what it sends itself (RFC 6724). */
  addressSelection: AddressSelectionConfig;
  /** Sentences about what is legal but probably not meant; each starts with its place. */
  warnings: string[];
}
