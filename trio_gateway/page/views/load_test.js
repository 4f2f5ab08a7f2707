// A small load test: N chats at once, each drawn as it waits, loads, reads and generates.

import { attr, h, keyed, text } from '../dom.js';
import { number, seconds, speed } from '../format.js';
import { answerStream } from './chat_stream.js';

const [ALL_MAX, TOKENS_MAX] = [200, 1024];
// With HTTP/1.1 a browser has six connections to a server. More chats than this would not be at once
// but wait in the browser, and with them the feed, the other views and each button of this page.
const AT_ONCE_MAX = isMultiplexed() ? 32 : 4;

const PHASES = ['waiting', 'loading', 'reading', 'generating'];

function isMultiplexed() {
  return ['h2', 'h3'].includes(performance.getEntriesByType('navigation')[0]?.nextHopProtocol);
}

export class LoadTest {
  // `request()` makes the body of one chat.
  constructor(store, request) {
    Object.assign(this, { store, request, runs: [], aborter: null });
    const field = (name, label, value, max) => {
      const input = h('input', { id: `load-${name}`, type: 'number', min: 1, max, step: 1, value, required: true });
      this[name] = input;
      return h('div.field', {}, h('label', { for: input.id }, label), input);
    };
    this.start = h('button.primary', { type: 'submit' }, 'Start');
    this.stop = h('button', { type: 'button', hidden: true, onclick: () => this.aborter?.abort() }, 'Stop');
    this.sums = h('p.sums', { role: 'status' });
    this.rows = h('ol.runs', { tabindex: '0', 'aria-label': 'Requests of the load test' });
    const keys = h('ul.keys', { 'aria-label': 'Colours' }, PHASES.map((phase) => h('li', {}, h('span.key', { 'data-phase': phase }), phase)));
    this.element = h('section.card.load-test', { 'aria-label': 'Load test' },
      h('header', {}, h('h2', {}, 'Load test'), h('span.soft.small', {}, 'the message and the settings from above, many times')),
      h('form.row', { novalidate: true, onsubmit: (event) => { event.preventDefault(); this.#run(); } },
        field('at_once', `At once, up to ${AT_ONCE_MAX}`, 4, AT_ONCE_MAX),
        field('all', `In all, up to ${ALL_MAX}`, 8, ALL_MAX),
        field('tokens', `Max tokens, up to ${TOKENS_MAX}`, 64, TOKENS_MAX),
        this.start, this.stop),
      this.sums, this.rows, keys);
  }

  async #run() {
    const body = this.request();
    if (this.aborter || !body.model) return;
    const [atOnce, all, tokens] = [[this.at_once, AT_ONCE_MAX], [this.all, ALL_MAX], [this.tokens, TOKENS_MAX]].map(bounded);
    body.max_tokens = tokens;
    this.runs = Array.from({ length: all }, (_, number) => ({ number: number + 1, state: 'to come' }));
    this.aborter = new AbortController();
    [this.start.disabled, this.stop.hidden] = [true, false];
    this.began = performance.now();
    this.ended = 0;
    const left = [...this.runs];
    const clock = setInterval(() => this.#show(), 100);
    const worker = async () => {
      for (let run = left.shift(); run && !this.aborter.signal.aborted; run = left.shift()) await this.#one(run, body);
    };
    await Promise.all(Array.from({ length: Math.min(atOnce, all) }, worker));
    clearInterval(clock);
    this.ended = performance.now();
    this.aborter = null;
    [this.start.disabled, this.stop.hidden] = [false, true];
    this.#show();
  }

  async #one(run, body) {
    run.sent = performance.now();
    run.state = 'under way';
    try {
      await answerStream(this.store, body, this.aborter.signal, ({ decision, text: said, reasoning, usage }) => {
        if (decision) run.decision = decision;
        if (decision?.decision) run.head ??= performance.now(); // it has an engine
        if (said || reasoning) run.first ??= performance.now();
        if (usage) run.tokens = usage.completion_tokens;
      });
      run.state = 'done';
    } catch (error) {
      run.state = this.aborter.signal.aborted ? 'stopped' : 'failed';
      run.error = error.message;
    }
    run.end = performance.now();
  }

  // The feed has a row of each, which knows better than what is seen from here.
  update() {
    if (this.runs.length) this.#show();
  }

  #show() {
    const ids = new Set(this.runs.map((run) => run.decision?.id).filter(Boolean));
    const known = new Map([...this.store.recent, ...this.store.requests.values()].filter((row) => ids.has(row.id)).map((row) => [row.id, row]));
    const now = performance.now();
    const drawn = this.runs.map((run) => ({ run, phases: phasesOf(run, known.get(run.decision?.id), now), at: ((run.sent ?? now) - this.began) / 1000 }));
    const total = Math.max(((this.ended || now) - this.began) / 1000, 0.001);
    keyed(this.rows, drawn, ({ run }) => run.number, makeRun, (item, entry) => showRun(item, entry, total));
    text(this.sums, this.#sums(total));
  }

  #sums(total) {
    const done = this.runs.filter((run) => run.state === 'done');
    const failed = this.runs.filter((run) => run.state === 'failed');
    const tokens = done.reduce((sum, run) => sum + (run.tokens ?? 0), 0);
    const firsts = done.filter((run) => run.first).map((run) => (run.first - run.sent) / 1000).sort((a, b) => a - b);
    const at = (part) => seconds(firsts[Math.min(Math.floor(firsts.length * part), firsts.length - 1)]);
    return [
      `${number(done.length)} of ${number(this.runs.length)} done in ${seconds(total)}`,
      tokens ? `${speed(tokens / total)} together` : '',
      firsts.length ? `first token after ${at(0.5)} (median), ${at(0.95)} (95 %)` : '',
      failed.length ? `${number(failed.length)} failed: ${failed[0].error}` : '',
    ].filter(Boolean).join(' · ');
  }
}

