import { createApi, RequestError } from 'agentexec-ui';
import { describe, expect, test } from 'vitest';

function fake(answer: unknown, status = 200) {
  const calls: string[] = [];
  const api = createApi({
    baseUrl: '/api/',
    headers: { Authorization: 'Bearer x' },
    fetch: async (url, init) => {
      calls.push(`${init?.method ?? 'GET'} ${url} ${init?.body ?? ''}`.trim());
      return new Response(JSON.stringify(answer), { status });
    },
  });
  return { api, calls };
}

describe('functions of the API', () => {
  test('put parameters into the path, the query and the body', async () => {
    const { api, calls } = fake({ changed: true });
    await api.listActivities({ status: ['queued', 'running'], pageSize: 10, metadata: ['plan:=3'], queue: undefined });
    await api.getMe();
    await api.cancelActivities({ task_name: 'research', dry_run: true });
    await api.pauseQueue('a/b', { reason: 'too hot' });
    await api.resumeSchedule('nightly', { queue: 'q' });
    expect(await api.approveCall('a', 'call 1')).toEqual({ changed: true });
    expect(calls).toEqual([
      'GET /api/activity?status=queued&status=running&page_size=10&metadata=plan%3A%3D3',
      'GET /api/me',
      'POST /api/activity/cancel {"task_name":"research","dry_run":true}',
      'POST /api/queues/a%2Fb/pause {"reason":"too hot"}',
      'POST /api/schedules/nightly/resume?queue=q {}',
      'POST /api/approvals/a/call%201/approve {}',
    ]);
  });

  test('reject with the sentence of the API', async () => {
    const { api } = fake({ detail: 'You may not do this; it needs the right "act".' }, 403);
    const error = await api.cancelActivity('a').catch((caught: unknown) => caught);
    expect(error).toBeInstanceOf(RequestError);
    expect(error).toMatchObject({ status: 403, message: 'You may not do this; it needs the right "act".' });
  });
});
