// Run by tests/integration/test_client_openai_node.py with node's own test runner;
// GATEWAY_URL is the base URL with its /v1. A copy of this file lies beside node_modules.
import assert from 'node:assert/strict';
import test from 'node:test';
import OpenAI from 'openai';

const client = new OpenAI({ baseURL: process.env.GATEWAY_URL, apiKey: 'none', maxRetries: 0 });
const messages = [{ role: 'user', content: 'Name the capital city of France.' }];
const ask = { model: 'smollm2', messages, temperature: 0, max_tokens: 16 };
const tools = [{
  type: 'function',
  function: { name: 'get_weather', parameters: { type: 'object', properties: {} } },
}];

test('a chat', async () => {
  const answer = await client.chat.completions.create(ask);
  assert.match(answer.choices[0].message.content, /Paris/);
  assert.equal(answer.model, 'smollm2');
  assert.ok(answer.usage.completion_tokens > 3);
});

test('a streamed chat', async () => {
  const stream = await client.chat.completions.create({ ...ask, stream: true });
  const pieces = [];
  for await (const chunk of stream) pieces.push(chunk.choices[0]?.delta?.content ?? '');
  assert.match(pieces.join(''), /Paris/);
  assert.ok(pieces.length > 3);
});

test('a stream that is left early', async () => {
  const stream = await client.chat.completions.create({ ...ask, max_tokens: 1500, stream: true });
  for await (const _ of stream) break;
  const answer = await client.chat.completions.create(ask, { timeout: 5000 });
  assert.match(answer.choices[0].message.content, /Paris/);
});

test('a streamed tool call', async () => {
  const stream = client.chat.completions.stream({ ...ask, model: 'caller', tools });
  const answer = await stream.finalChatCompletion();
  const [call] = answer.choices[0].message.tool_calls;
  assert.equal(call.function.name, 'get_weather');
  assert.deepEqual(JSON.parse(call.function.arguments), { city: 'Paris' });
});

test('a response, whole and streamed', async () => {
  const request = { model: 'smollm2', input: messages, temperature: 0, max_output_tokens: 16 };
  const whole = await client.responses.create(request);
  assert.match(whole.output_text, /Paris/);
  let text = '';
  for await (const event of await client.responses.create({ ...request, stream: true })) {
    if (event.type === 'response.output_text.delta') text += event.delta;
  }
  assert.equal(text, whole.output_text);
});

test('embeddings', async () => {
  const vectors = await client.embeddings.create({ model: 'embedder', input: ['a cat', 'a dog'] });
  assert.deepEqual(vectors.data.map((v) => v.embedding.length), [576, 576]);
});

test('completions and models', async () => {
  const answer = await client.completions.create({
    model: 'smollm2', prompt: '1, 2, 3, 4,', temperature: 0, max_tokens: 6,
  });
  assert.match(answer.choices[0].text, /5/);
  const ids = [];
  for await (const model of client.models.list()) ids.push(model.id);
  assert.deepEqual(ids, ['smollm2', 'embedder', 'caller']);
});

test('errors are its own classes', async () => {
  await assert.rejects(
    client.chat.completions.create({ ...ask, model: 'smolm' }),
    (error) => error instanceof OpenAI.NotFoundError && error.code === 'model_not_found',
  );
  const long = [{ role: 'user', content: 'word '.repeat(5000) }];
  await assert.rejects(
    client.chat.completions.create({ ...ask, messages: long }),
    (error) => error instanceof OpenAI.BadRequestError && error.code === 'context_length_exceeded',
  );
});
