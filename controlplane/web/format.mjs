/** Format: numbers for people: three digits, SI prefixes. */
const PREFIXES = ['', 'k', 'M', 'G', 'T'];

/** [figure, unit], such as ['12.3', 'Mbit/s']. */
export function scaled(value, unit) {
  let n = 0;
  let figure = value;
  while (figure >= 999.5 && n < PREFIXES.length - 1) {
    figure /= 1000;
    n++;
  }
  const digits = n === 0 && Number.isInteger(figure) ? 0 : figure >= 99.95 ? 0 : figure >= 9.995 ? 1 : 2;
  return [figure.toFixed(digits), `${PREFIXES[n]}${unit}`];
}

export function bits(value) {
  return scaled(value, 'bit/s').join(' ');
}

export function count(value) {
  return value.toLocaleString('en');
}

/** A figure with its SI prefix. */
export function short(value) {
  const [figure, unit] = scaled(value, '');
  return unit === '' ? figure : `${figure} ${unit}`;
}

export function bytes(value) {
  return scaled(value, 'B').join(' ');
}

/** Milliseconds as days, hours, minutes, seconds, the two largest of them. */
export function duration(milliseconds) {
  const seconds = Math.floor(milliseconds / 1000);
  const parts = [
    [Math.floor(seconds / 86400), 'd'],
    [Math.floor(seconds / 3600) % 24, 'h'],
    [Math.floor(seconds / 60) % 60, 'min'],
    [seconds % 60, 's'],
  ];
  const first = parts.findIndex(([n]) => n > 0);
  const shown = first < 0 ? parts.slice(3) : parts.slice(first, first + 2);
  return shown.map(([n, unit]) => `${n} ${unit}`).join(' ');
}
