// Requests: those that are over or run, as a table; one of them in detail; speeds over time.

import { attr, copyText, h, keyed, scroller, text } from '../dom.js';
import { clock, decoded, number, seconds, speed } from '../format.js';
import { keep, kept } from '../kept.js';
import { View } from '../view.js';
import { COLUMNS, asCsv, cellOf, resultOf } from './requests_columns.js';
import { detail } from './requests_detail.js';
import { speeds } from './requests_speeds.js';

const PAGE = 200;
const MANY = 1_000; // the most that the gateway gives at once
const DRAWN = 500; // rows; more are counted
const PLOT_PADDING = 28; // pixels, of the style
const KEPT_COLUMNS = 'trio-gateway-columns'; // in localStorage: which are shown

export default class Requests extends View {
  static topics = ['requests', 'recent'];

  #older = [];
  #sort = kept('requests-sort', { column: 'time', down: true });

  build() {
    this.shown = new Set(keptColumns() ?? COLUMNS.filter((column) => column.first).map((column) => column.id));
    this.filter = h('input', { type: 'search', placeholder: 'Filter: model, client, result, conversation …', 'aria-label': 'Show requests with this text', oninput: () => this.#filtered() });
    this.filter.value = kept('requests', { filter: '' }).filter;
    this.count = h('span.soft.small', { role: 'status' });
    this.copy = h('button.quiet', { type: 'button', onclick: () => this.#copy() }, 'Copy as CSV');
    const boxes = COLUMNS.map((column) => h('label', {}, h('input', { type: 'checkbox', checked: this.shown.has(column.id), onchange: (event) => this.#choose(column.id, event.target.checked) }), ` ${column.title}`));
    this.head = h('tr');
    this.rows = h('tbody');
    this.none = h('p.empty', {}, 'No request has come since the gateway started.');
    this.more = h('button', { type: 'button', onclick: () => this.#ask() }, 'Older requests');
    this.fault = h('span.fault', { role: 'alert' });
    this.detail = h('section.card.detail', { 'aria-label': 'One request', hidden: true });
    this.unknown = h('p.card.empty', { role: 'status', hidden: true }, 'The gateway does not remember the request that this address names, or it is not one of yours.');
    this.plot = h('div.plot');
    new ResizeObserver(() => this.#plot()).observe(this.plot);
    this.append(h('h1.unseen', {}, 'Requests'), h('div.stack', {},
      this.detail, this.unknown,
      h('section.card', { 'aria-label': 'Speeds' }, h('header', {}, h('h2', {}, 'Speed of answers'), h('span.soft.small', {}, 'tokens a second, each answer a point')), this.plot),
      h('section.card', { 'aria-label': 'Requests' },
        h('header', {}, h('h2', {}, 'Requests'), this.filter, this.count, h('span.row.end', {}, h('details.columns', { onfocusout: left, onkeydown: left }, h('summary', {}, 'Columns'), h('div.boxes', {}, boxes)), this.copy)),
        scroller('Table of requests', h('table', {}, h('thead', {}, this.head), this.rows)),
        this.none, h('div.row.foot', {}, this.more, this.fault))));
  }

  opened() {
    this.placeChanged(this.place);
  }

  placeChanged() {
    this.#draw();
  }

  update() {
    this.#draw();
  }

  tick() {
    if (!this.detail.hidden) this.detailed.tick();
  }

  get all() {
    const known = new Map();
    for (const row of [...this.#older, ...this.store.recent, ...this.store.requests.values()]) known.set(row.id, row);
    return [...known.values()];
  }

  #choose(id, isShown) {
    if (isShown) this.shown.add(id);
    else this.shown.delete(id);
    localStorage.setItem(KEPT_COLUMNS, JSON.stringify([...this.shown]));
    this.#draw();
  }

  #wanted() {
    const said = this.filter.value.trim();
    const conversation = /^conversation:(.*)$/.exec(said)?.[1];
    const wanted = said.toLowerCase();
    const column = COLUMNS.find(({ id }) => id === this.#sort.column) ?? COLUMNS[0];
    const rows = this.all.filter((row) => (conversation !== undefined ? row.conversation === conversation : !wanted || asText(row).includes(wanted)));
    const by = (row) => column.value(row) ?? -Infinity;
    const order = this.#sort.down ? -1 : 1;
    return rows.sort((a, b) => order * (by(a) < by(b) ? -1 : by(a) > by(b) ? 1 : a.arrived_s - b.arrived_s));
  }

  #draw() {
    const rows = this.#wanted();
    const columns = COLUMNS.filter((column) => this.shown.has(column.id));
    keyed(this.head, columns, (column) => column.id, (column) => h(column.isNumber ? 'th.number' : 'th', { scope: 'col' }, h('button.quiet', { type: 'button', onclick: () => this.#sortBy(column) }, column.title)), (cell, column) => {
      const isSorted = column.id === this.#sort.column;
      attr(cell, 'aria-sort', isSorted ? (this.#sort.down ? 'descending' : 'ascending') : null);
    });
    keyed(this.rows, rows.slice(0, DRAWN), (row) => row.id, () => h('tr'), (made, row) => {
      attr(made, 'aria-current', row.id === this.#chosen ? 'true' : null);
      keyed(made, columns, (column) => column.id, (column) => h(column.isNumber ? 'td.number' : 'td'), (cell, column) => cellOf(cell, column, row, this));
    });
    const left = rows.length - DRAWN;
    text(this.count, rows.length ? `${number(rows.length)}${left > 0 ? `, the first ${DRAWN} are shown` : ''}` : '');
    this.none.hidden = rows.length > 0;
    text(this.none, this.all.length ? 'No request matches.' : 'No request has come since the gateway started.');
    this.#plot();
    const chosen = this.all.find((row) => row.id === this.#chosen);
    this.detail.hidden = !chosen;
    this.#seek(chosen);
    if (!chosen) return;
    if (this.detailed?.id !== chosen.id) {
      this.detailed = { id: chosen.id, ...detail(chosen.id, this) };
      this.detail.replaceChildren(...this.detailed.parts);
    }
    this.detailed.show(chosen);
  }

  #plot() {
    this.plot.replaceChildren(speeds(this.#wanted(), Math.max(this.plot.clientWidth - PLOT_PADDING, 240)));
  }

  get #chosen() {
    return decoded(this.place.split('?')[0]);
  }

  // The feed begins with the last requests only: one that is older is asked for, once. What a page
  // says of one that is found nowhere, it says until another place is gone to.
  async #seek(chosen) {
    const id = this.#chosen;
    this.unknown.hidden = Boolean(chosen) || !id || this.sought !== id || this.isSeeking;
    if (chosen || !id || !this.store.hasSnapshot || this.sought === id) return;
    [this.sought, this.isSeeking] = [id, true];
    try {
      const { requests } = await this.store.json(`/gateway/requests?limit=${MANY}`);
      if (requests.some((row) => row.id === id)) this.#older.push(...requests);
    } catch (error) {
      text(this.fault, error.message);
    }
    this.isSeeking = false;
    this.#draw();
  }

  #filtered() {
    keep('requests', { filter: this.filter.value });
    this.#draw();
  }

  // Those of one conversation, from its link in a detail.
  showConversation(conversation) {
    this.filter.value = `conversation:${conversation}`;
    this.#filtered();
    this.filter.focus();
  }

  #sortBy(column) {
    const { column: last, down } = this.#sort;
    this.#sort = { column: column.id, down: last === column.id ? !down : true };
    keep('requests-sort', this.#sort);
    this.#draw();
  }

  async #ask() {
    text(this.fault, '');
    this.more.disabled = true;
    try {
      const oldest = this.all.reduce((first, row) => (first && first.arrived_s <= row.arrived_s ? first : row), null);
      const path = `/gateway/requests?limit=${PAGE}${oldest ? `&before=${encodeURIComponent(oldest.id)}` : ''}`;
      const { requests, more } = await this.store.json(path);
      this.#older.push(...requests);
      this.more.hidden = !more;
      this.#draw();
    } catch (error) {
      // The oldest row here may be one that it has forgotten since.
      this.more.hidden = error.code === 'invalid_parameter';
      text(this.fault, this.more.hidden ? 'The gateway remembers no older ones.' : error.message);
    }
    this.more.disabled = false;
  }

  async #copy() {
    const said = asCsv(this.#wanted(), COLUMNS.filter((column) => this.shown.has(column.id)));
    await copyText(this.copy, said);
  }
}

// A menu closes when the focus goes elsewhere, or with Escape.
function left({ type, key, relatedTarget, currentTarget: menu }) {
  if (type === 'keydown' ? key !== 'Escape' : !relatedTarget || menu.contains(relatedTarget)) return;
  menu.open = false;
  if (type === 'keydown') menu.firstElementChild.focus();
}

function asText(row) {
  return [row.id, row.model, row.asked, row.variant, row.client, row.endpoint, row.stage, row.decision, row.conversation, resultOf(row), clock(row.arrived_s), seconds(row.took_s), speed(row.speed)].join(' ').toLowerCase();
}

function keptColumns() {
  try {
    const found = JSON.parse(localStorage.getItem(KEPT_COLUMNS));
    return Array.isArray(found) && found.length ? found : null;
  } catch {
    return null;
  }
}
