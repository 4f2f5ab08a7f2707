// Models: what there is, what is in memory, and what would happen to a request.

import { attr, chip, h, keyed, scroller, text } from '../dom.js';
import { bytes, decoded, number, percent, seconds } from '../format.js';
import { View } from '../view.js';

const STATES = { loaded: 'good', loading: 'busy', failed: 'bad', unloaded: '' };

export default class Models extends View {
  static topics = ['models', 'engines'];

  build() {
    this.list = h('div.models');
    this.none = h('p.empty', {}, 'Waiting for the gateway…');
    this.says = h('p.unseen', { role: 'status' });
    this.explaining = explainer(this);
    this.append(h('h1.unseen', {}, 'Models'), this.says, h('div.stack', {}, this.none, this.list, this.explaining.card));
  }

  update() {
    const models = [...this.store.models.values()];
    this.none.hidden = models.length > 0;
    if (this.store.hasSnapshot && !models.length) text(this.none, 'Your key may not see any models.');
    keyed(this.list, models, (model) => model.name, (model) => card(this, model), (made, model) => show(made, model, this.store));
    this.explaining.models(models.map((model) => model.name));
    this.#seek();
  }

  opened() {
    this.placeChanged(this.place);
  }

  placeChanged(place) {
    this.sought = decoded(place);
    this.#seek();
  }

  // To the model that a link named, once it is there, and only once.
  #seek() {
    const found = [...this.list.children].find((made) => made.getAttribute('aria-label') === this.sought);
    if (!found) return;
    this.sought = '';
    found.scrollIntoView({ block: 'start' });
    found.focus({ preventScroll: true });
  }

  // Does something by hand, and says what came of it beside the buttons.
  async act(made, path, doing) {
    text(made.fault, '');
    text(made.doing, doing);
    for (const button of made.buttons) button.disabled = true;
    try {
      await this.store.json(path, { method: 'POST' });
      text(this.says, `${doing} done`);
    } catch (error) {
      text(made.fault, error.message);
    }
    text(made.doing, '');
    for (const button of made.buttons) button.disabled = false;
  }
}

function card(view, { name }) {
  const path = `/gateway/models/${encodeURIComponent(name)}`;
  const made = h('section.card', { 'aria-label': name, tabindex: '-1' });
  const act = (what, doing) => () => view.act(made, `${path}/${what}`, doing);
  made.state = h('span.tag');
  made.pinned = h('span.tag.accent', { hidden: true }, 'pinned');
  made.hidden_ = h('span.tag', { hidden: true }, 'hidden');
  made.about = h('span.soft.small');
  made.load = h('button.quiet', { type: 'button', onclick: act('load', 'Loading…') }, 'Load');
  made.unload = h('button.quiet', { type: 'button', onclick: act('unload', 'Unloading…') }, 'Unload');
  made.pin = h('button.quiet', { type: 'button', onclick: () => view.act(made, `${path}/pin?pinned=${made.isPinned ? 'false' : 'true'}`, 'Pinning…') }, 'Pin');
  made.buttons = [made.load, made.unload, made.pin];
  made.doing = h('span.soft.small', { role: 'status' });
  made.fault = h('span.fault.small', { role: 'alert' });
  made.rows = h('tbody');
  made.carryover = h('p.soft.small.note');
  made.counts = h('div.counts');
  const counts = h('details', { ontoggle: (event) => event.target.open && showCounts(view, name, path, made.counts) }, h('summary', {}, 'How exact its token counts were'), made.counts);
  made.append(
    h('header', {}, chip(name), h('h2', {}, name), made.state, made.pinned, made.hidden_, made.about, h('span.row.end', {}, made.doing, ...made.buttons)),
    made.fault,
    scroller(`Variants of ${name}`, h('table', {}, h('thead', {}, h('tr', {}, ['Variant', 'Context', 'At a time', 'Memory', 'Load'].map((head, place) => h(place ? 'th.number' : 'th', { scope: 'col' }, head)))), made.rows)),
    h('footer', {}, made.carryover, counts));
  return made;
}

function show(made, model, store) {
  text(made.state, model.state);
  attr(made.state, 'class', `tag ${STATES[model.state] ?? ''}`.trim());
  made.isPinned = model.pinned;
  made.pinned.hidden = !model.pinned;
  made.hidden_.hidden = !model.hidden;
  text(made.pin, model.pinned ? 'Unpin' : 'Pin');
  const also = model.aliases?.length ? ` · also ${model.aliases.join(', ')}` : '';
  const chosen = model.choices?.length ? ` · one of ${model.choices.join(', ')}` : '';
  text(made.about, `${model.engine_type ?? ''} · pool ${model.pool ?? '–'}${also}${chosen}${model.from ? ` · from ${model.from}` : ''}`);
  made.load.hidden = !store.admin || model.from || model.state === 'loaded';
  made.unload.hidden = !store.admin || model.from || model.state === 'unloaded';
  made.pin.hidden = !store.admin || Boolean(model.from);
  const where = model.engine_type === 'remote' ? 'in use' : 'in memory'; // a remote's memory is its own affair
  const running = new Set([...store.engines.values()].filter((engine) => engine.model === model.name).map((engine) => engine.variant));
  keyed(made.rows, model.variants ?? [], (variant) => variant.name, () => h('tr', {}, h('td'), h('td.number'), h('td.number'), h('td.number'), h('td.number')), (row, variant) => {
    const [name, context, places, memory, load] = row.children;
    text(name, running.has(variant.name) ? `${variant.name} · ${where}` : variant.name);
    text(context, `${number(variant.context)} tokens`);
    text(places, number(variant.parallel));
    text(memory, variant.memory_bytes ? `${bytes(variant.memory_bytes)}, ${variant.memory_is}` : 'not known');
    text(load, variant.load_s ? `${seconds(variant.load_s)}, ${variant.load_is ?? 'guessed'}` : 'not measured');
  });
  const { carryover } = model;
  const works = typeof carryover === 'string' ? `does not work: ${carryover}` : carryover ? 'works' : 'is off';
  text(made.carryover, carryover === undefined ? '' : `KV carry-over ${works}`);
}

