import { useApprovals } from 'agentexec-ui';
import { Component, type ReactNode, useCallback, useEffect, useState } from 'react';
import { usePolled } from '../../src/hooks/usePolled.js';
import { ACTED, api, LOGGED_OUT } from './data.js';
import { useKeyboard } from './keyboard.js';
import { Help } from './parts/Help.js';
import { Problem } from './parts/Problem.js';
import { Shell } from './parts/Shell.js';
import { MeContext } from './rights.js';
import { type Place, usePlace } from './router.js';
import { ApprovalsView } from './views/ApprovalsView.js';
import { ConversationsView, ConversationView } from './views/ConversationsView.js';
import { DiffView } from './views/DiffView.js';
import { FailedView } from './views/FailedView.js';
import { LoginView } from './views/LoginView.js';
import { OverviewView } from './views/OverviewView.js';
import { QueuesView } from './views/QueuesView.js';
import { SchedulesView } from './views/SchedulesView.js';
import { TasksView } from './views/TasksView.js';
import { TaskView } from './views/TaskView.js';

const TITLES: Record<string, string> = {
  '': 'Overview',
  tasks: 'Tasks',
  approvals: 'Approvals',
  conversations: 'Conversations',
  failed: 'Failed tasks',
  queues: 'Queues',
  schedules: 'Schedules',
};

export function App() {
  const place = usePlace();
  const [session, setSession] = useState(0);
  const [loggedOut, setLoggedOut] = useState(false);
  const [helps, setHelps] = useState(false);
  const me = usePolled(`me ${session}`, api.me, { enabled: !loggedOut, interval: () => 60_000, keep: true });
  useKeyboard(useCallback(() => setHelps(true), []));

  useEffect(() => {
    const logOut = () => setLoggedOut(true);
    window.addEventListener(LOGGED_OUT, logOut);
    return () => window.removeEventListener(LOGGED_OUT, logOut);
  }, []);

  const section = place.path[0] ?? '';
  const title = TITLES[section] ?? 'Not found';
  useEffect(() => {
    document.title = `${title} · agentexec`;
  }, [title]);

  if (loggedOut) {
    return (
      <LoginView
        onLoggedIn={() => {
          setLoggedOut(false);
          setSession((number) => number + 1);
        }}
      />
    );
  }
  if (me.error && !me.data) return <Refused error={me.error} onRetry={me.refetch} />;
  return (
    <MeContext.Provider value={me.data}>
      <Waiting enabled={me.data !== undefined}>
        {(waiting) => (
          <Shell section={section} me={me.data} waiting={waiting} lost={me.error} onHelp={() => setHelps(true)}>
            <Guarded key={`${session} ${section}`}>
              <View place={place} />
            </Guarded>
          </Shell>
        )}
      </Waiting>
      {helps && <Help onClose={() => setHelps(false)} />}
    </MeContext.Provider>
  );
}

/** Gives its content the number of calls that wait for a person. */
function Waiting({ enabled, children }: { enabled: boolean; children: (waiting: number) => ReactNode }) {
  const { approvals, refetch } = useApprovals({}, { enabled, refetchInterval: 5000 });
  useEffect(() => {
    window.addEventListener(ACTED, refetch);
    return () => window.removeEventListener(ACTED, refetch);
  }, [refetch]);
  return children(approvals.length);
}

/** Says so if a view breaks; the menu goes on working. */
class Guarded extends Component<{ children: ReactNode }, { error?: Error }> {
  override state: { error?: Error } = {};

  static getDerivedStateFromError(error: Error) {
    return { error };
  }

  override render() {
    if (!this.state.error) return this.props.children;
    return (
      <Problem
        title="This page has a fault"
        text={`Load it again, and please report this: ${this.state.error.message}`}
        onRetry={() => location.reload()}
      />
    );
  }
}

function View({ place: { path, query } }: { place: Place }) {
  const [section = '', id, part, other] = path;
  switch (section) {
    case '':
      return <OverviewView />;
    case 'tasks':
      if (id === undefined) return <TasksView query={query} />;
      if (part === 'diff' && other) return <DiffView key={`${id} ${other}`} agentId={id} otherId={other} />;
      return <TaskView key={id} agentId={id} />;
    case 'approvals':
      return <ApprovalsView />;
    case 'conversations':
      if (id === undefined) return <ConversationsView />;
      return <ConversationView key={id} conversationId={id} />;
    case 'failed':
      return <FailedView query={query} />;
    case 'queues':
      return <QueuesView />;
    case 'schedules':
      return <SchedulesView />;
    default:
      return <Problem title="There is no such page" text="Choose one of the pages in the menu." />;
  }
}

function Refused({ error, onRetry }: { error: Error; onRetry: () => void }) {
  return (
    <main className="d-alone">
      <Problem title="The dashboard cannot be shown" error={error} onRetry={onRetry} />
    </main>
  );
}
