/**
 * Explain over the API: what would happen to a flow's packet, or to frames, on a copy of the running state.
 */
import { type Explained, explainFlow, explainFrames } from '../explain/explain.ts';
import { parseFlow } from '../explain/flow.ts';
import { explainText } from '../explain/text.ts';
import type { ShowSource } from '../show/source.ts';
import { Refusal } from './http.ts';
import type { Route } from './route.ts';

/** Frames that may be explained at once. */
export const MAX_FRAMES = 256;

/** Frames of 64 KiB are 128 KiB of hexadecimal; a conversation of short ones fits as well. */
const MAX_BODY = 512 * 1024;

export interface ExplainAnswer extends Explained {
  /** The same for people. */
  text: string;
}

/** @throws Refusal, RangeError for what is no question */
export function answerExplain(source: ShowSource, question: unknown): ExplainAnswer {
  if (typeof question !== 'object' || question === null || Array.isArray(question))
    throw new Refusal(400, 'body: expected an object with "flow" or "frame", got another value');
  const { port, flow, frame, frames, ...rest } = question as Record<string, unknown>;
  const unknown = Object.keys(rest)[0];
  if (unknown !== undefined)
    throw new Refusal(400, `body: expected port, flow, frame, frames, got ${JSON.stringify(unknown.slice(0, 80))}`);
  if (port !== undefined && typeof port !== 'string')
    throw new Refusal(400, 'port: expected the name of a port, got another value');
  if ([flow, frame, frames].filter((one) => one !== undefined).length !== 1)
    throw new Refusal(400, 'body: expected one of flow, frame, frames, got none or several');
  let explained: Explained;
  if (flow !== undefined) {
    if (typeof flow !== 'string' || flow.length > 200)
      throw new Refusal(400, 'flow: expected a text such as "tcp 192.168.1.10:4000 > 198.51.100.7:443"');
    explained = explainFlow(source, parseFlow(flow), port);
  } else {
    if (port === undefined) throw new Refusal(400, 'port: expected the port that the frame enters by, got nothing');
    const list = frames === undefined ? [frame] : frames;
    if (!Array.isArray(list) || list.length === 0 || list.length > MAX_FRAMES) {
      const got = Array.isArray(list) ? list.length : 'another value';
      throw new Refusal(400, `frames: expected 1 to ${MAX_FRAMES} frames in hexadecimal, got ${got}`);
    }
    explained = explainFrames(source, port, list.map(bytesOf));
  }
  return { text: explainText(explained), ...explained };
}

function bytesOf(hex: unknown): Uint8Array {
  const bare = typeof hex === 'string' ? hex.replace(/[\s:]/g, '') : '';
  if (bare.length < 28 || bare.length % 2 !== 0 || !/^[0-9a-f]+$/i.test(bare))
    throw new Refusal(400, 'frame: expected an Ethernet frame in hexadecimal, 14 bytes or more, got another value');
  return new Uint8Array(Buffer.from(bare, 'hex'));
}

export const EXPLAIN_ROUTE: Route = {
  method: 'POST',
  path: '/v1/explain',
  summary: 'What would happen to a packet, stage by stage, and why; nothing is sent and nothing changes',
  tag: 'explain',
  body: {
    types: ['application/json'],
    limit: MAX_BODY,
    description: 'A flow, or frames and the port that they enter by',
    schema: {
      type: 'object',
      properties: {
        port: { type: 'string', description: 'with a flow it may be left out' },
        flow: { type: 'string', examples: ['tcp 192.168.1.10:4000 > 198.51.100.7:443'] },
        frame: { type: 'string', description: 'Ethernet without FCS, hexadecimal' },
        frames: { type: 'array', items: { type: 'string' }, description: 'one after the other, on one copy' },
      },
    },
  },
  answer: {
    type: 'application/json',
    description: 'One explanation for each packet: its stages, verdict, reason and what left',
    schema: {
      type: 'object',
      properties: { text: { type: 'string' }, packets: { type: 'array' }, copy: { type: 'object' } },
    },
  },
  handle: ({ source }, { body }) => {
    let question: unknown;
    try {
      question = JSON.parse(body.toString('utf8'));
    } catch {
      throw new Refusal(400, 'body: expected JSON, got something else');
    }
    return { json: answerExplain(source, question) };
  },
};
