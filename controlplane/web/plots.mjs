/** Plots: the last three minutes, a sample each second, drawn by uPlot; colours come from the style sheet's scheme. */
import { h } from './dom.mjs';
import { scaled, short } from './format.mjs';
import uPlot from './uplot.mjs';

/** Told apart by lightness as well as by hue. */
const COLOURS = {
  light: ['#0b7285', '#b3541e', '#5b3f9e', '#3f7d20', '#a8266b', '#5c6670', '#8a6d00', '#1f4fb0'],
  dark: ['#55c3d5', '#f0a06a', '#b39cf5', '#9bd47a', '#f28fc0', '#b4c0c8', '#e3c65a', '#8ab0ff'],
};
export const KEPT = 180;

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen === undefined ? matchMedia('(prefers-color-scheme: dark)').matches : chosen === 'dark';
}

/** One plot: series come and go with the names in the data. */
export class Plot {
  /** @param unit of the axis, '' for a plain count   @param label what a reader of the screen hears */
  constructor(place, unit, label) {
    this.place = place;
    this.unit = unit;
    this.label = label;
    this.names = [];
    this.plot = null;
    new ResizeObserver(() => this.resize()).observe(place);
  }

  resize() {
    if (this.plot !== null && this.place.clientWidth > 0)
      this.plot.setSize({ width: this.place.clientWidth, height: this.height() });
  }

  height() {
    return Math.max(120, this.place.clientHeight - 34);
  }

  /** @param times seconds   @param series Map of name to values, as long as `times` */
  draw(times, series, empty) {
    const names = [...series.keys()];
    if (names.length === 0 || times.length < 2) {
      this.drop();
      if (this.place.childElementCount === 0) this.place.append(h('p', { class: 'empty' }, empty));
      return;
    }
    const same = this.plot !== null && this.dark === isDark() && names.join() === this.names.join();
    if (!same) {
      this.drop();
      this.place.replaceChildren();
      this.names = names;
      this.dark = isDark();
      this.plot = new uPlot(this.options(names), [times, ...series.values()], this.place);
      this.place.firstElementChild.setAttribute('role', 'img');
      this.place.firstElementChild.setAttribute('aria-label', `${this.label}: ${names.join(', ')}`);
    } else this.plot.setData([times, ...series.values()]);
  }

  drop() {
    this.plot?.destroy();
    if (this.plot !== null) this.place.replaceChildren();
    this.plot = null;
    this.names = [];
  }

  options(names) {
    const style = getComputedStyle(document.documentElement);
    const [muted, line] = [style.getPropertyValue('--muted'), style.getPropertyValue('--line')];
    const colours = COLOURS[this.dark ? 'dark' : 'light'];
    const axis = { stroke: muted, grid: { stroke: line, width: 1 }, ticks: { show: false }, font: '11px system-ui' };
    const value = (_, number) =>
      number === null ? '–' : this.unit === '' ? short(number) : scaled(number, this.unit).join(' ');
    return {
      width: this.place.clientWidth,
      height: this.height(),
      cursor: { drag: { x: false, y: false } },
      legend: { live: true },
      scales: { x: { time: true }, y: { range: (_, __, max) => [0, Math.max(1, max) * 1.08] } },
      axes: [
        { ...axis, space: 70 },
        { ...axis, size: 62, values: (_, ticks) => ticks.map((tick) => short(tick)) },
      ],
      series: [
        { value: (_, time) => (time === null ? '–' : new Date(time * 1000).toLocaleTimeString()) },
        ...names.map((name, n) => ({
          label: name,
          stroke: colours[n % colours.length],
          fill: names.length === 1 ? `${colours[0]}22` : undefined,
          width: 1.75,
          points: { show: false },
          value,
        })),
      ],
    };
  }
}
