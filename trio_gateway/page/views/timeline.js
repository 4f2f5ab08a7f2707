// Timeline: what engines did, as lanes, and requests below as they waited and ran.

import { attr, h, hueOf, keyed, text } from '../dom.js';
import { clock, minute, number, plural, seconds } from '../format.js';
import { View } from '../view.js';
import { engineSpans, lanesOf, packed, requestSpans } from './timeline_lanes.js';

const MINUTES = [60, 15, 5];
const [LANE, BAR, ROW, HEAD, AXIS] = [30, 22, 8, 22, 22]; // pixels
const ROWS_MAX = 40; // of requests; more than that are counted, not drawn
const LISTED = 40;
const LETTER = 6.9; // pixels, of a label

export default class Timeline extends View {
  static topics = ['timeline', 'engines', 'pools', 'requests', 'recent'];

  #dirty = true;

  build() {
    this.minutes = MINUTES[0];
    this.earlier = [];
    this.choice = h('div.choice', { role: 'group', 'aria-label': 'How much is shown' },
      MINUTES.map((span) => h('button', { type: 'button', 'data-minutes': span, onclick: () => this.goTo(String(span)) }, span === 60 ? '1 hour' : `${span} min`)));
    this.svg = h('svg', { role: 'group', 'aria-label': 'What engines and requests did; the arrow keys go from one to the next', width: '100%', height: 120 });
    this.tip = h('div.tip', { role: 'status', hidden: true });
    this.frame = h('div.frame', {}, this.svg, this.tip);
    this.none = h('p.empty', {}, 'No engine did anything in this time.');
    this.list = h('ol.moments', { tabindex: '0', 'aria-label': 'What engines did, as text' });
    const keys = ['loading', 'serving', 'idle', 'draining', 'stopping', 'failed', 'waiting', 'reading'].map((state) => h('li', {}, h('span.key', { 'data-state': state }), state));
    this.why = h('section.card', { 'aria-label': 'As text' }, h('header', {}, h('h2', {}, 'Why'), h('span.soft.small', {}, 'newest first')), this.list);
    this.append(h('h1.unseen', {}, 'Timeline'), h('div.stack', {},
      h('section.card', { 'aria-label': 'Lanes' }, h('header', {}, h('h2', {}, 'What engines did'), this.choice), this.frame, this.none, h('ul.keys', { 'aria-label': 'Colours' }, keys)),
      this.why));
    new ResizeObserver(() => this.#draw(true)).observe(this.frame);
    this.frame.addEventListener('pointerover', (event) => this.#point(event.target.closest('[data-says]')));
    this.frame.addEventListener('pointerleave', () => this.#point(null));
    this.frame.addEventListener('focusin', (event) => this.#point(event.target.closest('[data-says]')));
    this.frame.addEventListener('focusout', () => this.#point(null));
    this.frame.addEventListener('keydown', (event) => this.#key(event));
    this.frame.addEventListener('click', (event) => this.#follow(event.target));
  }

  opened() {
    this.placeChanged(this.place);
    this.#askForEarlier();
  }

  placeChanged(place) {
    this.minutes = MINUTES.includes(Number(place)) ? Number(place) : MINUTES[0];
    for (const button of this.choice.children) attr(button, 'aria-pressed', String(Number(button.dataset.minutes) === this.minutes));
    this.#draw();
  }

  // Requests of the hour from before the snapshot's: once, as the feed has the later ones.
  async #askForEarlier() {
    const since = Math.floor(this.store.now() - 3600);
    if (!this.store.hasSnapshot || this.askedFor === this.store.run) return;
    this.askedFor = this.store.run;
    try {
      this.earlier = (await this.store.json(`/gateway/requests?since=${since}&limit=1000`)).requests;
      this.#draw();
    } catch (error) {
      console.info('no earlier requests:', error.message);
    }
  }

  update() {
    this.#askForEarlier();
    this.#dirty = true;
  }

  tick() {
    const wait = { 60: 5, 15: 2, 5: 1 }[this.minutes];
    this.ticks = (this.ticks ?? 0) + 1;
    if (this.#dirty || this.ticks % wait === 0) this.#draw();
  }

  // -- drawing -----------------------------------------------------------------------------------

  // Not below the focus, unless it `isNew` in size.
  #draw(isNew = false) {
    const { store } = this;
    const width = this.frame?.clientWidth ?? 0;
    const focused = this.#told().indexOf(document.activeElement);
    if (!width || !store.hasSnapshot || (focused >= 0 && !isNew)) return;
    this.#dirty = false;
    const now = store.now();
    const from = now - this.minutes * 60;
    const requests = [...new Map([...this.earlier, ...store.recent, ...store.requests.values()].map((row) => [row.id, row])).values()];
    const x = (at) => Math.round(Math.max(((at - from) / (now - from)) * width, 0) * 10) / 10;
    const spans = engineSpans({ timeline: store.timeline, engines: store.engines, requests, from, now });
    const drawn = [];
    let y = AXIS;
    for (const { name, lanes } of lanesOf(spans, store.usedPools)) {
      drawn.push(h('text.pool', { x: 12, y: y + 15 }, name));
      y += HEAD;
      for (const lane of lanes.length ? lanes : [[]]) {
        drawn.push(h('rect.lane', { x: 0, y: y + (LANE - BAR) / 2, width, height: BAR }));
        drawn.push(...lane.map((span) => engineOf(span, x, y + (LANE - BAR) / 2)));
        y += LANE;
      }
      y += 6;
    }
    const rows = packed(requestSpans(requests, from, now), (now - from) / width * 2);
    if (rows.length) {
      drawn.push(h('text.pool', { x: 12, y: y + 15 }, rows.length > ROWS_MAX ? `Requests (${number(rows.length - ROWS_MAX)} more rows are not drawn)` : 'Requests'));
      y += HEAD;
      for (const row of rows.slice(0, ROWS_MAX)) {
        drawn.push(...row.map((span) => requestOf(span, x, y)));
        y += ROW + 2;
      }
    }
    const height = Math.max(y + 6, 160);
    this.svg.replaceChildren(...axis(from, now, x, width, height), ...drawn);
    attr(this.svg, 'height', height);
    attr(this.svg, 'viewBox', `0 0 ${width} ${height}`);
    const stop = this.#told()[Math.max(focused, 0)];
    if (stop) attr(stop, 'tabindex', '0');
    if (focused >= 0) stop?.focus();
    this.none.hidden = spans.length + rows.length > 0;
    this.#listMoments(from);
  }

  #listMoments(from) {
    const told = this.store.timeline.filter((moment) => moment.at_s >= from).slice(-LISTED).reverse();
    keyed(this.list, told, (moment) => `${moment.engine} ${moment.change} ${moment.at_s}`, (moment) => h('li', {},
      h('time.soft', {}, clock(moment.at_s)), h('span.chip', {}), h('strong', {}, `${moment.model}:${moment.variant}`), h('span', {}, wordsOf(moment))),
    (item, moment) => item.children[1].style.setProperty('--hue', hueOf(moment.model)));
    this.why.hidden = !told.length;
  }

  #told() {
    return [...this.svg.querySelectorAll('[data-says]')];
  }

  // -- pointing ----------------------------------------------------------------------------------

  #point(element) {
    this.tip.hidden = !element;
    if (!element) return;
    text(this.tip, element.dataset.says);
    const box = element.getBoundingClientRect();
    const frame = this.frame.getBoundingClientRect();
    const left = Math.min(Math.max(box.left - frame.left, 4), Math.max(frame.width - this.tip.offsetWidth - 4, 4));
    this.tip.style.left = `${left}px`;
    this.tip.style.top = `${box.bottom - frame.top + 6}px`;
  }

  // One stop of the Tab key for all of them; from there the arrow keys lead on.
  #key(event) {
    const all = this.#told();
    const at = all.indexOf(document.activeElement);
    const to = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: all.length - 1 }[event.key];
    if (event.key === 'Enter') this.#follow(event.target);
    if (event.key === 'Escape') this.#point(null);
    if (to === undefined || !all[to]) return;
    event.preventDefault();
    all[at]?.removeAttribute('tabindex');
    attr(all[to], 'tabindex', '0');
    all[to].focus();
  }

  #follow(target) {
    const { request } = target.closest('[data-request]')?.dataset ?? {};
    if (request) location.hash = `#requests/${encodeURIComponent(request)}`;
  }
}

