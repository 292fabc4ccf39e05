/**
 * Packet: the working view of one frame on its way through the path.
 *
 * One instance per worker, overwritten for every frame; nothing here is allocated per packet. `ip-parse` fills it once
 * and checks every length; after that, stages trust it. Addresses and ports are the *effective* ones: a NAT stage
 * changes them here, and the frame's bytes are only rewritten at the end of the path, so that an ICMP error of the
 * router itself quotes the packet as it was received.
 *
 * Everything that came from the wire as an address, port pair or identifier stays in network byte order, as a
 * little-endian load of the frame's bytes gives it ("raw"): compared and hashed, never swapped. Lengths, offsets and
 * small numbers are host integers. Offsets are absolute byte offsets in the frame arena.
 */
export class Packet {
  /** Slot in the frame arena, and where the frame begins and how long it is (bytes). */
  slot = 0;
  off = 0;
  len = 0;
  /** Ingress port number, VLAN tag control information of the outer tag (0: untagged), EtherType (host order). */
  port = 0;
  vlan = 0;
  etherType = 0;
  /** Absolute offsets: IP header, transport header, one past the IP datagram (padding excluded). */
  l3 = 0;
  l4 = 0;
  end = 0;
  /** 4 or 6; the protocol after all extension headers; where the field that names it sits (ICMP errors point to it). */
  family = 0;
  proto = 0;
  protoAt = 0;
  /** Effective source and destination, raw. IPv4 uses s0 and d0 only; the others are 0 then. */
  s0 = 0;
  s1 = 0;
  s2 = 0;
  s3 = 0;
  d0 = 0;
  d1 = 0;
  d2 = 0;
  d3 = 0;
  /**
   * Effective ports, raw: the 4 bytes at the transport header for TCP, UDP, UDP-Lite, SCTP, DCCP (source in the low 16
   * bits). ICMP echo: identifier in the low 16 bits, type in bits 16–23, code in 24–31. GRE version 1: see gre.ts.
   * ESP: 0 (an SPI is no port: conntrack/esp.ts). Everything else 0.
   */
  ports = 0;
  /** As received (before any NAT stage), for the tuple, the rewrite and quotes. */
  rs0 = 0;
  rs1 = 0;
  rs2 = 0;
  rs3 = 0;
  rd0 = 0;
  rd1 = 0;
  rd2 = 0;
  rd3 = 0;
  rports = 0;
  /** TTL or hop limit, DSCP/ECN byte, TCP flags byte (FIN 1 SYN 2 RST 4 PSH 8 ACK 16 URG 32 ECE 64 CWR 128). */
  ttl = 0;
  tos = 0;
  tcpFlags = 0;
  /** Fragment: byte offset of this part, more-fragments flag, identification (raw), absolute offset of the v6 header. */
  fragOffset = 0;
  fragMore = 0;
  fragId = 0;
  fragHeader = 0;
  /** 1 when the datagram is a fragment (offset ≠ 0 or more follow). */
  isFragment = 0;
  /** 1 when IPv4 carries options or IPv6 carries extension headers (never offloaded). */
  hasOptions = 0;
  /** IPv6 extension headers that the chain has, those that the filter asks for (CHAIN_*, dataplane/filter.ts). */
  chain = 0;
  /** Absolute offset of the address in an IPv6 Home Address option, 0 none. */
  homeAt = 0;
  /** Zone of the route back to the source, 0 none; set only where the filter asks for it. */
  sourceZone = 0;
  /** IPv4 Don't Fragment. */
  dontFragment = 0;
  /** virtio-style metadata: flags (1 NEEDS_CSUM, 2 DATA_VALID), GSO type and segment size. */
  flags = 0;
  gsoType = 0;
  gsoSize = 0;
  /** Conntrack: record (−1 none), direction of this packet (0 ORIGINAL, 1 REPLY), CT_* state (conntrack/table.ts). */
  ct = -1;
  dir = 0;
  ctinfo = 0;
  /** 1 while the record is new and not yet in the hash. */
  fresh = 0;
  /** For an ICMP error about a tracked connection: absolute offset of the quoted IP header and transport header, else 0. */
  innerL3 = 0;
  innerL4 = 0;
  innerProto = 0;
  /** Direction that the quoted packet had travelled in. */
  innerDir = 0;
  /** ICMP or ICMPv6 error that a drop asks for: type, code, and MTU or pointer; type 0 (never an error's) asks for none. */
  errorType = 0;
  errorCode = 0;
  errorParam = 0;
  /** The frame came to a group MAC address (no error answers it). */
  groupMac = 0;
  /** Route decision: next-hop number, egress port, next hop's address (raw), neighbour record. */
  nexthop = 0;
  outPort = -1;
  n0 = 0;
  n1 = 0;
  n2 = 0;
  n3 = 0;
  neighbour = -1;
  /** MTU towards the next hop, bytes of IP. `own`: 1 when the router made this packet itself (then no TTL is taken). */
  mtu = 0;
  own = 0;
  /** Epoch word read before the walk began (see offload). */
  epoch = 0;
  /** The stage that the packet is in (STAGE_*), for drops and traces. */
  stage = 0;
  /** A detail that explains the last verdict (sub-reason number; 0 none). */
  detail = 0;

