/**
 * Main: the views and what feeds them. One stream of events brings a summary each second; rates are the difference of two
 * summaries by the router's own clock. When the stream ends, the page says so and tries again.
 */
import { get, listen, setToken, tokenFromAddress } from './api.mjs';
import { setUpConnections } from './connections.mjs';
import { bar, byId, h } from './dom.mjs';
import { setUpExplain } from './explain.mjs';
import { bits, bytes, count, duration, scaled, short } from './format.mjs';
import { KEPT, Plot } from './plots.mjs';
import { setUpReplay } from './replay.mjs';
import { drawTopology } from './topology.mjs';

const RETRY_MS = 2000;
/** The reasons that are drawn one by one; the rest is drawn as one. */
const DRAWN_REASONS = 7;

let before = null;
/** The newest summary and the rates that led to it, for views that are drawn again. */
let newest = null;
const times = [];
/** Bits per second received, by port; drops per second, by reason: as long as `times`. */
const traffic = new Map();
const drops = new Map();
const trafficPlot = new Plot(byId('plot-traffic'), 'bit/s', 'Bits per second received in the last minutes');
const dropPlot = new Plot(byId('plot-drops'), '', 'Frames dropped per second in the last minutes');

// --- one summary -------------------------------------------------------------------------------------------------------

/** Change per second of a total between two summaries. */
function rateOf(now, then, seconds) {
  return seconds > 0 ? Math.max(0, (now - then) / seconds) : 0;
}

function portRates(summary, seconds) {
  const rates = new Map();
  for (const port of summary.ports) {
    const old = before?.ports.find((one) => one.ifname === port.ifname)?.stats64 ?? port.stats64;
    rates.set(port.ifname, {
      rx: rateOf(port.stats64.rx.bytes, old.rx.bytes, seconds) * 8,
      tx: rateOf(port.stats64.tx.bytes, old.tx.bytes, seconds) * 8,
    });
  }
  return rates;
}

/** Appends a sample to each series; one that is new was 0 so far, one that is gone is 0 now. */
function append(series, values) {
  for (const name of values.keys()) if (!series.has(name)) series.set(name, new Array(times.length - 1).fill(0));
  for (const [name, list] of series) {
    list.push(values.get(name) ?? 0);
    if (list.length > KEPT) list.shift();
  }
}

function remember(summary, seconds, rates) {
  times.push(Date.now() / 1000);
  append(traffic, new Map([...rates].map(([name, rate]) => [name, rate.rx])));
  const dropped = new Map(
    summary.drops.map(({ reason, count: n }) => [
      reason,
      rateOf(n, before?.drops.find((one) => one.reason === reason)?.count ?? 0, seconds),
    ]),
  );
  append(drops, dropped);
  if (times.length > KEPT) times.shift();
}

function tile(name, [figure, unit], note, part) {
  return h(
    'div',
    { class: 'tile' },
    h('dt', null, name),
    h(
      'dd',
      null,
      h('span', { class: 'value' }, figure),
      unit ? h('span', { class: 'unit' }, unit) : null,
      note ? h('div', { class: 'note' }, note) : null,
      part === undefined ? null : bar(part),
    ),
  );
}

function totalOf(drops) {
  return drops.reduce((sum, one) => sum + one.count, 0);
}

function drawTiles(summary, rates, speeds) {
  const { conntrack, offload } = summary;
  const all = [...rates.values()].reduce((sum, rate) => sum + rate.rx, 0);
  const engine = offload.tables.find((one) => one.table === 'engine');
  const fullest = summary.nat.reduce((most, one) => Math.max(most, one.used / one.available), 0);
  byId('tiles').replaceChildren(
    tile('Traffic', scaled(all, 'bit/s'), `${short(speeds.frames)} frames per second`),
    tile(
      'Connections',
      [count(conntrack.entries), ''],
      `of ${count(conntrack.max)}`,
      conntrack.entries / conntrack.max,
    ),
    engine === undefined
      ? tile('Offload engine', ['off', ''], 'every packet is walked')
      : tile(
          'Offload engine',
          [count(engine.entries), 'entries'],
          `of ${count(engine.capacity)}, mode ${offload.mode}`,
          engine.entries / engine.capacity,
        ),
    tile('Drops', [short(speeds.drops), 'per second'], `${count(totalOf(summary.drops))} since start`),
    tile(
      'NAT ports',
      [(fullest * 100).toFixed(fullest > 0 && fullest < 0.1 ? 2 : 0), '%'],
      'of the fullest address',
      fullest,
    ),
  );
}

