// The shell: tabs, the place in the URL, the connection and the key.
//
// A view is a module views/NAME.js whose default export is a custom element class; its styles are
// views/NAME.css, which is loaded with it and stays: all of them are inside `gw-NAME { … }`, so that
// they are about no other view. The shell makes one element of it
// when its tab is first opened, and keeps it: it is connected while its tab is open, and
// disconnected while another one is. So a view
//   - builds itself in the first `connectedCallback`, and there subscribes to the store;
//     `disconnectedCallback` ends the subscription (`View` in view.js does both: extend it),
//   - has `this.store` (store.js), set before it is connected,
//   - has `this.place`, the text after its name in the hash: '' for '#requests', 'abc' for
//     '#requests/abc', 'a/b?c=d' for '#requests/a/b?c=d'. It may define `placeChanged(place)`, which
//     is called when that changes; links to places are `href: '#requests/abc'`, and `this.goTo(place)`
//     sets the place of the view itself (which stays over a reload),
//   - makes its elements with dom.js (text is text, never HTML) and shows values with format.js.

import { Connection } from './connection.js';
import { h, text } from './dom.js';
import { Store } from './store.js';

const VIEWS = [
  ['now', 'Now'],
  ['timeline', 'Timeline'],
  ['requests', 'Requests'],
  ['models', 'Models'],
  ['logs', 'Logs'],
  ['chat', 'Chat'],
  ['configuration', 'Configuration'],
];

const store = new Store();
const main = document.querySelector('main');
const tabs = new Map(VIEWS.map(([name, title]) => [name, h('a', { href: `#${name}` }, title)]));
const opened = new Map(); // promises of the elements of views, by name
let asked = ''; // the view that was asked for last, as modules take a moment to load

function placeInHash() {
  const [, name, , place] = /^#([^/?]*)(\/?)(.*)$/.exec(location.hash) ?? [];
  return tabs.has(name) ? { name, place: place ?? '' } : { name: 'now', place: '' };
}

async function show() {
  const { name, place } = placeInHash();
  asked = name;
  for (const [other, tab] of tabs) {
    if (other === name) tab.setAttribute('aria-current', 'page');
    else tab.removeAttribute('aria-current');
  }
  tabs.get(name).scrollIntoView({ block: 'nearest', inline: 'nearest' });
  document.title = `${tabs.get(name).textContent} · trio-gateway`;
  const view = await open(name);
  if (asked !== name) return;
  const moved = view.place !== place;
  view.place = place;
  if (main.firstElementChild !== view) main.replaceChildren(view);
  else if (moved) view.placeChanged?.(place);
  mend();
}

function open(name) {
  if (!opened.has(name)) opened.set(name, load(name));
  return opened.get(name);
}

async function load(name) {
  const { returns } = store;
  try {
    await styles(`views/${name}.css`);
    const { default: View } = await import(`./views/${name}.js`);
    customElements.define(`gw-${name}`, View);
    return Object.assign(document.createElement(`gw-${name}`), { store, place: '' });
  } catch (error) {
    console.error(error);
    opened.delete(name); // to be tried again
    const missing = h('p.empty', { role: 'alert' }, `This view could not be loaded: ${error.message}. Reload the page to try again.`);
    return Object.assign(missing, { missingSince: returns });
  }
}

// The gateway may go just when a view's modules are asked for. Once it is back they are asked for
// anew by loading the page, which keeps its place: a browser may remember that a module was missing.
function mend() {
  if (store.connection.state === 'live' && store.returns > main.firstElementChild?.missingSince) location.reload();
}

// Waited for, so that a view is never seen without them.
function styles(href) {
  return new Promise((resolve, reject) => {
    const failed = () => {
      link.remove();
      reject(new Error(`${href} is missing`));
    };
    const link = h('link', { rel: 'stylesheet', href, onload: resolve, onerror: failed });
    document.head.append(link);
  });
}

const notice = document.querySelector('.notice');

function showConnection() {
  const { state } = store.connection;
  document.body.dataset.connection = state;
  mend();
  const { captures } = store;
  notice.hidden = !captures;
  text(notice, captures ? `Bodies and answers of the next requests of ${captures.model} are being recorded, in memory only: ${captures.left} left.` : '');
}

document.querySelector('nav').append(...tabs.values());
document.querySelector('.skip').addEventListener('click', (event) => {
  event.preventDefault(); // the hash is the place of the view
  main.focus();
});
customElements.define('gw-connection', Connection);
document.querySelector('gw-connection').begin(store);
store.subscribe(['connection', 'captures'], showConnection);
addEventListener('hashchange', show);
show();
store.follow();
