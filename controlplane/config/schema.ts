/**
 * Schema: which keys there are and what each takes, as strict zod objects.
 *
 * One schema per item (a port, a route, a rule ...), so that normalize.ts can read item by item and go on after a fault
 * in one; `configSchema` at the end is all of them together, and what docs/configuration.md is tested against.
 * What keys mean together (names that must exist, families that must agree) is in normalize.ts and checks.ts.
 */
import { z } from 'zod';
import { MAX_BLOCKS } from '../../conntrack/subscribers.ts';
import { MAX_WORKERS } from '../../conntrack/table.ts';
import { TIMEOUT_NAMES } from '../../conntrack/timeouts.ts';
import { MAX_SOURCES } from '../../dataplane/interfaces.ts';
import { MAX_CONNECTIONS, MAX_FLOW_ENTRIES } from './defaults.ts';
import { dhcp4Schema, dnsSchema } from './dhcp4.ts';
import { delegationSchema, dhcp6Schema } from './dhcp6.ts';
import { acceptRaSchema, raSchema } from './discovery.ts';
import { gatewaySchema } from './gateway.ts';
import { hostName, hostSchema, hostNames as hosts } from './hosts.ts';
import { securityGroupSchema } from './security.ts';
import { addressSelectionShallow, policyRowSchema } from './selection.ts';
import {
  address,
  boolean,
  dscps,
  fileName,
  hairpinWord,
  hostNames,
  icmpTypes,
  integer,
  integerIn,
  interfaceName,
  leaf,
  listenAddress,
  mac,
  macs,
  map,
  name,
  oneOf,
  portAddresses,
  portNumbers,
  portRange,
  portRanges,
  portSet,
  prefix,
  prefixes,
  probability,
  protocols,
  reference,
  secret,
  socketPath,
  someOf,
  target,
  text,
  text32,
} from './values.ts';

export const ALG_NAMES = ['ftp', 'pptp', 'tftp', 'sip', 'rtsp', 'h323', 'irc', 'dns'] as const;
const VERDICTS = ['accept', 'drop', 'reject'] as const;
const FAMILIES = ['ipv4', 'ipv6'] as const;
const BEHAVIOURS = ['endpoint-independent', 'address-dependent', 'address-and-port-dependent'] as const;
const PROFILES = ['linux', 'full-cone', 'restricted-cone', 'port-restricted-cone', 'symmetric'] as const;
/** YAML 1.1 readers and JSON writers make booleans of `on` and `off`. */
const ON_OFF = new Map<unknown, 'on' | 'off'>([
  [true, 'on'],
  [false, 'off'],
]);

/** IPv4 over anything is 68 bytes (RFC 791 §3.2); IPv6 needs 1280 (RFC 8200 §5). */
export const MIN_MTU4 = 68;
export const MIN_MTU6 = 1280;

/** Whether the port carries IPv6, and so needs the larger MTU, is seen in normalize.ts. */
const portMtu = leaf(
  `a number from ${MIN_MTU6} to 65535`,
  (input) => integerIn(MIN_MTU4, 65535)(input),
  (input) => (Number(input) < MIN_MTU4 ? `a port without IPv6 may go down to ${MIN_MTU4}` : ''),
);

/** The highest is an IPv4 datagram of 65535 bytes less its headers. */
const mssClamp = leaf(
  'pmtu or a number from 64 to 65495',
  (input) => (input === 'pmtu' ? ('pmtu' as const) : integerIn(64, 65495)(input)),
  () => 'pmtu: whatever fits the MTU of both links',
);

export const portSchema = map({
  kind: oneOf(['tap', 'packet', 'host', 'pcap', 'memory']).optional(),
  ifname: interfaceName.optional(),
  zone: name.optional(),
  mac: mac.optional(),
  addresses: portAddresses.optional(),
  mtu: portMtu.optional(),
  'mss-clamp': mssClamp.optional(),
  vlan: integer(1, 4094).optional(), // IEEE 802.1Q: 0 and 4095 are reserved
  parent: reference.optional(),
  up: boolean.optional(),
  ethertypes: someOf(['ipv4', 'arp', 'ipv6']).optional(),
  sources: macs(MAX_SOURCES).optional(),
  'source-check': boolean.optional(),
  'security-group': securityGroupSchema.optional(),
  fault: map({
    loss: probability.optional(),
    duplicate: probability.optional(),
    reorder: probability.optional(),
    corrupt: probability.optional(),
    delay: probability.optional(),
    direction: oneOf(['rx', 'tx', 'both']).optional(),
    seed: integer(0, 2147483647).optional(),
  }).optional(),
  mirror: fileName.optional(),
  file: fileName.optional(),
  out: fileName.optional(),
  offloads: boolean.optional(),
  queues: integer(1, MAX_WORKERS).optional(),
  'accept-ra': acceptRaSchema.optional(),
  ra: raSchema.optional(),
  dhcp6: dhcp6Schema.optional(),
  dhcp4: dhcp4Schema.optional(),
});

