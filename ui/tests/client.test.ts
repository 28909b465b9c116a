import { type ActivityEvent, type ConnectionState, createClient, followActivity, RequestError } from 'agentexec-ui';
import { describe, expect, test, vi } from 'vitest';
import { EventStreamParser } from '../src/client/sse.js';
import { StreamStore } from '../src/client/streamState.js';
import { fakeApi, frame, json, stream } from './api.js';
import { detail, event, list, log } from './samples.js';

describe('event streams', () => {
  const text =
    ': hello\r\nretry: 2000\r\n\r\nid: 1\r\nevent: log\r\ndata: {"a":\r\ndata: 1}\r\n\r\nid: 2\ndata: ä\n\nid: 3\ndata: cut off\n';

  test.each([1, 2, 3, 7, 1000])('are read the same in pieces of %i characters', (size) => {
    const parser = new EventStreamParser();
    const events = [];
    for (let at = 0; at < text.length; at += size) events.push(...parser.push(text.slice(at, at + size)));
    expect(events).toEqual([
      { id: '1', event: 'log', data: '{"a":\n1}' },
      { id: '2', event: 'message', data: 'ä' },
    ]);
    expect(parser.retry).toBe(2000);
  });

  test('are read as the standard says where they are odd', () => {
    const parser = new EventStreamParser();
    expect(parser.push('\uFEFFdata:x\nid: a\0b\nretry: soon\nunknown: y\ndata\n\nevent: none\n\n')).toEqual([
      { id: undefined, event: 'message', data: 'x\n' },
    ]);
    expect(parser.retry).toBeUndefined();
  });
});

describe('a client', () => {
  test('sends filters, headers and bodies to the paths of the API', async () => {
    const { client, calls } = fakeApi((call) =>
      call.method === 'POST' ? new Response(null, { status: 204 }) : json(list([])),
    );
    await client.activities({ page: 2, pageSize: 50, status: ['queued', 'running'], taskName: undefined });
    await client.activity('a/b');
    await client.approvals({ agentId: 'x' });
    await client.approve('a', 'call 1');
    await client.reject('a', 'c', 'No.');
    await client.reject('a', 'c');
    expect(calls.map(({ method, url }) => `${method} ${url}`)).toEqual([
      'GET /api/activity?page=2&page_size=50&status=queued&status=running',
      'GET /api/activity/a%2Fb',
      'GET /api/approvals?agent_id=x',
      'POST /api/approvals/a/call%201/approve',
      'POST /api/approvals/a/c/reject',
      'POST /api/approvals/a/c/reject',
    ]);
    expect(calls.map((call) => call.body)).toEqual([undefined, undefined, undefined, {}, { message: 'No.' }, {}]);
  });

  test('asks for headers before each request', async () => {
    const seen: (string | null)[] = [];
    let token = 0;
    const client = createClient({
      headers: async () => ({ Authorization: `Bearer ${++token}` }),
      paths: { activities: '/tasks' },
      fetch: async (url, init) => {
        seen.push(`${url} ${new Headers(init?.headers).get('authorization')}`);
        return json(list([]));
      },
    });
    await client.activities();
    await client.activities();
    expect(seen).toEqual(['/tasks Bearer 1', '/tasks Bearer 2']);
  });

  test("fails with the API's own sentence", async () => {
    const { client } = fakeApi((_call, before) =>
      before === 0 ? json({ detail: 'There is no such task.' }, 404) : new Response('<html>', { status: 502 }),
    );
    const first = await client.activity('a').catch((error: unknown) => error);
    expect(first).toBeInstanceOf(RequestError);
    expect(first).toMatchObject({ message: 'There is no such task.', status: 404, temporary: false });
    const second = await client.activity('a').catch((error: unknown) => error);
    expect(second).toMatchObject({ message: 'The API answered 502', temporary: true });
  });
});

/** Follow a task of a fake API to its end, with short delays. */
async function follow(
  answer: Parameters<typeof fakeApi>[0],
  options: Partial<Parameters<typeof followActivity>[2]> = {},
) {
  const api = fakeApi(answer);
  const events: ActivityEvent[] = [];
  const states: ConnectionState[] = [];
  const stop = new AbortController();
  const polled: string[] = [];
  const done = followActivity(api.client, 'a', {
    signal: stop.signal,
    retryDelay: 1,
    maxRetryDelay: 4,
    pollInterval: 1,
    onEvents: (added) => events.push(...added),
    onConnection: (state) => states.push(state),
    onActivity: (activity) => polled.push(activity.status),
    ...options,
  });
  return { ...api, events, states, polled, stop, done };
}

