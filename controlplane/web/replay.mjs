/** Replay: sends a capture to be played offline and shows the report. */
import { post } from './api.mjs';
import { bar, byId, h } from './dom.mjs';
import { count, short } from './format.mjs';

const LARGEST = 32 * 1024 * 1024;

function tile(name, value, note) {
  return h(
    'div',
    { class: 'tile' },
    h('dt', null, name),
    h('dd', null, h('span', { class: 'value' }, value), note ? h('div', { class: 'note' }, note) : null),
  );
}

function result({ report, ok, notes }) {
  const dropped = Object.entries(report.dropped ?? {}).sort((a, b) => b[1] - a[1]);
  const most = dropped[0]?.[1] ?? 1;
  return [
    ok
      ? null
      : h('p', { class: 'card bad', role: 'alert' }, 'Not all was played, or the engine disagreed: see the notes.'),
    h(
      'dl',
      { class: 'tiles' },
      tile(
        'received',
        count(report.received),
        report.skipped > 0 ? `${count(report.skipped)} frames of the capture were not played` : '',
      ),
      tile('forwarded', count(report.forwarded)),
      tile('to the router itself', count(report.delivered)),
      tile('generated', count(report.generated)),
      tile('held', count(report.held), report.held > 0 ? 'still waiting at the end' : ''),
      tile('connections', count(report.connections)),
      tile('packets per second', short(report.packets_per_second), `${report.seconds.toFixed(2)} s`),
      tile('engine hits', count(report.offload.hits), `${count(report.offload.mismatches)} mismatches`),
    ),
    h(
      'div',
      { class: 'card' },
      h('h2', null, 'Dropped'),
      dropped.length === 0
        ? h('p', { class: 'empty' }, 'Nothing was dropped.')
        : h(
            'ul',
            { class: 'bars' },
            dropped.map(([reason, n]) =>
              h(
                'li',
                null,
                h('div', { class: 'line' }, h('span', { class: 'mono' }, reason), h('span', null, count(n))),
                bar(n / most),
              ),
            ),
          ),
    ),
    notes.length === 0
      ? null
      : h(
          'div',
          { class: 'card' },
          h('h2', null, 'Notes'),
          h(
            'ul',
            null,
            notes.map((note) => h('li', null, note)),
          ),
        ),
  ].filter((part) => part !== null);
}

async function replay(button) {
  const place = byId('replayed');
  const file = byId('capture').files[0];
  if (file === undefined) return;
  const kind = byId('replay-kind').value;
  const value = kind === 'inside' ? byId('inside').value.trim() : byId('replay-port').value;
  button.disabled = true;
  place.replaceChildren(h('p', { class: 'muted' }, 'Playing …'));
  try {
    if (file.size > LARGEST)
      throw new Error(`The capture has ${count(file.size)} bytes; at most ${count(LARGEST)} are taken.`);
    const answer = await post(`/v1/replay?${kind}=${encodeURIComponent(value)}`, file, 'application/octet-stream');
    place.replaceChildren(...result(answer));
  } catch (error) {
    place.replaceChildren(h('p', { class: 'card bad', role: 'alert' }, error.message));
  } finally {
    button.disabled = false;
  }
}

export function setUpReplay() {
  const form = byId('replay-form');
  const drop = byId('drop');
  const input = byId('capture');
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    replay(form.querySelector('button'));
  });
  byId('replay-kind').addEventListener('change', (event) => {
    byId('inside-label').hidden = event.target.value !== 'inside';
    byId('port-label').hidden = event.target.value === 'inside';
  });
  for (const name of ['dragover', 'dragleave', 'drop'])
    drop.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.toggle('over', name === 'dragover');
      if (name === 'drop' && event.dataTransfer.files.length > 0) input.files = event.dataTransfer.files;
    });
}