async function showCounts(view, name, path, place) {
  try {
    const facts = await view.store.json(path);
    const errors = Object.entries(facts.count_errors ?? {});
    if (!errors.length) place.replaceChildren(h('p.soft.small', {}, 'No answers yet.'));
    else place.replaceChildren(scroller(`Counts of ${name}`, h('table', {}, h('thead', {}, h('tr', {}, ['Counted by', 'Answers', 'Exact', 'Lowest', 'Median', 'Highest'].map((head) => h('th', { scope: 'col' }, head)))), h('tbody', {}, errors.map(([by, summary]) => h('tr', {}, h('td', {}, by), h('td', {}, number(summary.answers)), h('td', {}, percent(summary.exact_share, 1)), h('td', {}, number(summary.least)), h('td', {}, number(summary.median)), h('td', {}, number(summary.most))))))),
      h('p.soft.small', {}, 'Tokens counted minus tokens that the engine reported: below 0, the count was too low.'));
  } catch (error) {
    place.replaceChildren(h('p.fault', {}, error.message));
  }
}

// The form that explains a request: what `trio-gateway explain` says.
function explainer(view) {
  const model = h('select', { id: 'explain-model' });
  const limit = h('input', { id: 'explain-limit', type: 'number', min: '1', placeholder: 'none' });
  const said = h('textarea', { id: 'explain-text', rows: '4', placeholder: 'The text of a chat, or a whole request as JSON' });
  const fault = h('p.fault', { role: 'alert' });
  const result = h('dl.explained', { 'aria-live': 'polite' });
  const submit = async (event) => {
    event.preventDefault();
    text(fault, '');
    try {
      const body = said.value.trim().startsWith('{') ? JSON.parse(said.value) : { model: model.value, messages: [{ role: 'user', content: said.value }] };
      if (limit.value) body.max_tokens = Number(limit.value);
      const found = await view.store.json('/gateway/explain', { body });
      result.replaceChildren(...explained(found).map(([what, about]) => h('div', {}, h('dt', {}, what), h('dd', {}, about))));
    } catch (error) {
      text(fault, error.message);
      result.replaceChildren();
    }
  };
  const form = h('form', { onsubmit: submit },
    h('div.row', {}, h('span.row', {}, h('label', { for: 'explain-model' }, 'Model'), model), h('span.row', {}, h('label', { for: 'explain-limit' }, 'Max tokens'), limit)),
    h('label', { for: 'explain-text' }, 'Request'), said,
    h('div.row', {}, h('button.primary', {}, 'Explain'), fault));
  const card = h('section.card', { 'aria-label': 'Explain a request' }, h('header', {}, h('h2', {}, 'What would happen to a request'), h('span.soft.small', {}, 'nothing is started')), form, result);
  return {
    card,
    models(names) {
      if (names.join('\n') !== [...model.options].map((option) => option.value).join('\n')) model.replaceChildren(...names.map((name) => h('option', { value: name }, name)));
    },
  };
}

function explained(found) {
  const rows = [['Prompt', found.counted === null ? `${number(found.bounds.lower)} to ${number(found.bounds.upper)} tokens, by its size` : `${number(found.counted)} tokens, counted by ${found.counted_by}${found.is_exact ? '' : ', at most'}`]];
  if (found.refused) rows.push(['Refused', found.refused]);
  if (found.need) {
    const answer = found.answer === null ? 'no maximum' : `at most ${number(found.answer)} tokens`;
    rows.push(['Answer', `${answer}${found.clamped_from ? `, lowered from ${number(found.clamped_from)}` : ''}`],
      ['Need', `${number(found.need)} tokens with the answer, ${number(found.start_need)} for an engine that is started for it`]);
  }
  if (found.variants?.length) rows.push(['Variants', found.variants.map((one) => `${one.variant}${one.holds ? ' (fits)' : ''}`).join(', ')]);
  if (found.variant) rows.push(['Variant', `${found.variant}: ${found.reason}`], ['Engine', `${found.decision}${found.engine_state ? `, ${found.engine_state}` : ''}`]);
  if (found.evicts?.length) rows.push(['Stops', found.evicts.join(', ')]);
  if (found.need) {
    const load = found.expected_load_s ? `, ${seconds(found.expected_load_s)} of it for a load` : '';
    rows.push(['Expected wait', found.expected_wait_s === null ? 'not known' : `${seconds(found.expected_wait_s)}${load}`]);
  }
  if (found.back_off) rows.push(['Back-off', found.back_off]);
  if (found.kv) rows.push(['Carry-over', found.kv]);
  return rows;
}
