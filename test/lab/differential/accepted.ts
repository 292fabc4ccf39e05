/**
 * Accepted differences: where Sluice does something else than Linux on purpose. Each has its section of the same name in
 * docs/differences-from-linux.md, with the reason. A view takes out of what a router sent exactly what the difference is
 * about; what differs beyond that stays a defect.
 */
import { checksum, complete, get16, ipText, put16 } from '../../lib/build.ts';
import { hasSurplus, isSip, KEPT } from './generator.ts';
import { MEDIA_PORTS } from './generator-alg.ts';
import { LAN4, LAN6, type Played, type ScenarioFrame, WAN6 } from './scenario.ts';

type Frames = readonly Played[];

const latin1 = (bytes: Uint8Array) => new TextDecoder('latin1').decode(bytes);

export interface Accepted {
  name: string;
  /** What the kernel and what Sluice sent for what `entered`, as it is where the difference does not matter. */
  views(kernel: Frames, sluice: Frames, entered: readonly ScenarioFrame[]): [Frames, Frames];
}

/** The same view on both sides: frames changed, or left out where `change` returns null. */
function each(name: string, change: (played: Played) => Played | null): Accepted {
  const view = (frames: Frames) => frames.flatMap((p) => change(p) ?? []);
  return { name, views: (kernel, sluice) => [view(kernel), view(sluice)] };
}

const without = (name: string, known: (played: Played) => boolean) => each(name, (p) => (known(p) ? null : p));

/** Start of the packet that an ICMP error quotes; -1 when the frame is none. */
function quoteOf(frame: Uint8Array): number {
  const type = get16(frame, 12);
  if (type === 0x0800 && frame.length > 42 && frame[23] === 1 && [3, 4, 5, 11, 12].includes(frame[34])) return 42;
  return type === 0x86dd && frame.length > 62 && frame[20] === 58 && frame[54] < 128 ? 62 : -1;
}

/** Bytes of transport that an error quotes; 0 behind an IP header that is none. */
function quotedTransport(frame: Uint8Array): number {
  const at = quoteOf(frame);
  if (at < 0) return -1;
  if (frame[at] >> 4 === 4 && (frame[at] & 15) < 5) return 0;
  return frame[at] >> 4 === 6 ? frame.length - at - 40 : 14 + get16(frame, 16) - at - (frame[at] & 15) * 4;
}

/** The error with a quoted hop limit of zero, its checksum made for that. */
function withoutHops(frame: Uint8Array): Uint8Array {
  const at = quoteOf(frame);
  if (at < 0) return frame;
  const out = frame.slice();
  if (at === 62) {
    out[at + 7] = 0;
    const body = complete({ proto: 58, bytes: out.subarray(54), sumAt: 2 }, out.subarray(22, 38), out.subarray(38, 54));
    out.set(body, 54);
    return out;
  }
  if (out.length < at + 20) return frame;
  out[at + 8] = 0;
  put16(out, at + 10, 0);
  put16(out, 36, 0);
  put16(out, 36, checksum(out.subarray(34, 14 + get16(out, 16))));
  return out;
}

/**
 * An error about FTP's control connection that leaves, or about SIP's in either direction (its ports stay right where the
 * rest was damaged).
 */
function quotesEdited({ port, frame }: Played): boolean {
  if (quoteOf(frame) !== 42 || frame.length < 66) return false;
  const ports = [get16(frame, 62), get16(frame, 64)];
  return ports.some(isSip) || (port === 'wan' && ports.includes(21));
}

/** A TCP checksum of all ones as the same number written as zeros. */
function zeroAsZero(played: Played): Played {
  const { frame } = played;
  const at = get16(frame, 12) === 0x0800 ? 50 : 70;
  if (frame[at === 50 ? 23 : 20] !== 6 || frame.length < at + 2 || get16(frame, at) !== 0xffff) return played;
  const out = frame.slice();
  put16(out, at, 0);
  return { ...played, frame: out };
}

/** PPTP's message number in a segment of its control connection (RFC 2637 §2), 0 where there is none. */
function pptpMessage(frame: Uint8Array): number {
  if (get16(frame, 12) !== 0x0800 || frame[23] !== 6) return 0;
  if (get16(frame, 34) !== 1723 && get16(frame, 36) !== 1723) return 0;
  const data = 34 + (frame[46] >> 4) * 4;
  return frame.length >= data + 16 && get16(frame, data + 4) === 0x1a2b ? get16(frame, data + 8) : 0;
}

/** The client has ended a call or its control connection: Sluice ends the call's GRE at once, Linux when the server agrees. */
export function endedByClient(sluice: Frames): boolean {
  return sluice.some((p) => p.port === 'wan' && [3, 12].includes(pptpMessage(p.frame)));
}

