/**
 * The connection record: word by word, in one place.
 *
 * 48 int32 words (three cache lines) in the connection table's SharedArrayBuffer. IPv4 addresses are in the record;
 * IPv6 addresses are in a second array beside it (16 words per record: original source, original destination, reply
 * source, reply destination), which costs address space but no memory until an IPv6 connection uses it.
 *
 *   line 0: what a lookup compares
 *    0 NEXT_O    1 NEXT_R    2 HASH_O    3 HASH_R      chain links (((index << 1) | dir) + 1, 0 ends) and full hashes
 *    4 O_SRC     5 O_DST     6 O_PORTS   7 KEY         ORIGINAL tuple; KEY = proto | family << 8 | zone << 16
 *    8 R_SRC     9 R_DST    10 R_PORTS  11 STATUS      REPLY tuple; STATUS = IPS_*
 *   12 DEADLINE 13 STATE    14 GEN      15 LOCK        clock ms when it expires; protocol state; generation; owner + 1
 *
 *   line 1: what the protocol tracker knows (TCP; others use STATE alone, and their packets never visit this line)
 *   16 END      17 MAXEND   18 MAXWIN   19 MAXACK      of the ORIGINAL direction
 *   20 END      21 MAXEND   22 MAXWIN   23 MAXACK      of the REPLY direction
 *   24 TCP_BITS flags of ORIGINAL (bits 0–7) and REPLY (8–15), window scale of ORIGINAL (16–19) and REPLY (20–23)
 *   25 TCP_LAST last direction (bit 0), last packet kind (bits 1–3), retransmissions (8–15), last scale (16–19), flags (24–31)
 *   26 LAST_SEQ 27 LAST_ACK 28 LAST_END 29 LAST_WIN
 *   30 TIMER    next record in the aging wheel's slot (index + 1)
 *   31 MARK
 *
 *   line 2: accounting and relations
 *   32,33 packets ORIGINAL   34,35 packets REPLY   36,37 bytes ORIGINAL   38,39 bytes REPLY    (each a float64)
 *   40 START    clock ms at creation                   41 MASTER   index + 1 of the connection that expected this one
 *   42 MAPPING  NAT mapping + 1                        43 FLOWS    engine entries, see offload
 *   44 PORTS_IO ingress port of ORIGINAL + 1 (bits 0–7), of REPLY + 1 (8–15), worker that owns its timer (16–23),
 *               why it is not in the engine (24–31)
 *   45 MASTER_GEN                                      46 TIMER_PREV  (index + 1, or −(slot + 1))
 *   47 HELPER   helper number (bits 0–7) | extension record + 1 << 8 (helper state and sequence adjustment)
 *
 * Addresses and port words are raw (network byte order as loaded little-endian); see wire/packet.ts.
 */
export const CT_WORDS = 48;
export const CT_NEXT = 0; // + dir
export const CT_HASH = 2; // + dir
export const CT_O_SRC = 4;
export const CT_O_DST = 5;
export const CT_O_PORTS = 6;
export const CT_KEY = 7;
export const CT_R_SRC = 8;
export const CT_R_DST = 9;
export const CT_R_PORTS = 10;
export const CT_STATUS = 11;
export const CT_DEADLINE = 12;
export const CT_STATE = 13;
export const CT_GEN = 14;
export const CT_LOCK = 15;
export const CT_TCP = 16; // + 4 * dir
export const TCP_END = 0;
export const TCP_MAXEND = 1;
export const TCP_MAXWIN = 2;
export const TCP_MAXACK = 3;
export const CT_TCP_BITS = 24;
export const CT_TCP_LAST = 25;
export const CT_LAST_SEQ = 26;
export const CT_LAST_ACK = 27;
export const CT_LAST_END = 28;
export const CT_LAST_WIN = 29;
export const CT_TIMER = 30;
export const CT_MARK = 31;
/** Float64 indices inside a record (a record is 24 doubles). */
export const CT_F64 = 24;
export const CT_F64_PACKETS = 16; // + dir
export const CT_F64_BYTES = 18; // + dir
export const CT_START = 40;
export const CT_MASTER = 41;
export const CT_MAPPING = 42;
export const CT_FLOWS = 43;
export const CT_PORTS_IO = 44;
export const CT_MASTER_GEN = 45;
export const CT_TIMER_PREV = 46;
export const CT_HELPER = 47;

/** IPv6 addresses of a record: 16 words beside it, 4 per address, in this order. */
export const CT6_WORDS = 16;
export const CT6_O_SRC = 0;
export const CT6_O_DST = 4;
export const CT6_R_SRC = 8;
export const CT6_R_DST = 12;

/** Status bits, netfilter's numbers (include/uapi/linux/netfilter/nf_conntrack_common.h). */
export const IPS_EXPECTED = 1;
export const IPS_SEEN_REPLY = 2;
export const IPS_ASSURED = 4;
export const IPS_CONFIRMED = 8;
export const IPS_SRC_NAT = 16;
export const IPS_DST_NAT = 32;
export const IPS_SEQ_ADJUST = 64;
export const IPS_SRC_NAT_DONE = 128;
export const IPS_DST_NAT_DONE = 256;
export const IPS_DYING = 512;
export const IPS_FIXED_TIMEOUT = 1024;
export const IPS_HELPER = 8192;
export const IPS_OFFLOAD = 16384;

/** What conntrack says of a packet (Packet.ctinfo). */
export const CT_NONE = 0;
export const CT_NEW = 1;
export const CT_ESTABLISHED = 2;
export const CT_RELATED = 3;
export const CT_INVALID = 4;
export const CT_UNTRACKED = 5;

/** Directions. */
export const ORIGINAL = 0;
export const REPLY = 1;

/** TCP states, netfilter's numbers. */
export const TCP_NONE = 0;
export const TCP_SYN_SENT = 1;
export const TCP_SYN_RECV = 2;
export const TCP_ESTABLISHED = 3;
export const TCP_FIN_WAIT = 4;
export const TCP_CLOSE_WAIT = 5;
export const TCP_LAST_ACK = 6;
export const TCP_TIME_WAIT = 7;
export const TCP_CLOSE = 8;
export const TCP_SYN_SENT2 = 9;

/** Flags per direction in TCP_BITS, netfilter's IP_CT_TCP_FLAG_*. */
export const TCPF_WINDOW_SCALE = 1;
export const TCPF_SACK_PERM = 2;
export const TCPF_CLOSE_INIT = 4;
export const TCPF_BE_LIBERAL = 8;
export const TCPF_DATA_UNACKNOWLEDGED = 16;
export const TCPF_MAXACK_SET = 32;
export const TCPF_EXP_CHALLENGE_ACK = 64;
export const TCPF_SIMULTANEOUS_OPEN = 128;
