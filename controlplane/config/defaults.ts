/**
 * Defaults: every one of them, by the path under which docs/configuration.md documents it.
 *
 * `NAME` stands for a name that the user gives, `[]` for an element of a list. A test compares this table with the page.
 */
export const DEFAULTS = {
  'ports.NAME.kind': 'tap',
  'ports.NAME.mtu': 1500,
  'ports.NAME.up': true,
  'ports.NAME.offloads': true,
  'ports.NAME.fault.loss': 0,
  'ports.NAME.fault.duplicate': 0,
  'ports.NAME.fault.reorder': 0,
  'ports.NAME.fault.corrupt': 0,
  'ports.NAME.fault.delay': 0,
  'ports.NAME.fault.direction': 'both',
  'ports.NAME.fault.seed': 1,
  'ports.NAME.accept-ra.routes': true,
  'ports.NAME.accept-ra.dns': true,
  'ports.NAME.accept-ra.identifier': 'eui64',
  'ports.NAME.accept-ra.temporary': false,
  'ports.NAME.ra.managed': false,
  'ports.NAME.ra.other': false,
  'ports.NAME.ra.min-interval': 30,
  'ports.NAME.ra.max-interval': 100,
  'ports.NAME.ra.default': 'routed',
  'ports.NAME.ra.preference': 'medium',
  'ports.NAME.ra.hop-limit': 64,
  'ports.NAME.ra.reachable-time': 0,
  'ports.NAME.ra.retransmit-timer': 0,
  'ports.NAME.ra.mtu': true,
  // RFC 9096 section 3.4: ND_PREFERRED_LIMIT and ND_VALID_LIMIT.
  'ports.NAME.ra.preferred': 2700,
  'ports.NAME.ra.valid': 5400,
  'ports.NAME.ra.autonomous': true,
  'ports.NAME.ra.on-link': true,
  'ports.NAME.ra.routes[].preference': 'medium',
  'ports.NAME.ra.routes[].lifetime': 1800,
  'routes[].type': 'unicast',
  'routes[].metric': 0,
  'zones.NAME.forward': 'accept',
  'zones.NAME.input': 'accept',
  'nat.profile': 'linux',
  'nat.masquerade[].ports': '1024-65535',
  'nat.masquerade[].parity': true,
  'nat.masquerade[].pooling': 'paired',
  'nat.masquerade[].blocks.size': 512,
  'nat.masquerade[].blocks.max': 4,
  'nat.masquerade[].deterministic': false,
  'nat.trigger[].timeout': 600,
  'nat.hairpin': true,
  'nat.inbound-refresh': false,
  // RFC 4787 REQ-5c; RFC 5382 REQ-5; RFC 5508 REQ-2.
  'nat.timeouts.udp': 300,
  'nat.timeouts.tcp-transitory': 240,
  'nat.timeouts.tcp-established': 7440,
  'nat.timeouts.icmp': 60,
  // RFC 5382 REQ-9 and RFC 4787 REQ-10: ALGs are off by default, except for FTP. PPTP is the second exception here:
  // its GRE has no ports, so that without the ALG no call survives a NAT at all.
  'alg.ftp.enabled': true,
  'alg.ftp.ports': 21,
  'alg.ftp.loose': false,
  'alg.ftp.bounce': false,
  'alg.pptp.enabled': true,
  'alg.pptp.ports': 1723,
  'alg.tftp.enabled': false,
  'alg.tftp.ports': 69,
  'alg.sip.enabled': false,
  'alg.sip.ports': 5060,
  'alg.rtsp.enabled': false,
  'alg.rtsp.ports': 554,
  'alg.h323.enabled': false,
  'alg.h323.ports': 1720,
  'alg.irc.enabled': false,
  'alg.irc.ports': 6667,
  'alg.dns.enabled': false,
  'alg.dns.ports': 53,
  'offload.mode': 'on',
  'offload.entries': 16384,
  'offload.program-after': 2,
  'offload.rate': 0,
  'offload.latency': 0,
  'offload.inspect-first': 0,
  'offload.engine': 'emulated',
  'offload.flow-cache.entries': 0,
  'conntrack.max': 262144,
  'conntrack.tcp-liberal': false,
  'conntrack.checksum': true,
  'log-level': 'info',
  'control.socket': '/run/sluice.sock',
  'snmp.listen': '127.0.0.1:161',
} as const;

/** Bytes that one tracked connection takes: record, IPv6 addresses, its share of buckets and resting records. */
export const CONNECTION_BYTES = 320;
/** Bytes that one engine entry takes, both families' worth. */
export const FLOW_BYTES = 160;
/** Largest tables: record indices times words stay in int32, with room. */
export const MAX_CONNECTIONS = 16_777_216;
export const MAX_FLOW_ENTRIES = 4_194_304;
/** One of the 64 numbers of the interface table is the way to the host kernel (`sluice0`). */
export const MAX_CONFIGURED_PORTS = 63;
