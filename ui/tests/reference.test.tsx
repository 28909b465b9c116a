import { cleanup, render, screen } from '@testing-library/react';
import type { ActivityDetail, ActivityList, ActivityListItem, ActivityLog, Status } from 'agentexec-ui';
import { ActiveAgentsBadge, ProgressBar, StatusBadge, TaskDetail, TaskList } from 'agentexec-ui';
import { useState } from 'react';
import { expect, test } from 'vitest';
import { detail, item, list } from './samples.js';

// The application of the description: what it writes must compile and work as it stands.
function App(props: {
  activities: ActivityList;
  activityDetail: ActivityDetail | undefined;
  activeCount: number;
  isLoading: boolean;
  isDetailLoading: boolean;
  error: Error | null;
}) {
  const { activities, activityDetail, activeCount, isLoading, isDetailLoading, error } = props;
  const [selectedId, setSelected] = useState<string | null>(null);
  return (
    <>
      <TaskList
        items={activities.items}
        loading={isLoading}
        onTaskClick={(agentId) => setSelected(agentId)}
        selectedAgentId={selectedId}
      />
      <TaskDetail activity={activityDetail} loading={isDetailLoading} error={error} onClose={() => setSelected(null)} />
      <ActiveAgentsBadge count={activeCount} loading={isLoading} />
      <StatusBadge status="running" />
      <ProgressBar percentage={65} status="running" />
    </>
  );
}

test('the application of the description compiles and renders', () => {
  const first: ActivityListItem = item();
  const logs: ActivityLog[] = detail().logs;
  const statuses: Status[] = ['queued', 'running', 'complete', 'error', 'canceled'];
  render(
    <App
      activities={list([first])}
      activityDetail={detail({ logs })}
      activeCount={2}
      isLoading={false}
      isDetailLoading={false}
      error={null}
    />,
  );
  expect(screen.getByText('2 active agents')).toBeTruthy();
  const bars = screen.getAllByRole('progressbar').map((bar) => bar.getAttribute('value'));
  expect(bars).toContain('65');
  cleanup();
  for (const status of statuses) {
    const { container } = render(<StatusBadge status={status} />);
    expect(container.querySelector('.ax-status')?.getAttribute('data-status')).toBe(status);
    cleanup();
  }
});

test('the sample answer of the description is enough for the components', () => {
  // With nothing but the fields that the description shows.
  const activity = {
    id: 'a',
    agent_id: 'b',
    agent_type: 'research_company',
    created_at: '2024-01-15T10:30:00Z',
    updated_at: '2024-01-15T10:32:45Z',
    logs: [
      { id: 1, created_at: '2024-01-15T10:30:00Z', status: 'queued', message: 'Waiting to start', percentage: 0 },
      { id: 2, created_at: '2024-01-15T10:32:45Z', status: 'complete', message: 'Done', percentage: 100 },
    ] satisfies ActivityLog[],
  };
  render(<TaskDetail activity={activity} />);
  expect(screen.getByText('Complete')).toBeTruthy();
  expect(screen.getByText('Done')).toBeTruthy();
});
