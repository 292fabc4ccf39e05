/**
 * Stages, verdicts and drop reasons: one list each, used by counters, traces, explain and the documentation alike.
 *
 * Reason names follow the Linux kernel's enum skb_drop_reason where it has one, netfilter's words where not. A reason's
 * number is its place in the list; the list of reasons only grows at its end.
 */

/**
 * The stages of path.ts, as a packet meets them; a packet's `stage` is the place of one in this list. At the end, where
 * local packets leave the path, and where the router's own enter it.
 */
export const STAGES = [
  'rx',
  'offload-lookup',
  'link-input',
  'ip-parse',
  'ip-sanity',
  'reassembly',
  'conntrack-in',
  'nat-prerouting',
  'route',
  'ttl',
  'mtu',
  'forward-filter',
  'nat-postrouting',
  'alg',
  'conntrack-confirm',
  'neighbour',
  'offload-program',
  'fragment',
  'tx',
  'input',
  'output',
] as const;

export const STAGE_RX = 0;
export const STAGE_OFFLOAD_LOOKUP = 1;
export const STAGE_LINK_INPUT = 2;
export const STAGE_IP_PARSE = 3;
export const STAGE_IP_SANITY = 4;
export const STAGE_REASSEMBLY = 5;
export const STAGE_CONNTRACK_IN = 6;
export const STAGE_NAT_PREROUTING = 7;
export const STAGE_ROUTE = 8;
export const STAGE_TTL = 9;
export const STAGE_MTU = 10;
export const STAGE_FORWARD_FILTER = 11;
export const STAGE_NAT_POSTROUTING = 12;
export const STAGE_ALG = 13;
export const STAGE_CONNTRACK_CONFIRM = 14;
export const STAGE_NEIGHBOUR = 15;
export const STAGE_OFFLOAD_PROGRAM = 16;
export const STAGE_FRAGMENT = 17;
export const STAGE_TX = 18;
export const STAGE_INPUT = 19;
export const STAGE_OUTPUT = 20;

/** Verdicts: 0 goes on to the next stage, 1 … 15 say where the frame went, DROP + reason that it was dropped. */
export const GO_ON = 0;
export const FORWARDED = 1;
/** To the router itself: a built-in protocol or the host kernel. */
export const DELIVERED = 2;
/** Waits for a neighbour or for the other fragments of its datagram; the slot is not the caller's any more. */
export const HELD = 3;
/** Taken apart or copied: other frames went on in its place (fragments, replicas, another worker's copy); the slot is free again. */
export const CONSUMED = 4;
export const DROP = 16;