/** GRE, or an error about it. */
function isGre({ frame }: Played): boolean {
  if (get16(frame, 12) !== 0x0800) return false;
  return frame[23] === 47 || (quoteOf(frame) === 42 && frame[51] === 47);
}

/** The messages that make a call, in their order; what ends one: Stop, Clear, Disconnect. */
const CALL = [1, 2, 7, 8];
const CALL_ENDS = [3, 12, 13];

/** GRE from the first packet on that belonged to no call: that Linux forwarded, and behind which no call stood. */
function beforeStrayGre(kernel: Frames, sluice: Frames, entered: readonly ScenarioFrame[]): [Frames, Frames] {
  const stray = kernel.find((k) => isGre(k) && !sluice.some((s) => isGre(s) && s.after === k.after));
  if (stray === undefined) return [kernel, sluice];
  // How far each control connection has come, by the client's port.
  const stages = new Map<number, number>();
  // Neither router listens before the server has answered once.
  const answered = new Set<number>();
  // Call IDs that the server has named, each with the client that it told.
  const named = new Set<string>();
  for (const { port, frame, after } of sluice) {
    if (after > stray.after || get16(frame, 12) !== 0x0800 || frame[23] !== 6) continue;
    if (get16(frame, 34) !== 1723 && get16(frame, 36) !== 1723) continue;
    const clientPort = get16(frame, port === 'wan' ? 34 : 36);
    const stage = stages.get(clientPort) ?? 0;
    const message = pptpMessage(frame);
    const data = 34 + (frame[46] >> 4) * 4;
    const refused = message === 8 && frame[data + 16] !== 1;
    if (message === 8) named.add(`${ipText(frame.subarray(30, 34))} ${get16(frame, data + 12)}`);
    if (port !== 'wan') answered.add(clientPort);
    if (message === CALL[stage] && !refused && answered.has(clientPort)) stages.set(clientPort, stage + 1);
    else if (CALL_ENDS.includes(message) || (frame[47] & 5) !== 0 || refused) stages.set(clientPort, 0);
    else stages.set(clientPort, stage);
  }
  const calls = [...stages.values()];
  const { frame: own } = entered[stray.after];
  const client = typeof own === 'function' ? '' : ipText(own.subarray(26, 30));
  const isNamed = stray.port !== 'wan' || named.has(`${client} ${get16(stray.frame, 40)}`);
  if (calls.length > 0 && isNamed && calls.every((stage) => stage === CALL.length)) return [kernel, sluice];
  const rest = (frames: Frames) => frames.filter((p) => !(isGre(p) && p.after >= stray.after));
  return [rest(kernel), rest(sluice)];
}

/** ESP, or an error about it. */
function isEsp(frame: Uint8Array): boolean {
  if (get16(frame, 12) !== 0x0800) return false;
  return frame[23] === 50 || (quoteOf(frame) === 42 && frame[51] === 50);
}

/** Media of SIP calls (generator-alg.ts), and errors about them. */
function isMedia({ frame }: Played): boolean {
  const at = quoteOf(frame) === 42 ? 42 : 14;
  if (get16(frame, 12) !== 0x0800 || frame.length < at + 24 || frame[at + 9] !== 17) return false;
  return [get16(frame, at + 20), get16(frame, at + 22)].some((port) => MEDIA_PORTS.includes(port));
}

/** Without media from the first one on that came in behind a CANCEL. */
function beforeCancel(kernel: Frames, sluice: Frames): [Frames, Frames] {
  const cancel = sluice.find((p) => p.port === 'wan' && /^CANCEL /.test(latin1(p.frame.subarray(42))));
  if (cancel === undefined) return [kernel, sluice];
  const rest = (frames: Frames) => frames.filter((p) => !(isMedia(p) && p.after >= cancel.after));
  return [rest(kernel), rest(sluice)];
}

/** Everything before a request to a registered phone that only Sluice let in, after a REGISTER that repeats another. */
function beforeRepeatedRegister(kernel: Frames, sluice: Frames): [Frames, Frames] {
  const text = (p: Played) => latin1(p.frame.subarray(42));
  const call = sluice.find(
    (s) =>
      s.port === 'lan' && /^[A-Z]+ sip:/.test(text(s)) && !kernel.some((k) => k.port === 'lan' && k.after === s.after),
  );
  if (call === undefined) return [kernel, sluice];
  const earlier = sluice.filter((p) => p.after < call.after);
  const registers = earlier.filter((p) => p.port === 'wan' && text(p).startsWith('REGISTER '));
  const last = registers.at(-1)?.after ?? 0;
  const isAnswered = earlier.some(
    (p) => p.after > last && p.port === 'lan' && /^SIP\/2\.0 .*CSeq: *\d+ REGISTER/is.test(text(p)),
  );
  if (registers.length < 2 || isAnswered) return [kernel, sluice];
  const before = (frames: Frames) => frames.filter((p) => p.after < call.after);
  return [before(kernel), before(sluice)];
}