describe('a followed task', () => {
  const one = event(1, 'status', { status: 'queued', message: 'Waiting', percentage: 0 });
  const two = event(2, 'status', { status: 'running', message: 'Started', percentage: 0 });
  const three = event(3, 'text_delta', { text: 'Hi', item_id: 'm' });
  const end = event(4, 'result', { status: 'complete', message: 'Done', percentage: 100, value: 42 });

  test('is read to its end', async () => {
    const { done, events, states, calls } = await follow(() => stream([frame(one), frame(two) + frame(end)]));
    await done;
    expect(events).toEqual([one, two, end]);
    expect(states).toEqual(['connecting', 'open', 'closed']);
    expect(calls).toHaveLength(1);
    expect(calls[0]?.headers.get('accept')).toBe('text/event-stream');
  });

  test('resumes after a lost connection, without a lost or doubled event', async () => {
    // The second event is cut off in the middle, so it counts as not received.
    const { done, events, states, to } = await follow((_call, before) =>
      before === 0 ? stream([frame(one), frame(two).slice(0, -9)]) : stream([frame(two), frame(three), frame(end)]),
    );
    await done;
    expect(events).toEqual([one, two, three, end]);
    expect(states).toEqual(['connecting', 'open', 'retrying', 'open', 'closed']);
    expect(to('/activity/a/events').map((call) => call.headers.get('last-event-id'))).toEqual([null, one.id]);
  });

  test('is over when the API answers 204', async () => {
    const { done, states } = await follow((_call, before) =>
      before === 0 ? stream([frame(one)]) : new Response(null, { status: 204 }),
    );
    await done;
    expect(states.at(-1)).toBe('closed');
  });

  test('is polled while the stream does not get through, and streamed when it does', async () => {
    const { done, events, states, polled, to } = await follow((call, before) => {
      if (!call.url.endsWith('/events')) return json(detail());
      if (before < 4)
        return before % 2 ? new Error('network') : new Response('<html>', { headers: { 'content-type': 'text/html' } });
      return stream([frame(one), frame(end)]);
    });
    await done;
    expect(states).toEqual(['connecting', 'retrying', 'polling', 'open', 'closed']);
    expect(polled.length).toBeGreaterThan(0);
    expect(events).toEqual([one, end]);
    expect(to('/activity/a/events')).toHaveLength(5);
  });

  test('ends while it is polled', async () => {
    const { done, states, polled } = await follow((call) =>
      call.url.endsWith('/events') ? new Error('network') : json(detail({ status: 'complete' })),
    );
    await done;
    expect(polled).toEqual(['complete']);
    expect(states).toEqual(['connecting', 'retrying', 'polling', 'closed']);
  });

  test('that the API refuses is not asked for again', async () => {
    const { done, states, calls } = await follow(() => json({ detail: 'There is no such task.' }, 404));
    await expect(done).rejects.toThrow('There is no such task.');
    expect(states).toEqual(['connecting', 'closed']);
    expect(calls).toHaveLength(1);
  });

  test('waits longer after each failure, as long as the server says at least', async () => {
    vi.useFakeTimers();
    const times: number[] = [];
    const { done, stop } = await follow(
      (call) => {
        if (!call.url.endsWith('/events')) return new Error('network');
        times.push(Date.now());
        return times.length === 1 ? stream([`retry: 2000\n\n${frame(one)}`]) : new Error('network');
      },
      { random: () => 1, maxRetryDelay: 10_000, pollInterval: 1000, failuresBeforePolling: 10 },
    );
    await vi.advanceTimersByTimeAsync(36_500);
    expect(times.slice(1).map((time, index) => time - (times[index] ?? 0))).toEqual([2000, 4000, 8000, 10_000, 10_000]);
    stop.abort();
    await vi.runAllTimersAsync();
    await done;
  });

  test('of a connection that has gone silent is connected to again', async () => {
    const { done, events, states } = await follow(
      (call, before) =>
        before === 0 ? stream([frame(one)], { end: false, signal: call.signal }) : stream([frame(end)]),
      { silence: 30 },
    );
    await done;
    expect(events).toEqual([one, end]);
    expect(states).toEqual(['connecting', 'open', 'retrying', 'open', 'closed']);
  });

  test('is connected to at once when the network comes back', async () => {
    const { done, states, calls } = await follow(
      (_call, before) => (before === 0 ? new Error('network') : stream([frame(end)])),
      { retryDelay: 1_000_000, maxRetryDelay: 1_000_000 },
    );
    await vi.waitFor(() => expect(states).toContain('retrying'));
    window.dispatchEvent(new Event('online'));
    await done;
    expect(calls).toHaveLength(2);
  });

  test('is left when the reader stops', async () => {
    const { done, stop, states, calls } = await follow((call) =>
      stream([frame(one)], { end: false, signal: call.signal }),
    );
    await vi.waitFor(() => expect(states).toContain('open'));
    stop.abort();
    await done;
    expect(calls[0]?.signal?.aborted).toBe(true);
    expect(calls).toHaveLength(1);
  });

  test('survives events that are not what they should be', async () => {
    const { done, events } = await follow(() =>
      stream([
        'data: {\n\n',
        'data: null\n\n',
        'data: {"id":1}\n\n',
        'id: x\ndata: {"id":"x","type":"log","at":"y"}\n\n',
        frame(end),
      ]),
    );
    await done;
    expect(events).toEqual([{ id: 'x', type: 'log', at: 'y', data: {} }, end]);
  });
});

