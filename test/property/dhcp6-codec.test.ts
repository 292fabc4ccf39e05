/**
 * The DHCPv6 codec: what it writes it reads again, for messages made at random; what it reads of random, cut or changed
 * bytes is either nothing or a message that it writes and reads as the same. Seeded.
 */
import { describe, expect, test } from 'vitest';
import { emitMessage, type Ia, type Message, newMessage, parseMessage } from '../../controlplane/dhcp6/message.ts';
import { emitRelay, newRelayMessage, parseRelay, unwrap } from '../../controlplane/dhcp6/relay-message.ts';
import { seededRandom, uniform } from '../../controlplane/random.ts';
import { networkWords, type Words } from '../../dataplane/wire/address.ts';

const random = seededRandom(415);
const below = (n: number) => uniform(random, 0, n - 1);
const u32 = () => random() >>> 0;
const maybe = <T>(make: () => T): T | null => (below(2) === 0 ? null : make());
const list = <T>(most: number, make: () => T): T[] => Array.from({ length: below(most + 1) }, make);
const bytes = (least: number, most: number) =>
  Uint8Array.from({ length: least + below(most - least + 1) }, () => below(256));
const words = (): Words => [random(), random(), random(), random()];
const label = () => Array.from({ length: 1 + below(12) }, () => 'abcxyz019-_'[below(11)]).join('');
const status = () => maybe(() => ({ code: below(65536), text: label() }));

function ia(): Ia {
  const kind = below(2) === 0 ? 'na' : 'pd';
  const times = () => ({ preferred: u32(), valid: u32(), status: status() });
  const prefix = () => {
    const prefixLength = below(129);
    return { words: networkWords(6, words(), prefixLength) as Words, prefixLength, ...times() };
  };
  return {
    kind,
    iaid: u32(),
    t1: u32(),
    t2: u32(),
    addresses: kind === 'na' ? list(3, () => ({ words: words(), ...times() })) : [],
    prefixes: kind === 'pd' ? list(3, prefix) : [],
    status: status(),
  };
}

function message(): Message {
  const m = newMessage(1 + below(11), below(0x1000000));
  m.clientId = maybe(() => bytes(3, 130));
  m.serverId = maybe(() => bytes(3, 130));
  m.ias = list(4, ia);
  m.request = list(5, () => below(65536));
  m.preference = maybe(() => below(256));
  m.elapsed = maybe(() => below(65536));
  m.status = status();
  m.rapidCommit = below(2) === 0;
  m.reconfigureAccept = below(2) === 0;
  m.reconfigure = maybe(() => [5, 6, 11][below(3)]);
  m.authentication = maybe(() => ({
    protocol: below(256),
    algorithm: below(256),
    method: below(256),
    replay: bytes(8, 8),
    information: bytes(0, 20),
  }));
  m.dns = list(3, words);
  m.domains = list(3, () => Array.from({ length: 1 + below(4) }, label).join('.'));
  m.informationRefresh = maybe(u32);
  m.solMaxRt = maybe(u32);
  m.infMaxRt = maybe(u32);
  m.others = list(3, () => ({ code: 100 + below(1000), data: bytes(0, 30) }));
  return m;
}

test('what is written is read as the same', () => {
  for (let n = 0; n < 800; n++) {
    const m = message();
    expect(parseMessage(emitMessage(m))).toEqual(m);
  }
});

