// Chat: try a model, and see what was decided for each answer; below, a small load test.

import { attr, h, text } from '../dom.js';
import { View } from '../view.js';
import { answerStream, imageOf } from './chat_stream.js';
import { decisionOf, makeDecision, showDecision } from './chat_decision.js';
import { LoadTest } from './load_test.js';

const KEPT = 'trio-gateway-chat'; // in sessionStorage: what was said stays in this tab
const SETTINGS = { model: '', system: '', temperature: '', max_tokens: '' };

export default class Chat extends View {
  static topics = ['models', 'recent', 'connection'];

  build() {
    const kept = restored();
    this.messages = kept.messages;
    this.settings = { ...SETTINGS, ...kept.settings };
    this.controls = this.#makeControls();
    this.log = h('div.log', { role: 'log', 'aria-label': 'Conversation', tabindex: '0' });
    this.none = h('p.empty', {}, 'Ask something. The answer is streamed, and next to it you see what was decided: which engine, why, and how long each part took.');
    this.status = h('p.unseen', { role: 'status' });
    this.image = null;
    this.load = new LoadTest(this.store, () => this.#request([{ role: 'user', content: this.prompt.value.trim() || 'Count from one to fifty, in words.' }]));
    this.append(h('h1.unseen', {}, 'Chat'), h('div.chat', {},
      h('section.card.talk', { 'aria-label': 'Chat' }, this.log, this.#makeForm(), this.status),
      h('aside.card.settings', { 'aria-label': 'Settings' }, h('header', {}, h('h2', {}, 'Settings')), this.controls.element)),
    this.load.element);
    this.log.append(this.none);
    for (const message of this.messages) this.#add(message);
    this.#state();
  }

  #makeControls() {
    const save = () => this.#save();
    const field = (name, label, input, hint) => {
      attr(input, 'id', `chat-${name}`);
      attr(input, 'name', name);
      input.value = this.settings[name];
      input.addEventListener('input', () => { this.settings[name] = input.value; save(); });
      return h('div.field', {}, h('label', { for: input.id }, label), input, hint && h('small.soft', {}, hint));
    };
    const model = h('select');
    const element = h('div.fields', {},
      field('model', 'Model', model),
      field('system', 'System prompt', h('textarea', { rows: 4, placeholder: 'none' })),
      h('div.two', {},
        field('temperature', 'Temperature', h('input', { type: 'number', min: 0, max: 5, step: 0.1, placeholder: 'default' })),
        field('max_tokens', 'Max tokens', h('input', { type: 'number', min: 1, step: 1, placeholder: 'default' }))),
      h('p.row', {}, h('button', { type: 'button', onclick: () => this.#clear() }, 'New conversation')));
    return { element, model };
  }

  #makeForm() {
    this.prompt = h('textarea', { id: 'chat-prompt', rows: 2, placeholder: 'Message', 'aria-label': 'Message', onkeydown: (event) => this.#key(event) });
    this.send = h('button.primary', { type: 'submit' }, 'Send');
    this.stop = h('button', { type: 'button', hidden: true, onclick: () => this.aborter?.abort() }, 'Stop');
    this.file = h('input.unseen', { type: 'file', id: 'chat-image', accept: 'image/*', onchange: () => this.#attach() });
    this.preview = h('span.preview', {});
    return h('form.compose', { onsubmit: (event) => { event.preventDefault(); this.#ask(); } },
      this.prompt,
      h('div.row', {}, h('label.attach', { for: 'chat-image' }, 'Image'), this.file, this.preview, h('span.soft.small.hint', {}, 'Enter sends, Shift+Enter is a new line'), this.stop, this.send));
  }

  #key(event) {
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    this.#ask();
  }

  async #attach() {
    const [file] = this.file.files;
    this.file.value = '';
    if (!file) return;
    try {
      this.image = await imageOf(file);
      const remove = h('button.quiet', { type: 'button', 'aria-label': 'Remove the image', onclick: () => { this.image = null; this.preview.replaceChildren(); } }, 'Remove');
      this.preview.replaceChildren(this.image.picture, remove);
    } catch (error) {
      this.preview.replaceChildren(h('span.fault', {}, `The browser cannot read this image: ${error.message}`));
    }
  }

  update() {
    const { model } = this.controls;
    const models = [...this.store.models.values()];
    const choices = new Set(models.flatMap((entry) => entry.choices ?? []));
    const names = [...models.filter((entry) => !entry.hidden).map((entry) => entry.name), ...choices];
    if (names.join('\n') !== [...model.options].map((option) => option.value).join('\n')) {
      model.replaceChildren(...names.map((name) => h('option', { value: name }, name)));
      if (names.includes(this.settings.model)) model.value = this.settings.model;
    }
    for (const message of this.messages) if (message.shown && message.role === 'assistant') this.#decide(message);
    this.load.update();
    this.#state();
  }

  // -- asking ------------------------------------------------------------------------------------

  #request(messages) {
    const { temperature, max_tokens: limit } = this.settings;
    return {
      model: this.controls.model.value,
      messages,
      stream: true,
      stream_options: { include_usage: true },
      ...(temperature !== '' && { temperature: Number(temperature) }),
      ...(limit !== '' && { max_tokens: Number(limit) }),
    };
  }

  async #ask() {
    const words = this.prompt.value.trim();
    if (this.aborter || (!words && !this.image) || !this.controls.model.value) return;
    const asked = { role: 'user', text: words, image: this.image?.url, picture: this.image?.picture };
    const answer = { role: 'assistant', text: '', reasoning: '', model: this.controls.model.value, waits: '', decision: null };
    const before = answered(this.messages);
    const system = this.settings.system.trim();
    const messages = [...(system ? [{ role: 'system', content: system }] : []), ...[...before, asked].map(sentAs)];
    [this.prompt.value, this.image] = ['', null];
    this.preview.replaceChildren();
    this.messages.push(asked, answer);
    [asked, answer].forEach((message) => this.#add(message));
    this.aborter = new AbortController();
    this.#state();
    try {
      await answerStream(this.store, this.#request(messages), this.aborter.signal, (news) => {
        Object.assign(answer, news);
        this.#paint(answer);
      });
    } catch (error) {
      answer.error = this.aborter.signal.aborted ? 'Stopped.' : error.message;
    }
    this.aborter = null;
    answer.waits = '';
    this.#show(answer);
    text(this.status, answer.error ? `The answer ended: ${answer.error}` : 'The answer is complete.');
    this.#save();
    this.#state();
    this.prompt.focus();
  }

  #state() {
    const model = this.controls.model.value;
    this.send.disabled = Boolean(this.aborter) || !model;
    this.stop.hidden = !this.aborter;
    this.none.hidden = this.messages.length > 0;
  }

  #clear() {
    this.aborter?.abort();
    this.messages.forEach((message) => message.shown?.remove());
    this.messages = [];
    this.#save();
    this.#state();
    this.prompt.focus();
  }

  // -- showing -----------------------------------------------------------------------------------

  #add(message) {
    const parts = {
      body: h('div.body'),
      waits: h('p.waits.soft', { role: 'status' }),
      reasoning: h('details.reasoning', { hidden: true }, h('summary', {}, 'Reasoning'), h('div.thought.soft')),
      fault: h('p.fault', { hidden: true }),
      decision: makeDecision(),
    };
    message.parts = parts;
    const who = message.role === 'user' ? 'You' : message.model;
    message.shown = h(`article.message.${message.role}`, { 'aria-label': who }, h('p.who', {}, who), h('div.said', {},
      message.picture, message.imageWas && !message.picture && h('p.soft', {}, 'an image'), parts.reasoning, parts.waits, parts.body, parts.fault), parts.decision);
    this.log.append(message.shown);
    this.#show(message);
  }

  // At most once a frame: an answer may come in hundreds of pieces a second.
  #paint(message) {
    message.frame ??= requestAnimationFrame(() => {
      message.frame = undefined;
      this.#show(message);
    });
  }

  #show(message) {
    const { body, waits, reasoning, fault } = message.parts;
    const atEnd = this.log.scrollHeight - this.log.scrollTop - this.log.clientHeight < 60;
    appendText(body, message.text);
    text(waits, message.waits);
    waits.hidden = !message.waits;
    reasoning.hidden = !message.reasoning;
    appendText(reasoning.lastChild, message.reasoning ?? '');
    fault.hidden = !message.error;
    text(fault, message.error);
    if (message.role === 'assistant') this.#decide(message);
    if (atEnd) this.log.scrollTop = this.log.scrollHeight;
  }

  // From the answer's headers, and from the feed's row once the request is over.
  #decide(message) {
    const id = message.decision?.id;
    const row = id && (this.store.requests.get(id) ?? this.store.recent.findLast((known) => known.id === id));
    if (row?.stage === 'done' && !message.decision.row) {
      message.decision.row = row;
      this.#save();
    }
    showDecision(message.parts.decision, decisionOf(message.decision));
  }

