/**
 * Topology: the router in the middle, zones on both sides (on a phone: below), a wire to each port as thick as what flows.
 * State is said in words as well as in colour; the whole picture has a text for those who do not see it.
 */
import { h, s } from './dom.mjs';
import { bits } from './format.mjs';

const PORT_HEIGHT = 46;
const GAP = 10;
const HEAD = 34;
const ROUTER = { width: 132, height: 92 };

/** Zones first, then ports that are in none of them. */
function groupsOf(summary) {
  const byName = new Map(summary.ports.map((port) => [port.ifname, port]));
  const groups = summary.zones.map((zone) => ({
    name: zone.name,
    note: `forward ${zone.forward}, input ${zone.input}`,
    ports: zone.ports.map((name) => byName.get(name)).filter((port) => port !== undefined),
  }));
  const known = new Set(summary.zones.flatMap((zone) => zone.ports));
  const rest = summary.ports.filter((port) => !known.has(port.ifname));
  if (rest.length > 0) groups.push({ name: 'no zone', note: '', ports: rest });
  return groups.filter((group) => group.ports.length > 0);
}

function heightOf(group) {
  return HEAD + group.ports.length * (PORT_HEIGHT + GAP) + 4;
}

/** Thickness of a wire: a pixel more for each factor of ten above 10 kbit/s. */
function thickness(rate) {
  return 1.5 + Math.max(0, Math.log10(Math.max(1, rate.rx + rate.tx) / 1e4)) * 1.1;
}

function clip(text, length) {
  return text.length > length ? `${text.slice(0, length - 1)}…` : text;
}

function drawGroup(svg, group, x, y, width, rates, wireTo) {
  svg.append(
    s('rect', { class: 'zone-box', x, y, width, height: heightOf(group), rx: 10 }),
    s('text', { class: 'title', x: x + 12, y: y + 22 }, clip(group.name, 14)),
    s(
      'text',
      { class: 'small', x: x + width - 12, y: y + 22, 'text-anchor': 'end' },
      clip(group.note, Math.floor(width / 9)),
    ),
  );
  group.ports.forEach((port, n) => {
    const top = y + HEAD + n * (PORT_HEIGHT + GAP);
    const rate = rates.get(port.ifname) ?? { rx: 0, tx: 0 };
    const down = port.operstate !== 'UP';
    const middle = top + PORT_HEIGHT / 2;
    svg.prepend(
      s('path', { class: down ? 'wire down' : 'wire', d: wireTo(middle), 'stroke-width': thickness(rate).toFixed(2) }),
    );
    const said = down ? 'down' : `↓ ${bits(rate.rx)}\u2003↑ ${bits(rate.tx)}`;
    const address = port.addr_info.find((one) => one.scope === 'global');
    const addressText = address === undefined ? port.kind : `${address.local}/${address.prefixlen}`;
    svg.append(
      s('rect', { class: 'port-box', x: x + 8, y: top, width: width - 16, height: PORT_HEIGHT, rx: 8 }),
      s('text', { class: 'title', x: x + 20, y: top + 19 }, clip(port.ifname, 12)),
      s('text', { class: 'small', x: x + width - 20, y: top + 19, 'text-anchor': 'end' }, clip(addressText, 24)),
      s('text', { class: 'small', x: x + 20, y: top + 36 }, said),
    );
  });
}

/**
 * Draws into `place`.
 *
 * @param rates bits per second by port: Map of name to { rx, tx }
 */
export function drawTopology(place, summary, rates) {
  const groups = groupsOf(summary);
  const total = Math.max(300, place.clientWidth || 900);
  const narrow = total < 620;
  const width = narrow ? total - 2 : Math.min(340, (total - ROUTER.width - 120) / 2);
  const svg = s('svg', { role: 'img', 'aria-label': describe(groups, rates) });
  const column = (list) => list.reduce((sum, group) => sum + heightOf(group) + 14, 0);
  if (narrow) {
    const x = total / 2;
    let y = ROUTER.height + 44;
    const height = y + column(groups);
    svg.setAttribute('viewBox', `0 0 ${total} ${height}`);
    for (const group of groups) {
      const top = y;
      drawGroup(svg, group, 1, y, width, rates, () => `M${x} ${ROUTER.height} V${top}`);
      y += heightOf(group) + 14;
    }
    drawRouter(svg, x - ROUTER.width / 2, 1, summary);
  } else {
    // The larger half on the left: inside usually has more ports than outside.
    const left = groups.slice(0, Math.ceil(groups.length / 2));
    const right = groups.slice(left.length);
    const height = Math.max(column(left), column(right), ROUTER.height + 20) + 2;
    const [rx, ry] = [total / 2 - ROUTER.width / 2, height / 2 - ROUTER.height / 2];
    svg.setAttribute('viewBox', `0 0 ${total} ${height}`);
    [left, right].forEach((side, n) => {
      let y = (height - column(side)) / 2 + 7;
      const x = n === 0 ? 1 : total - width - 1;
      const [from, to] = n === 0 ? [x + width - 8, rx] : [x + 8, rx + ROUTER.width];
      for (const group of side) {
        const wire = (middle) =>
          `M${from} ${middle} C${(from + to) / 2} ${middle} ${(from + to) / 2} ${height / 2} ${to} ${height / 2}`;
        drawGroup(svg, group, x, y, width, rates, wire);
        y += heightOf(group) + 14;
      }
    });
    drawRouter(svg, rx, ry, summary);
  }
  place.replaceChildren(groups.length > 0 ? svg : h('p', { class: 'empty' }, 'No ports.'));
}

function drawRouter(svg, x, y, summary) {
  const middle = x + ROUTER.width / 2;
  const nat = summary.nat.length > 0 ? 'NAT active' : 'no translation';
  svg.append(
    s('rect', { class: 'router-box', x, y, width: ROUTER.width, height: ROUTER.height, rx: 12 }),
    s('text', { class: 'title', x: middle, y: y + 34, 'text-anchor': 'middle' }, 'Sluice'),
    s('text', { class: 'small', x: middle, y: y + 53, 'text-anchor': 'middle' }, `engine ${summary.offload.mode}`),
    s('text', { class: 'small', x: middle, y: y + 69, 'text-anchor': 'middle' }, nat),
  );
}

function describe(groups, rates) {
  const words = groups.map((group) => {
    const ports = group.ports.map((port) => {
      const rate = rates.get(port.ifname) ?? { rx: 0, tx: 0 };
      return `${port.ifname} ${port.operstate === 'UP' ? `in ${bits(rate.rx)} out ${bits(rate.tx)}` : 'down'}`;
    });
    return `zone ${group.name}: ${ports.join(', ')}`;
  });
  return `The router between ${words.join('; ')}`;
}
