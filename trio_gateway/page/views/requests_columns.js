// The columns of the table of requests: what each shows, sorts by, and gives to CSV.

import { attr, h, text, tint } from '../dom.js';
import { bytes, clock, number, seconds, speed } from '../format.js';

const OUTCOMES = { ok: ['done', 'good'], refused: ['refused', 'bad'], failed: ['failed', 'bad'], broken_off: ['broke off', 'bad'], client_gone: ['client left', ''], cancelled: ['cancelled', ''] };
const STAGES = { arriving: 'arriving', waiting: 'waits', reading: 'reads its prompt', answering: 'answers' };

export function resultOf(row) {
  if (!row.outcome) return (row.stage === 'reading' && !row.is_streamed ? 'is answered' : STAGES[row.stage]) ?? row.stage;
  const [word] = OUTCOMES[row.outcome] ?? [row.outcome];
  const why = row.outcome === 'ok' ? row.finish : row.error;
  return why ? `${word}: ${why}` : word;
}

const waited = (row) => (row.waited_s === undefined && row.load_s === undefined ? undefined : (row.waited_s ?? 0) + (row.load_s ?? 0));

// `first`: shown until somebody chooses. `value`: sorted by, and in CSV unless there is `csv`; `shown`:
// as text.
export const COLUMNS = [
  { id: 'time', title: 'Time', first: true, value: (row) => row.arrived_s, shown: (row) => clock(row.arrived_s), csv: (row) => new Date(row.arrived_s * 1000).toISOString() },
  { id: 'id', title: 'Id', value: (row) => row.id },
  { id: 'model', title: 'Model', first: true, value: (row) => row.model ?? row.asked, shown: (row) => `${row.model ?? row.asked ?? '–'}${row.variant ? `:${row.variant}` : ''}` },
  { id: 'endpoint', title: 'Endpoint', value: (row) => row.endpoint },
  { id: 'client', title: 'Client', first: true, value: (row) => row.client },
  { id: 'priority', title: 'Priority', value: (row) => row.priority ?? 'interactive' },
  { id: 'conversation', title: 'Conversation', value: (row) => row.conversation },
  { id: 'result', title: 'Result', first: true, value: (row) => resultOf(row) },
  { id: 'decision', title: 'Engine', first: true, value: (row) => row.decision, shown: (row) => row.decision ?? '–' },
  { id: 'waited', title: 'Waited', first: true, isNumber: true, value: waited, shown: (row) => seconds(waited(row)) },
  { id: 'load', title: 'Load', isNumber: true, value: (row) => row.load_s, shown: (row) => seconds(row.load_s) },
  { id: 'first', title: 'First byte', isNumber: true, value: (row) => row.first_byte_after_s, shown: (row) => seconds(row.first_byte_after_s) },
  { id: 'took', title: 'Took', first: true, isNumber: true, value: (row) => row.took_s, shown: (row) => seconds(row.took_s) },
  { id: 'need', title: 'Need', isNumber: true, value: (row) => row.need, shown: (row) => number(row.need) },
  { id: 'context', title: 'Context', isNumber: true, value: (row) => row.context, shown: (row) => number(row.context) },
  { id: 'prompt', title: 'Prompt', first: true, isNumber: true, value: (row) => row.prompt_tokens, shown: (row) => number(row.prompt_tokens) },
  { id: 'cached', title: 'Cached', first: true, isNumber: true, value: (row) => row.cached_tokens, shown: (row) => number(row.cached_tokens) },
  { id: 'answer', title: 'Answer', first: true, isNumber: true, value: (row) => row.generated_tokens, shown: (row) => number(row.generated_tokens) },
  { id: 'reads', title: 'Reads', isNumber: true, value: (row) => row.prompt_speed, shown: (row) => speed(row.prompt_speed) },
  { id: 'speed', title: 'Speed', first: true, isNumber: true, value: (row) => row.speed, shown: (row) => speed(row.speed) },
  { id: 'restored', title: 'Restored', isNumber: true, value: (row) => row.kv_restored, shown: (row) => number(row.kv_restored ?? 0) },
  { id: 'size', title: 'Answer’s size', isNumber: true, value: (row) => row.answer_bytes, shown: (row) => bytes(row.answer_bytes ?? 0) },
  { id: 'status', title: 'Status', isNumber: true, value: (row) => row.status || undefined, shown: (row) => String(row.status || '–') },
];

export function cellOf(cell, column, row) {
  const said = column.shown ? column.shown(row) : column.value(row) ?? '–';
  if (column.id === 'time') {
    const link = cell.firstElementChild ?? cell.appendChild(h('a'));
    attr(link, 'href', `#requests/${encodeURIComponent(row.id)}`);
    text(link, said);
  } else if (column.id === 'model') {
    if (!cell.firstElementChild) cell.append(h('span.chip'), ' ', h('span'));
    tint(cell.firstElementChild, row.model ?? row.asked ?? '');
    text(cell.lastElementChild, said);
  } else if (column.id === 'result') {
    const tag = cell.firstElementChild ?? cell.appendChild(h('span.tag'));
    const kind = row.outcome ? OUTCOMES[row.outcome]?.[1] ?? '' : 'busy';
    attr(tag, 'class', `tag ${kind}`.trim());
    text(tag, said);
  } else text(cell, said);
}

// As spreadsheets read it: a cell that could be taken for a formula is made a text.
export function asCsv(rows, columns) {
  const quoted = (value) => {
    const said = value === null || value === undefined ? '' : String(value);
    const safe = typeof value !== 'number' && /^[=+\-@\t\r]/.test(said) ? `'${said}` : said;
    return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  const lines = rows.map((row) => columns.map((column) => quoted((column.csv ?? column.value)(row))).join(','));
  return [columns.map((column) => quoted(column.title)).join(','), ...lines].join('\r\n');
}
