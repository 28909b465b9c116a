import { QueryClient, QueryClientProvider, useMutation, useQuery } from '@tanstack/react-query';
import { render, screen } from '@testing-library/react';
import userEvent from '@testing-library/user-event';
import {
  type ActivityDetail,
  type ActivityList,
  activitiesQuery,
  activityQuery,
  approvalsQuery,
  approveMutation,
  type Client,
  rejectMutation,
  TaskDetail,
  TaskList,
} from 'agentexec-ui';
import { expect, test } from 'vitest';
import { fakeApi, json } from './api.js';
import { AGENT_ID, approval, detail, item, list } from './samples.js';

function Page({ client }: { client: Client }) {
  const activities = useQuery(activitiesQuery(client, { page: 1, status: ['running'] }));
  const activity = useQuery(activityQuery(client, AGENT_ID));
  const approvals = useQuery({ ...approvalsQuery(client), select: (found) => found.map((one) => one.call_id) });
  const approve = useMutation(approveMutation(client));
  const reject = useMutation(rejectMutation(client));
  // The types are those of the API, without a cast.
  const page: ActivityList | undefined = activities.data;
  const shown: ActivityDetail | undefined = activity.data;
  return (
    <>
      <TaskList items={page?.items} loading={activities.isLoading} />
      <TaskDetail activity={shown} loading={activity.isLoading} error={activity.error} />
      <p>{approvals.data?.join()}</p>
      <button type="button" onClick={() => approve.mutate(approval())}>
        Yes
      </button>
      <button type="button" onClick={() => reject.mutate({ ...approval(), message: 'No.' })}>
        No
      </button>
    </>
  );
}

test('the query options work with TanStack Query', async () => {
  const { client, to } = fakeApi((call) => {
    if (call.method === 'POST') return json(true);
    if (call.url.includes('approvals')) return json([approval()]);
    return json(call.url.includes(AGENT_ID) ? detail({ status: 'complete' }) : list([item()]));
  });
  const queries = new QueryClient();
  render(
    <QueryClientProvider client={queries}>
      <Page client={client} />
    </QueryClientProvider>,
  );
  expect(await screen.findByRole('region', { name: 'research_company' })).toBeTruthy();
  expect(await screen.findByText('call_1')).toBeTruthy();
  expect(to('/activity')[0]?.url).toBe('/api/activity?page=1&status=running');
  await userEvent.click(screen.getByText('Yes'));
  await userEvent.click(screen.getByText('No'));
  expect(to(`/approvals/${AGENT_ID}/call_1/reject`)[0]?.body).toEqual({ message: 'No.' });
  // Pages of different APIs and filters do not share their data.
  const keys = queries
    .getQueryCache()
    .getAll()
    .map((query) => query.queryKey);
  expect(keys).toContainEqual(['agentexec', '/api', 'activities', { page: 1, status: ['running'] }]);
  queries.clear();
});

test('a task that has ended is not fetched again', () => {
  const { client } = fakeApi(() => json({}));
  const interval = (data: ActivityDetail | undefined) =>
    activityQuery(client, 'a').refetchInterval({ state: { data } });
  expect(interval(undefined)).toBe(2000);
  expect(interval(detail())).toBe(2000);
  expect(interval(detail({ status: 'canceled' }))).toBe(false);
});