test('relays: wrapped and unwrapped as the same, to any depth that is allowed', () => {
  for (let n = 0; n < 100; n++) {
    const inner = emitMessage(message());
    let all = inner;
    const relays = Array.from({ length: 1 + below(5) }, () => {
      const relay = newRelayMessage(12, below(256), words(), words(), all);
      relay.interfaceId = maybe(() => bytes(1, 20));
      relay.remoteId = maybe(() => ({ enterprise: u32(), id: bytes(1, 20) }));
      relay.subscriberId = maybe(() => bytes(1, 20));
      relay.linkLayer = maybe(() => bytes(3, 10));
      relay.echo = list(3, () => below(65536));
      relay.others = list(2, () => ({ code: 200 + below(100), data: bytes(0, 9) }));
      all = emitRelay(relay);
      return relay;
    });
    expect(parseRelay(all)).toEqual(relays.at(-1));
    expect(unwrap(all, 5)).toEqual({ relays: relays.reverse(), message: inner });
    expect(unwrap(all, relays.length - 1)).toBeNull();
  }
});

describe('bytes of anybody', () => {
  test('cut anywhere inside an option, a message is malformed', () => {
    for (let n = 0; n < 30; n++) {
      const whole = emitMessage(message());
      const ends = new Set([4]);
      for (let at = 4; at < whole.length; ) ends.add((at += 4 + ((whole[at + 2] << 8) | whole[at + 3])));
      for (let length = 0; length < whole.length; length++)
        expect([length, parseMessage(whole.slice(0, length)) !== null]).toEqual([length, ends.has(length)]);
    }
  });

  test('changed bytes: nothing, or a message that stays itself', () => {
    let read = 0;
    for (let n = 0; n < 2500; n++) {
      const changed = emitMessage(message());
      for (let flips = 1 + below(4); flips > 0; flips--) changed[below(changed.length)] = below(256);
      const m = parseMessage(changed);
      if (m === null) continue;
      read++;
      expect(parseMessage(emitMessage(m))).toEqual(m);
    }
    expect(read).toBeGreaterThan(200);
  });

  const bad: [string, number[]][] = [
    ['an option that reaches beyond the message', [0, 1, 0, 10, 1, 2, 3]],
    ['a rest that is no option', [0, 14, 0, 0, 9]],
    ['a DUID of two bytes', [0, 1, 0, 2, 0, 3]],
    ['a DUID of 131 bytes', [0, 1, 0, 131, ...new Array(131).fill(1)]],
    ['two client identifiers', [0, 1, 0, 3, 1, 2, 3, 0, 1, 0, 3, 1, 2, 3]],
    ['an IA without its head', [0, 3, 0, 11, ...new Array(11).fill(0)]],
    ['an address option cut short inside an IA', [0, 3, 0, 20, ...new Array(12).fill(0), 0, 5, 0, 4, 1, 2, 3, 4]],
    ['an inner option that reaches beyond its IA', [0, 3, 0, 16, ...new Array(12).fill(0), 0, 13, 0, 9]],
    [
      'a prefix of 129 bits',
      [0, 25, 0, 41, ...new Array(12).fill(0), 0, 26, 0, 25, ...new Array(8).fill(0), 129, ...new Array(16).fill(0)],
    ],
    ['an odd option request', [0, 6, 0, 3, 0, 23, 0]],
    ['a rapid commit with data', [0, 14, 0, 1, 0]],
    ['half an address of a name server', [0, 23, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8]],
    ['a name that never ends', [0, 24, 0, 4, 3, 97, 98, 99]],
    ['a name with a compression pointer', [0, 24, 0, 2, 0xc0, 0]],
    ['a name with a line feed', [0, 24, 0, 5, 3, 97, 10, 98, 0]],
    ['a status of one byte', [0, 13, 0, 1, 0]],
    ['a Reconfigure that asks for a Solicit', [0, 19, 0, 1, 1]],
  ];
  test.each(bad)('%s', (_name, option) => {
    expect(parseMessage(Uint8Array.from([1, 0, 0, 1, ...option]))).toBeNull();
  });

  test('more options than anybody needs', () => {
    const many = (count: number) => Uint8Array.from([1, 0, 0, 1, ...new Array(count).fill([1, 0, 0, 0]).flat()]);
    expect(parseMessage(many(512))).not.toBeNull();
    expect(parseMessage(many(513))).toBeNull();
  });
});