function engineOf(span, x, y) {
  const name = `${span.model}:${span.variant}`;
  const group = h('g.engine', {});
  group.style.setProperty('--hue', hueOf(span.model));
  for (const part of span.parts) {
    group.append(bar(part.state, x(part.from), x(part.to), y, BAR, { 'data-says': saysOf(name, part) }));
  }
  for (const busy of span.serving) {
    group.append(bar('serving', x(busy.from), x(busy.to), y, BAR, { 'data-says': `${name} served ${plural(busy.count, 'request')}, ${clock(busy.from)} to ${clock(busy.to)}` }));
  }
  const [left, right] = [x(span.from), x(span.to)];
  const letters = Math.floor((right - left - 12) / LETTER);
  const under = span.parts.findLast((part) => x(part.from) <= left + 6)?.state;
  if (letters > 3) group.append(h('text.name', { x: left + 6, y: y + 15, 'aria-hidden': 'true', 'data-on': under }, name.length > letters ? `${name.slice(0, letters - 1)}…` : name));
  return group;
}

function requestOf({ row, phases, from, to }, x, y) {
  const name = row.model ?? row.asked ?? 'no model';
  const lasted = phases.map((phase) => `${phase.state} ${seconds(phase.to - phase.from)}`).join(', ');
  const end = row.stage === 'done' ? (row.outcome === 'ok' ? '' : `; ${row.error ?? row.outcome}`) : '; goes on';
  const group = h('g.request', { 'data-says': `${name}${row.client ? ` for ${row.client}` : ''}, ${clock(from)}: ${lasted}${end}`, 'data-request': row.id, 'data-bad': row.error ? '' : null, role: 'link' });
  attr(group, 'aria-label', group.dataset.says);
  group.style.setProperty('--hue', hueOf(name));
  group.append(...phases.map((phase) => bar(phase.state, x(phase.from), x(phase.to), y, ROW, {})));
  if (!phases.length) group.append(bar('answering', x(from), x(to), y, ROW, {}));
  return group;
}

