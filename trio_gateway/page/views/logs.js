// Logs: the gateway and engines side by side, as they are written.

import { attr, h, text } from '../dom.js';
import { clock } from '../format.js';
import { eventsOf } from '../sse.js';
import { View } from '../view.js';
import { coloured } from './logs_colours.js';

const LINES = 500; // asked for at first
const KEPT = 3_000; // in one column; the oldest go
const NEAR = 40; // pixels from the end: then it follows
const RETRY_MS = 2_000;
const GATEWAY = 'gateway';

export default class Logs extends View {
  static topics = ['models', 'connection'];

  build() {
    this.filter = h('input', { type: 'search', placeholder: 'Filter', 'aria-label': 'Show lines with this text', oninput: () => this.#refilter() });
    this.isExpression = h('input', { type: 'checkbox', id: 'log-expression', onchange: () => this.#refilter() });
    this.follows = h('input', { type: 'checkbox', id: 'log-follow', checked: true, onchange: () => this.#follow() });
    this.fault = h('span.fault', { role: 'alert' });
    this.second = h('select', { 'aria-label': 'Engine whose log is shown', onchange: () => this.goTo(this.second.value) });
    this.columns = [new Column(this, GATEWAY), new Column(this, '')];
    this.append(h('h1.unseen', {}, 'Logs'), h('div.stack', {},
      h('div.row', {}, this.filter,
        h('label', { for: 'log-expression' }, this.isExpression, ' regular expression'),
        h('label', { for: 'log-follow' }, this.follows, ' follow'), this.fault),
      h('div.pair', {}, this.columns.map((column) => column.card))));
    this.columns[0].head.append(h('h2', {}, 'Gateway'));
    this.columns[1].head.append(h('h2', {}, 'Engine'), this.second);
  }

  opened() {
    this.placeChanged(this.place);
  }

  closed() {
    for (const column of this.columns) column.stop();
  }

  update() {
    const names = [...this.store.models.keys()];
    const known = [...this.second.options].map((option) => option.value);
    if (names.join('\n') !== known.join('\n')) {
      this.second.replaceChildren(...names.map((name) => h('option', { value: name }, name)));
      this.placeChanged(this.place);
    }
  }

  placeChanged(place) {
    const names = [...this.store.models.keys()];
    const name = names.includes(decodeURIComponent(place)) ? decodeURIComponent(place) : names[0] ?? '';
    this.second.value = name;
    this.columns[0].show(GATEWAY);
    this.columns[1].show(name);
  }

  get matches() {
    return this.test ?? (() => true);
  }

  #refilter() {
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

  #follow() {
    if (this.follows.checked) for (const column of this.columns) column.toEnd();
  }
}

// One log, which reads its stream for as long as it is shown.
class Column {
  #reading = null;
  #source = null;

  constructor(view) {
    this.view = view;
    this.head = h('header');
    this.count = h('span.soft.small.end');
    this.list = h('div.lines', { tabindex: '0', role: 'log', 'aria-live': 'off', 'aria-label': 'Lines' });
    this.none = h('p.empty', {}, 'Nothing was written yet.');
    this.card = h('section.card', {}, this.head, this.list, this.none);
    queueMicrotask(() => this.head.append(this.count));
  }

  show(source) {
    if (source === this.#source && this.#reading) return;
    this.stop();
    this.#source = source;
    attr(this.list, 'aria-label', `Lines of ${source === GATEWAY ? 'the gateway' : source}`);
    this.list.replaceChildren();
    this.#tell();
    if (source) this.#read(source, this.#reading = new AbortController());
  }

  stop() {
    this.#reading?.abort();
    this.#reading = null;
  }

  async #read(source, reading) {
    const { store } = this.view;
    while (!reading.signal.aborted) {
      try {
        const path = `/gateway/logs?engine=${encodeURIComponent(source)}&lines=${LINES}&follow=1`;
        const response = await store.fetch(path, { headers: { Accept: 'text/event-stream' }, signal: reading.signal });
        this.list.replaceChildren();
        for await (const { event, data } of eventsOf(response)) {
          if (event === 'log') this.#add(JSON.parse(data));
        }
      } catch (error) {
        if (reading.signal.aborted) return;
        text(this.none, error.message);
        this.#tell();
      }
      await new Promise((resolve) => { setTimeout(resolve, RETRY_MS); });
    }
  }

  #add(line) {
    const plain = line.text.replace(/\x1b\[[0-9;]*m/g, '');
    const row = h('div', { 'data-level': line.level }, h('time.soft', {}, clock(line.at_s)), ' ', coloured(line.text));
    row.gwText = plain;
    row.hidden = !this.view.matches(plain);
    const { list } = this;
    const wasAtEnd = list.scrollHeight - list.scrollTop - list.clientHeight < NEAR;
    list.append(row);
    while (list.childElementCount > KEPT) list.firstElementChild.remove();
    if (this.view.follows.checked && wasAtEnd) this.#soon();
    else this.#tell();
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