  #save() {
    const messages = this.messages.map(({ role, text: said, reasoning, model, decision, error, image, imageWas }) => ({ role, text: said, reasoning, model, decision, error, imageWas: Boolean(image) || imageWas }));
    try {
      sessionStorage.setItem(KEPT, JSON.stringify({ settings: this.settings, messages }));
    } catch {
      sessionStorage.removeItem(KEPT); // it is full: what was said stays until the tab is reloaded
    }
  }
}

function restored() {
  try {
    const { settings = {}, messages = [] } = JSON.parse(sessionStorage.getItem(KEPT)) ?? {};
    return { settings, messages };
  } catch {
    return { settings: {}, messages: [] };
  }
}

// What a conversation goes on from: a question that got no answer is not sent again. It may be what
// cannot be answered, such as an image, and many templates want answers between questions.
function answered(messages) {
  const isLost = (message) => message?.role === 'assistant' && !message.text;
  return messages.filter((message, place) => !isLost(message) && !(message.role === 'user' && isLost(messages[place + 1])));
}

function sentAs({ role, text: said, image }) {
  if (!image) return { role, content: said };
  return { role, content: [{ type: 'text', text: said }, { type: 'image_url', image_url: { url: image } }] };
}

// What is already there stays, so that a selection in a long answer does too.
function appendText(element, value) {
  const node = element.firstChild;
  if (node && value.startsWith(node.data)) {
    if (value.length > node.data.length) node.appendData(value.slice(node.data.length));
  } else text(element, value);
}