  /** Takes over every field of another packet. */
  assign(p: Packet): void {
    this.slot = p.slot;
    this.off = p.off;
    this.len = p.len;
    this.port = p.port;
    this.vlan = p.vlan;
    this.etherType = p.etherType;
    this.l3 = p.l3;
    this.l4 = p.l4;
    this.end = p.end;
    this.family = p.family;
    this.proto = p.proto;
    this.protoAt = p.protoAt;
    this.s0 = p.s0;
    this.s1 = p.s1;
    this.s2 = p.s2;
    this.s3 = p.s3;
    this.d0 = p.d0;
    this.d1 = p.d1;
    this.d2 = p.d2;
    this.d3 = p.d3;
    this.ports = p.ports;
    this.rs0 = p.rs0;
    this.rs1 = p.rs1;
    this.rs2 = p.rs2;
    this.rs3 = p.rs3;
    this.rd0 = p.rd0;
    this.rd1 = p.rd1;
    this.rd2 = p.rd2;
    this.rd3 = p.rd3;
    this.rports = p.rports;
    this.ttl = p.ttl;
    this.tos = p.tos;
    this.tcpFlags = p.tcpFlags;
    this.fragOffset = p.fragOffset;
    this.fragMore = p.fragMore;
    this.fragId = p.fragId;
    this.fragHeader = p.fragHeader;
    this.isFragment = p.isFragment;
    this.hasOptions = p.hasOptions;
    this.chain = p.chain;
    this.homeAt = p.homeAt;
    this.sourceZone = p.sourceZone;
    this.dontFragment = p.dontFragment;
    this.flags = p.flags;
    this.gsoType = p.gsoType;
    this.gsoSize = p.gsoSize;
    this.ct = p.ct;
    this.dir = p.dir;
    this.ctinfo = p.ctinfo;
    this.fresh = p.fresh;
    this.innerL3 = p.innerL3;
    this.innerL4 = p.innerL4;
    this.innerProto = p.innerProto;
    this.innerDir = p.innerDir;
    this.errorType = p.errorType;
    this.errorCode = p.errorCode;
    this.errorParam = p.errorParam;
    this.groupMac = p.groupMac;
    this.nexthop = p.nexthop;
    this.outPort = p.outPort;
    this.n0 = p.n0;
    this.n1 = p.n1;
    this.n2 = p.n2;
    this.n3 = p.n3;
    this.neighbour = p.neighbour;
    this.mtu = p.mtu;
    this.own = p.own;
    this.epoch = p.epoch;
    this.stage = p.stage;
    this.detail = p.detail;
  }
}
