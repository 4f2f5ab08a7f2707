// A pool on the Now view: its memory as a bar, and a line for each of its engines.

import { attr, h, hueOf, keyed, text } from '../dom.js';
import { bytes, clock, counting, number, plural, seconds, speed } from '../format.js';

const MANY = 1_000; // engines: a pool for that many is for any number of them

export function makePool() {
  const card = h('section.card.pool');
  const parts = card.parts = {
    name: h('h2'),
    sums: h('span.soft.small.end'),
    bar: h('div.memory', { role: 'img' }),
    engines: h('ul.engines'),
    none: h('p.none.soft', {}, 'No engine is loaded. The next request loads one.'),
  };
  card.append(h('header', {}, parts.name, parts.sums), parts.bar, parts.engines, parts.none);
  return card;
}

export function showPool(card, pool, engines, store) {
  const { name, sums, bar, none } = card.parts;
  text(name, pool.name);
  attr(card, 'aria-label', `Pool ${pool.name}`);
  const said = sumsOf(pool, engines);
  text(sums, said);
  attr(bar, 'aria-label', `Memory of ${pool.name}: ${said}`);
  keyed(bar, segmentsOf(pool, engines), (segment) => segment.key, () => h('span.segment'), showSegment);
  card.style.setProperty('--places', Math.min(Math.max(pool.engines_max ?? 1, 1), 3));
  keyed(card.parts.engines, engines, (engine) => engine.engine, makeEngine, (item, engine) => showEngine(item, engine, store));
  none.hidden = engines.length > 0;
}

function sumsOf(pool, engines) {
  const { memory_bytes: limit, used_bytes: used, measured_bytes: measured, other_bytes: others } = pool;
  const parts = [limit ? `${bytes(used)} of ${bytes(limit)}` : used ? `${bytes(used)}, no limit` : ''];
  if (measured && used && Math.abs(measured - used) > used * 0.05) parts.push(`${bytes(measured)} measured`);
  if (others) parts.push(`others hold ${bytes(others)}`);
  if (pool.yielded_bytes) parts.push(`${bytes(pool.yielded_bytes)} kept free for another program`);
  for (const device of pool.devices ?? []) {
    parts.push(`${device.name}: ${bytes(device.used_bytes)}${device.memory_bytes ? ` of ${bytes(device.memory_bytes)}` : ''}`);
  }
  parts.push(pool.engines_max < MANY ? `${engines.length} of ${plural(pool.engines_max, 'engine')}` : plural(engines.length, 'engine'));
  return parts.filter(Boolean).join(' · ');
}

// What the bar shows, as shares of it. Without any bytes, a place of the pool is a share.
function segmentsOf(pool, engines) {
  const sizes = engines.map((engine) => engine.memory_bytes ?? 0);
  const used = sizes.reduce((sum, size) => sum + size, 0);
  const others = pool.other_bytes ?? 0;
  const left = pool.memory_bytes ?? 0;  // with "auto", what others have left
  const all = Math.max(pool.is_auto && left ? left + others : left, used + others);
  const known = all > 0 && sizes.every((size) => size > 0);
  const share = (engine) => (known ? (engine.memory_bytes ?? 0) / all : 1 / Math.max(pool.engines_max ?? 1, engines.length));
  const segments = engines.map((engine) => ({
    key: engine.engine,
    share: share(engine),
    hue: hueOf(engine.model),
    state: stateOf(engine).word,
    label: `${engine.model}:${engine.variant}${engine.memory_bytes ? ` · ${bytes(engine.memory_bytes)}` : ''}`,
  }));
  if (others && all) segments.push({ key: 'others', share: others / all, hue: '', state: 'others', label: `other programs · ${bytes(others)}` });
  const kept = pool.yielded_bytes ?? 0;
  if (kept && all) segments.push({ key: 'kept', share: Math.min(kept, Math.max(all - used - others, 0)) / all, hue: '', state: 'others', label: `kept free for another program · ${bytes(kept)}` });
  return segments;
}

function showSegment(element, { share, hue, state, label }) {
  element.style.width = `${(share * 100).toFixed(3)}%`;
  element.style.setProperty('--hue', hue || 'var(--other)');
  attr(element, 'data-state', state);
  attr(element, 'title', label);
  text(element, share > 0.12 ? label : '');
}

const STATES = {
  starting: ['loading', 'busy'], draining: ['draining', 'busy'], stopping: ['stopping', ''], stopped: ['stopped', ''], failed: ['failed', 'bad'],
};