describe('the state of a stream', () => {
  const running = (second: number, message = 'Started') =>
    event(second, 'status', { status: 'running', message, percentage: 0 });

  test('has log, text, status, progress and result', () => {
    const store = new StreamStore();
    store.addEvents([event(1, 'status', { status: 'queued', message: 'Waiting', percentage: 0 }), running(2)]);
    store.addEvents([
      event(3, 'text_delta', { text: 'Ac', item_id: 'm' }),
      event(4, 'text_delta', { text: 'me', item_id: 'm' }),
    ]);
    store.addEvents([event(5, 'log', { status: 'running', message: 'Half', percentage: 50 })]);
    expect(store.snapshot()).toMatchObject({
      text: 'Acme',
      status: 'running',
      percentage: 50,
      message: 'Half',
      ended: false,
    });
    store.addEvents([event(6, 'result', { status: 'complete', message: 'Done', percentage: 100, value: { a: 1 } })]);
    const state = store.snapshot();
    expect(state).toMatchObject({ status: 'complete', percentage: 100, result: { a: 1 }, ended: true, text: 'Acme' });
    expect(state.logs.map((line) => [line.message, line.status])).toEqual([
      ['Waiting', 'queued'],
      ['Started', 'running'],
      ['Half', 'running'],
      ['Done', 'complete'],
    ]);
    expect(state.events.filter((one) => one.type === 'text_delta')).toHaveLength(1);
  });

  test('loses its text when a new attempt starts', () => {
    const store = new StreamStore();
    store.addEvents([
      running(1),
      event(2, 'text_delta', { text: 'Old' }),
      running(3),
      event(4, 'text_delta', { text: 'New' }),
    ]);
    expect(store.snapshot().text).toBe('New');
  });

  test('has the reason of a failure', () => {
    const store = new StreamStore();
    store.addEvents([
      event(1, 'error', { status: 'error', message: 'Failed', percentage: null, error: 'ValueError: no' }),
    ]);
    expect(store.snapshot()).toMatchObject({ status: 'error', error: 'ValueError: no', ended: true });
  });

  test('never goes back between streaming and polling', () => {
    const store = new StreamStore();
    store.addEvents([event(1, 'status', { status: 'queued', message: 'Waiting', percentage: 0 })]);
    store.setActivity(detail({ percentage: 60, logs: [log(1), log(2), log(3, { percentage: 60 })] }));
    expect(store.snapshot()).toMatchObject({ percentage: 60, status: 'running' });
    // The stream catches up with what was polled before.
    store.addEvents([running(2, 'Line 2')]);
    expect(store.snapshot().logs).toHaveLength(3);
    expect(store.snapshot().percentage).toBe(60);
    store.addEvents([event(3, 'log', { status: 'running', message: 'Line 3', percentage: 60 })]);
    store.addEvents([event(4, 'log', { status: 'running', message: 'Line 4', percentage: 70 })]);
    expect(store.snapshot().logs.map((line) => line.message)).toEqual(['Waiting', 'Line 2', 'Line 3', 'Line 4']);
    expect(store.snapshot().percentage).toBe(70);
  });

  test('keeps a bounded number of events', () => {
    const store = new StreamStore();
    store.addEvents(Array.from({ length: 6000 }, (_, index) => event(index, 'usage', {})));
    expect(store.snapshot().events).toHaveLength(5000);
    expect(store.snapshot().events.at(-1)?.id).toBe('5999-usage');
  });
});
