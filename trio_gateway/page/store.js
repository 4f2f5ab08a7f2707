// What the gateway is doing, as its feed tells it: a snapshot, then changes. There is one store;
// views read its fields and subscribe to what they show. Nobody else listens to the feed, and
// nobody asks on a timer.

import { colourModels } from './dom.js';
import { eventsOf } from './sse.js';

const KEY_PLACE = 'trio-gateway-key'; // in sessionStorage: for this tab only
const [RETRY_MIN_MS, RETRY_MAX_MS] = [500, 10_000];
const SILENCE_MS = 40_000; // a heartbeat comes every 15 s
const LOG_LINES = 500; // of each log, at first
const [RECENT_MAX, TIMELINE_MAX, LOGS_MAX] = [1_000, 4_000, 1_000];
const EVERYTHING = [
  'engines', 'pools', 'models', 'requests', 'recent', 'timeline', 'logs', 'captures', 'held', 'connection',
];

// An error that the gateway answered with, in the words of its `message`.
export class ApiError extends Error {
  constructor(status, code, message) {
    super(message);
    Object.assign(this, { status, code });
  }
}

// Fields, all of them as GET /gateway/events describes them:
//   pools, models: Maps by name; engines: Map by number; requests: Map by id, those under way;
//   recent: requests that are over, newest last; timeline: moments, oldest first; logs: newest last;
//   held, captures, run, version, admin. Rows of engines and of requests under way have `seen_s`
//   besides: when they came, for what is to be counted on from there. Before the first snapshot (`hasSnapshot`) they are empty.
// Topics: those of EVERYTHING. A snapshot is news of all of them.
// connection.state: 'connecting', 'live', 'lost' (`message`, `retryAt` in ms), 'key' (one is needed);
// `returns`: how often it was live again after it was lost.
export class Store {
  pools = new Map();
  engines = new Map();
  models = new Map();
  requests = new Map();
  recent = [];
  timeline = [];
  logs = [];
  held = {};
  captures = null;
  run = '';
  version = '';
  admin = false;
  hasSnapshot = false;
  connection = { state: 'connecting', message: '', retryAt: 0 };
  returns = 0;

  #base = new URL('..', document.baseURI); // also where the gateway is below a path of a proxy
  #subscribers = new Set();
  #changed = new Set();
  #frame = 0;
  #lastId = '';
  #wasLost = false;
  #skewMs = 0;
  #heardAt = Date.now();
  #wake = () => {};
  #keysGiven = 0;
  #logs = []; // whose lines are wanted
  #takeLines = null;
  #attempt = new AbortController();

  // `callback(topics)` is called with the Set of topics that changed, at most once in a frame, and
  // not while the tab is hidden. Gives back what ends the subscription.
  subscribe(topics, callback) {
    const subscriber = { topics, callback };
    this.#subscribers.add(subscriber);
    return () => this.#subscribers.delete(subscriber);
  }

