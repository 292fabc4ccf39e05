/** Connections: the searchable table. It asks while it is in view, and at once when the words change. */
import { get } from './api.mjs';
import { byId, h } from './dom.mjs';
import { bytes, count } from './format.mjs';

const LIMIT = 200;
const EVERY_MS = 2000;

let timer = null;
let asked = 0;

/** ADDRESS:PORT, with brackets around an IPv6 address that has a port. */
function end(address, port) {
  if (port === undefined) return address;
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
}

/** What `sluice explain --flow` takes. */
export function flowOf({ protocol, orig }) {
  return `${protocol} ${end(orig.src, orig.sport)} > ${end(orig.dst, orig.dport)}`;
}

/** Who the other side sees and answers, when that is not what the sender wrote. */
function translation({ orig, reply }) {
  const parts = [];
  if (reply.dst !== orig.src || (reply.dport ?? orig.sport) !== orig.sport)
    parts.push(`from ${end(reply.dst, reply.dport)}`);
  if (reply.src !== orig.dst || (reply.sport ?? orig.dport) !== orig.dport)
    parts.push(`to ${end(reply.src, reply.sport)}`);
  return parts.join(', ');
}

function stateOf(connection) {
  if (connection.status.includes('OFFLOAD')) return h('span', { class: 'tag accent' }, 'in the engine');
  const state = connection.state ?? (connection.status.includes('SEEN_REPLY') ? 'answered' : 'unanswered');
  const seconds = connection.timeout === undefined ? '' : `, ${connection.timeout} s left`;
  return h('span', { class: 'tag', title: connection.not_offloaded ?? false }, `${state}${seconds}`);
}

function row(connection, explain) {
  const { protocol, orig, reply } = connection;
  const flow = flowOf(connection);
  const button = h('button', { type: 'button', class: 'small', 'aria-label': `Explain ${flow}` }, 'Explain');
  button.addEventListener('click', () => explain(connection.in, flow));
  return h(
    'tr',
    null,
    h('td', null, protocol),
    h('td', { class: 'mono' }, end(orig.src, orig.sport)),
    h('td', { class: 'mono' }, end(orig.dst, orig.dport)),
    h('td', { class: 'mono' }, translation(connection) || '–'),
    h('td', null, stateOf(connection)),
    h('td', { class: 'number' }, count((orig.packets ?? 0) + (reply.packets ?? 0))),
    h('td', { class: 'number' }, bytes((orig.bytes ?? 0) + (reply.bytes ?? 0))),
    h('td', { class: 'number' }, button),
  );
}

async function refresh(explain, failed) {
  const mine = ++asked;
  const words = byId('search').value.trim();
  try {
    const answer = await get(`/v1/connections?limit=${LIMIT}&search=${encodeURIComponent(words)}`);
    // An older question may be answered later.
    if (mine !== asked) return;
    const focused = document.activeElement?.getAttribute('aria-label');
    const body = byId('table').tBodies[0];
    body.replaceChildren(...answer.connections.map((connection) => row(connection, explain)));
    for (const button of focused ? body.querySelectorAll('button') : [])
      if (button.getAttribute('aria-label') === focused) button.focus();
    byId('none').hidden = answer.connections.length > 0;
    const shown = answer.matched > answer.connections.length ? `, the first ${answer.connections.length} shown` : '';
    byId('found').textContent = `${count(answer.matched)} of ${count(answer.total)}${shown}`;
  } catch (error) {
    failed(error);
  }
}

/** Begins and ends asking. @param explain called with a port (or undefined) and a flow */
export function setUpConnections(explain, failed) {
  const ask = () => refresh(explain, failed);
  let typing = null;
  byId('search').addEventListener('input', () => {
    clearTimeout(typing);
    typing = setTimeout(ask, 150);
  });
  byId('search-form').addEventListener('submit', (event) => {
    event.preventDefault();
    ask();
  });
  return {
    show() {
      ask();
      timer ??= setInterval(ask, EVERY_MS);
    },
    hide() {
      clearInterval(timer);
      timer = null;
    },
  };
}
