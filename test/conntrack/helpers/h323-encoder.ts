/**
 * Writes H.323 messages by hand: an aligned PER bit writer (ITU-T X.691) and the few messages that the tests need,
 * spelled out component by component from H.225.0 and H.245, not from the decoder's tables.
 */

export class Bits {
  readonly bytes: number[] = [];
  private free = 0;

  bits(value: number, count: number): this {
    for (let k = count - 1; k >= 0; k--) {
      if (this.free === 0) {
        this.bytes.push(0);
        this.free = 8;
      }
      this.free--;
      if ((Math.floor(value / 2 ** k) & 1) === 1) this.bytes[this.bytes.length - 1] |= 1 << this.free;
    }
    return this;
  }
  align(): this {
    this.free = 0;
    return this;
  }
  octets(bytes: readonly number[]): this {
    this.align();
    this.bytes.push(...bytes);
    return this;
  }
  word(value: number): this {
    return this.octets([value >> 8, value & 255]);
  }
  length(n: number): this {
    return n < 128 ? this.octets([n]) : this.octets([0x80 | (n >> 8), n & 255]);
  }
  /** Open type, or OCTET STRING that contains a type. */
  open(bytes: readonly number[]): this {
    return this.length(bytes.length).octets(bytes);
  }
  /** Extension additions: what is undefined is absent. */
  additions(list: readonly (readonly number[] | undefined)[]): this {
    this.bits(0, 1).bits(list.length - 1, 6);
    for (const a of list) this.bits(a === undefined ? 0 : 1, 1);
    for (const a of list) if (a !== undefined) this.open(a);
    return this;
  }
  /** Extension alternative of a CHOICE. */
  addition(index: number, bytes: readonly number[]): this {
    return this.bits(1, 1).bits(0, 1).bits(index, 6).open(bytes);
  }
  oid(): this {
    return this.open([0x00, 0x08, 0x91, 0x4a, 0x00, 0x04]); // itu-t recommendation h 2250 version 4
  }
}

export interface Endpoint {
  address: readonly number[];
  port: number;
}
export const at = (address: string, port: number): Endpoint => ({ address: address.split('.').map(Number), port });
const portBytes = (e: Endpoint) => [...e.address, e.port >> 8, e.port & 255];
const flag = (x: unknown) => (x === undefined ? 0 : 1);
const encode = (write: (w: Bits) => void): number[] => {
  const w = new Bits();
  write(w);
  return w.bytes;
};

/** H.225.0 TransportAddress. */
export function transport(w: Bits, e: Endpoint): Bits {
  if (e.address.length === 4) w.bits(0, 1).bits(0, 3);
  else w.bits(0, 1).bits(3, 3).bits(0, 1);
  return w.octets(portBytes(e));
}
/** H.245 TransportAddress, unicast. */
function h245Transport(w: Bits, e: Endpoint): Bits {
  w.bits(0, 1).bits(0, 1); // unicastAddress
  w.bits(0, 1)
    .bits(e.address.length === 4 ? 0 : 2, 3)
    .bits(0, 1);
  return w.octets(portBytes(e));
}
export function aliases(w: Bits, ...names: string[]): Bits {
  w.length(names.length);
  for (const name of names) {
    w.bits(0, 1);
    if (/^\d+$/.test(name)) {
      w.bits(0, 1)
        .bits(name.length - 1, 7)
        .align();
      for (const c of name) w.bits('#*,0123456789'.indexOf(c), 4);
    } else {
      w.bits(1, 1).octets([name.length - 1]);
      for (const c of name) w.word(c.charCodeAt(0));
    }
  }
  return w;
}
export function vendor(w: Bits): Bits {
  w.bits(0, 1).bits(0b11, 2);
  w.bits(0, 1).octets([181, 0]).word(21324);
  return w.octets([3, 0x54, 0x65, 0x73, 0x74]).octets([1, 0x31, 0x30]);
}
export function endpointType(w: Bits): Bits {
  w.bits(0, 1).bits(0b010101, 6); // vendor, gateway, terminal
  vendor(w);
  // gateway: protocol { voice, h323 with non-standard data }
  w.bits(0, 1).bits(0b10, 2).length(2);
  w.bits(0, 1).bits(7, 4).bits(0, 1).bits(0, 1);
  w.bits(0, 1).bits(5, 4).bits(0, 1).bits(1, 1);
  w.bits(0, 1).bits(1, 1).bits(0, 1).octets([9, 0]).word(61).open([1, 2, 3]);
  w.bits(0, 1).bits(0, 1); // terminal
  return w.bits(0, 1).bits(0, 1);
}
export const guid = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];
const callIdentifier = encode((w) => w.bits(0, 1).octets(guid));

