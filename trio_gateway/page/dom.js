// Elements, made and kept up to date. Every value becomes text by way of a text node: nothing that
// a model, a client or an engine says is ever read as HTML.

const SVG = 'http://www.w3.org/2000/svg';
const SVG_TAGS = new Set(['svg', 'g', 'rect', 'line', 'path', 'text', 'title', 'circle', 'polyline', 'desc']);

// h('button.quiet', { type: 'button', onclick: f, 'aria-label': '…', hidden: true }, 'text', element)
// Attributes that are null or false are left out; children that are null or false as well.
export function h(tag, attributes = {}, ...children) {
  const [name, ...classes] = tag.split('.');
  const made = SVG_TAGS.has(name) ? document.createElementNS(SVG, name) : document.createElement(name);
  if (classes.length) made.setAttribute('class', classes.join(' '));
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith('on')) made.addEventListener(key.slice(2), value);
    else attr(made, key, value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

// Sets an attribute if it is another one; null, undefined and false take it away.
export function attr(element, name, value) {
  if (value === null || value === undefined || value === false) {
    if (element.hasAttribute(name)) element.removeAttribute(name);
  } else {
    const text = value === true ? '' : String(value);
    if (element.getAttribute(name) !== text) element.setAttribute(name, text);
  }
}

// Sets an element's text if it is another one, so that selections and live regions stay calm.
export function text(element, value) {
  const wanted = value === null || value === undefined ? '' : String(value);
  if (element.textContent !== wanted) element.textContent = wanted;
}

// Makes `parent` hold one element for each item, in their order, and keeps elements of items that
// stay: focus, scrolling and selections survive. `key(item)`, `make(item)` → element,
// `update(element, item)` each time.
export function keyed(parent, items, key, make, update) {
  const known = parent.gwKeyed ??= new Map();
  const wanted = new Set();
  let place = parent.firstElementChild;
  for (const item of items) {
    const id = key(item);
    wanted.add(id);
    let element = known.get(id);
    if (element === undefined) known.set(id, element = make(item));
    update(element, item);
    if (element === place) place = place.nextElementSibling;
    else parent.insertBefore(element, place);
  }
  for (const [id, element] of known) {
    if (!wanted.has(id)) {
      known.delete(id);
      element.remove();
    }
  }
}

// Around what may be wider than its place, such as a table: where it is, the arrow keys scroll it.
export function scroller(label, content) {
  const made = h('div.scroll', {}, content);
  const fit = new ResizeObserver(() => {
    const isWider = made.scrollWidth > made.clientWidth;
    attr(made, 'tabindex', isWider ? '0' : null);
    attr(made, 'role', isWider ? 'region' : null);
    attr(made, 'aria-label', isWider ? label : null);
  });
  fit.observe(made);
  fit.observe(content);
  return made;
}

const HUES = 8; // of style.css: `--hue-0` …
const hues = new Map();

// Models get their hues in this order, so that the first eight differ. The store says it.
export function colourModels(names) {
  hues.clear();
  names.forEach((name, place) => hues.set(name, place % HUES));
}

// The same hue for a model wherever it is shown, as a CSS value.
export function hueOf(name) {
  if (hues.has(name)) return `var(--hue-${hues.get(name)})`;
  let sum = 0;
  for (const letter of String(name)) sum = (sum * 31 + letter.codePointAt(0)) >>> 0;
  return `var(--hue-${sum % HUES})`;
}

// A small square in a model's hue. It is set by way of the style itself: as an attribute, the
// page's Content-Security-Policy would forbid it.
export function chip(name) {
  const made = h('span.chip');
  tint(made, name);
  return made;
}

export const tint = (element, name) => element.style.setProperty('--hue', hueOf(name));

// Downloads or copies may fail (no permission): the button says what came of it, and then itself again.
export async function copyText(button, value) {
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(value);
    button.textContent = 'Copied';
  } catch {
    button.textContent = 'Not allowed here';
  }
  setTimeout(() => { button.textContent = before; }, 1500);
}
