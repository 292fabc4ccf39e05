/**
 * The kernel's connection table from outside: dumps in the `conntrack` tool's text parsed to objects, and flushing
 * over a ctnetlink socket (linux/netfilter/nfnetlink_conntrack.h), which costs microseconds where the tool costs
 * a process.
 */
import { close, errno, mapMemory, recv, send, socket, systemError } from '../../../dataplane/ports/ffi.ts';
import { inNetns } from '../../../dataplane/ports/netns.ts';

export interface TupleText {
  src: string;
  dst: string;
  sport?: number;
  dport?: number;
  /** ICMP: type, code, id; GRE: srckey, dstkey. */
  [key: string]: string | number | undefined;
}

/** One line of `conntrack -L -o extended`. */
export interface ConntrackEntry {
  family: 'ipv4' | 'ipv6';
  proto: string;
  protoNumber: number;
  timeout: number;
  /** TCP, SCTP and DCCP only. */
  state?: string;
  original: TupleText;
  reply: TupleText;
  /** UNREPLIED, ASSURED, OFFLOAD ... */
  flags: string[];
  mark?: number;
  use?: number;
  helper?: string;
}

/** Parses the text of `conntrack -L -o extended` (or of Sluice's own `show conntrack`, which has the same form). */
export function parseConntrack(text: string): ConntrackEntry[] {
  return text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '' && !line.startsWith('conntrack v'))
    .map(parseLine);
}

function parseLine(line: string): ConntrackEntry {
  const words = line.split(/\s+/);
  // `ipv4 2 tcp 6 117 SYN_SENT src=...`; the timeout is absent for offloaded entries.
  const entry: ConntrackEntry = {
    family: words[0] as 'ipv4' | 'ipv6',
    proto: words[2],
    protoNumber: Number(words[3]),
    timeout: Number.NaN,
    original: { src: '', dst: '' },
    reply: { src: '', dst: '' },
    flags: [],
  };
  if (entry.family !== 'ipv4' && entry.family !== 'ipv6')
    throw new Error(`conntrack line: expected ipv4 or ipv6 first, got "${line}"`);
  let tuple: TupleText | null = null;
  for (const word of words.slice(4)) {
    const flag = /^\[(\w+)\]$/.exec(word);
    const pair = /^([\w-]+)=(.*)$/.exec(word);
    if (flag) entry.flags.push(flag[1]);
    else if (pair) {
      const [, key, value] = pair;
      if (key === 'src') tuple = tuple === null ? entry.original : entry.reply;
      const number = /^(0x[0-9a-f]+|\d+)$/.test(value) ? Number(value) : value;
      if (key === 'mark' || key === 'use') entry[key] = Number(value);
      else if (key === 'helper') entry.helper = value;
      else if (tuple) tuple[key] = key === 'src' || key === 'dst' ? value : number;
    } else if (/^\d+$/.test(word)) entry.timeout = Number(word);
    else entry.state = word;
  }
  return entry;
}

const AF_NETLINK = 16;
const SOCK_RAW = 3;
const SOCK_CLOEXEC = 0x80000;
const NETLINK_NETFILTER = 12;
const NLM_F_REQUEST_ACK = 5;
const SUBSYS_CTNETLINK = 1;
const SUBSYS_CTNETLINK_EXP = 2;
const IPCTNL_MSG_DELETE = 2;
const NLMSG_ERROR = 2;

/** A ctnetlink socket in a namespace. */
export class ConntrackControl {
  private readonly fd: number;
  private readonly memory = mapMemory(8192);
  private readonly view = new DataView(this.memory.buffer);
  private sequence = 0;

  constructor(ns: string) {
    this.fd = inNetns(ns, () => {
      const fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
      if (fd < 0) throw systemError(`namespace ${ns}`, 'a ctnetlink socket', errno());
      return fd;
    });
  }

  /** Deletes all connections, both families, and with them their expectations. */
  flush(): void {
    this.remove(SUBSYS_CTNETLINK, 'all connections to be deleted');
  }

  flushExpectations(): void {
    this.remove(SUBSYS_CTNETLINK_EXP, 'all expectations to be deleted');
  }

  close(): void {
    close(this.fd);
  }

  /** A delete message without attributes means everything; the kernel acknowledges when it is done. */
  private remove(subsystem: number, expected: string): void {
    const v = this.view;
    v.setUint32(0, 20, true); // nlmsghdr: length, type, flags, sequence, port
    v.setUint16(4, (subsystem << 8) | IPCTNL_MSG_DELETE, true);
    v.setUint16(6, NLM_F_REQUEST_ACK, true);
    v.setUint32(8, ++this.sequence, true);
    v.setUint32(12, 0, true);
    v.setUint32(16, 0, true); // nfgenmsg: family unspecified, version 0
    if (send(this.fd, this.memory.base, 20, 0) < 0) throw systemError('ctnetlink', expected, errno());
    for (;;) {
      const got = recv(this.fd, this.memory.base + 4096, 4096, 0);
      if (got < 0) throw systemError('ctnetlink', 'an acknowledgement', errno());
      if (v.getUint16(4100, true) !== NLMSG_ERROR || v.getUint32(4104, true) !== this.sequence) continue;
      const code = v.getInt32(4112, true);
      if (code !== 0) throw systemError('ctnetlink', expected, -code);
      return;
    }
  }
}