function drawPorts(summary, rates) {
  const rows = summary.ports.map((port) => {
    const rate = rates.get(port.ifname);
    const { rx, tx } = port.stats64;
    return h(
      'tr',
      null,
      h('td', null, port.ifname),
      h('td', null, port.zone),
      h(
        'td',
        null,
        h('span', { class: port.operstate === 'UP' ? 'tag accent' : 'tag bad' }, port.operstate.toLowerCase()),
      ),
      h(
        'td',
        { class: 'mono' },
        port.addr_info.map((one) => h('div', null, `${one.local}/${one.prefixlen}`)),
      ),
      h('td', { class: 'number' }, bits(rate.rx), h('div', { class: 'muted' }, bytes(rx.bytes))),
      h('td', { class: 'number' }, bits(rate.tx), h('div', { class: 'muted' }, bytes(tx.bytes))),
      h('td', { class: 'number' }, count(rx.dropped)),
      h('td', { class: 'number' }, count(rx.errors + tx.errors)),
    );
  });
  byId('ports').tBodies[0].replaceChildren(...rows);
}

function drawBars(place, items, empty) {
  place.replaceChildren(...(items.length === 0 ? [h('li', { class: 'muted' }, empty)] : items));
}

function drawDrops(summary) {
  const sorted = [...summary.drops].sort((a, b) => b.count - a.count);
  const most = sorted[0]?.count ?? 1;
  const items = sorted
    .slice(0, 12)
    .map((one) =>
      h(
        'li',
        null,
        h(
          'div',
          { class: 'line' },
          h('span', null, h('span', { class: 'mono' }, one.reason), ' ', h('span', { class: 'tag' }, one.stage)),
          h('span', null, count(one.count)),
        ),
        h('div', { class: 'why' }, one.description),
        bar(one.count / most),
      ),
    );
  drawBars(byId('drops'), items, 'Nothing has been dropped.');
}

function drawNat(summary) {
  const sorted = [...summary.nat].sort((a, b) => b.used / b.available - a.used / a.available);
  const items = sorted
    .slice(0, 12)
    .map((one) =>
      h(
        'li',
        null,
        h(
          'div',
          { class: 'line' },
          h('span', null, h('span', { class: 'mono' }, one.outside), ' ', h('span', { class: 'tag' }, one.protocol)),
          h('span', null, `${count(one.used)} of ${count(one.available)}`),
        ),
        bar(one.used / one.available),
      ),
    );
  drawBars(byId('nat'), items, 'Nothing is translated at the moment.');
}

function drawPlots() {
  trafficPlot.draw(times, traffic, 'The first samples are on their way.');
  // The reasons that matter now; a plot with sixty lines says nothing.
  const sums = [...drops]
    .map(([name, list]) => [name, list, list.reduce((sum, n) => sum + n, 0)])
    .filter(([, , sum]) => sum > 0);
  sums.sort((a, b) => b[2] - a[2]);
  const shown = new Map(sums.slice(0, DRAWN_REASONS).map(([name, list]) => [name, list]));
  if (sums.length > DRAWN_REASONS)
    shown.set(
      'others',
      times.map((_, n) => sums.slice(DRAWN_REASONS).reduce((sum, [, list]) => sum + list[n], 0)),
    );
  dropPlot.draw(times, shown, 'Nothing was dropped in the last three minutes.');
}

function fillPorts(summary) {
  const names = summary.ports.map((port) => port.ifname);
  for (const [id, first] of [
    ['explain-port', 'the port that fits'],
    ['replay-port', null],
  ]) {
    const select = byId(id);
    const offered = [...select.options].map((option) => option.value).filter((value) => value !== '');
    if (offered.join() === names.join()) continue;
    select.replaceChildren(
      ...(first === null ? [] : [h('option', { value: '' }, first)]),
      ...names.map((name) => h('option', { value: name }, name)),
    );
  }
}

