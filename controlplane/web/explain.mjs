/**
 * Explain: a packet's way as a picture: the stages in a row, those it passed filled, the one that ended it marked, and
 * beneath it what each looked up, found and decided.
 */
import { post } from './api.mjs';
import { byId, h, s } from './dom.mjs';

const STAGES = [
  'rx', 'offload-lookup', 'link-input', 'ip-parse', 'ip-sanity', 'reassembly', 'conntrack-in', 'nat-prerouting', 'route',
  'ttl', 'mtu', 'forward-filter', 'nat-postrouting', 'alg', 'conntrack-confirm', 'neighbour', 'offload-program',
  'fragment', 'tx',
]; // biome-ignore format: the order of the packet's path

const STEP = 62;

/** The row of stages; `input` and `output` only where the packet's way has them. */
function strip(stages, packet) {
  const passed = new Set(stages.map(({ stage }) => stage));
  const all = [...(passed.has('output') ? ['output'] : []), ...STAGES, ...(passed.has('input') ? ['input'] : [])];
  const last = packet.stage ?? [...passed].at(-1);
  const end = Math.max(0, all.indexOf(last));
  const x = (n) => n * STEP + STEP / 2;
  const words = `Stages passed: ${[...passed].join(', ')}; ${packet.verdict} at ${last}`;
  return s(
    'svg',
    { class: 'strip', viewBox: `0 0 ${all.length * STEP + 30} 96`, role: 'img', 'aria-label': words },
    s('line', { class: 'rail', x1: x(0), x2: x(all.length - 1), y1: 16, y2: 16 }),
    s('line', { class: 'way', x1: x(0), x2: x(end), y1: 16, y2: 16 }),
    ...all.map((stage, n) => {
      const ends = packet.verdict === 'dropped' && stage === last;
      return s(
        'g',
        { class: ends ? 'end' : passed.has(stage) ? 'seen' : '' },
        s('circle', { cx: x(n), cy: 16, r: ends ? 8 : 6 }),
        s('text', { x: x(n) - 4, y: 38, transform: `rotate(34 ${x(n) - 4} 38)` }, stage),
      );
    }),
  );
}

function stageItem({ stage, looked_up, found, decided, where }, ends) {
  const rows = [
    ['looked up', looked_up],
    ['found', found],
    ['decided', decided],
    ['because of', where],
  ].filter(([, value]) => value !== undefined && value !== null && value !== '');
  return h(
    'li',
    { class: ends ? 'end' : null },
    h('h3', null, stage),
    h(
      'dl',
      null,
      rows.flatMap(([name, value]) => [h('dt', null, name), h('dd', null, String(value))]),
    ),
  );
}

/** One packet of an answer of POST /v1/explain. */
function picture(packet) {
  const { stages, verdict, answers, sent, asks, connection } = packet;
  const dropped = verdict === 'dropped';
  const list = (steps, ends) =>
    h(
      'ol',
      { class: 'stages' },
      steps.map((step) => stageItem(step, ends && step.stage === packet.stage)),
    );
  const beside = [
    ...asks.map((ask) => `The router would ask: ${ask}`),
    ...sent.map((frame) => `Leaves by ${frame.port}: ${frame.summary}`),
    ...(connection === null ? [] : [`Connection: ${connection.line}`, `Engine: ${connection.engine.why}`]),
  ];
  return h(
    'div',
    { class: 'card' },
    h(
      'p',
      { class: dropped ? 'verdict drop-verdict' : 'verdict' },
      dropped ? `dropped: ${packet.reason} at ${packet.stage}` : verdict,
    ),
    packet.why ? h('p', null, packet.why) : null,
    h('p', { class: 'muted' }, `${packet.port} receives ${packet.bytes} bytes: ${packet.summary}`),
    h('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': 'Stages' }, strip(stages, packet)),
    beside.length === 0
      ? null
      : h(
          'ul',
          { class: 'muted' },
          beside.map((line) => h('li', null, line)),
        ),
    list(stages, dropped),
    answers.map((answer) => [h('h2', null, 'The router’s own answer'), list(answer.stages, false)]),
  );
}

async function explain() {
  const place = byId('explained');
  const input = byId('explain-input').value.trim();
  const port = byId('explain-port').value;
  // Hexadecimal with or without blanks and colons is a frame, everything else a flow.
  const bare = input.replace(/[\s:]/g, '');
  const frame = /^[0-9a-f]{28,}$/i.test(bare) && bare.length % 2 === 0;
  const body = { ...(port === '' ? {} : { port }), ...(frame ? { frame: bare } : { flow: input }) };
  try {
    const { packets } = await post('/v1/explain', JSON.stringify(body));
    place.replaceChildren(...packets.map(picture));
  } catch (error) {
    place.replaceChildren(h('p', { class: 'card bad', role: 'alert' }, error.message));
  }
}

export function setUpExplain() {
  byId('explain-form').addEventListener('submit', (event) => {
    event.preventDefault();
    explain();
  });
  return {
    /** Fills the form and asks. */
    ask(port, flow) {
      byId('explain-port').value = port ?? '';
      byId('explain-input').value = flow;
      location.hash = '#explain';
      explain();
    },
  };
}
