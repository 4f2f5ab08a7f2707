// Speeds of answers over time, as a plot: each answer a point in its model's colour.

import { chip, h, tint } from '../dom.js';
import { minute, number, speed } from '../format.js';

const [HEIGHT, LEFT, BOTTOM, TOP] = [160, 44, 22, 8]; // pixels
const POINTS = 1_000;

// `width`: pixels.
export function speeds(rows, width) {
  const known = rows.filter((row) => row.speed > 0 && row.outcome).slice(0, POINTS);
  if (known.length < 2) return h('p.empty', {}, 'Two answers that say their speed make a plot.');
  const times = known.map((row) => row.arrived_s);
  const [begin, end] = [Math.min(...times), Math.max(...times)];
  const most = nice(Math.max(...known.map((row) => row.speed)));
  const x = (row) => LEFT + ((row.arrived_s - begin) / Math.max(end - begin, 1)) * (width - LEFT - 10);
  const y = (value) => TOP + (1 - value / most) * (HEIGHT - TOP - BOTTOM);
  const lines = [0, 0.5, 1].map((share) => h('g', {},
    h('line', { x1: LEFT, x2: width - 10, y1: y(most * share), y2: y(most * share), class: 'grid' }),
    h('text', { x: LEFT - 6, y: y(most * share) + 4, 'text-anchor': 'end' }, number(most * share))));
  const points = known.map((row) => {
    const point = h('circle.point', { cx: x(row), cy: y(row.speed), r: 4 }, h('title', {}, `${row.model}, ${minute(row.arrived_s)}: ${speed(row.speed)}`));
    tint(point, row.model);
    return point;
  });
  const ends = [h('text', { x: LEFT, y: HEIGHT - 4 }, minute(begin)), h('text', { x: width - 10, y: HEIGHT - 4, 'text-anchor': 'end' }, minute(end))];
  const models = [...new Set(known.map((row) => row.model))];
  const average = (name) => {
    const own = known.filter((row) => row.model === name).map((row) => row.speed).sort((a, b) => a - b);
    return speed(own[Math.floor(own.length / 2)]);
  };
  return h('figure', {},
    h('svg', { viewBox: `0 0 ${width} ${HEIGHT}`, role: 'img', 'aria-label': `Speeds of ${known.length} answers: ${models.map((name) => `${name} ${average(name)} in the median`).join(', ')}` }, lines, points, ends),
    h('figcaption.row.small.soft', {}, models.map((name) => h('span', {}, chip(name), ` ${name}: median ${average(name)}`))));
}

function nice(value) {
  const step = 10 ** Math.floor(Math.log10(value));
  return Math.ceil(value / step) * step;
}
