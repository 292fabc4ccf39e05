/**
 * Explain: a packet's way as a picture: the stages in a row, those it passed filled, the one that ended it marked, and
 * beneath it what each looked up, found and decided.
 */
import { post } from './api.mjs';
import { byId, h, s } from './dom.mjs';

const STAGES = [
  'rx', 'link-input', 'offload-lookup', 'ip-parse', 'ip-sanity', 'reassembly', 'conntrack-in', 'nat-prerouting', 'route',
  'ttl', 'mtu', 'forward-filter', 'nat-postrouting', 'alg', 'conntrack-confirm', 'offload-program', 'neighbour',
  'fragment', 'tx',
]; // biome-ignore format: the order of the packet's path

const STEP = 62;

/** The row of stages. `input` and `output` are drawn where the packet's way has them. */
function strip(stages, dropped) {
  const passed = stages.map(({ stage }) => stage);
  const all = [
    ...STAGES.filter((stage) => stage !== 'tx' || !passed.includes('input')),
    ...(passed.includes('input') ? ['input'] : []),
  ];
  if (passed.includes('output')) all.unshift('output');
  const last = passed.at(-1);
  const width = all.length * STEP;
  const end = Math.max(0, all.indexOf(last));
  const x = (n) => n * STEP + STEP / 2;
  return s(
    'svg',
    {
      class: 'strip',
      viewBox: `0 0 ${width} 92`,
      role: 'img',
      'aria-label': `Stages passed: ${passed.join(', ')}${dropped ? `; dropped at ${last}` : ''}`,
    },
    s('line', { class: 'rail', x1: x(0), x2: x(all.length - 1), y1: 16, y2: 16 }),
    s('line', { class: 'way', x1: x(0), x2: x(end), y1: 16, y2: 16 }),
    ...all.map((stage, n) => {
      const name = dropped && stage === last ? 'end' : passed.includes(stage) ? 'seen' : '';
      return s(
        'g',
        { class: name },
        s('circle', { cx: x(n), cy: 16, r: name === 'end' ? 8 : 6 }),
        s('text', { x: x(n), y: 36, transform: `rotate(38 ${x(n)} 36)` }, stage),
      );
    }),
  );
}

function stageItem({ stage, text, looked, looked_up, found, decided, where }, ends) {
  const rows = [
    ['looked up', looked ?? looked_up],
    ['found', found],
    ['decided', decided],
    ['because of', where],
  ].filter(([, value]) => value !== undefined && value !== null && value !== '');
  return h(
    'li',
    { class: ends ? 'end' : null },
    h('h3', null, stage),
    text ? h('p', { class: 'muted' }, text) : null,
    h(
      'dl',
      null,
      rows.flatMap(([name, value]) => [h('dt', null, name), h('dd', null, String(value))]),
    ),
  );
}

/** The picture of an answer of POST /v1/explain. */
function picture(answer) {
  const stages = answer.stages ?? [];
  const verdict = String(answer.verdict ?? '');
  const dropped = /^drop/i.test(verdict);
  return h(
    'div',
    { class: 'card' },
    h(
      'p',
      { class: dropped ? 'verdict drop-verdict' : 'verdict' },
      verdict,
      answer.reason ? h('span', null, String(answer.reason)) : null,
    ),
    answer.text ? h('p', { class: 'muted' }, String(answer.text)) : null,
    stages.length === 0 ? null : strip(stages, dropped),
    h(
      'ol',
      { class: 'stages' },
      stages.map((stage, n) => stageItem(stage, dropped && n === stages.length - 1)),
    ),
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
    place.replaceChildren(picture(await post('/v1/explain', JSON.stringify(body))));
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
