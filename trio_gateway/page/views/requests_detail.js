// One request in detail: its whole way as a waterfall, and all that is known of it.

import { h, text } from '../dom.js';
import { bytes, moment, number, seconds, speed } from '../format.js';
import { resultOf } from './requests_columns.js';

// Its elements, made once, so that its buttons keep the focus; `show(row)` each time, and `tick()` for
// the times of one that goes on.
export function detail(id, view) {
  let shown = {};
  const title = h('h2');
  const close = h('button.quiet', { type: 'button', onclick: () => view.goTo('') }, 'Close');
  const cancels = h('button.quiet.danger', { type: 'button', onclick: () => cancel(cancels, shown, view) }, 'Cancel');
  const way = h('div');
  const known = h('dl.facts');
  const draw = () => way.replaceChildren(waterfall(shown, view.store.now()));
  const conversation = h('p.foot', {}, h('button.quiet', { type: 'button', onclick: () => view.showConversation(shown.conversation) }, 'Show the requests of this conversation'));
  const show = (row) => {
    if (row === shown && row.outcome) return;
    shown = row;
    text(title, `${row.model ?? row.asked ?? 'a request'} · ${row.endpoint}`);
    cancels.hidden = Boolean(row.outcome);
    conversation.hidden = !row.conversation;
    draw();
    known.replaceChildren(...facts(row).filter(([, value]) => value).map(([what, value]) => h('div', {}, h('dt', {}, what), h('dd', {}, value))));
  };
  const tick = () => { if (!shown.outcome) draw(); };
  return { parts: [h('header', {}, title, h('span.soft.small', {}, id), h('span.row.end', {}, cancels, close)), way, known, conversation], show, tick };
}

async function cancel(button, row, view) {
  button.disabled = true;
  try {
    await view.store.json(`/gateway/requests/${encodeURIComponent(row.id)}/cancel`, { method: 'POST' });
  } catch (error) {
    button.textContent = error.message;
  }
}

// What it did, one after the other: from when, to when, seconds since it came.
export function stepsOf(row, now_s) {
  const end = row.outcome ? row.took_s ?? 0 : Math.max(now_s - row.arrived_s, 0);
  const granted = row.granted_after_s;
  const steps = [];
  const step = (name, from, to) => { if (to - from > 0.0005) steps.push({ name, from, to }); };
  if (granted === undefined) {
    const since = row.stage === 'waiting' ? 0 : end - (row.waited_s ?? 0); // it never had an engine
    step('arriving', 0, since);
    step('waiting', since, end);
    return { steps, end };
  }
  const [waited, load] = [row.waited_s ?? 0, row.load_s ?? 0];
  const inLine = Math.max(granted - waited - load, 0);
  step('arriving', 0, inLine);
  step('waiting', inLine, inLine + waited);
  step('loading', inLine + waited, granted);
  const sent = row.sent_after_s ?? granted;
  const first = row.first_byte_after_s;
  step('preparing', granted, sent);
  step(row.is_streamed ? 'reading' : 'answering', sent, first ?? end);
  if (first !== undefined) step('answering', first, end);
  return { steps, end };
}

const WORDS = { arriving: 'read and counted', waiting: 'in line', loading: 'its engine loads', preparing: 'made ready', reading: 'the engine reads the prompt', answering: 'the answer comes' };

function waterfall(row, now_s) {
  const { steps, end } = stepsOf(row, now_s);
  const share = (value) => `${end ? (value / end) * 100 : 0}%`;
  const bars = steps.map(({ name, from, to }) => {
    const bar = h('span.step', { 'data-step': name });
    bar.style.setProperty('left', share(from));
    bar.style.setProperty('width', share(to - from));
    return h('li', {}, h('span.what', {}, WORDS[name]), h('span.track', {}, bar), h('span.number', {}, seconds(to - from)));
  });
  return h('ol.waterfall', { 'aria-label': `Its way, ${seconds(end)} in all` }, bars);
}

function facts(row) {
  const counted = row.counted_tokens === undefined ? '' : `${number(row.counted_tokens)} tokens, by ${row.counted_by}${row.is_exact ? '' : ', at most'}`;
  const used = row.prompt_tokens === undefined ? '' : `${number(row.prompt_tokens)} tokens${row.cached_tokens === undefined ? '' : `, ${number(row.cached_tokens)} of them cached`}${row.prompt_speed ? `, read at ${speed(row.prompt_speed)}` : ''}`;
  const drafted = row.drafted_tokens ? `, ${number(row.accepted_tokens ?? 0)} of ${number(row.drafted_tokens)} drafted ones taken` : '';
  const evicted = row.evicted?.length ? `, in place of ${row.evicted.join(', ')}` : '';
  const kv = row.kv_restored || row.kv_saved ? `${number(row.kv_restored ?? 0)} tokens restored, ${number(row.kv_saved ?? 0)} saved${row.kv_spared === undefined ? '' : `, ${number(row.kv_spared)} spared`}` : '';
  return [
    ['Came', moment(row.arrived_s)],
    ['From', `${row.client ?? ''}${row.priority === 'batch' ? ', batch' : ''}`],
    ['Asked for', row.asked],
    ['Waits', row.sentence],
    ['Served by', row.variant ? `${row.model}:${row.variant}, ${number(row.context)} tokens` : ''],
    ['Why', row.why],
    ['Choice', row.choice],
    ['Engine', row.decision ? `${row.decision}${evicted}` : ''],
    ['Server', row.site],
    ['Need', row.need ? `${number(row.need)} tokens` : ''],
    ['Counted', counted],
    ['Prompt', used],
    ['Answer', row.generated_tokens === undefined ? '' : `${number(row.generated_tokens)} tokens${row.speed ? `, ${speed(row.speed)}` : ''}${drafted}`],
    ['Result', `${resultOf(row)}${row.status ? ` (${row.status})` : ''}`],
    ['Carry-over', kv],
    ['Cache', row.cache_break ? `little was in it; the first to differ: ${row.cache_break}` : ''],
    ['Tries', row.tries > 1 ? String(row.tries) : ''],
    ['Sizes', `${bytes(row.request_bytes ?? 0)} came, ${bytes(row.answer_bytes ?? 0)} went`],
  ];
}
