// Configuration: the one in force, with its secrets left out, what `check` says of it, and Reload.

import { h, text } from '../dom.js';
import { View } from '../view.js';

export default class Configuration extends View {
  static topics = ['connection'];

  build() {
    this.fault = h('p.fault', { role: 'alert' });
    this.said = h('span.soft', { role: 'status' });
    this.button = h('button', { type: 'button', onclick: () => this.#reload() }, 'Reload the file');
    this.body = h('div.stack');
    this.append(h('h1.unseen', {}, 'Configuration'),
      h('div.stack', {}, h('div.row', {}, this.button, this.said), this.fault, this.body));
  }

  closed() {
    this.askedFor = null;
  }

  // Once an opening and run: what comes a second time is replaced under somebody's hands.
  update() {
    if (this.store.hasSnapshot && this.store.connection.state === 'live' && this.askedFor !== this.store.run) this.#ask();
  }

  // Its mistakes are shown below, as they are kept.
  async #reload() {
    this.button.disabled = true;
    text(this.said, 'Reading the file…');
    let said;
    try {
      const { changes } = await this.store.json('/gateway/reload', { method: 'POST' });
      said = changes.length ? `Changed: ${changes.join('; ')}` : 'Nothing has changed.';
    } catch (error) {
      said = error.message.split('\n')[0];
    }
    await this.#ask();
    text(this.said, said);
    this.button.disabled = false;
  }

  async #ask() {
    this.askedFor = this.store.run;
    text(this.fault, '');
    try {
      const found = await this.store.json('/gateway/configuration');
      this.body.replaceChildren(
        ...(found.mistakes.length ? [remarks('Mistakes in the file, which is not in force', found.mistakes)] : []),
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