export function stateOf(engine) {
  if (engine.state === 'ready') return engine.leases ? { word: 'serving', kind: 'good' } : { word: 'idle', kind: '' };
  if (engine.waking) return { word: 'waking', kind: 'busy' };
  const [word, kind] = STATES[engine.state] ?? [engine.state, ''];
  return { word, kind };
}

function makeEngine() {
  const item = h('li.engine');
  const parts = item.parts = {
    chip: h('span.chip'),
    name: h('a.model'),
    state: h('span.tag'),
    pinned: h('span.tag.accent', { hidden: true }, 'pinned'),
    places: h('span.places', { role: 'img' }),
    pace: h('span.pace'),
    facts: h('span.facts.soft'),
    next: h('p.says'),
    sites: h('ul.sites.soft', { hidden: true }),
    progress: h('span.progress', { 'aria-hidden': 'true' }, h('span')),
  };
  item.append(
    parts.chip,
    h('div.what', {}, h('p.line', {}, parts.name, parts.state, parts.pinned, parts.facts), parts.next, parts.sites),
    h('div.load', {}, parts.places, parts.pace),
    parts.progress);
  return item;
}

function showEngine(item, engine, store) {
  item.row = engine;
  const { chip, name, state, pinned, places, facts } = item.parts;
  const { word, kind } = stateOf(engine);
  chip.style.setProperty('--hue', hueOf(engine.model));
  text(name, `${engine.model}:${engine.variant}`);
  attr(name, 'href', `#models/${encodeURIComponent(engine.model)}`);
  text(state, word);
  attr(state, 'class', `tag ${kind}`);
  pinned.hidden = !engine.pinned;
  const slots = engine.slots ?? 0;
  attr(places, 'aria-label', slots ? `${engine.leases} of ${plural(slots, 'place')} taken` : plural(engine.leases, 'request'));
  keyed(places, Array.from({ length: Math.min(slots, 16) }, (_, place) => place), (place) => place, () => h('i'), (dot, place) => attr(dot, 'class', place < engine.leases ? 'taken' : null));
  text(item.parts.pace, engine.speed ? speed(engine.speed) : engine.leases && slots ? `${engine.leases} of ${slots}` : '');
  text(facts, [`${number(engine.context)} tokens`, engine.memory_bytes ? bytes(engine.memory_bytes) : '', engine.evicted?.length ? `in place of ${engine.evicted.join(', ')}` : ''].filter(Boolean).join(' · '));
  showSites(item.parts.sites, engine.sites ?? []);
  tickEngine(item, store);
}

// Of a remote model, its URLs. One that works is not worth a line.
function showSites(list, sites) {
  list.hidden = sites.length < 2 && sites.every((site) => site.state === 'works');
  keyed(list, list.hidden ? [] : sites, (site) => site.url, () => h('li'), (item, site) => {
    attr(item, 'data-state', site.state);
    text(item, wordsOfSite(site));
  });
}

function wordsOfSite({ url, state, since_s: since, reason, requests, peer_running: running, peer_waiting: waiting, first_byte_s: first, weight }) {
  const does = { works: 'works', untried: 'not tried yet', open: 'does not work', 'half-open': 'is tried again' }[state] ?? state;
  return [
    url.replace(/^https?:\/\//, ''),
    since && state !== 'works' ? `${does} since ${clock(since)}` : does,
    reason,
    plural(requests ?? 0, 'request'),
    running || waiting ? `in all ${running} running and ${waiting} waiting there` : '',
    first ? `first byte after ${seconds(first)}` : '',
    (weight ?? 1) === 1 ? '' : `weight ${weight}`,
  ].filter(Boolean).join(' · ');
}

export function tickPool(card, store) {
  for (const item of card.parts.engines.children) tickEngine(item, store);
}

function tickEngine(item, store) {
  const { next, progress } = item.parts;
  const engine = item.row;
  const since = store.now() - engine.seen_s;
  const loads = engine.state === 'starting';
  progress.hidden = !loads;
  if (loads) {
    const loading = store.now() - (engine.started_at_s ?? engine.seen_s);
    const expected = engine.load_s ?? 0;
    progress.firstChild.style.transform = `scaleX(${expected ? Math.min(loading / expected, 0.98) : 0.1})`;
    text(next, `${engine.waking ? 'waking' : 'loading'} for ${counting(loading)}${expected ? ` of about ${seconds(expected)}` : ''}${engine.next ? `; ${engine.next}` : ''}`);
    return;
  }
  text(next, countedDown(engine.next ?? '', since));
}

// "stops in 140 s if nobody asks", said a while ago: the seconds are those that are left now.
function countedDown(sentence, since) {
  return sentence.replace(/\bin (\d+) s\b/g, (_, left) => `in ${Math.max(Math.round(Number(left) - since), 0)} s`);
}
