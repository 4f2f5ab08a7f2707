// Now: what the memory of each pool holds, what waits and why, what runs and how fast.

import { attr, h, hueOf, keyed, text } from '../dom.js';
import { clock, counting, number, plural, seconds, speed } from '../format.js';
import { View } from '../view.js';
import { makePool, showPool, stateOf, tickPool } from './now_pools.js';
import { firstSteps } from './first_steps.js';

const SHOWN = 60; // rows of a list
const ENDED = 6;
const LONG_S = 0.1; // what waited for less did not wait

export default class Now extends View {
  static topics = ['pools', 'engines', 'requests', 'recent', 'models'];

  build() {
    this.pools = h('div.pools');
    this.running = list('Running', 'Nothing runs.');
    this.waiting = list('Waiting', 'No request waits.');
    this.ended = list('Just ended', 'Nothing has ended yet.');
    this.ended.card.classList.add('ended');
    this.first = firstSteps(this.store);
    this.loading = h('p.empty', {}, 'Waiting for the gateway…');
    this.spoken = h('p.unseen', { role: 'status' }); // the lists themselves would never be silent
    this.append(
      h('h1.unseen', {}, 'Now'),
      this.spoken,
      this.loading,
      this.content = h('div.stack', { hidden: true },
        this.pools, this.first.element, this.pair = h('div.pair', {}, this.running.card, this.waiting.card), this.ended.card));
  }

  update() {
    const { store } = this;
    this.loading.hidden = store.hasSnapshot;
    this.content.hidden = !store.hasSnapshot;
    if (!store.hasSnapshot) return;
    const engines = [...store.engines.values()];
    keyed(this.pools, store.usedPools, (pool) => pool.name, makePool, (card, pool) => showPool(card, pool, engines.filter((engine) => engine.pool === pool.name), store));
    const under_way = [...store.requests.values()];
    const waits = under_way.filter((row) => row.stage === 'waiting').sort((a, b) => (a.position ?? 1e9) - (b.position ?? 1e9) || a.arrived_s - b.arrived_s);
    const runs = under_way.filter((row) => row.stage !== 'waiting');
    this.#show(this.running, runs);
    this.#show(this.waiting, waits);
    this.#show(this.ended, store.recent.slice(-ENDED).reverse());
    const states = engines.map((engine) => `${engine.model} ${stateOf(engine).word}`);
    text(this.spoken, [...states, `${number(runs.length)} running`, `${number(waits.length)} waiting`].join(', '));
    const isFirst = !under_way.length && !store.recent.length && !engines.length;
    this.first.show(isFirst);
    this.pair.hidden = this.ended.card.hidden = isFirst; // in its place: what is there does not move
  }

  tick() {
    const { store } = this;
    for (const card of this.pools.children) tickPool(card, store);
    for (const { rows } of [this.running, this.waiting]) {
      for (const row of rows.children) tickRequest(row, store);
    }
  }

  #show(part, rows) {
    text(part.count, rows.length || '');
    part.none.hidden = rows.length > 0;
    keyed(part.rows, rows.slice(0, SHOWN), (row) => row.id, () => this.#make(), (item, row) => showRequest(item, row, this.store));
    text(part.more, rows.length > SHOWN ? `and ${number(rows.length - SHOWN)} more` : '');
  }

  #make() {
    const item = h('li.request');
    item.parts = {
      chip: h('span.chip'),
      model: h('a.model'),
      who: h('span.who.soft'),
      stage: h('span.tag'),
      time: h('span.time'),
      says: h('p.says'),
      cancel: h('button.quiet.danger', { type: 'button', onclick: () => this.#cancel(item) }, 'Cancel'),
    };
    const { chip, model, who, stage, time, says, cancel } = item.parts;
    item.append(chip, h('div.what', {}, h('p.line', {}, model, stage, who), says), time, cancel);
    return item;
  }

  async #cancel(item) {
    const { cancel, says } = item.parts;
    cancel.disabled = true;
    try {
      await this.store.fetch(`/gateway/requests/${encodeURIComponent(item.row.id)}/cancel`, { method: 'POST' });
    } catch (error) {
      text(says, `Not cancelled: ${error.message}`);
      cancel.disabled = false;
    }
  }
}

function list(title, none) {
  const part = {
    count: h('span.soft'),
    none: h('p.empty', {}, none),
    rows: h('ul.requests', { 'aria-label': title }),
    more: h('p.more.soft', {}),
  };
  part.card = h('section.card.list', { 'aria-label': title }, h('header', {}, h('h2', {}, title), part.count), part.none, part.rows, part.more);
  return part;
}

const STAGES = {
  arriving: ['is read', ''], waiting: ['waits', 'busy'], reading: ['reads its prompt', 'accent'], answering: ['answers', 'good'],
};
const OUTCOMES = {
  ok: ['done', 'good'], refused: ['refused', 'bad'], failed: ['failed', 'bad'], broken_off: ['broke off', 'bad'],
  client_gone: ['client left', ''], cancelled: ['cancelled', ''],
};

// How far an engine is with what comes in one piece, nobody sees.
const WHOLE = { reading: ['is answered', 'accent'] };

function showRequest(item, row, store) {
  item.row = row;
  const { chip, model, who, stage, says, cancel, time } = item.parts;
  const name = row.model ?? row.asked ?? 'no model';
  const [word, kind] = (row.stage === 'done' ? OUTCOMES[row.outcome] : (!row.is_streamed && WHOLE[row.stage]) || STAGES[row.stage]) ?? [row.stage, ''];
  chip.style.setProperty('--hue', hueOf(name));
  text(model, row.variant ? `${name}:${row.variant}` : name);
  attr(model, 'href', `#requests/${encodeURIComponent(row.id)}`);
  attr(model, 'title', row.id);
  text(stage, word);
  attr(stage, 'class', `tag ${kind}`);
  text(who, [row.client, row.priority === 'interactive' ? '' : row.priority].filter(Boolean).join(' · '));
  text(says, row.stage === 'waiting' ? row.sentence ?? 'waits for an engine' : factsOf(row).join(' · '));
  cancel.hidden = row.stage === 'done';
  attr(cancel, 'aria-label', `Cancel the request for ${name}${row.client ? ` of ${row.client}` : ''}`);
  if (row.stage === 'done') text(time, `${clock(row.arrived_s)} · ${seconds(row.took_s)}`);
  else tickRequest(item, store);
}

// How far it is and how fast, and how it came by its engine.
function factsOf(row) {
  const { generated_tokens: tokens, counted_tokens: prompt, evicted } = row;
  return [
    row.stage === 'reading' && prompt ? `a prompt of ${number(prompt)} tokens` : '',
    tokens ? plural(tokens, 'token') : '',
    row.speed ? speed(row.speed) : '',
    waitedText(row.waited_s ?? 0, row.load_s ?? 0),
    evicted?.length ? `in place of ${evicted.join(', ')}` : '',
    row.error ?? '',
  ].filter(Boolean);
}

function tickRequest(item, store) {
  text(item.parts.time, counting(store.now() - item.row.arrived_s));
}

// `queued`: in line, without the load that it waited for.
function waitedText(queued, load) {
  if (queued + load <= LONG_S) return '';
  return `waited ${seconds(queued + load)}${load > LONG_S ? `, ${seconds(load)} of it for a load` : ''}`;
}
