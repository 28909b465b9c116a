import { act, render, renderHook, screen, waitFor } from '@testing-library/react';
import userEvent from '@testing-library/user-event';
import {
  AgentexecProvider,
  ApprovalCard,
  type Client,
  useActivities,
  useActivity,
  useActivityStream,
  useApprovals,
} from 'agentexec-ui';
import { type ReactNode, StrictMode } from 'react';
import { describe, expect, test, vi } from 'vitest';
import { type Call, fakeApi, frame, json, stream } from './api.js';
import { AGENT_ID, approval, detail, event, item, list } from './samples.js';

function within(client: Client) {
  return ({ children }: { children: ReactNode }) => (
    <StrictMode>
      <AgentexecProvider client={client}>{children}</AgentexecProvider>
    </StrictMode>
  );
}

describe('useActivities', () => {
  test('fetches a page, and shows it until the next one has come', async () => {
    const { client } = fakeApi((call) => json(list([item({ agent_id: call.url })])));
    const { result, rerender } = renderHook(({ page }) => useActivities({ page }), {
      wrapper: within(client),
      initialProps: { page: 1 },
    });
    expect(result.current.loading).toBe(true);
    await waitFor(() => expect(result.current.data?.items[0]?.agent_id).toBe('/api/activity?page=1'));
    rerender({ page: 2 });
    expect(result.current).toMatchObject({ loading: false, data: { items: [{ agent_id: '/api/activity?page=1' }] } });
    await waitFor(() => expect(result.current.data?.items[0]?.agent_id).toBe('/api/activity?page=2'));
  });

  test('fetches again, less often after failures, and keeps what it has', async () => {
    vi.useFakeTimers();
    const times: number[] = [];
    const { client } = fakeApi(() => {
      times.push(Date.now());
      return times.length === 2 || times.length === 3 ? json({ detail: 'Away.' }, 503) : json(list([item()]));
    });
    const wrapper = ({ children }: { children: ReactNode }) => (
      <AgentexecProvider client={client}>{children}</AgentexecProvider>
    );
    const { result, unmount } = renderHook(() => useActivities(), { wrapper });
    await act(() => vi.advanceTimersByTimeAsync(0));
    await act(() => vi.advanceTimersByTimeAsync(2000));
    expect(result.current.error?.message).toBe('Away.');
    expect(result.current.data?.items).toHaveLength(1);
    await act(() => vi.advanceTimersByTimeAsync(4000 + 8000 + 2000));
    expect(times.map((time) => time - (times[0] ?? 0))).toEqual([0, 2000, 6000, 14_000, 16_000]);
    expect(result.current.error).toBeUndefined();
    unmount();
    await vi.advanceTimersByTimeAsync(60_000);
    expect(times).toHaveLength(5);
  });

  test('fetches nothing while the page is hidden, and at once when it is seen again', async () => {
    vi.useFakeTimers();
    const { client, calls } = fakeApi(() => json(list([item()])));
    const hidden = vi.spyOn(document, 'hidden', 'get').mockReturnValue(true);
    renderHook(() => useActivities({}, { client, refetchInterval: 1000 }));
    await act(() => vi.advanceTimersByTimeAsync(10_000));
    expect(calls).toHaveLength(1);
    hidden.mockReturnValue(false);
    await act(async () => {
      document.dispatchEvent(new Event('visibilitychange'));
    });
    expect(calls).toHaveLength(2);
  });

  test('does not ask again for what was refused, until it is told to', async () => {
    vi.useFakeTimers();
    const { client, calls } = fakeApi((_call, before) =>
      before === 0 ? json({ detail: 'Log in.' }, 401) : json(list([])),
    );
    const { result } = renderHook(() => useActivities({}, { client }));
    await act(() => vi.advanceTimersByTimeAsync(100_000));
    expect(calls).toHaveLength(1);
    expect(result.current).toMatchObject({ loading: false, error: { message: 'Log in.', status: 401 } });
    await act(() => result.current.refetch());
    expect(result.current.data?.items).toEqual([]);
  });
});

describe('useActivity', () => {
  test('stops when the task has ended, and never shows another task', async () => {
    vi.useFakeTimers();
    const { client, to } = fakeApi((call, before) =>
      json(detail({ agent_id: call.url.slice(-1), status: before < 2 ? 'running' : 'complete' })),
    );
    const { result, rerender } = renderHook(({ id }) => useActivity(id, { client }), {
      initialProps: { id: 'a' as string | null },
    });
    await act(() => vi.advanceTimersByTimeAsync(60_000));
    expect(to('/activity/a')).toHaveLength(3);
    expect(result.current.data?.status).toBe('complete');
    rerender({ id: 'b' });
    expect(result.current).toMatchObject({ data: undefined, loading: true });
    await act(() => vi.advanceTimersByTimeAsync(0));
    expect(result.current.data?.agent_id).toBe('b');
    rerender({ id: null });
    expect(result.current).toMatchObject({ data: undefined, loading: false });
  });
});