export interface Channel {
  number?: number;
  data?: 'g711' | 'h263' | 't120' | 'h261' | 'g7231';
  media?: Endpoint;
  control?: Endpoint;
  reverse?: Channel;
  stack?: Endpoint;
}
function dataType(w: Bits, kind: Channel['data']): void {
  w.bits(0, 1);
  if (kind === 'h263') {
    w.bits(2, 3).bits(0, 1).bits(3, 3); // videoData, h263
    w.bits(0, 1).bits(0b0110010, 7); // qcifMPI, cifMPI, hrd-B
    w.bits(0, 5).bits(1, 5); // 1, 2: 1 … 32
    w.bits(1, 2).align().word(1919); // maxBitRate 1920 of 192400: length 2 of 1 … 3
    w.bits(0b01010, 5);
    w.bits(2, 2).octets([1, 2, 3]); // hrd-B: three octets
  } else if (kind === 'h261') {
    w.bits(2, 3).bits(0, 1).bits(1, 3);
    w.bits(0, 1).bits(0b11, 2).bits(0, 2).bits(3, 2).bits(1, 1).word(399).bits(0, 1);
  } else if (kind === 't120') {
    w.bits(4, 3).bits(0, 1).bits(0, 1).bits(1, 4); // data, application t120
    w.addition(3, [0]); // separateLANStack: NULL in an open type is one octet (X.691 §11.1)
    w.bits(1, 2).align().word(1000); // maxBitRate: two octets
  } else if (kind === 'g7231') w.bits(3, 3).bits(0, 1).bits(8, 4).octets([0]).bits(1, 1);
  else w.bits(3, 3).bits(0, 1).bits(3, 4).octets([19]); // audioData, g711Ulaw64k 20
}
function h2250(c: Channel): number[] {
  return encode((w) => {
    w.bits(0, 1);
    // nonStandard, associatedSessionID, mediaChannel, its delivery, mediaControlChannel, … silenceSuppression … payload
    w.bits(1, 1).bits(1, 1).bits(flag(c.media), 1).bits(1, 1).bits(flag(c.control), 1).bits(0b01010, 5);
    w.length(1).bits(1, 1).octets([181, 0]).word(7).open([9]);
    w.octets([1]).bits(2, 8);
    if (c.media !== undefined) h245Transport(w, c.media);
    w.bits(0, 1);
    if (c.control !== undefined) h245Transport(w, c.control);
    w.bits(1, 1).bits(5, 5);
  });
}
function networkAccess(e: Endpoint): number[] {
  return encode((w) => {
    w.bits(0, 1).bits(0b10, 2).bits(0, 1).bits(0, 1); // distribution unicast
    w.bits(0, 1).bits(2, 2);
    h245Transport(w, e).bits(0, 1);
  });
}
/** OpenLogicalChannel. */
export function openLogicalChannel(c: Channel): number[] {
  return encode((w) => {
    w.bits(flag(c.stack), 1).bits(flag(c.reverse), 1);
    w.word((c.number ?? 257) - 1);
    w.bits(0, 1).bits(0, 1);
    dataType(w, c.data);
    if (c.data === 't120') w.addition(1, [0]);
    else w.addition(0, h2250(c));
    if (c.reverse !== undefined) {
      w.bits(0, 1).bits(1, 1);
      dataType(w, c.reverse.data);
      w.addition(0, h2250(c.reverse));
    }
    if (c.stack !== undefined) w.additions([networkAccess(c.stack)]);
  });
}
export const h245Open = (c: Channel): number[] => {
  // request, openLogicalChannel; the body follows in the same bit stream, so it is written again in place.
  const inner = openLogicalChannel(c);
  return shift(
    encodeBits((w) => w.bits(0, 1).bits(0, 2).bits(0, 1).bits(3, 4)),
    inner,
  );
};
/** OpenLogicalChannelAck with forward (ack) and reverse parameters. */
export const h245OpenAck = (c: Channel): number[] =>
  encode((w) => {
    w.bits(0, 1).bits(1, 2).bits(0, 1).bits(5, 5);
    w.bits(1, 1)
      .bits(flag(c.reverse), 1)
      .word((c.number ?? 257) - 1);
    if (c.reverse !== undefined) w.bits(0, 1).bits(0b01, 2).word(99).addition(0, h2250(c.reverse));
    const ack = encode((v) => {
      v.bits(0, 1); // h2250LogicalChannelAckParameters, the only root alternative
      v.bits(0, 1).bits(0, 1).bits(1, 1).bits(flag(c.media), 1).bits(flag(c.control), 1).bits(1, 1);
      v.bits(0, 8);
      if (c.media !== undefined) h245Transport(v, c.media);
      if (c.control !== undefined) h245Transport(v, c.control);
      v.bits(3, 5);
    });
    w.additions([c.stack === undefined ? undefined : networkAccess(c.stack), ack]);
  });
