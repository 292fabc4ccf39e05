/**
 * Pressure on a live router's pool of 64 ports: a host inside opens 10,000 flows of UDP while another flow, which stood
 * before, goes on talking, and the control plane is asked all the time. Used by the lab test, which asserts that all is
 * well, and by `npm run attack -- --answers`, which prints how long the answers took.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { waitFor } from '../../controlplane/lab/namespace.ts';
import { type LiveLab, startLive } from './live-lab.ts';

export const POOL = 64;
export const FLOWS = 10_000;

const CONFIG = `
ports:
  lan: { kind: tap, ifname: sl-lan, zone: lan, addresses: [192.168.1.1/24] }
  wan: { kind: tap, ifname: sl-wan, zone: wan, addresses: [203.0.113.1/24] }
zones:
  lan: { forward: accept, input: accept }
  wan: { forward: drop, input: accept }
nat:
  profile: full-cone
  masquerade: [ { out: wan, ports: 40000-40063, parity: false } ]
`;

const ECHO = `
const socket = require('node:dgram').createSocket('udp4');
socket.on('message', (data, from) => socket.send(data, from.port, from.address));
socket.bind(7, () => console.log('ready'));`;

/**
 * Opens a flow by one socket each, in lots of a hundred. Behind each lot goes an echo request of a flow that has its port
 * already: its answer says that the lot is through, so that no device's queue overflows. Says when all is done.
 */
const FLOOD = `
const dgram = require('node:dgram');
const gate = dgram.createSocket('udp4');
let left = ${FLOWS}, sent = '', timer;
const knock = () => { clearTimeout(timer); timer = setTimeout(knock, 1000); gate.send(sent, 7, '203.0.113.10'); };
gate.on('message', (data) => { if (String(data) === sent) lot(); });
function lot() {
  clearTimeout(timer);
  let open = Math.min(100, left);
  left -= open;
  sent = 'through to ' + left;
  if (open === 0) { console.log('flooded'); return; }
  for (let n = open; n > 0; n--) {
    const socket = dgram.createSocket('udp4');
    // A port of its own for each: what the kernel draws repeats.
    socket.bind(10000 + left + n);
    socket.send('x', 9, '203.0.113.10', () => { socket.close(); if (--open === 0) knock(); });
  }
}
gate.bind(3001, () => { sent = 'first'; knock(); });`;

/** One flow that stood before: asks again as soon as it was answered, until its parent has heard enough. */
const TALKER = `
const socket = require('node:dgram').createSocket('udp4');
let answers = 0, timer;
const ask = () => { clearTimeout(timer); timer = setTimeout(() => { console.log('silence'); ask(); }, 2000); socket.send('n', 7, '203.0.113.10'); };
socket.on('message', () => { if (++answers === 1) console.log('standing'); setTimeout(ask, 5); });
process.on('SIGUSR2', () => console.log('answers ' + answers));
socket.bind(3000, ask);`;

export interface Pressure {
  /** Milliseconds that each answer of the control plane took, in the order in which they were asked. */
  answers: number[];
  /** Answers that the standing flow got while the flood was on, and times that it waited for two seconds in vain. */
  talked: number;
  silences: number;
  live: LiveLab;
}

/** Runs it once. The caller closes `live`. */
export async function press(): Promise<Pressure> {
  const live = await startLive(CONFIG, [
    { label: 'client', device: 'sl-lan', addresses: ['192.168.1.10/24'], via: ['192.168.1.1'] },
    { label: 'server', device: 'sl-wan', addresses: ['203.0.113.10/24'], via: ['203.0.113.1'] },
  ]);
  try {
    const program = (name: string, text: string): string => {
      const file = join(live.folder, `${name}.cjs`);
      writeFileSync(file, text);
      return file;
    };
    const echo = live.lab.spawn(live.ns('server'), process.execPath, [program('echo', ECHO)]);
    await waitFor('the echo server', () => echo.stdout().includes('ready'));
    const talker = live.lab.spawn(live.ns('client'), process.execPath, [program('talker', TALKER)]);
    await waitFor('the standing flow', () => talker.stdout().includes('standing'));
    const count = async (): Promise<number> => {
      const before = talker.stdout().length;
      process.kill(talker.pid, 'SIGUSR2');
      await waitFor('the count', () => /answers \d+\n/.test(talker.stdout().slice(before)));
      return Number(/answers (\d+)\n/.exec(talker.stdout().slice(before))?.[1]);
    };
    const first = await count();
    const flood = live.lab.spawn(live.ns('client'), process.execPath, [program('flood', FLOOD)]);
    const answers: number[] = [];
    while (!flood.stdout().includes('flooded')) {
      if (!flood.running()) throw new Error(`the flood ended: ${flood.stderr()}`);
      const from = performance.now();
      await live.show(answers.length % 2 === 0 ? 'drops' : 'nat');
      answers.push(performance.now() - from);
    }
    const talked = (await count()) - first;
    return { answers, talked, silences: talker.stdout().split('silence').length - 1, live };
  } catch (error) {
    live.close();
    throw error;
  }
}
