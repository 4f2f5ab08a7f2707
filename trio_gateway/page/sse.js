// Server-Sent Events out of a fetch stream: EventSource sends no headers, and a key is one.

const EVENT_MAX = 64 << 20; // characters of one event; more is no event of ours

// Yields { event, data, id } of each event, and { comment } of each comment. Ends with the stream.
export async function* eventsOf(response) {
  let [event, data, id] = ['message', [], undefined];
  for await (const line of linesOf(response)) {
    if (line === '') {
      if (data.length) yield { event, data: data.join('\n'), id };
      [event, data] = ['message', []];
      continue;
    }
    if (line.startsWith(':')) {
      yield { comment: line.slice(1).trim() };
      continue;
    }
    const colon = line.indexOf(':');
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
    if (field === 'event') event = value;
    else if (field === 'data') data.push(value);
    else if (field === 'id') id = value;
  }
}

async function* linesOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      rest += value;
      if (rest.length > EVENT_MAX) throw new Error('an event without an end');
      const lines = rest.split('\n');
      rest = lines.pop();
      for (const line of lines) yield line.endsWith('\r') ? line.slice(0, -1) : line;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