export const routeSchema = map({
  to: prefix,
  via: address.optional(),
  port: reference.optional(),
  metric: integer(0, 2147483647).optional(),
  mtu: integer(MIN_MTU4, 65535).optional(),
  type: oneOf(['unicast', 'blackhole', 'unreachable', 'prohibit']).optional(),
  weight: integer(1, 256).optional(),
  table: name.optional(),
});

export const routingRuleSchema = map({
  from: reference.optional(),
  family: oneOf(FAMILIES).optional(),
  proto: protocols.optional(),
  src: prefixes.optional(),
  dst: prefixes.optional(),
  sport: portRanges.optional(),
  port: portRanges.optional(),
  dscp: dscps.optional(),
  table: name,
});

export const neighborSchema = map({ port: reference, ip: address, mac });

const verdicts = { forward: oneOf(VERDICTS).optional(), input: oneOf(VERDICTS).optional() };
export const zoneSchema = map({ ...verdicts, ipv4: map(verdicts).optional(), ipv6: map(verdicts).optional() });

export const ruleSchema = map({
  from: reference.optional(),
  to: reference.optional(),
  family: oneOf(FAMILIES).optional(),
  proto: protocols.optional(),
  src: prefixes.optional(),
  dst: prefixes.optional(),
  'src-host': hosts.optional(),
  'dst-host': hosts.optional(),
  sport: portRanges.optional(),
  port: portRanges.optional(),
  'icmp-type': icmpTypes.optional(),
  state: someOf(['new', 'established', 'related', 'invalid']).optional(),
  verdict: oneOf(VERDICTS),
  name: text.optional(),
  comment: text.optional(),
  helper: oneOf(ALG_NAMES).optional(),
});

export const masqueradeSchema = map({
  out: reference,
  family: oneOf(FAMILIES).optional(),
  from: prefixes.optional(),
  to: prefixes.optional(),
  mapping: oneOf(BEHAVIOURS).optional(),
  filtering: oneOf(BEHAVIOURS).optional(),
  ports: portSet.optional(),
  allocation: oneOf(['preserve', 'random']).optional(),
  parity: boolean.optional(),
  pooling: oneOf(['paired', 'arbitrary']).optional(),
  blocks: map({ size: integer(1, 32768).optional(), max: integer(1, MAX_BLOCKS).optional() }).optional(),
  deterministic: boolean.optional(),
  sessions: integer(1, MAX_CONNECTIONS).optional(),
});

/** A host inside that sends to these ports gets, for a while, what comes to those (port triggering). */
export const triggerSchema = map({
  from: reference,
  proto: protocols.optional(),
  port: portRange,
  open: map({ proto: protocols.optional(), port: portRange }),
  timeout: integer(1, 86400).optional(),
});

/** RFC 6296: prefixes of equal length, one outside and one inside. */
export const nptv6Schema = map({ out: reference, internal: prefix, external: prefix });

export const forwardSchema = map({
  in: reference,
  proto: protocols.optional(),
  port: portRange.optional(),
  to: target.optional(),
  'to-host': hostName.optional(),
  'to-port': portRange.optional(),
  from: prefixes.optional(),
});

export const dmzSchema = map({ in: reference, to: address.optional(), 'to-host': hostName.optional() });
export const bypassSchema = map({ from: prefixes.optional(), to: prefixes.optional() });

const list = z.unknown().optional();
/** The section without its lists, whose items are read one by one. */
export const natShallow = map({
  profile: oneOf(PROFILES).optional(),
  masquerade: list,
  forward: list,
  dmz: list,
  bypass: list,
  trigger: list,
  nptv6: list,
  hairpin: hairpinWord.optional(),
  'inbound-refresh': boolean.optional(),
  reserved: portRanges.optional(),
  log: fileName.optional(),
  timeouts: map({
    udp: integer(120, 86400).optional(), // RFC 4787 REQ-5: not below two minutes
    'tcp-transitory': integer(240, 86400).optional(), // RFC 5382 REQ-5
    'tcp-established': integer(7440, 2_000_000).optional(),
    icmp: integer(60, 86400).optional(), // RFC 5508 REQ-2
  }).optional(),
});

const algShape = { ports: portNumbers.optional(), enabled: boolean.optional() };
export const algSchema = map(algShape);
export const ftpSchema = map({ ...algShape, loose: boolean.optional(), bounce: boolean.optional() });
export const algSchemas = {
  ftp: ftpSchema,
  pptp: algSchema,
  tftp: algSchema,
  sip: algSchema,
  rtsp: algSchema,
  h323: algSchema,
  irc: algSchema,
  dns: algSchema,
};

export const offloadSchema = map({
  mode: oneOf(['off', 'on', 'verify'], ON_OFF as Map<unknown, 'off' | 'on' | 'verify'>).optional(),
  entries: integer(0, MAX_FLOW_ENTRIES).optional(),
  'program-after': integer(1, 1_000_000).optional(),
  rate: integer(0, 10_000_000).optional(),
  latency: integer(0, 10_000).optional(),
  'inspect-first': integer(0, 1000).optional(),
  engine: oneOf(['emulated', 'kernel']).optional(),
  'flow-cache': map({ entries: integer(0, MAX_FLOW_ENTRIES).optional() }).optional(),
});