function bar(state, left, right, y, height, attributes) {
  const says = attributes['data-says'];
  return h('rect', { x: left, y, width: Math.max(right - left, 1.5), height, 'data-state': state, ...attributes, ...(says && { role: 'img', 'aria-label': says }) });
}

function saysOf(name, { state, from, to, reason, evicted, load_s: load }) {
  const place = evicted.length ? `, in place of ${evicted.join(', ')}` : '';
  const took = state === 'idle' && load ? `, loaded in ${seconds(load)}` : '';
  return `${name} ${state === 'idle' ? 'ready' : state}${place}${took}, ${clock(from)}, for ${seconds(to - from)}${reason ? `: ${reason}` : ''}`;
}

function wordsOf({ change, reason, load_s: load, evicted }) {
  const words = { starting: 'starts', ready: 'is ready', draining: 'drains', resumed: 'takes requests again', stopping: 'stops', failed: 'failed', gone: 'is gone' };
  const more = [load ? `after ${seconds(load)}` : '', evicted?.length ? `in place of ${evicted.join(', ')}` : ''].filter(Boolean).join(', ');
  return [[words[change] ?? change, more].filter(Boolean).join(' '), reason].filter(Boolean).join(': ');
}

function axis(from, now, x, width, height) {
  const steps = [30, 60, 120, 300, 600, 900];
  const step = steps.find((candidate) => ((now - from) / candidate) * 64 <= width) ?? 1200;
  const marks = [];
  for (let at = Math.ceil(from / step) * step; at < now; at += step) {
    const place = x(at);
    marks.push(h('line.mark', { x1: place, x2: place, y1: AXIS - 4, y2: height }));
    if (place > 18 && place < width - 18) marks.push(h('text.hour', { x: place, y: 13, 'text-anchor': 'middle' }, (step < 60 ? clock : minute)(at)));
  }
  return marks;
}
