// Configuration: the one in force, with its secrets left out, and what `check` says of it.

import { h, text } from '../dom.js';
import { View } from '../view.js';

export default class Configuration extends View {
  static topics = ['connection'];

  build() {
    this.fault = h('p.fault', { role: 'alert' });
    this.body = h('div.stack');
    this.append(h('h1.unseen', {}, 'Configuration'), h('div.stack', {}, this.fault, this.body));
  }

  opened() {
    this.#ask();
  }

  update() {
    if (this.store.connection.state === 'live' && this.askedFor !== this.store.run) this.#ask();
  }

  async #ask() {
    this.askedFor = this.store.run;
    text(this.fault, '');
    try {
      const found = await this.store.json('/gateway/configuration');
      this.body.replaceChildren(
        remarks('Notes', found.notes, 'Nothing to note.'),
        remarks('Missing on this machine', found.missing, 'Everything it names exists.'),
        h('section.card', { 'aria-label': 'In force' },
          h('header', {}, h('h2', {}, 'In force'), h('span.soft.small', {}, `${found.source}; secrets are left out as •••`)),
          ...Object.entries(found.configuration).map(([name, value]) => part(name, value, name === 'server'))));
    } catch (error) {
      text(this.fault, error.message);
      this.body.replaceChildren();
    }
  }
}

function remarks(title, lines, none) {
  return h('section.card', { 'aria-label': title }, h('header', {}, h('h2', {}, title)),
    lines.length ? h('ul.remarks', {}, lines.map((line) => h('li', {}, line))) : h('p.soft.none', {}, none));
}

// A table, as it is nested; lists of tables by their names.
function part(name, value, isOpen = false) {
  return h('details.part', { open: isOpen }, h('summary', {}, name), tree(value));
}

function tree(value) {
  if (value === null || typeof value !== 'object') return h('code', {}, value === null ? 'none' : String(value));
  if (Array.isArray(value)) {
    if (value.every((item) => item === null || typeof item !== 'object')) return h('code', {}, value.length ? value.join(' ') : 'none');
    return h('div', {}, value.map((item, place) => part(item.name ?? item.context ?? String(place + 1), item)));
  }
  const rows = Object.entries(value);
  if (!rows.length) return h('code', {}, 'none');
  return h('dl', {}, rows.map(([key, inner]) => h('div', {}, h('dt', {}, key), h('dd', {}, tree(inner)))));
}
