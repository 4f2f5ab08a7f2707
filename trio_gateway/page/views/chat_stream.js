// One streamed chat: sent, and told piece by piece.

import { decoded } from '../format.js';
import { eventsOf } from '../sse.js';

const IMAGE_SIDE = 1536; // pixels; vision models scale larger ones down themselves
const PREVIEW_SIDE = 96;
const SPEAKER = 'trio-gateway: '; // begins thoughts that are the gateway's, with loading_state = "reasoning"
const PREFIX = 'x-gateway-';

// `tell(news)` gets the fields that are new: { text, reasoning, waits, decision, usage, finish }.
// Raises what goes wrong, an error event in the middle of the answer included.
export async function answerStream(store, request, signal, tell) {
  const response = await store.fetch('/v1/chat/completions', {
    method: 'POST', body: JSON.stringify(request), headers: { 'Content-Type': 'application/json' }, signal,
  });
  let decision = headersOf(response);
  tell({ decision });
  let [said, reasoning, complete] = ['', '', false];
  for await (const { comment, data } of eventsOf(response)) {
    if (comment !== undefined) {
      if (comment.toLowerCase().startsWith(PREFIX)) tell({ decision: decision = { ...decision, ...headersIn(comment) }, waits: '' });
      else if (comment) tell({ waits: comment });
      continue;
    }
    if (data === '[DONE]') {
      complete = true;
      continue;
    }
    const event = JSON.parse(data);
    if (event.error) throw new Error(event.error.message ?? String(event.error));
    const [choice] = event.choices ?? [];
    const thought = choice?.delta?.reasoning_content ?? '';
    if (thought.startsWith(SPEAKER)) {
      tell({ waits: thought.slice(SPEAKER.length).trim() });
      continue;
    }
    said += choice?.delta?.content ?? '';
    reasoning += thought;
    tell({
      text: said,
      reasoning,
      ...(said || reasoning ? { waits: '' } : {}),
      ...(event.usage && { usage: event.usage }),
      ...(choice?.finish_reason && { finish: choice.finish_reason }),
    });
  }
  if (!complete) throw new Error('The answer broke off.');
}

// What the gateway decided, as it says it in the answer's headers.
function headersOf(response) {
  const found = { id: response.headers.get('x-gateway-request-id') };
  for (const [name, value] of response.headers) {
    if (name.startsWith(PREFIX)) found[name.slice(PREFIX.length)] = decoded(value);
  }
  return found;
}

// Of an answer that was begun before all was decided: the rest of its headers is a comment.
function headersIn(comment) {
  const pairs = comment.split(/; (?=X-Gateway-)/).map((header) => header.split(/: (.*)/));
  return Object.fromEntries(pairs.map(([name, value]) => [name.toLowerCase().slice(PREFIX.length), decoded(value)]));
}

// { url, picture } of an image file: as JPEG no larger than models look at it, and small to see.
// Drawn, as the page's policy loads no images but its own files.
export async function imageOf(file) {
  const bitmap = await createImageBitmap(file);
  const url = drawn(bitmap, IMAGE_SIDE).toDataURL('image/jpeg', 0.9);
  const picture = drawn(bitmap, PREVIEW_SIDE);
  picture.setAttribute('role', 'img');
  picture.setAttribute('aria-label', file.name);
  bitmap.close();
  return { url, picture };
}

function drawn(bitmap, side) {
  const scale = Math.min(1, side / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement('canvas');
  canvas.width = Math.max(Math.round(bitmap.width * scale), 1);
  canvas.height = Math.max(Math.round(bitmap.height * scale), 1);
  const context = canvas.getContext('2d');
  context.fillStyle = '#fff'; // what is transparent in a PNG would be black
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return canvas;
}