/** [name, what it means in one sentence]. */
export const REASONS = [
  ['NOT_SPECIFIED', 'No reason was given; this is a defect of the router.'],
  ['PKT_TOO_SMALL', 'The frame is shorter than its headers say.'],
  ['LINK_DOWN', 'The port is down.'],
  ['OTHERHOST', 'The destination MAC is neither ours, broadcast nor multicast.'],
  ['L2_SOURCE', 'The source MAC is not on the port’s list, or is a group address.'],
  ['VLAN_FILTER', 'The frame’s VLAN tag does not belong to this port.'],
  ['ETHERTYPE_FILTER', 'The EtherType is filtered on this port.'],
  ['UNHANDLED_PROTO', 'The router does not handle this EtherType.'],
  ['IP_INHDR', 'The IP header is malformed (version, header length or total length).'],
  ['IP_CSUM', 'The IPv4 header checksum is wrong.'],
  ['IP_INVALID_SOURCE', 'The source address may not be a source (multicast, broadcast, loopback, unspecified).'],
  ['IP_INVALID_DEST', 'The destination address may not be forwarded to (loopback, unspecified, reserved).'],
  ['IP_LOCAL_SOURCE', 'The source address is one of the router’s own.'],
  ['IP_RPFILTER', 'The reverse path filter refused the source address.'],
  ['IPV6_CHAIN', 'The extension header chain is malformed, too long, or out of order.'],
  ['IPV6_RH0', 'Routing header type 0 is refused (RFC 5095).'],
  ['L4_TRUNCATED', 'The transport header is incomplete or its length is wrong.'],
  ['TCP_CSUM', 'The TCP checksum is wrong.'],
  ['UDP_CSUM', 'The UDP checksum is wrong.'],
  ['ICMP_CSUM', 'The ICMP or ICMPv6 checksum is wrong.'],
  ['FRAG_NAT', 'A fragment that would need translation, and reassembly is off.'],
  ['FRAG_OVERLAP', 'Fragments of this datagram overlap (RFC 5722, RFC 8200).'],
  ['FRAG_TOO_FAR', 'The fragment ends beyond 65535 bytes.'],
  ['FRAG_TINY', 'The first fragment does not hold the whole header chain (RFC 7112, RFC 1858).'],
  ['FRAG_REASM_TIMEOUT', 'The rest of the datagram did not arrive in time.'],
  ['FRAG_MEMORY', 'Reassembly memory or the number of datagrams under reassembly is at its limit.'],
  ['CT_INVALID', 'Connection tracking found the packet invalid; its detail says why.'],
  ['CT_FULL', 'The connection table is full and early drop found nothing to give up.'],
  ['CT_LIMIT', 'This source has as many connections as it may have.'],
  ['CT_CLASH', 'Another packet made a conflicting connection at the same moment.'],
  ['NAT_EXHAUSTED', 'No free port or identifier was found for the translation.'],
  ['NAT_NO_ADDRESS', 'The egress port has no IPv4 address to masquerade as.'],
  ['NAT_FILTERED', 'The NAT mapping exists, but its filtering does not admit this sender.'],
  ['IP_OUTNOROUTES', 'No route to the destination.'],
  ['IP_BLACKHOLE', 'A blackhole route took the packet.'],
  ['IP_PROHIBIT', 'A prohibit or unreachable route refused the packet.'],
  ['IP_MULTICAST', 'Multicast that nobody here has joined or routes.'],
  ['IP_SCOPE', 'An address whose scope forbids forwarding (link-local, site boundary).'],
  ['IP_TTL', 'TTL or hop limit ran out.'],
  ['PKT_TOO_BIG', 'The packet exceeds the egress MTU and may not be fragmented.'],
  ['FILTER_DROP', 'A rule or the zone’s forward verdict dropped it.'],
  ['FILTER_REJECT', 'A rule or the zone’s forward verdict rejected it.'],
  ['INPUT_DROP', 'A rule or the zone’s input verdict dropped it.'],
  ['INPUT_REJECT', 'A rule or the zone’s input verdict rejected it.'],
  ['INPUT_NO_LISTENER', 'For the router itself, but nothing here handles the protocol.'],
  ['NEIGH_FAILED', 'The next hop did not answer ARP or neighbour solicitation.'],
  ['NEIGH_QUEUEFULL', 'Too many packets wait for this neighbour already.'],
  ['NO_BUFFER', 'No frame slot was free.'],
  ['TX_LINK_DOWN', 'The egress port is down.'],
  ['PUNT_QUEUEFULL', 'The ring to the control plane is full.'],
  ['ALG_DROP', 'The protocol helper demands that this packet be dropped.'],
  ['ALG_EXPECT_FULL', 'The connection has as many expectations as it may have.'],
  ['GSO_MALFORMED', 'A super-frame whose metadata does not match its headers.'],
  ['HAIRPIN_LOOP', 'The packet would leave to where it came from with its own source address.'],
  ['ENGINE_STALE', 'An offload engine entry pointed to a port that is gone.'],
  ['IPV6_DISABLED', 'IPv6 is disabled on this port (duplicate link-local address).'],
  ['SECURITY_GROUP', 'The port’s security group does not give this address to the station that uses it.'],
  ['FRAG_DUP', 'This fragment is there already; the first copy is kept.'],
  ['FRAG_LENGTH', 'The fragment is empty, not a multiple of 8 long, or ends where the datagram does not.'],
  ['FRAG_ECN', 'Some fragments are ECN-capable and others not (RFC 3168 §5.3).'],
  ['FRAG_ND', 'Neighbour discovery in fragments is refused (RFC 6980).'],
  ['NEIGH_RATE', 'More unknown next hops were wanted on this port at a time than the router asks for (RFC 6583).'],
  ['CT_NEW_RATE', 'The connection table is full, and new connections came too fast to take the place of others.'],
  [
    'ESP_PENDING',
    'Another inside host’s new ESP tunnel to this gateway waits for its first answer; one after the other.',
  ],
  ['ESP_AMBIGUOUS', 'An SPI that nobody knows, from a gateway with which several inside hosts have tunnels.'],
  ['WORKER_DIED', 'The worker that had the frame died: it waited there, or was in its hands.'],
  ['LINK_LOCAL_PROTO', 'On the link itself, stations of a security group use ND, MLD, echo and DHCPv6 alone.'],
] as const satisfies readonly (readonly [string, string])[];

