// Logs: the gateway and engines side by side, as they are written.

import { attr, h, text } from '../dom.js';
import { clock, decoded } from '../format.js';
import { keep, kept } from '../kept.js';
import { View } from '../view.js';
import { coloured, plain } from './logs_colours.js';

const KEPT = 3_000; // in one column; the oldest go
const NEAR = 40; // pixels from the end: then it follows
const GATEWAY = 'gateway';
const NOTHING = 'Nothing was written yet.';

export default class Logs extends View {
  static topics = ['models', 'connection'];

  #end = null; // of the lines that come

  build() {
    const { filter, isExpression, follows } = kept('logs', { filter: '', isExpression: false, follows: true });
    this.filter = h('input', { type: 'search', placeholder: 'Filter', 'aria-label': 'Show lines with this text', oninput: () => this.#refilter() });
    this.filter.value = filter;
    this.isExpression = h('input', { type: 'checkbox', id: 'log-expression', checked: isExpression, onchange: () => this.#refilter() });
    this.follows = h('input', { type: 'checkbox', id: 'log-follow', checked: follows, onchange: () => this.#follow() });
    this.fault = h('span.fault', { role: 'alert' });
    this.second = h('select', { 'aria-label': 'Engine whose log is shown', onchange: () => this.goTo(encodeURIComponent(this.second.value)) });
    this.columns = [new Column(this), new Column(this)];
    this.append(h('h1.unseen', {}, 'Logs'), h('div.stack', {},
      h('div.row', {}, this.filter,
        h('label', { for: 'log-expression' }, this.isExpression, ' regular expression'),
        h('label', { for: 'log-follow' }, this.follows, ' follow'), this.fault),
      h('div.pair', {}, this.columns.map((column) => column.card))));
    this.columns[0].head.append(h('h2', {}, 'Gateway'));
    this.columns[1].head.append(h('h2', {}, 'Engine'), this.second);
    this.#refilter();
  }

  opened() {
    this.placeChanged(this.place);
  }

  closed() {
    this.#end?.();
    this.#end = null;
  }

  update() {
    const names = [...this.store.models.keys()];
    const known = [...this.second.options].map((option) => option.value);
    if (names.join('\n') !== known.join('\n')) this.second.replaceChildren(...names.map((name) => h('option', { value: name }, name)));
    this.placeChanged(this.place);
  }

  placeChanged(place) {
    const names = [...this.store.models.keys()];
    const asked = decoded(place);
    const name = names.includes(asked) ? asked : names[0] ?? '';
    if (this.second.value !== name) this.second.value = name;
    if (this.name !== name) this.columns[1].clear();
    this.name = name;
    attr(this.columns[0].list, 'aria-label', 'Lines of the gateway');
    attr(this.columns[1].list, 'aria-label', `Lines of ${name}`);
    if (!this.store.hasSnapshot) return;
    this.#end = this.store.followLogs(name ? [GATEWAY, name] : [GATEWAY], this.#take);
    if (!this.store.admin) this.#take({ fault: 'It takes an admin’s key to see the logs.' });
  }

  #take = ({ lines = [], begins = false, fault = '' }) => {
    const isOwn = (line) => line.source === GATEWAY;
    for (const [place, column] of this.columns.entries()) {
      if (begins || fault) column.clear(fault);
      column.add(lines.filter((line) => isOwn(line) === (place === 0)));
    }
  };

  get matches() {
    return this.test ?? (() => true);
  }

  #refilter() {
    this.#keep();
    const wanted = this.filter.value;
    text(this.fault, '');
    if (!this.isExpression.checked) {
      const low = wanted.toLowerCase();
      this.test = wanted ? (said) => said.toLowerCase().includes(low) : null;
    } else {
      try {
        const expression = new RegExp(wanted, 'i');
        this.test = wanted ? (said) => expression.test(said) : null;
      } catch (error) {
        text(this.fault, error.message);
      }
    }
    attr(this.filter, 'aria-invalid', this.fault.textContent ? 'true' : null);
    for (const column of this.columns) column.refilter();
  }

  #keep() {
    keep('logs', { filter: this.filter.value, isExpression: this.isExpression.checked, follows: this.follows.checked });
  }

  #follow() {
    this.#keep();
    if (this.follows.checked) for (const column of this.columns) column.toEnd();
  }
}

// The lines of one log.
class Column {
  constructor(view) {
    this.view = view;
    this.head = h('header');
    this.count = h('span.soft.small.end');
    this.list = h('div.lines', { tabindex: '0', role: 'log', 'aria-live': 'off', 'aria-label': 'Lines' });
    this.none = h('p.empty', {}, NOTHING);
    this.card = h('section.card', {}, this.head, this.list, this.none);
    queueMicrotask(() => this.head.append(this.count));
  }

  clear(fault = '') {
    this.list.replaceChildren();
    text(this.none, fault || NOTHING);
    this.#tell();
  }

  add(lines) {
    if (!lines.length) return;
    const { list } = this;
    const wasAtEnd = list.scrollHeight - list.scrollTop - list.clientHeight < NEAR;
    list.append(...lines.map((line) => this.#rowOf(line)));
    while (list.childElementCount > KEPT) list.firstElementChild.remove();
    if (this.view.follows.checked && wasAtEnd) this.#soon();
    else this.#tell();
  }

  #rowOf(line) {
    const row = h('div', { 'data-level': line.level }, h('time.soft', {}, clock(line.at_s)), ' ', coloured(line.text));
    row.gwText = plain(line.text);
    row.hidden = !this.view.matches(row.gwText);
    return row;
  }

  #soon() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = undefined;
      this.#tell(); // which shows the list, if these are its first lines
      this.toEnd();
    });
  }

  toEnd() {
    this.list.scrollTop = this.list.scrollHeight;
  }

  refilter() {
    for (const row of this.list.children) row.hidden = !this.view.matches(row.gwText);
    if (this.view.follows.checked) this.toEnd();
    this.#tell();
  }

  #tell() {
    const all = this.list.childElementCount;
    const shown = this.view.test ? [...this.list.children].filter((row) => !row.hidden).length : all;
    text(this.count, all ? (shown === all ? `${all} lines` : `${shown} of ${all} lines`) : '');
    this.none.hidden = all > 0;
    this.list.hidden = all === 0;
  }
}