  // The gateway's time, Unix seconds. It stands still while the connection is lost.
  now() {
    const at = this.connection.state === 'lost' ? this.#heardAt : Date.now();
    return (at + this.#skewMs) / 1000;
  }

  // Those that a model is in: a configuration has more of them by default.
  get usedPools() {
    const used = new Set([...this.models.values(), ...this.engines.values()].map((row) => row.pool));
    const pools = [...this.pools.values()];
    return used.size ? pools.filter((pool) => used.has(pool.name)) : pools;
  }

  // -- asking ------------------------------------------------------------------------------------

  get key() {
    return sessionStorage.getItem(KEY_PLACE) ?? '';
  }

  set key(value) {
    if (value) sessionStorage.setItem(KEY_PLACE, value);
    else sessionStorage.removeItem(KEY_PLACE);
    this.#lastId = '';
    this.#keysGiven += 1;
    this.#attempt.abort();
    this.#wake();
  }

  // As `fetch`, of a path of the gateway ('/v1/models'), with the key. An answer that is an error
  // raises ApiError.
  async fetch(path, options = {}) {
    const headers = new Headers(options.headers);
    if (this.key) headers.set('Authorization', `Bearer ${this.key}`);
    const url = new URL(path.replace(/^\//, ''), this.#base);
    const response = await fetch(url, { cache: 'no-store', ...options, headers });
    if (response.ok) return response;
    const error = await errorOf(response);
    if (response.status === 401) this.#connect({ state: 'key', message: this.key ? error.message : '' });
    throw error;
  }

  // The JSON of an answer; `body` is sent as JSON, by POST if there is one.
  async json(path, { method, body, ...options } = {}) {
    const sent = body === undefined ? {} : { body: JSON.stringify(body), headers: { 'Content-Type': 'application/json' } };
    const response = await this.fetch(path, { method: method ?? (body === undefined ? 'GET' : 'POST'), ...sent, ...options });
    return response.json();
  }

  // Follows logs in the feed, of which there is one: a browser has six connections to a server, for
  // all its tabs. `sources`: 'gateway' and names of models; `take({ lines, begins })` gets their
  // lines as they come, if it `begins` in place of all before. An admin's only. Gives back what ends
  // that. A `take({ fault })` says why there are none.
  followLogs(sources, take) {
    const wanted = this.admin ? sources : [];
    this.#takeLines = take;
    if (wanted.join('\n') !== this.#logs.join('\n')) {
      this.#logs = wanted;
      this.#attempt.abort(); // and it goes on where it was
    }
    return () => {
      if (this.#takeLines === take) this.followLogs([], null);
    };
  }

  // -- the feed ----------------------------------------------------------------------------------

  // Follows the feed for as long as the page is open, and mends a lost connection.
  async follow() {
    addEventListener('online', () => this.#wake());
    addEventListener('visibilitychange', () => this.#wake());
    for (let wait = RETRY_MIN_MS; ;) {
      const before = Date.now();
      let message = 'The gateway ended the connection';
      try {
        await this.#read();
      } catch (error) {
        message = error instanceof ApiError ? error.message : 'The gateway does not answer';
        if (this.#logs.length && [403, 404].includes(error.status)) { // no admin's key any more
          this.#logs = [];
          this.#takeLines?.({ fault: message });
          continue;
        }
        if (error.status === 401) {
          for (const given = this.#keysGiven; given === this.#keysGiven;) {
            await new Promise((resolve) => { this.#wake = resolve; });
          }
          this.#connect({ state: 'connecting' });
          continue;
        }
      }
      if (this.#attempt.signal.aborted) continue; // another key, or other logs
      if (Date.now() - before > RETRY_MAX_MS) wait = RETRY_MIN_MS;
      this.#connect({ state: 'lost', message, retryAt: Date.now() + wait });
      await new Promise((resolve) => {
        this.#wake = resolve;
        setTimeout(resolve, wait);
      });
      wait = Math.min(wait * 2, RETRY_MAX_MS);
    }
  }

  async #read() {
    this.#attempt = new AbortController();
    const { signal } = this.#attempt;
    let silence = 0;
    const heard = () => {
      clearTimeout(silence);
      this.#heardAt = Date.now();
      silence = setTimeout(() => reading.abort(), SILENCE_MS);
    };
    const reading = new AbortController();
    const headers = { Accept: 'text/event-stream', ...(this.#lastId && { 'Last-Event-ID': this.#lastId }) };
    try {
      heard();
      const query = new URLSearchParams(this.#logs.map((source) => ['logs', source]));
      if (query.size) query.set('lines', LOG_LINES);
      const response = await this.fetch(`/gateway/events${query.size ? `?${query}` : ''}`, { headers, signal: AbortSignal.any([signal, reading.signal]) });
      for await (const { event, data, id } of eventsOf(response)) {
        heard();
        if (this.connection.state !== 'live') this.#connect({ state: 'live' });
        if (event === undefined) continue; // a heartbeat
        this.apply(event, JSON.parse(data));
        if (id !== undefined) this.#lastId = id;
      }
    } finally {
      clearTimeout(silence);
    }
  }

  #connect(connection) {
    if (connection.state === 'lost') this.#wasLost = true;
    if (connection.state === 'live' && this.#wasLost) [this.#wasLost, this.returns] = [false, this.returns + 1];
    this.connection = { message: '', retryAt: 0, ...connection };
    this.#news('connection');
  }

  // One event of the feed. Those that are not known are for pages to come.
  apply(event, data) {
    switch (event) {
      case 'snapshot': return this.#begin(data);
      case 'engine': this.engines.set(data.engine, this.#seen(data)); return this.#news('engines');
      case 'engine_gone': this.engines.delete(data.engine); return this.#news('engines');
      case 'pool': this.pools.set(data.name, data); return this.#news('pools');
      case 'model': this.models.set(data.name, data); return this.#news('models');
      case 'moment': push(this.timeline, data, TIMELINE_MAX); return this.#news('timeline');
      case 'log': push(this.logs, data, LOGS_MAX); return this.#news('logs');
      case 'lines': return this.#takeLines?.(data);
      case 'captures': this.captures = data; return this.#news('captures');
      case 'request': return this.#request(data);
    }
  }

  // When it was so, as a row's durations are those of that moment: `seen_s`.
  #seen(row) {
    row.seen_s = this.now();
    return row;
  }

  #request(row) {
    if (row.stage !== 'done') {
      this.requests.set(row.id, this.#seen(row));
      return this.#news('requests');
    }
    this.requests.delete(row.id);
    push(this.recent, row, RECENT_MAX);
    this.#news('requests');
    this.#news('recent');
  }

  #begin(data) {
    if (data.run !== this.run) this.logs = [];
    const { run, version, admin, recent, timeline, held, captures } = data;
    Object.assign(this, { run, version, admin, recent, timeline, held, captures, hasSnapshot: true });
    this.pools = byKey(data.pools, 'name');
    this.engines = byKey(data.engines, 'engine');
    this.requests = byKey(data.requests, 'id');
    this.models = byKey(data.models, 'name');
    colourModels([...this.models.keys()]);
    this.#skewMs = data.now_s * 1000 - Date.now();
    for (const row of [...this.engines.values(), ...this.requests.values()]) this.#seen(row);
    EVERYTHING.forEach((topic) => this.#news(topic));
  }

  #news(topic) {
    this.#changed.add(topic);
    this.#frame ||= requestAnimationFrame(() => {
      const topics = this.#changed;
      [this.#frame, this.#changed] = [0, new Set()];
      for (const subscriber of [...this.#subscribers]) {
        if (subscriber.topics.some((topic) => topics.has(topic))) subscriber.callback(topics);
      }
    });
  }
}

const byKey = (rows, key) => new Map(rows.map((row) => [row[key], row]));

function push(list, item, most) {
  list.push(item);
  if (list.length > most) list.splice(0, list.length - most);
}

// In any of the shapes in which the gateway's APIs have their errors.
async function errorOf(response) {
  const body = await response.json().catch(() => ({}));
  const error = typeof body.error === 'string' ? { message: body.error } : body.error ?? {};
  const message = error.message ?? `The gateway answered ${response.status}`;
  return new ApiError(response.status, error.code ?? null, message);
}