/** A H.245 message of no interest: masterSlaveDetermination. */
export const h245Other = (): number[] =>
  encode((w) => w.bits(0, 1).bits(0, 2).bits(0, 1).bits(1, 4).bits(0, 1).octets([50]).bits(2, 2).octets([1, 2, 3]));

function encodeBits(write: (w: Bits) => void): Bits {
  const w = new Bits();
  write(w);
  return w;
}
/** Both parts begin at a byte's edge here (eight bits of prefix). */
function shift(prefix: Bits, inner: number[]): number[] {
  if (prefix.bytes.length !== 1) throw new Error('expected a prefix of 8 bits');
  return [...prefix.bytes, ...inner];
}

export interface Call {
  h245?: Endpoint;
  destination?: Endpoint;
  source?: Endpoint;
  fastStart?: number[][];
  alternative?: Endpoint;
  reason?: number;
  tunnel?: number[][];
  tokens?: boolean;
}
const fastStart = (c: Call) =>
  c.fastStart === undefined
    ? undefined
    : encode((w) => {
        w.length(c.fastStart!.length);
        for (const one of c.fastStart!) w.open(one);
      });

/** Body of the message, in the CHOICE's bit stream. */
type Body = (w: Bits, c: Call) => void;
const additions4 = (w: Bits, c: Call) => w.additions([callIdentifier, undefined, undefined, undefined, fastStart(c)]);

export const setup: Body = (w, c) => {
  w.bits(0, 1).bits(0, 3);
  w.bits(1, 1).bits(flag(c.h245), 1).bits(0b11, 2).bits(flag(c.destination), 1).bits(0b011, 3);
  w.oid();
  if (c.h245) transport(w, c.h245);
  aliases(w, 'alice', '5551234');
  endpointType(w);
  aliases(w, '42');
  if (c.destination) transport(w, c.destination);
  w.length(2).word(7).word(8); // destExtraCRV
  w.bits(0, 1).octets(guid).bits(0, 1).bits(0, 2);
  w.bits(0, 1).bits(0b1010101, 7).bits(0, 1).bits(0b01, 2); // callServices: seven flags, q954Info
  w.bits(0, 1).bits(0, 2);
  const source = c.source === undefined ? undefined : encode((v) => transport(v, c.source!));
  w.additions([source, undefined, callIdentifier, undefined, undefined, undefined, fastStart(c), [0x80]]);
};
const likeAlerting =
  (index: number): Body =>
  (w, c) => {
    w.bits(0, 1).bits(index, 3);
    w.bits(1, 1).bits(flag(c.h245), 1).oid();
    endpointType(w);
    if (c.h245) transport(w, c.h245);
    additions4(w, c);
  };
export const callProceeding = likeAlerting(1);
export const alerting = likeAlerting(3);
export const connect: Body = (w, c) => {
  w.bits(0, 1).bits(2, 3);
  w.bits(1, 1).bits(flag(c.h245), 1).oid();
  if (c.h245) transport(w, c.h245);
  endpointType(w).octets(guid);
  additions4(w, c);
};
export const facility: Body = (w, c) => {
  w.bits(0, 1).bits(6, 3);
  w.bits(1, 1).bits(flag(c.alternative), 1).bits(0b01, 2).oid();
  if (c.alternative) transport(w, c.alternative);
  w.octets(guid)
    .bits(0, 1)
    .bits(c.reason ?? 3, 2);
  const h245 = c.h245 === undefined ? undefined : encode((v) => transport(v, c.h245!));
  w.additions([callIdentifier, undefined, undefined, undefined, undefined, undefined, h245, fastStart(c)]);
};
export const progress: Body = (w, c) => {
  const inner = encode((v) => {
    v.bits(0, 1).bits(flag(c.h245), 1).bits(1, 1).bits(0b00, 2).bits(flag(c.fastStart), 1);
    v.oid();
    endpointType(v);
    if (c.h245) transport(v, c.h245);
    v.bits(0, 1).octets(guid);
    v.bits(0, 1).bits(1, 2); // h245SecurityMode noSecurity
    if (c.fastStart) v.octets(fastStart(c)!);
  });
  w.addition(0, inner);
};
export const releaseComplete: Body = (w) => {
  w.bits(0, 1).bits(5, 3).bits(1, 1).bits(1, 1).oid();
  w.bits(0, 1).bits(3, 4).additions([callIdentifier]);
};