export const PKT_TOO_SMALL = 1;
export const LINK_DOWN = 2;
export const OTHERHOST = 3;
export const L2_SOURCE = 4;
export const VLAN_FILTER = 5;
export const ETHERTYPE_FILTER = 6;
export const UNHANDLED_PROTO = 7;
export const IP_INHDR = 8;
export const IP_CSUM = 9;
export const IP_INVALID_SOURCE = 10;
export const IP_INVALID_DEST = 11;
export const IP_LOCAL_SOURCE = 12;
export const IP_RPFILTER = 13;
export const IPV6_CHAIN = 14;
export const IPV6_RH0 = 15;
export const L4_TRUNCATED = 16;
export const TCP_CSUM = 17;
export const UDP_CSUM = 18;
export const ICMP_CSUM = 19;
export const FRAG_NAT = 20;
export const FRAG_OVERLAP = 21;
export const FRAG_TOO_FAR = 22;
export const FRAG_TINY = 23;
export const FRAG_REASM_TIMEOUT = 24;
export const FRAG_MEMORY = 25;
export const CT_INVALID_DROP = 26;
export const CT_FULL = 27;
export const CT_LIMIT = 28;
export const CT_CLASH = 29;
export const NAT_EXHAUSTED = 30;
export const NAT_NO_ADDRESS = 31;
export const NAT_FILTERED = 32;
export const IP_OUTNOROUTES = 33;
export const IP_BLACKHOLE = 34;
export const IP_PROHIBIT = 35;
export const IP_MULTICAST = 36;
export const IP_SCOPE = 37;
export const IP_TTL = 38;
export const PKT_TOO_BIG = 39;
export const FILTER_DROP = 40;
export const FILTER_REJECT = 41;
export const INPUT_DROP = 42;
export const INPUT_REJECT = 43;
export const INPUT_NO_LISTENER = 44;
export const NEIGH_FAILED = 45;
export const NEIGH_QUEUEFULL = 46;
export const NO_BUFFER = 47;
export const TX_LINK_DOWN = 48;
export const PUNT_QUEUEFULL = 49;
export const ALG_DROP = 50;
export const ALG_EXPECT_FULL = 51;
export const GSO_MALFORMED = 52;
export const HAIRPIN_LOOP = 53;
export const ENGINE_STALE = 54;
export const IPV6_DISABLED = 55;
export const SECURITY_GROUP = 56;
export const FRAG_DUP = 57;
export const FRAG_LENGTH = 58;
export const FRAG_ECN = 59;
export const FRAG_ND = 60;
export const NEIGH_RATE = 61;
export const CT_NEW_RATE = 62;
export const ESP_PENDING = 63;
export const ESP_AMBIGUOUS = 64;
export const WORKER_DIED = 65;
export const LINK_LOCAL_PROTO = 66;

/** Name of a reason number. */
export function reasonName(reason: number): string {
  return REASONS[reason]?.[0] ?? `REASON_${reason}`;
}
