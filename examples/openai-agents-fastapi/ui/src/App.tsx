import { useMutation, useQuery } from '@tanstack/react-query';
import { ActiveAgentsBadge, activitiesQuery, TaskList, useClient } from 'agentexec-ui';
import { useState } from 'react';
import { beginChat, counts } from './api';
import { Chat } from './Chat';
import { Inbox } from './Inbox';
import { Reports } from './Reports';
import { StartForm } from './StartForm';
import { Task } from './Task';
import { useSelection } from './useSelection';

const PAGE_SIZE = 20;

export function App() {
  const client = useClient();
  const [{ taskId, chatId }, select] = useSelection();
  const setSelected = (agentId: string | null) => select('task', agentId);
  const ask = useMutation({ mutationFn: beginChat, onSuccess: (id) => select('chat', id) });
  const [page, setPage] = useState(1);
  const { data: activities, isLoading, error } = useQuery(activitiesQuery(client, { page, pageSize: PAGE_SIZE }));
  const { data: active, isLoading: isCounting } = useQuery({
    queryKey: ['counts'],
    queryFn: counts,
    refetchInterval: 2000,
  });

  return (
    <div className="page">
      <header className="bar">
        <h1>Research</h1>
        <ActiveAgentsBadge count={active?.active} loading={isCounting} />
        {ask.error && (
          <p role="alert" className="ax-error">
            {ask.error.message}
          </p>
        )}
        <button type="button" className="ax-button" disabled={ask.isPending} onClick={() => ask.mutate()}>
          Ask
        </button>
      </header>
      <main className={taskId || chatId ? 'columns' : 'columns columns--list'}>
        <div className="column">
          <StartForm onStarted={setSelected} />
          <Inbox onTaskClick={setSelected} />
          <section aria-labelledby="tasks">
            <h2 id="tasks">Tasks</h2>
            {error && (
              <p role="alert" className="ax-error">
                {error.message}
              </p>
            )}
            <TaskList
              items={activities?.items}
              loading={isLoading}
              onTaskClick={(agentId) => setSelected(agentId)}
              selectedAgentId={taskId}
              empty="Nothing has been queued. Name a company above."
            />
            <Pages page={page} of={activities?.total_pages ?? 1} onChange={setPage} />
          </section>
          <Reports onTaskClick={setSelected} />
        </div>
        {taskId && <Task key={taskId} agentId={taskId} onClose={() => setSelected(null)} onTaskClick={setSelected} />}
        {chatId && <Chat key={chatId} chatId={chatId} onClose={() => select('chat', null)} onTaskClick={setSelected} />}
      </main>
    </div>
  );
}

function Pages({ page, of, onChange }: { page: number; of: number; onChange: (page: number) => void }) {
  if (of <= 1) return null;
  return (
    <nav className="pages" aria-label="Pages of tasks">
      <button type="button" className="ax-button" disabled={page <= 1} onClick={() => onChange(page - 1)}>
        Newer
      </button>
      <span>
        {page} of {of}
      </span>
      <button type="button" className="ax-button" disabled={page >= of} onClick={() => onChange(page + 1)}>
        Older
      </button>
    </nav>
  );
}