describe('useActivityStream', () => {
  const started = event(1, 'status', { status: 'running', message: 'Started', percentage: 0 });
  const written = event(2, 'text_delta', { text: 'Acme', item_id: 'm' });
  const done = event(3, 'result', { status: 'complete', message: 'Done', percentage: 100, value: 'Anvils' });

  test('shows a task as it goes on, also in strict mode', async () => {
    // In strict mode the first connection is closed again at once.
    const { client } = fakeApi((call) =>
      call.headers.has('last-event-id') ? stream([frame(done)]) : stream([frame(started), frame(written), frame(done)]),
    );
    const { result } = renderHook(() => useActivityStream(AGENT_ID), { wrapper: within(client) });
    expect(result.current).toMatchObject({ connection: 'connecting', text: '', ended: false });
    await waitFor(() => expect(result.current.ended).toBe(true));
    expect(result.current).toMatchObject({ text: 'Acme', result: 'Anvils', status: 'complete', percentage: 100 });
    expect(result.current.logs.map((line) => line.message)).toEqual(['Started', 'Done']);
  });

  test('follows a task further that was retried', async () => {
    const failed = event(2, 'error', { status: 'error', message: 'Failed', percentage: 0, error: 'It broke.' });
    const again = event(3, 'status', { status: 'queued', message: 'Retried', percentage: 0 });
    const { client } = fakeApi((call) =>
      call.headers.get('last-event-id') === failed.id
        ? stream([frame(again)], { end: false, signal: call.signal })
        : stream([frame(started), frame(failed)]),
    );
    const { result } = renderHook(() => useActivityStream('a', { client }));
    await waitFor(() => expect(result.current.connection).toBe('closed'));
    expect(result.current).toMatchObject({ status: 'error', error: 'It broke.', ended: true });
    act(() => result.current.reconnect());
    await waitFor(() => expect(result.current.status).toBe('queued'));
    expect(result.current).toMatchObject({ error: undefined, ended: false });
    expect(result.current.logs).toHaveLength(3);
  });

  test('begins anew for another task, and closes the stream before', async () => {
    const { client, calls } = fakeApi((call) =>
      stream([frame({ ...started, data: { ...started.data, message: call.url } })], {
        end: false,
        signal: call.signal,
      }),
    );
    const { result, rerender, unmount } = renderHook(({ id }) => useActivityStream(id, { client }), {
      initialProps: { id: 'a' },
    });
    await waitFor(() => expect(result.current.message).toBe('/api/activity/a/events'));
    rerender({ id: 'b' });
    expect(result.current).toMatchObject({ message: undefined, logs: [] });
    await waitFor(() => expect(result.current.message).toBe('/api/activity/b/events'));
    expect(calls.map((call: Call) => call.signal?.aborted)).toEqual([true, false]);
    unmount();
    expect(calls[1]?.signal?.aborted).toBe(true);
  });

  test('keeps its connection when the client is made anew in each render', async () => {
    const { client, calls } = fakeApi((call) =>
      stream([frame(started), frame(written)], { end: false, signal: call.signal }),
    );
    const { result, rerender } = renderHook(() => useActivityStream('a', { client: { ...client } }));
    await waitFor(() => expect(result.current.text).toBe('Acme'));
    rerender();
    expect(calls).toHaveLength(1);
    expect(result.current.connection).toBe('open');
  });

  test('says why the API refuses', async () => {
    const { client } = fakeApi(() => json({ detail: 'There is no such task.' }, 404));
    const { result } = renderHook(() => useActivityStream('a', { client }));
    await waitFor(() => expect(result.current.refusal?.message).toBe('There is no such task.'));
    expect(result.current.connection).toBe('closed');
  });

  test('does nothing without a task', () => {
    const { client, calls } = fakeApi(() => stream([]));
    renderHook(() => useActivityStream(undefined, { client }));
    expect(calls).toHaveLength(0);
  });
});

function Inbox({ client }: { client: Client }) {
  const { approvals, approve, reject, isPending } = useApprovals({}, { client });
  return (
    <>
      {approvals.map((one) => (
        <ApprovalCard key={one.call_id} approval={one} onApprove={approve} onReject={reject} pending={isPending(one)} />
      ))}
    </>
  );
}

describe('useApprovals', () => {
  test('answers a call, and asks what is left', async () => {
    let waiting = [approval(), approval({ call_id: 'call_2', tool: 'pay' })];
    const { client, to } = fakeApi((call) => {
      if (call.method === 'GET') return json(waiting);
      waiting = waiting.filter((one) => !call.url.includes(one.call_id));
      return json(true);
    });
    render(<Inbox client={client} />);
    await userEvent.click((await screen.findAllByText('Approve'))[1] as HTMLElement);
    await waitFor(() => expect(screen.getAllByRole('article')).toHaveLength(1));
    await userEvent.type(screen.getByRole('textbox'), 'No.');
    await userEvent.click(screen.getByText('Reject'));
    await waitFor(() => expect(screen.queryByRole('article')).toBeNull());
    expect(to(`/approvals/${AGENT_ID}/call_2/approve`)).toHaveLength(1);
    expect(to(`/approvals/${AGENT_ID}/call_1/reject`)[0]?.body).toEqual({ message: 'No.' });
  });

  test('says why an answer was not accepted', async () => {
    const { client } = fakeApi((call) =>
      call.method === 'GET' ? json([approval()]) : json({ detail: 'Not yours.' }, 403),
    );
    const { result } = renderHook(() => useApprovals({}, { client }));
    await waitFor(() => expect(result.current.approvals).toHaveLength(1));
    await act(() => expect(result.current.approve(approval())).rejects.toThrow('Not yours.'));
    expect(result.current.isPending(approval())).toBe(false);
  });
});
