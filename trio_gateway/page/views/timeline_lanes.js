// What the Timeline draws, worked out of moments and requests. Pure: no elements, no clock.

const AFTER = {
  starting: 'loading', ready: 'idle', resumed: 'idle', draining: 'draining', stopping: 'stopping', failed: 'failed',
};
const LOADED = { starting: 'loading', ready: 'idle', draining: 'draining', stopping: 'stopping', failed: 'failed' };

// The engines of an hour, each { engine, model, variant, pool, from, to, parts }; a part is
// { state, from, to, reason, evicted, load_s }: what it did in that time. Their `serving` are spans
// in which requests had it.
export function engineSpans({ timeline, engines, requests, from, now }) {
  const spans = new Map();
  const open = (moment, state, at) => {
    const span = spans.get(moment.engine) ?? { engine: moment.engine, model: moment.model, variant: moment.variant, pool: moment.pool, from: at, to: now, parts: [] };
    spans.set(moment.engine, span);
    span.parts.push({ state, from: at, to: now, reason: moment.reason ?? '', evicted: moment.evicted ?? [], load_s: null });
    return span;
  };
  for (const moment of timeline) {
    const span = spans.get(moment.engine);
    const last = span?.parts.at(-1);
    if (last) last.to = moment.at_s;
    else if (moment.change === 'ready' && moment.load_s) open(moment, 'loading', moment.at_s - moment.load_s).parts[0].to = moment.at_s;
    else if (moment.change !== 'starting') open(moment, 'idle', from).parts[0].to = moment.at_s; // older than what is known
    if (moment.change === 'ready') spans.get(moment.engine).parts.at(-1).load_s = moment.load_s;
    if (moment.change === 'gone') Object.assign(spans.get(moment.engine), { to: moment.at_s, isGone: true });
    else open(moment, AFTER[moment.change] ?? 'idle', moment.at_s);
  }
  for (const span of spans.values()) {
    if (!span.isGone && !engines.has(span.engine)) span.to = span.parts.at(-1).to = span.parts.at(-1).from;
  }
  for (const engine of engines.values()) {
    if (!spans.has(engine.engine)) open({ ...engine, reason: '', evicted: [] }, LOADED[engine.state] ?? 'idle', engine.started_at_s ?? from);
  }
  const found = [...spans.values()].filter((span) => span.to > from);
  const byEngine = Map.groupBy(requests.filter((row) => row.engine !== null && row.engine !== undefined), (row) => row.engine);
  for (const span of found) span.parts = span.parts.filter((part) => part.to > from);
  for (const span of found) span.serving = merged((byEngine.get(span.engine) ?? []).map((row) => servedIn(row, now)).filter(Boolean), span);
  return found.sort((a, b) => a.from - b.from);
}

function servedIn(row, now) {
  const began = row.granted_after_s ?? row.sent_after_s;
  if (began === null || began === undefined) return null;
  return { from: row.arrived_s + began, to: row.stage === 'done' ? row.arrived_s + (row.took_s ?? began) : now };
}

function merged(spans, { from, to }) {
  const joined = [];
  for (const span of spans.sort((a, b) => a.from - b.from)) {
    const last = joined.at(-1);
    const end = Math.min(span.to, to);
    if (end < from) continue;
    if (last && span.from <= last.to) {
      last.to = Math.max(last.to, end);
      last.count += 1;
    } else joined.push({ from: Math.max(span.from, from), to: end, count: 1 });
  }
  return joined;
}

// Pools with their lanes: each engine gets the first place that is free when it starts.
export function lanesOf(spans, pools) {
  const names = new Set([...pools.map((pool) => pool.name), ...spans.map((span) => span.pool)]);
  return [...names].map((name) => ({ name, lanes: packed(spans.filter((span) => span.pool === name), 0) }));
}

// Requests as { row, from, to, phases }, a phase { state, from, to }: as they waited and ran.
export function requestSpans(requests, from, now) {
  return requests.map((row) => requestSpan(row, now)).filter((span) => span.to >= from).sort((a, b) => a.from - b.from);
}

function requestSpan(row, now) {
  const start = row.arrived_s;
  const end = row.stage === 'done' ? start + (row.took_s ?? 0) : Math.max(now, start);
  const at = (after) => (after === null || after === undefined ? null : Math.min(start + after, end));
  const granted = at(row.granted_after_s);
  const first = at(row.first_byte_after_s);
  const loading = granted !== null && row.load_s ? Math.max(granted - row.load_s, start) : granted;
  const phases = [];
  const add = (state, a, b) => { if (b > a) phases.push({ state, from: a, to: b }); };
  if (granted === null) add('waiting', start, end);
  else {
    add('waiting', start, loading);
    add('loading', loading, granted);
    add('reading', granted, first ?? end);
    if (first !== null) add('answering', first, end);
  }
  return { row, from: start, to: end, phases };
}

// Spans in as few rows as they need; `gap` seconds are left between two in a row.
export function packed(spans, gap) {
  const rows = [];
  for (const span of spans) {
    const free = rows.find((row) => row.at(-1).to + gap <= span.from);
    if (free) free.push(span);
    else rows.push([span]);
  }
  return rows;
}
