import { render, screen, waitFor, within } from '@testing-library/react';
import userEvent from '@testing-library/user-event';
import { ChatPanel, type ConversationEvent, type ConversationMessage, type HistoryItem } from 'agentexec-ui';
import { describe, expect, test } from 'vitest';
import { afterEvent, afterFetch, EMPTY_CHAT, entriesOf } from '../src/client/chatState.js';
import { type Call, fakeApi, json } from './api.js';
import { AGENT_ID, approval } from './samples.js';

const CHAT = 'support:42/a';
const PATH = '/conversations/support%3A42%2Fa';

const event = (id: string, type: string, data: Record<string, unknown> = {}, agent = AGENT_ID): ConversationEvent => ({
  id,
  type,
  at: '2026-11-24T21:49:00Z',
  agent_id: agent,
  data,
});
const message = (fields: Partial<ConversationMessage> = {}): ConversationMessage => ({
  conversation: CHAT,
  number: 1,
  text: 'Hi',
  if_busy: 'queue',
  state: 'waiting',
  agent_id: AGENT_ID,
  created_at: '2026-11-24T21:49:00Z',
  taken_at: null,
  ...fields,
});
const said = (number: number, role: string, text: string, agent = AGENT_ID): HistoryItem => ({
  number,
  item: { role, content: role === 'user' ? text : [{ type: 'output_text', text }] },
  agent_id: agent,
});

/** A conversation's API, whose stream the test writes to. */
function fakeChat() {
  const records = { history: [] as HistoryItem[], messages: [] as ConversationMessage[], sends: [] as unknown[] };
  const streams: ReadableStreamDefaultController<Uint8Array>[] = [];
  const answer = (call: Call): Response => {
    const path = call.url.split('?', 1)[0];
    if (path === `/api${PATH}/events`) {
      const body = new ReadableStream<Uint8Array>({ start: (controller) => void streams.push(controller) });
      queueMicrotask(() => write(`retry: 1\nid: ${call.headers.get('last-event-id') ?? '0'}\n\n`));
      return new Response(body, { headers: { 'content-type': 'text/event-stream' } });
    }
    if (path === `/api${PATH}/history`) return json(records.history);
    if (path === '/api/approvals') return json([approval({ call_id: 'a' })]);
    if (call.method === 'GET') return json(records.messages);
    records.sends.push(call.body);
    return json(message({ number: records.sends.length, ...(call.body as object) }));
  };
  const write = (text: string) => streams.at(-1)?.enqueue(new TextEncoder().encode(text));
  const emit = (...events: ConversationEvent[]) =>
    write(events.map((one) => `id: ${one.id}\nevent: ${one.type}\ndata: ${JSON.stringify(one)}\n\n`).join(''));
  return { ...fakeApi(answer), records, emit, streams };
}

const log = () => screen.getByRole('log');