/** ICMPv6 of Mobile IPv6: home agents and prefixes (RFC 6275 §6.5 to §6.8). */
function isMobileQuestion(frame: Uint8Array): boolean {
  return get16(frame, 12) === 0x86dd && frame[20] === 58 && frame[54] >= 144 && frame[54] <= 147;
}

/** Port unreachable about a protocol that is none of TCP, UDP, ICMP. */
function refusesOther(frame: Uint8Array): boolean {
  const at = quoteOf(frame);
  if (at === 42) return frame[34] === 3 && frame[35] === 3 && ![1, 6, 17].includes(frame[at + 9]);
  return at === 62 && frame[54] === 1 && frame[55] === 4 && ![6, 17, 58].includes(frame[at + 6]);
}

/** An echo reply with a code other than 0, of the router's. */
function isCodedReply(frame: Uint8Array): boolean {
  if (get16(frame, 12) === 0x0800)
    return frame[23] === 1 && frame[34] === 0 && frame[35] !== 0 && ipText(frame.subarray(26, 30)) === LAN4;
  const own = [LAN6, WAN6].includes(ipText(frame.subarray(22, 38)));
  return get16(frame, 12) === 0x86dd && frame[20] === 58 && frame[54] === 129 && frame[55] !== 0 && own;
}

/** An IPv6 authentication header that says to be longer than the packet. */
function chainBeyondEnd(frame: Uint8Array): boolean {
  return get16(frame, 12) === 0x86dd && frame[20] === 51 && (frame[55] + 2) * 4 > get16(frame, 18);
}

/** A segment of FTP that ends within a command. */
function endsInCommand(frame: Uint8Array): boolean {
  const l4 = get16(frame, 12) === 0x0800 ? 34 : 54;
  if (frame[l4 === 34 ? 23 : 20] !== 6 || (get16(frame, l4) !== 21 && get16(frame, l4 + 2) !== 21)) return false;
  return /^(PORT|EPRT|227|229)[^\n]*$/.test(latin1(frame.subarray(l4 + 20)));
}

/** Input after which a source port appears that no host uses, -1 when none does. */
function firstChoice(frames: Frames): number {
  const chosen = frames.filter(
    ({ frame: f }) => get16(f, 12) === 0x0800 && [6, 17].includes(f[23]) && !KEPT.has(get16(f, 34)),
  );
  return chosen.length === 0 ? -1 : Math.min(...chosen.map((p) => p.after));
}

/** What both sent before both had to choose a port, when they had to at the same time. */
function beforeChoice(kernel: Frames, sluice: Frames): [Frames, Frames] {
  const at = firstChoice(kernel);
  if (at < 0 || firstChoice(sluice) !== at) return [kernel, sluice];
  const before = (frames: Frames) => frames.filter((p) => p.after < at);
  return [before(kernel), before(sluice)];
}

export const ACCEPTED: readonly Accepted[] = [
  each('errors-quote-what-was-received', (p) => ({ ...p, frame: withoutHops(p.frame) })),
  without('errors-that-quote-too-little', (p) => quoteOf(p.frame) >= 0 && quotedTransport(p.frame) < 8),
  without('errors-about-edited-connections', (p) => quotesEdited(p)),
  without('refusals-of-other-protocols', (p) => refusesOther(p.frame)),
  without('echo-requests-with-a-code', (p) => isCodedReply(p.frame)),
  without('udp-shorter-than-its-packet', (p) => hasSurplus(p.frame)),
  without('dccp-is-known', (p) => get16(p.frame, 12) === 0x0800 && p.frame[23] === 33),
  without('ftp-commands-in-pieces', (p) => endsInCommand(p.frame)),
  without('a-header-beyond-its-packet', (p) => chainBeyondEnd(p.frame)),
  { name: 'what-follows-a-chosen-port', views: beforeChoice },
  { name: 'gre-without-a-call', views: beforeStrayGre },
  each('two-ways-to-write-zero', zeroAsZero),
  { name: 'a-cancelled-call', views: beforeCancel },
  without('esp-is-known', (p) => isEsp(p.frame)),
  { name: 'a-repeated-registration', views: beforeRepeatedRegister },
  without('mobile-ipv6-is-known', (p) => isMobileQuestion(p.frame)),
  without('no-next-header', (p) => get16(p.frame, 12) === 0x86dd && p.frame[20] === 59),
];
