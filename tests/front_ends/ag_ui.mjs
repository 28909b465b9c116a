// Client of AG-UI. Arguments: address of the application, what to ask, and bytes after which each connection breaks.
import { HttpAgent } from '@ag-ui/client';
import { resumingFetch } from './resumingFetch.mjs';

const [, , address, question, cut] = process.argv;
const headers = cut ? { 'X-Cut': cut } : {};
const print = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);

/** Agent that follows a task instead of starting one. */
class Follower extends HttpAgent {
  requestInit() {
    return { method: 'GET', headers: this.headers, signal: this.abortController.signal };
  }
}

let task;
const fetch = async (url, init) => {
  const response = await globalThis.fetch(url, init);
  task = response.headers.get('X-Agentexec-Task') ?? task;
  return response;
};
const agent = new HttpAgent({
  url: `${address}/ag-ui`,
  headers,
  threadId: 'thread-1',
  fetch: resumingFetch((id) => `${address}/activity/${id}/ag-ui`, { fetch, wait: 50 }),
});
agent.messages = [{ id: 'question', role: 'user', content: question }];

const custom = [];
const errors = [];
const show = () =>
  print({
    task,
    texts: agent.messages.filter((m) => m.role === 'assistant' && m.content).map((m) => m.content),
    calls: agent.messages.flatMap((m) => m.toolCalls ?? []).map((c) => [c.function.name, c.function.arguments]),
    outputs: agent.messages.filter((m) => m.role === 'tool').map((m) => m.content),
    user: agent.messages.filter((m) => m.role === 'user').length,
    state: agent.state.agentexec,
    custom,
    errors,
  });

agent.subscribe({
  onMessagesChanged: show,
  onCustomEvent: ({ event }) => void custom.push(event.name),
  onRunFailed: ({ error }) => void errors.push(String(error)),
});
const { result } = await agent.runAgent({ runId: 'run-1' });

const follower = new Follower({ url: `${address}/activity/${task}/ag-ui`, threadId: 'thread-2' });
await follower.runAgent();
show();
print({
  task,
  texts: agent.messages.filter((m) => m.role === 'assistant' && m.content).map((m) => m.content),
  calls: agent.messages.flatMap((m) => m.toolCalls ?? []).map((c) => [c.function.name, c.function.arguments]),
  outputs: agent.messages.filter((m) => m.role === 'tool').map((m) => m.content),
  user: agent.messages.filter((m) => m.role === 'user').length,
  state: agent.state.agentexec,
  custom,
  errors,
  result,
  followed: follower.messages.filter((m) => m.role === 'assistant' && m.content).map((m) => m.content),
});