describe('ChatPanel', () => {
  test('shows the history, what is being written, and then what was recorded', async () => {
    const { client, records, emit } = fakeChat();
    records.history = [said(1, 'user', 'Before', 'old'), said(2, 'assistant', 'Yes.', 'old')];
    render(<ChatPanel conversationId={CHAT} client={client} />);
    expect(await screen.findByText('Yes.')).toBeTruthy();
    emit(
      event('1.0.0', 'message', { number: 1, text: 'Hi', state: 'taken' }),
      event('1.1.1', 'text_delta', { text: 'Hel' }),
    );
    expect(await screen.findByText('Hel')).toBeTruthy();
    emit(event('1.1.2', 'text_delta', { text: 'lo.' }));
    expect(await screen.findByText('Hello.')).toBeTruthy();
    records.history.push(said(3, 'user', 'Hi'), said(4, 'assistant', 'Hello!'));
    emit(event('1.2.0', 'result', {}));
    expect(await screen.findByText('Hello!')).toBeTruthy();
    expect(screen.queryByText('Hello.')).toBeNull();
    expect(within(log()).getAllByText('Hi')).toHaveLength(1);
    expect(screen.queryByText('The agent is working.')).toBeNull();
  });

  test('a message joins, stops or waits for the turn that runs', async () => {
    const user = userEvent.setup();
    const { client, records, emit } = fakeChat();
    render(<ChatPanel conversationId={CHAT} client={client} />);
    await screen.findByText('Nothing was said yet.');
    await user.type(screen.getByLabelText('Message'), 'One{Enter}');
    expect(await screen.findByText('You, waiting')).toBeTruthy();
    emit(event('1.0.0', 'message', { number: 1, text: 'One', state: 'taken' }));
    await waitFor(() => expect(screen.queryByText('You, waiting')).toBeNull());
    await user.type(screen.getByLabelText('Message'), 'Two{Enter}');
    await user.selectOptions(screen.getByRole('combobox'), 'stops the running turn');
    await user.type(screen.getByLabelText('Message'), 'Three');
    await user.click(screen.getByRole('button', { name: 'Send' }));
    await waitFor(() => expect(records.sends).toHaveLength(3));
    expect(records.sends).toMatchObject([
      { text: 'One', if_busy: 'queue' },
      { text: 'Two', if_busy: 'steer' },
      { text: 'Three', if_busy: 'interrupt' },
    ]);
    emit(event('1.3.0', 'canceled', { message: 'Interrupted by message 3.' }));
    expect(await screen.findByText('Interrupted by message 3.')).toBeTruthy();
  });

  test('a message that has joined is shown in its place before the turn ends', async () => {
    const { client, records, emit } = fakeChat();
    records.messages = [message({ number: 2, text: 'And b', if_busy: 'steer' })];
    render(<ChatPanel conversationId={CHAT} client={client} />);
    expect(await screen.findByText('You, waiting')).toBeTruthy();
    records.messages = [message({ number: 2, text: 'And b', state: 'joined' })];
    emit(
      event('1.0.0', 'message', { number: 1, text: 'Look at a', state: 'taken' }),
      event('1.1.1', 'tool_called', { tool: 'look', call_id: 'c', arguments: '{}' }),
      event('1.1.2', 'tool_output', { call_id: 'c', output: 'found' }),
      event('1.1.3', 'text_delta', { text: 'Both' }),
    );
    await waitFor(() => expect(screen.queryByText('You, waiting')).toBeNull());
    expect(log().textContent).toMatch(/Look at a.*found.*And b.*Both/);
    records.history = [said(1, 'user', 'Look at a'), said(2, 'user', 'And b'), said(3, 'assistant', 'Both.')];
    emit(event('1.2.0', 'result', {}), event('2.0.0', 'message', { number: 2, text: 'And b', state: 'joined' }));
    expect(await screen.findByText('Both.')).toBeTruthy();
    expect(within(log()).getAllByText('And b')).toHaveLength(1);
    // Told again when the history has it: no turn begins.
    emit(event('3.0.0', 'message', { number: 3, text: 'And c', state: 'joined' }));
    emit(event('4.0.0', 'message', { number: 4, text: 'Next', state: 'taken' }, 'other'));
    expect(await screen.findByText('Next')).toBeTruthy();
    expect(screen.queryByText('And c')).toBeNull();
  });

  test.each([
    event('1.2.0', 'usage', {}),
    event('1.2.0', 'status', { status: 'queued', message: 'Waiting for approval: pay' }),
  ])('a message that has joined a call which says nothing is shown: $type', async (told) => {
    const { client, records, emit } = fakeChat();
    records.messages = [message({ number: 2, text: 'And b', if_busy: 'steer' })];
    render(<ChatPanel conversationId={CHAT} client={client} />);
    expect(await screen.findByText('You, waiting')).toBeTruthy();
    emit(event('1.0.0', 'message', { number: 1, text: 'Look at a', state: 'taken' }));
    await screen.findByText('Look at a');
    records.messages = [message({ number: 2, text: 'And b', state: 'joined' })];
    emit(told);
    await waitFor(() => expect(screen.queryByText('You, waiting')).toBeNull());
    expect(within(log()).getAllByText('And b')).toHaveLength(1);
  });

  test('the answer to a call that waits for a person is given in the chat', async () => {
    const user = userEvent.setup();
    const { client, emit, to } = fakeChat();
    render(<ChatPanel conversationId={CHAT} client={client} />);
    await screen.findByText('Nothing was said yet.');
    emit(
      event('1.0.0', 'message', { number: 1, text: 'Pay', state: 'taken' }),
      event('1.1.0', 'status', { status: 'queued', message: 'Waiting for approval: pay' }),
    );
    expect(await screen.findByText('Waiting for approval: pay')).toBeTruthy();
    await user.click(await screen.findByRole('button', { name: 'Approve' }));
    expect(to(`/approvals/${AGENT_ID}/a/approve`)).toHaveLength(1);
  });

  test('a connection that ends resumes where it was, also before the first event', async () => {
    const { client, emit, streams, to } = fakeChat();
    render(<ChatPanel conversationId={CHAT} client={client} retryDelay={1} />);
    await screen.findByText('Nothing was said yet.');
    streams.at(-1)?.close();
    await waitFor(() => expect(streams).toHaveLength(2));
    await waitFor(() => expect(screen.queryByText(/connection is lost/)).toBeNull());
    emit(event('1.0.0', 'message', { number: 1, text: 'Hi', state: 'taken' }));
    await screen.findByText('Hi');
    streams.at(-1)?.close();
    await waitFor(() => expect(streams).toHaveLength(3));
    const ids = to(`${PATH}/events`).map(({ headers }) => headers.get('last-event-id'));
    expect(ids).toEqual([null, '0', '1.0.0']);
  });

  test('says why the conversation cannot be shown', async () => {
    const { client } = fakeApi(() => json({ detail: 'There is no conversation.' }, 404));
    render(<ChatPanel conversationId="x" client={client} readOnly />);
    expect((await screen.findByRole('alert')).textContent).toBe('There is no conversation.');
    expect(screen.queryByLabelText('Message')).toBeNull();
  });
});

