// What was decided for an answer: from its headers, and the feed's row once it is over.

import { attr, h, keyed, text } from '../dom.js';
import { number, seconds, speed } from '../format.js';

const HOW = { reused: 'an engine that was loaded', started: 'an engine was started', swapped: 'swapped' };
const COUNTERS = { bound: 'by its size', engine: 'counted by the engine', vocabulary: 'counted by the vocabulary' };

// [label, value] pairs.
export function decisionOf(decision) {
  if (!decision) return [];
  const { row } = decision;
  const [how, evicted] = (decision.decision ?? row?.decision ?? '').split('; evicted=');
  const queue_s = ms(decision['queue-ms']) ?? row?.waited_s;
  const load_s = ms(decision['load-ms']) ?? row?.load_s;
  const variant = decision.variant ?? row?.variant;
  const [by, isBound] = (decision.counted ?? '').split('; ');
  const pairs = [
    ['Engine', variant && `${decision.model ?? row?.model}:${variant}`],
    ['How', HOW[how] && `${HOW[how]}${evicted ? `, in place of ${evicted}` : ''}`],
    ['Choice', decision.choice ?? row?.choice],
    ['Why', row?.why],
    ['Waited', queue_s !== undefined && ([queue_s < 0.01 ? '' : `${seconds(queue_s)} in line`, load_s ? `${seconds(load_s)} for a load` : ''].filter(Boolean).join(', ') || 'not at all')],
    ['Needs', decision.need && `${isBound ? 'at most ' : ''}${number(Number(decision.need))} tokens${by ? `, ${COUNTERS[by] ?? `counted by ${by}`}` : ''}`],
    ['Limit', decision['answer-limit']],
    ['Cache', decision.kv && `tokens: ${[...decision.kv.matchAll(/(\w+)=(\d+)/g)].map(([, what, count]) => `${number(Number(count))} ${what}`).join(', ')}`],
  ];
  if (row) {
    const first = row.first_byte_after_s - (row.granted_after_s ?? 0);
    pairs.push(
      ['Read', row.prompt_tokens && `${number(row.prompt_tokens)} tokens${row.cached_tokens ? `, ${number(row.cached_tokens)} of them cached` : ''}${first >= 0 ? `, in ${seconds(first)}` : ''}`],
      ['Wrote', row.generated_tokens && `${number(row.generated_tokens)} tokens${row.speed ? `, ${speed(row.speed)}` : ''}`],
      ['Took', seconds(row.took_s)],
    );
  }
  return pairs.filter(([, value]) => value);
}

const ms = (value) => (value === undefined ? undefined : Number(value) / 1000);

export function makeDecision() {
  const list = h('dl');
  const element = h('details.decision', { hidden: true, open: true }, h('summary', {}, 'What was decided'), list);
  element.list = list;
  return element;
}

export function showDecision(element, pairs) {
  element.hidden = pairs.length === 0;
  keyed(element.list, pairs, ([label]) => label, ([label]) => h('div', {}, h('dt', {}, label), h('dd')), (item, [, value]) => text(item.lastChild, value));
  attr(element, 'data-pairs', pairs.length);
}
