// Client of the AI SDK. Arguments: address of the application, what to ask, and bytes after which each connection breaks.
import { DefaultChatTransport, readUIMessageStream } from 'ai';
import { resumingFetch } from './resumingFetch.mjs';

const [, , address, question, cut] = process.argv;
const print = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);

let task;
const fetch = async (url, init) => {
  const response = await globalThis.fetch(url, init);
  task = response.headers.get('X-Agentexec-Task') ?? task;
  return response;
};
const transport = new DefaultChatTransport({
  api: `${address}/api/chat`,
  headers: cut ? { 'X-Cut': cut } : {},
  fetch: resumingFetch((id) => `${address}/activity/${id}/ai-sdk`, { fetch, wait: 50 }),
});

const errors = [];
const seen = (message, name) => {
  const parts = message?.parts ?? [];
  return {
    [name]: parts.filter((p) => p.type === 'text' && !p.providerMetadata?.agentexec?.withdrawn).map((p) => p.text),
    task,
    id: message?.id,
    calls: parts.filter((p) => p.type === 'dynamic-tool').map((p) => [p.toolName, p.input, p.state, p.output]),
    progress: parts.find((p) => p.type === 'data-progress')?.data,
    errors,
  };
};

async function read(stream, name) {
  let last;
  for await (const message of readUIMessageStream({ stream, onError: (error) => errors.push(String(error)) })) {
    last = message;
    print(seen(message, name));
  }
  return last;
}

const chatId = `chat-${process.pid}`;
const stream = await transport.sendMessages({
  chatId,
  trigger: 'submit-message',
  messages: [{ id: 'question', role: 'user', parts: [{ type: 'text', text: question }] }],
});
const message = await read(stream, 'texts');
// A page that is loaded again asks for the stream of its chat, and gets the whole message.
const again = await read(await transport.reconnectToStream({ chatId }), 'again');
print({ ...seen(message, 'texts'), again: seen(again, 'texts').texts });