describe('entries of a chat', () => {
  const start = afterEvent(EMPTY_CHAT, event('1.0.0', 'message', { number: 1, text: 'Hi', state: 'taken' }));
  const texts = (state: typeof start) => entriesOf(state).map(({ kind, text }) => `${kind} ${text}`);

  test('text of an attempt that was not finished goes when the next one starts', () => {
    const events = [
      event('1.1.1', 'text_delta', { text: 'Hel' }),
      event('1.2.0', 'status', { status: 'running' }),
      event('1.2.1', 'text_delta', { text: 'Hello.' }),
    ];
    expect(texts(events.reduce(afterEvent, start))).toEqual(['user Hi', 'assistant Hello.']);
  });

  test('a turn without a history stays, with its result', () => {
    const state = afterEvent(start, event('1.1.0', 'result', { value: 'HI' }));
    expect(texts(afterFetch(state, new Set([AGENT_ID]), [], []))).toEqual(['user Hi', 'assistant HI']);
  });

  test('calls have their outputs, live and from the history', () => {
    const events = [
      event('1.1.1', 'tool_called', { tool: 'look', call_id: 'c', arguments: '{}' }),
      event('1.1.2', 'tool_output', { call_id: 'c', output: 'found' }),
    ];
    const history: HistoryItem[] = [
      { number: 1, agent_id: 'o', item: { type: 'function_call', name: 'look', call_id: 'c', arguments: '{}' } },
      { number: 2, agent_id: 'o', item: { type: 'function_call_output', call_id: 'c', output: 'found' } },
    ];
    const live = entriesOf(events.reduce(afterEvent, start)).at(-1);
    const [recorded] = entriesOf(afterFetch(EMPTY_CHAT, new Set(), history, []));
    for (const entry of [live, recorded]) expect(entry).toMatchObject({ tool: 'look', text: '{}', output: 'found' });
  });
});
