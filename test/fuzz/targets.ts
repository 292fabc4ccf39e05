/**
 * Targets: what strangers can reach, one by one. Packet parsers and helpers see their bytes through checked views (only
 * the packet, the payload, or the option area may be touched) and, for parsers, once more between other garbage: what
 * they find must not depend on bytes that are not theirs.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  DEMANDS_DROP,
  type Helper,
  MAX_FINDINGS,
  newHelperContext,
  STATE_WORDS,
} from '../../conntrack/helpers/helper.ts';
import { helpers } from '../../conntrack/helpers/index.ts';
import { synOptions } from '../../conntrack/tcp-window.ts';
import { ApiServer } from '../../controlplane/api/server.ts';
import { ConfigError, normalizeConfig, parseConfig } from '../../controlplane/config/index.ts';
import { createRouter } from '../../controlplane/router.ts';
import { REASONS, reasonName } from '../../dataplane/drop.ts';
import { Frames, META_OFF, META_WORDS } from '../../dataplane/frames.ts';
import { parseIp } from '../../dataplane/parse.ts';
import { CaptureError, CaptureReader } from '../../dataplane/ports/capture-reader.ts';
import { check as checkNd, option as ndOption, OPTION_PREFIX, optionsOk } from '../../dataplane/wire/nd.ts';
import { Packet } from '../../dataplane/wire/packet.ts';
import { option as tcpOption } from '../../dataplane/wire/tcp.ts';
import { Conversation } from '../conntrack/conversation.ts';
import { concat, hex, type Random, tcpOptions, u16, u32 } from '../lib/build.ts';
import { homeConfig } from '../lib/home.ts';
import { builtSamples, capturedSamples, mutate } from '../property/corpus.ts';
import { checked } from './checked.ts';
import { mutateBytes, mutateText, type Target } from './fuzz.ts';
import { payloadSamples, YAML_SAMPLES } from './samples.ts';
import { TALKS } from './talks.ts';

// --- ip-parse ---------------------------------------------------------------------------------------------------------

const FIELDS = [
  'family',
  'proto',
  'protoAt',
  'l4',
  'end',
  'tos',
  'ttl',
  's0',
  's1',
  's2',
  's3',
  'd0',
  'd1',
  'd2',
  'd3',
  'ports',
  'isFragment',
  'fragOffset',
  'fragMore',
  'hasOptions',
  'errorType',
  'tcpFlags',
  'dontFragment',
] as const;

function ipParse(): Target {
  const samples = [...builtSamples(), ...capturedSamples(10)];
  const frames = new Frames(4, 1);
  const slot = frames.alloc(100);
  const off = frames.meta[slot * META_WORDS + META_OFF];
  const window = { from: 0, to: 0 };
  const views = Object.create(frames, {
    u8: { value: checked(frames.u8, window) },
    u16: { value: checked(frames.u16, window) },
    i32: { value: checked(frames.i32, window) },
  }) as Frames;
  const p = new Packet();
  const parse = (from: Frames, frame: Uint8Array) => {
    p.off = off;
    p.l3 = off + 14;
    p.len = frame.length;
    p.flags = p.gsoType = p.gsoSize = 0;
    p.family = frame[12] === 0x86 ? 6 : 4;
    const reason = parseIp(p, from, off + frame.length);
    if (reason < 0 || reason >= REASONS.length) throw new Error(`expected a drop reason, got ${reason}`);
    // Fields of a packet that was refused half-way mean nothing.
    return reason === 0 ? FIELDS.map((f) => p[f]).join() : reasonName(reason);
  };
  return {
    name: 'ip-parse',
    run(random) {
      const frame = mutate(random, samples, random.pick(samples).frame).subarray(0, 1900);
      const found = [0x00, 0xff].map((garbage) => {
        frames.u8.fill(garbage, off - 64, off + 2000);
        frames.u8.set(frame, off);
        return parse(frames, frame);
      });
      if (found[0] !== found[1]) throw new Error(`depends on bytes outside: ${found[0]} or ${found[1]}`);
      if (random.int(0, 7) !== 0) return;
      window.from = off + 14;
      window.to = off + frame.length;
      parse(views, frame);
    },
  };
}

// --- options ----------------------------------------------------------------------------------------------------------

function options(): Target {
  const memory = new Uint8Array(512);
  const window = { from: 0, to: 0 };
  const u8 = checked(memory, window);
  const tcpAreas = [
    tcpOptions({ mss: 1460, wscale: 7, sackPermitted: true, timestamps: [1, 2] }),
    tcpOptions({
      sack: [
        [1, 2],
        [3, 4],
        [5, 6],
      ],
    }),
    hex('0101 0303 ff 00'),
  ];
  const ndAreas = [
    hex('0101020000000001'),
    hex(`030440c0${'00'.repeat(28)}`),
    hex('0501000000000578'),
    hex(`1903${'00'.repeat(22)}`),
  ];
  return {
    name: 'options',
    run(random) {
      memory.fill(random.int(0, 255));
      const area = mutateBytes(random, tcpAreas, 40);
      const padded = concat(area, new Uint8Array(-area.length & 3)).subarray(0, 40);
      const at = 100;
      memory.set(padded, at + 20);
      memory[at + 12] = (5 + padded.length / 4) << 4;
      window.from = at;
      window.to = at + 20 + padded.length;
      synOptions(u8, at);
      for (const kind of [2, 3, 4, 5, 8]) tcpOption(u8, at, kind, random.int(2, 10));
      // The window's own reader of SACK blocks, through the tracker.
      const k = new Conversation();
      k.tcp('c', 'S', { seq: 1, options: padded });
      k.tcp('s', 'SA', { seq: 1, ack: 2, options: padded });
      k.tcp('c', 'A', { seq: 2, ack: 2, options: padded });

      const nd = concat(hex('8700000000000000fe800000000000000000000000000001'), mutateBytes(random, ndAreas, 120));
      const ip = concat(u32(0x60000000), u16(nd.length), Uint8Array.of(58, 255), random.bytes(32));
      nd[0] = random.int(132, 138);
      memory.set(ip, at);
      memory.set(nd, at + 40);
      window.to = at + 40 + nd.length;
      checkNd(u8, at, at + 40, window.to);
      optionsOk(u8, at + 64, window.to);
      ndOption(u8, at + 64, window.to, random.pick([1, 2, OPTION_PREFIX, 5, 14, 25]));
    },
  };
}

// --- helpers -------------------------------------------------------------------------------------------------------------

const WRITE_ROOM = 128;

function helperTarget(helper: Helper): Target {
  const samples = payloadSamples(helper.name);
  const memory = new Uint8Array(8192);
  const window = { from: 0, to: 0 };
  const context = newHelperContext(checked(memory, window));
  const out = new Uint8Array(64 + WRITE_ROOM + 64);
  const outWindow = { from: 64, to: 64 + WRITE_ROOM };
  const guarded = checked(out, outWindow);
  return {
    name: helper.name,
    run(random) {
      context.state = new Int32Array(STATE_WORDS * 3).fill(0x5a5a5a5a);
      context.stateAt = STATE_WORDS;
      context.state.fill(0, STATE_WORDS, STATE_WORDS * 2);
      context.family = random.pick([4, 6]);
      context.proto = random.pick(helper.protocols);
      for (const words of [context.src, context.dst, context.srcTranslated]) words.fill(random.next() | 0);
      let seq = random.next() | 0;
      // Several payloads of one connection: what one leaves behind is what the next begins with.
      for (let n = random.int(1, 4); n > 0; n--) {
        const payload = mutateBytes(random, samples);
        const at = random.int(64, 200);
        memory.fill(random.pick([0x0a, 0x20, 0x31, 0xff]));
        memory.set(payload, at);
        window.from = context.from = at;
        window.to = context.to = at + payload.length;
        context.dir = random.int(0, 1);
        [context.sport, context.dport] = [random.int(1, 65535), helper.ports[0] ?? 5000];
        context.sportTranslated = random.int(1, 65535);
        context.nat = random.chance(0.5);
        context.loose = random.chance(0.5);
        context.bounce = random.chance(0.5);
        context.again = random.chance(0.1);
        context.seq = seq;
        context.count = 0;
        const result = helper.inspect(context);
        if (!(result >= 0 && result <= DEMANDS_DROP)) throw new Error(`inspect: expected a result, got ${result}`);
        this.judge?.(random);
        seq = (seq + payload.length) | 0;
      }
    },
    judge(random: Random) {
      if (context.count > MAX_FINDINGS) throw new Error(`${context.count} findings`);
      for (let n = 0; n < context.count; n++) {
        const f = context.findings[n];
        if (!(f.from >= window.from && f.from <= f.to && f.to <= window.to))
          throw new Error(`finding ${n}: expected bytes in ${window.from}…${window.to}, got ${f.from}…${f.to}`);
        if (!(f.port >= 0 && f.port <= 65535)) throw new Error(`finding ${n}: port ${f.port}`);
        const length = helper.write(f, random.pick([4, 6]), context.src, random.int(0, 65535), guarded, 64);
        if (!(length >= 0 && length <= WRITE_ROOM)) throw new Error(`write: ${length} bytes`);
      }
      for (const [k, word] of context.state.entries())
        if ((k < STATE_WORDS || k >= 2 * STATE_WORDS) && word !== 0x5a5a5a5a)
          throw new Error(`state word ${k - STATE_WORDS}`);
    },
  } as Target & { judge(random: Random): void };
}

// --- files ---------------------------------------------------------------------------------------------------------------

function captures(name: string, samples: readonly Uint8Array[]): Target {
  return {
    name,
    run(random) {
      const bytes = mutateBytes(random, samples, 20_000);
      let reader: CaptureReader;
      try {
        reader = CaptureReader.fromBytes('fuzz', bytes, {});
      } catch (error) {
        if (error instanceof CaptureError) return;
        throw error;
      }
      for (let frames = 0; reader.next(); frames++) {
        if (frames > bytes.length) throw new Error('more frames than bytes');
        if (reader.capturedLength < 0 || reader.capturedLength > bytes.length * 1100) throw new Error('frame length');
        const copy = new Uint8Array(reader.capturedLength);
        copy.set(reader.data.subarray(reader.offset, reader.offset + reader.capturedLength));
      }
    },
  };
}

function pcapSamples(): Uint8Array[] {
  const frame = hex('020000000101020000000a0a0800 4500001c000000004011f7c0c0a8010ac6336401 0001000200080000');
  const record = (order: (v: number) => Uint8Array) =>
    concat(order(1), order(2), order(frame.length), order(frame.length), frame);
  const little = (v: number) => u32(v).reverse();
  const header = (order: (v: number) => Uint8Array, magic: number) =>
    concat(order(magic), order(order === u32 ? 0x00020004 : 0x00040002), order(0), order(0), order(65535), order(1));
  return [u32, little].flatMap((order) =>
    [0xa1b2c3d4, 0xa1b23c4d, 0xa1b2cd34].map((magic) => concat(header(order, magic), record(order), record(order))),
  );
}

function pcapngSamples(): Uint8Array[] {
  const l = (v: number) => u32(v).reverse();
  const block = (type: number, body: Uint8Array) => concat(l(type), l(body.length + 12), body, l(body.length + 12));
  const section = block(0x0a0d0d0a, concat(l(0x1a2b3c4d), l(1), l(0xffffffff), l(0xffffffff)));
  const face = block(1, concat(l(1), l(65535), hex('0200030065746800 0900010009000000 00000000')));
  const frame = hex('020000000101020000000a0a08004500001c');
  const padded = concat(frame, new Uint8Array(-frame.length & 3));
  const packet = block(
    6,
    concat(l(0), l(0), l(1), l(frame.length), l(frame.length), padded, hex('0100020068690000 00000000')),
  );
  const simple = block(3, concat(l(frame.length), padded));
  return [concat(section, face, packet, simple, packet), concat(section, face, simple, section, face, packet)];
}

// --- configuration ---------------------------------------------------------------------------------------------------------

function configuration(): Target {
  const machine = { memory: 4 * 2 ** 30, cores: 4 };
  const shapes: unknown[] = [
    null,
    undefined,
    0,
    -1,
    1.5,
    Number.NaN,
    '',
    'x',
    [],
    {},
    [[]],
    true,
    () => 0,
    Symbol('s'),
    10n,
  ];
  return {
    name: 'configuration',
    run(random) {
      try {
        if (random.chance(0.8)) parseConfig(mutateText(random, YAML_SAMPLES), 'fuzz.yaml', machine);
        else {
          // An object with one of its values replaced by something that is no configuration.
          const object = structuredClone(homeConfig()) as Record<string, unknown>;
          let at = object;
          for (let depth = random.int(0, 4); depth > 0; depth--) {
            const inner = Object.values(at).filter((v) => typeof v === 'object' && v !== null);
            if (inner.length > 0) at = random.pick(inner) as Record<string, unknown>;
          }
          at[random.pick([...Object.keys(at), 'extra'])] = random.pick(shapes);
          normalizeConfig(object, machine);
        }
      } catch (error) {
        if (!(error instanceof ConfigError)) throw error;
        for (const line of error.message.split('\n'))
          if (line.length > 2000 || !/:/.test(line))
            throw new Error(`a message of another form: ${line.slice(0, 200)}`);
      }
    },
  };
}

// --- control socket --------------------------------------------------------------------------------------------------------

const REQUESTS = [
  'GET /v1/show/conntrack HTTP/1.1\r\nHost: sluice\r\n\r\n',
  'GET /v1/show/conntrack?family=ipv4&proto=tcp HTTP/1.1\r\nHost: sluice\r\n\r\n',
  'GET /v1/show/drops?x=%zz HTTP/1.0\r\n\r\n',
  'POST /v1/show/route HTTP/1.1\r\nHost: sluice\r\nContent-Length: 3\r\n\r\nabc',
  'GET //v1/show/../__proto__ HTTP/1.1\r\nHost: [::1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
  'GET http://[x HTTP/1.1\r\nHost: a\r\n\r\n',
].map((text) => new TextEncoder().encode(text));

/** Sends bytes, then the end; resolves with what came back. */
function exchange(path: string, bytes: Uint8Array): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = '';
    const socket = connect(path);
    socket.setTimeout(1500, () => socket.destroy());
    socket.on('data', (data) => {
      text += data.toString('latin1');
    });
    socket.on('close', () => resolve(text));
    socket.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code !== 'EPIPE' && error.code !== 'ECONNRESET') reject(error);
    });
    socket.end(bytes);
  });
}

function controlSocket(): Target {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-fuzz-'));
  const path = join(folder, 'control.sock');
  let server: ApiServer | null = null;
  return {
    name: 'control-socket',
    async run(random) {
      if (server === null) {
        server = await ApiServer.listen(path);
        server.serve(createRouter(homeConfig()));
      }
      await exchange(path, mutateBytes(random, REQUESTS));
      if (random.int(0, 9) > 0) return;
      const answer = await exchange(path, REQUESTS[0]);
      if (!answer.startsWith('HTTP/1.1 200')) throw new Error(`does not answer any more: ${answer.slice(0, 80)}`);
    },
    async close() {
      await server?.close();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** All targets, made when they are asked for. */
export const TARGETS: Readonly<Record<string, () => Target>> = {
  'ip-parse': ipParse,
  options,
  ...Object.fromEntries(
    helpers.filter((h) => h !== null).map((h) => [`helper-${h.name.toLowerCase()}`, () => helperTarget(h)]),
  ),
  pcap: () => captures('pcap', pcapSamples()),
  pcapng: () => captures('pcapng', pcapngSamples()),
  configuration,
  'control-socket': controlSocket,
  ...TALKS,
};
