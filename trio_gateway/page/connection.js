// Whether the feed is live, in the bar; and the dialog that asks for a key.

import { h, text } from './dom.js';

export class Connection extends HTMLElement {
  begin(store) {
    this.store = store;
    this.state = h('span.state', { role: 'status' });
    this.again = h('span.again', { 'aria-hidden': 'true' });
    this.forget = h('button.quiet', { type: 'button', hidden: true, onclick: () => { store.key = ''; } }, 'Forget key');
    this.append(h('span.dot', { 'aria-hidden': 'true' }), this.state, this.again, this.forget);
    this.dialog = this.#makeDialog();
    document.body.append(this.dialog);
    store.subscribe(['connection'], () => this.#show());
    this.#show();
  }

  #makeDialog() {
    this.input = h('input', { id: 'key', type: 'password', autocomplete: 'off', required: true, spellcheck: 'false', 'aria-describedby': 'key-fault' });
    this.fault = h('p.fault', { id: 'key-fault', role: 'alert' });
    const form = h('form', { method: 'dialog', onsubmit: (event) => this.#take(event) },
      h('h2', { id: 'key-title' }, 'An API key, please'),
      h('p', {}, 'This gateway asks for a key. Yours is kept in this tab only, and sent only to this gateway.'),
      h('label', { for: 'key' }, 'Key'),
      this.input,
      this.fault,
      h('p.actions', {}, h('button.primary', { type: 'submit' }, 'Use this key')));
    return h('dialog.key', { 'aria-labelledby': 'key-title', onclose: () => this.#show() }, form);
  }

  #take(event) {
    event.preventDefault();
    const key = this.input.value.trim();
    if (!/^[\x21-\x7e]+$/.test(key)) {
      text(this.fault, 'A key consists of letters, digits and punctuation, without spaces.');
      return;
    }
    text(this.fault, '');
    this.store.key = key;
  }

  #show() {
    const { state, message, retryAt } = this.store.connection;
    const says = { connecting: 'Connecting', live: 'Live', lost: 'Connection lost', key: 'Needs a key' };
    text(this.state, says[state]);
    this.title = message;
    this.forget.hidden = !this.store.key || state === 'key';
    clearInterval(this.clock);
    const count = () => text(this.again, state === 'lost' ? `trying again in ${Math.max(Math.ceil((retryAt - Date.now()) / 1000), 0)} s` : '');
    count();
    if (state === 'lost') this.clock = setInterval(count, 1000);
    if (state === 'key') {
      text(this.fault, message);
      if (!this.dialog.open) this.dialog.showModal();
      this.input.select();
    } else if (state === 'live' && this.dialog.open) {
      this.input.value = '';
      this.dialog.close();
    }
  }
}