function take(summary) {
  const seconds = before === null ? 0 : (summary.uptime - before.uptime) / 1000;
  // A router that was started again counts from zero.
  if (seconds < 0) before = null;
  if (before === null || seconds > 0) {
    const rates = portRates(summary, Math.max(0, seconds));
    const old = before ?? summary;
    const speeds = {
      frames: rateOf(summary.packets.received, old.packets.received, seconds),
      drops: rateOf(totalOf(summary.drops), totalOf(old.drops), seconds),
    };
    if (before !== null) remember(summary, seconds, rates);
    newest = { summary, rates, speeds };
    before = summary;
  }
  fillPorts(summary);
  drawOverview();
  say('live', `${summary.file || 'embedded'}, up ${duration(summary.uptime)}`);
}

/** What the newest summary says, where it is in view. */
function drawOverview() {
  if (newest === null || byId('overview').hidden) return;
  const { summary, rates, speeds } = newest;
  drawTiles(summary, rates, speeds);
  drawTopology(byId('topology'), summary, rates);
  drawPorts(summary, rates);
  drawDrops(summary);
  drawNat(summary);
  drawPlots();
}

// --- the stream ---------------------------------------------------------------------------------------------------------

function say(kind, text) {
  byId('state').className = `state ${kind}`;
  if (byId('state-text').textContent !== text) byId('state-text').textContent = text;
}

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

async function follow() {
  for (;;) {
    try {
      await listen(['summary'], (kind, data) => {
        if (kind === 'summary') take(data);
      });
    } catch (error) {
      if (error.status === 401) await login(error);
      else {
        say('lost', 'no answer, trying again');
        await pause(RETRY_MS);
      }
    }
  }
}

/** Asks for the token until the router takes one. */
function login(error) {
  const dialog = byId('login');
  say('lost', 'waiting for the token');
  byId('login-error').textContent = sessionStorage.getItem('sluice-token') === null ? '' : error.message;
  if (!dialog.open) dialog.showModal();
  return new Promise((resolve) => {
    // Without a token there is nothing behind the dialog: Escape does not leave it.
    dialog.onclose = () => dialog.showModal();
    byId('login-form').onsubmit = async (event) => {
      event.preventDefault();
      setToken(byId('token').value);
      try {
        await get('/v1/summary');
        byId('token').value = '';
        dialog.onclose = null;
        dialog.close();
        show();
        resolve();
      } catch (refused) {
        byId('login-error').textContent = refused.message;
      }
    };
  });
}

// --- views --------------------------------------------------------------------------------------------------------------

const VIEWS = ['overview', 'connections', 'explain', 'replay'];
const explain = setUpExplain();
const connections = setUpConnections(explain.ask, (error) => {
  byId('found').textContent = error.status === 401 ? '' : error.message;
});
setUpReplay();

function show() {
  const wanted = location.hash.slice(1);
  const name = VIEWS.includes(wanted) ? wanted : 'overview';
  for (const view of VIEWS) byId(view).hidden = view !== name;
  for (const link of document.querySelectorAll('nav a')) {
    if (link.getAttribute('href') === `#${name}`) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  if (name === 'connections') connections.show();
  else connections.hide();
  drawOverview();
}

function setUpTheme() {
  const chosen = localStorage.getItem('sluice-theme');
  if (chosen !== null) document.documentElement.dataset.theme = chosen;
  byId('theme').addEventListener('click', () => {
    const root = document.documentElement;
    const dark =
      root.dataset.theme === undefined
        ? matchMedia('(prefers-color-scheme: dark)').matches
        : root.dataset.theme === 'dark';
    root.dataset.theme = dark ? 'light' : 'dark';
    localStorage.setItem('sluice-theme', root.dataset.theme);
    drawPlots();
  });
}

tokenFromAddress();
setUpTheme();
window.addEventListener('hashchange', () => {
  // The skip link is no view.
  if (location.hash !== '#main') show();
});
document.addEventListener('keydown', (event) => {
  const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement?.tagName ?? '');
  if (event.key !== '/' || typing || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  location.hash = '#connections';
  show();
  byId('search').focus();
});
show();
follow();
