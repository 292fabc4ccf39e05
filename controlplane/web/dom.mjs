/**
 * Dom: makes elements. Strings become text nodes and attribute values, never markup: what packets brought (host names,
 * options) cannot become anything else here. The page uses no innerHTML.
 */
const SVG = 'http://www.w3.org/2000/svg';

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? '' : String(value));
  }
  for (const child of children.flat()) if (child !== null && child !== undefined) element.append(child);
  return element;
}

/** An HTML element: `h('p', { class: 'muted' }, 'text', element)`. */
export function h(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function s(tag, attributes, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

export function byId(id) {
  return document.getElementById(id);
}

/** A bar from 0 to 1. The number stands beside it as text, so it is for the eye only. */
export function bar(part) {
  const width = Math.max(0, Math.min(1, Number.isFinite(part) ? part : 0));
  const svg = { class: width > 0.9 ? 'meter full' : 'meter', viewBox: '0 0 100 5', preserveAspectRatio: 'none' };
  return s('svg', { ...svg, 'aria-hidden': 'true' }, s('rect', { width: width * 100, height: 5 }));
}