/** Q.931 message in a TPKT. */
export function q931(body: Body, call: Call, type = 5): number[] {
  const user = encode((w) => {
    w.bits(0, 1).bits(0, 1);
    w.bits(flag(call.tunnel), 1).bits(0, 1);
    body(w, call);
    if (call.tunnel !== undefined) {
      const control = encode((v) => {
        v.length(call.tunnel!.length);
        for (const one of call.tunnel!) v.open(one);
      });
      w.additions([undefined, [0x80], control]);
    }
  });
  const element = [0x7e, (user.length + 1) >> 8, (user.length + 1) & 255, 5, ...user];
  const message = [8, 2, 0x12, 0x34, type, 0xa1, 0x04, 3, 0x88, 0xc0, 0xa5, 0x28, 2, 0x41, 0x42, ...element];
  return tpkt(message);
}
export function tpkt(message: number[]): number[] {
  const length = message.length + 4;
  return [3, 0, length >> 8, length & 255, ...message];
}

/** RAS messages, UDP. */
const rasPrefix = (index: number) => encodeBits((w) => w.bits(0, 1).bits(index, 5));
function identifier(w: Bits, name: string): Bits {
  w.bits(name.length - 1, 7).align();
  for (const c of name) w.word(c.charCodeAt(0));
  return w;
}
const list = (w: Bits, all: Endpoint[]) => {
  w.length(all.length);
  for (const e of all) transport(w, e);
  return w;
};
export const grq = (address: Endpoint) => {
  const w = rasPrefix(0).bits(0, 1).bits(0b0011, 4).word(0).oid();
  transport(w, address);
  endpointType(w);
  w.bits(0, 1).bits(0, 7).bits(0, 1).bits(0, 2);
  return aliases(w, 'bob').bytes;
};
export const gcf = (address: Endpoint) => {
  const w = rasPrefix(1).bits(0, 1).bits(0b01, 2).word(0).oid();
  return transport(identifier(w, 'GK'), address).bytes;
};
export const rrq = (signal: Endpoint[], ras: Endpoint[], ttl?: number) => {
  const w = rasPrefix(3).bits(flag(ttl), 1).bits(0b011, 3).word(6).oid().bits(1, 1);
  list(w, signal);
  list(w, ras);
  endpointType(w);
  aliases(w, 'bob', '123');
  vendor(identifier(w, 'GK'));
  if (ttl !== undefined)
    w.additions([
      undefined,
      encode((v) =>
        v
          .bits(1, 2)
          .align()
          .word(ttl - 1),
      ),
    ]);
  return w.bytes;
};
export const rcf = (signal: Endpoint[]) => {
  const w = rasPrefix(4).bits(0, 1).bits(0b001, 3).word(6).oid();
  list(w, signal);
  identifier(w, 'GK');
  return identifier(w, 'EP1').bytes;
};
export const urq = (signal: Endpoint[]) => {
  const w = rasPrefix(6).bits(0, 1).bits(0b001, 3).word(7);
  return identifier(list(w, signal), 'EP1').bytes;
};
export const arq = (called: Endpoint | undefined, caller: Endpoint | undefined) => {
  const w = rasPrefix(9).bits(0, 1).bits(0b11, 2).bits(flag(called), 1).bits(0, 1).bits(flag(caller), 1).bits(0, 2);
  w.word(8).bits(0, 1).bits(0, 2).bits(0, 1).bits(0, 1);
  identifier(w, 'EP1');
  aliases(w, '99');
  if (called) transport(w, called);
  aliases(w, 'bob');
  if (caller) transport(w, caller);
  w.bits(1, 2).align().word(640).word(1).octets(guid).bits(0, 2);
  return w.bytes;
};
export const acf = (called: Endpoint) => {
  const w = rasPrefix(10).bits(0, 1).bits(0, 2).word(8).bits(1, 2).align().word(640).bits(0, 1).bits(0, 1);
  return transport(w, called).bytes;
};
export const lrq = (reply: Endpoint) => {
  const w = rasPrefix(18).bits(0, 1).bits(0b00, 2).word(9);
  return transport(aliases(w, '77'), reply).bytes;
};
export const lcf = (signal: Endpoint, ras: Endpoint) => {
  const w = rasPrefix(19).bits(0, 1).bits(0, 1).word(9);
  return transport(transport(w, signal), ras).bytes;
};
export const irr = (ras: Endpoint, signal: Endpoint[]) => {
  const w = rasPrefix(22).bits(0, 1).bits(0, 3).word(10);
  endpointType(w);
  transport(identifier(w, 'EP1'), ras);
  return list(w, signal).bytes;
};
