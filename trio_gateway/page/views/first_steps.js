// What to do first, where nothing has happened yet: the curl line.

import { copyText, h, text } from '../dom.js';

export function firstSteps(store) {
  const line = h('pre', { tabindex: '0', 'aria-label': 'A first request' });
  const copy = h('button', { type: 'button', onclick: () => copyText(copy, line.textContent) }, 'Copy');
  const models = h('p.soft');
  const element = h('section.card.first', { 'aria-label': 'First steps', hidden: true },
    h('h2', {}, 'Nothing has happened yet'),
    h('p', {}, 'Ask a model something. Its engine is loaded for it, and you can watch it here:'),
    line,
    h('p.row', {}, copy, h('a', { href: '#chat' }, 'or chat with it on this page')),
    models);
  return {
    element,
    show(wanted) {
      element.hidden = !wanted;
      if (!wanted) return;
      const names = [...store.models.values()].filter((model) => !model.hidden).map((model) => model.name);
      const base = new URL('../v1/chat/completions', document.baseURI);
      const key = store.key ? ' -H "Authorization: Bearer $KEY"' : '';
      const body = JSON.stringify({ model: names[0] ?? 'MODEL', messages: [{ role: 'user', content: 'Hello!' }] });
      text(line, `curl ${base}${key} -H "Content-Type: application/json" -d ${quoted(body)}`);
      text(models, names.length > 1 ? `Models: ${names.slice(0, 12).join(', ')}${names.length > 12 ? ' …' : ''}` : '');
    },
  };
}

// For a shell.
const quoted = (value) => `'${value.replaceAll("'", "'\\''")}'`;
