/**
 * Chart: Sluice beside its peers as one SVG, bars of ratios. Plain text in, plain text out; no dependency.
 *
 * A bar is Sluice's figure divided by the peer's on a logarithmic axis, 1 being the same; bars of references (measured in
 * another run) are hatched. Latency is drawn upside down (peer divided by Sluice), so that longer is always better.
 */
import { formatValue, type Result, type ResultFile } from './results.ts';

const WIDTH = 860;
const LEFT = 400;
const RIGHT = 130;
const ROW = 26;
const TOP = 64;
const BOTTOM = 40;
const SMALLEST = 0.1;
const LARGEST = 10;

interface Bar {
  label: string;
  ratio: number;
  text: string;
  reference: boolean;
}

/** Bars of all results that have a peer. */
export function bars(results: readonly Result[]): Bar[] {
  return results
    .filter((result) => result.ratio !== null && result.ratio > 0)
    .map((result) => ({
      label: `${result.name} / ${result.peer.replace(/ \(.*/, '')}`,
      ratio: result.unit === 's' ? 1 / (result.ratio ?? 1) : (result.ratio ?? 1),
      text: formatValue(result.value, result.unit),
      reference: result.reference,
    }));
}

function markup(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}

/** Pixels from the axis' left end; ratios beyond the ends lie on them. */
function x(ratio: number): number {
  const clamped = Math.min(LARGEST, Math.max(SMALLEST, ratio));
  return LEFT + (Math.log(clamped / SMALLEST) / Math.log(LARGEST / SMALLEST)) * (WIDTH - LEFT - RIGHT);
}

export function chart(file: ResultFile): string {
  const list = bars(file.results);
  const height = TOP + list.length * ROW + BOTTOM;
  const foot = height - BOTTOM;
  const { cpu, cores, kernel, node, date, commit } = file.machine;
  const out = [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" viewBox="0 0 ${WIDTH} ${height}" font-family="sans-serif" font-size="12">`,
    '<title>Sluice beside its peers</title>',
    '<defs><pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect width="6" height="6" fill="#cfe3f5"/><rect width="2" height="6" fill="#2f74b5"/></pattern></defs>',
    `<rect width="${WIDTH}" height="${height}" fill="#ffffff"/>`,
    '<text x="16" y="24" font-size="16" fill="#222222">Sluice beside its peers: ratio, longer is better</text>',
    `<text x="16" y="44" fill="#666666">${markup(`${cpu}, ${cores} cores, Linux ${kernel}, Node ${node}, ${date.slice(0, 10)}, ${commit}`)}</text>`,
  ];
  for (const mark of [0.1, 0.2, 0.5, 1, 2, 5, 10]) {
    const at = x(mark).toFixed(1);
    const colour = mark === 1 ? '#888888' : '#e4e4e4';
    out.push(`<line x1="${at}" y1="${TOP - 8}" x2="${at}" y2="${foot}" stroke="${colour}"/>`);
    out.push(`<text x="${at}" y="${foot + 16}" text-anchor="middle" fill="#666666">${mark} ×</text>`);
  }
  list.forEach((bar, n) => {
    const y = TOP + n * ROW;
    const from = Math.min(x(1), x(bar.ratio));
    const width = Math.max(1, Math.abs(x(bar.ratio) - x(1)));
    const fill = bar.reference ? 'url(#hatch)' : bar.ratio >= 1 ? '#2f74b5' : '#b5652f';
    out.push(`<text x="${LEFT - 10}" y="${y + 15}" text-anchor="end" fill="#222222">${markup(bar.label)}</text>`);
    out.push(
      `<rect x="${from.toFixed(1)}" y="${y + 3}" width="${width.toFixed(1)}" height="${ROW - 9}" fill="${fill}"/>`,
    );
    const end = Math.max(x(bar.ratio), x(1)) + 6;
    out.push(
      `<text x="${end.toFixed(1)}" y="${y + 15}" fill="#222222">${bar.ratio.toFixed(2)} × (${markup(bar.text)})</text>`,
    );
  });
  out.push(
    `<text x="16" y="${height - 8}" fill="#666666">Hatched: the peer was measured in another run. Latency: peer divided by Sluice.</text>`,
  );
  out.push('</svg>', '');
  return out.join('\n');
}