/**
 * `tcp_timeout_established` of the kernel is `tcp-established` here. The tracker's other settings keep their words, but
 * for the number of retransmissions, which would be called as the time that it leads to, and `tcp_be_liberal`, which is
 * `conntrack.tcp-liberal`.
 */
export const TIMEOUT_KEYS: ReadonlyMap<string, string> = new Map(
  TIMEOUT_NAMES.filter((kernel) => kernel !== 'tcp_be_liberal').map((kernel) => {
    if (kernel === 'tcp_max_retrans') return ['tcp-retrans-count', kernel];
    return [kernel.replace('_timeout', '').replaceAll('_', '-'), kernel];
  }),
);

const timeoutShape: Record<string, z.ZodOptional<ReturnType<typeof integer>>> = {};
for (const [key, kernel] of TIMEOUT_KEYS) {
  // Deadlines are int32 milliseconds, compared by difference: see conntrack/timeouts.ts.
  const low = kernel.includes('_timeout') ? 1 : 0;
  timeoutShape[key] = integer(low, low === 1 ? 2_000_000 : kernel === 'tcp_max_retrans' ? 255 : 1).optional();
}

export const conntrackSchema = map({
  max: integer(1, MAX_CONNECTIONS).optional(),
  'tcp-liberal': boolean.optional(),
  checksum: boolean.optional(),
  timeouts: map(timeoutShape).optional(),
  zones: z.record(z.string(), integer(0, 65535), { error: () => 'a map of zones and ports to numbers' }).optional(),
});

export const firewallSchema = map({
  ipv6: oneOf(['simple-security', 'zones', 'transparent']).optional(),
  icmpv6: boolean.optional(),
});

export const controlSchema = map({ socket: socketPath.optional() });

export const apiSchema = map({
  listen: listenAddress,
  token: secret(16).optional(),
  hosts: hostNames.optional(),
});

/** What net-snmp calls them: the algorithms of RFC 3414, RFC 7860 and RFC 3826. */
export const SNMP_AUTH = ['md5', 'sha', 'sha224', 'sha256', 'sha384', 'sha512'] as const;
export const SNMP_PRIVACY = ['des', 'aes', 'aes256b', 'aes256r'] as const;

/** RFC 3414 §11.2: a password of a user has at least eight characters. */
export const snmpUserSchema = map({
  name: text32,
  auth: oneOf(SNMP_AUTH).optional(),
  'auth-key': secret(8).optional(),
  privacy: oneOf(SNMP_PRIVACY).optional(),
  'privacy-key': secret(8).optional(),
});

export const snmpSchema = map({
  listen: listenAddress.optional(),
  community: secret(1).optional(),
  users: list,
  location: text.optional(),
  contact: text.optional(),
});

/** The top level; sections that are lists or maps of names are read item by item. */
export const topShallow = map({
  ports: list,
  routes: list,
  'routing-rules': list,
  neighbors: list,
  zones: list,
  hosts: list,
  rules: list,
  firewall: list,
  nat: list,
  alg: list,
  offload: list,
  conntrack: list,
  workers: integer(1, MAX_WORKERS).optional(),
  'log-level': oneOf(['error', 'warn', 'info', 'debug']).optional(),
  control: list,
  dns: list,
  gateway: list,
  api: list,
  snmp: list,
  delegation: list,
  'address-selection': list,
});

/** Everything, as one schema: for the documentation and its test. */
export const configSchema = topShallow.extend({
  ports: z.record(z.string(), portSchema),
  routes: z.array(routeSchema).optional(),
  'routing-rules': z.array(routingRuleSchema).optional(),
  neighbors: z.array(neighborSchema).optional(),
  zones: z.record(z.string(), zoneSchema).optional(),
  hosts: z.record(z.string(), hostSchema).optional(),
  rules: z.array(ruleSchema).optional(),
  firewall: firewallSchema.optional(),
  nat: natShallow
    .extend({
      masquerade: z.array(masqueradeSchema).optional(),
      forward: z.array(forwardSchema).optional(),
      dmz: z.array(dmzSchema).optional(),
      bypass: z.array(bypassSchema).optional(),
      trigger: z.array(triggerSchema).optional(),
      nptv6: z.array(nptv6Schema).optional(),
    })
    .optional(),
  alg: map(algSchemas).partial().optional(),
  offload: offloadSchema.optional(),
  conntrack: conntrackSchema.optional(),
  control: controlSchema.optional(),
  dns: dnsSchema.optional(),
  gateway: gatewaySchema.optional(),
  api: apiSchema.optional(),
  snmp: snmpSchema.extend({ users: z.array(snmpUserSchema).optional() }).optional(),
  delegation: delegationSchema.optional(),
  'address-selection': addressSelectionShallow.extend({ policy: z.array(policyRowSchema).optional() }).optional(),
});