// The number in a field. One that is out of its bounds is set to the next that is not.
function bounded([input, max]) {
  const number = Math.min(Math.max(Math.round(Number(input.value)) || 1, 1), max);
  input.value = number;
  return number;
}

// Seconds of each phase: as the gateway's row says, and as it is seen from here until it does.
function phasesOf(run, row, now) {
  if (run.sent === undefined) return [];
  const all = ((run.end ?? now) - run.sent) / 1000;
  const granted = row?.granted_after_s ?? (run.head ? (run.head - run.sent) / 1000 : null);
  const first = row?.first_byte_after_s ?? (run.first ? (run.first - run.sent) / 1000 : null);
  if (granted === null || granted > all) return [['waiting', all]];
  const load = Math.min(row?.load_s ?? Number(run.decision?.['load-ms'] ?? 0) / 1000, granted);
  const begun = Math.min(Math.max(first ?? all, granted), all);
  return [['waiting', granted - load], ['loading', load], ['reading', begun - granted], ['generating', all - begun]].filter(([, length]) => length > 0.0005);
}

function makeRun({ run }) {
  const item = h('li', {}, h('span.nr.soft', {}, String(run.number)), h('span.track', { role: 'img' }), h('span.says.soft'));
  return item;
}

function showRun(item, { run, phases, at }, total) {
  const [, track, says] = item.children;
  const took = phases.reduce((sum, [, length]) => sum + length, 0);
  keyed(track, [['', at], ...phases], ([phase]) => phase, ([phase]) => h('i', { 'data-phase': phase }), (part, [, length]) => { part.style.width = `${((length / total) * 100).toFixed(2)}%`; });
  attr(track, 'aria-label', phases.map(([phase, length]) => `${phase} ${seconds(length)}`).join(', ') || run.state);
  attr(track, 'title', run.error ?? null);
  text(says, run.sent === undefined ? '' : run.state === 'failed' || run.state === 'stopped' ? run.state : seconds(took));
  attr(item, 'data-state', run.state);
}
