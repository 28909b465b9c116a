import {
  ApprovalCard,
  FoldedText,
  isActive,
  LogStream,
  ProgressBar,
  RelativeTime,
  RunTimeline,
  TaskTree,
  Untrusted,
  UsageSummary,
  useActivity,
  useActivityStream,
  useApprovals,
} from 'agentexec-ui';
import { type ReactNode, useEffect, useLayoutEffect, useRef, useState } from 'react';
import { TaskStatus } from '../../../src/components/TaskStatus.js';
import { formatDuration, parseTime, shortId } from '../../../src/format.js';
import { useNow } from '../../../src/hooks/useNow.js';
import { usePolled } from '../../../src/hooks/usePolled.js';
import { waitsFor } from '../../../src/status.js';
import { visible } from '../../../src/visible.js';
import { clockTime } from '../clock.js';
import { api, type Contents } from '../data.js';
import { BudgetButton } from '../parts/Budgets.js';
import { ForkButton, Relative, relatives } from '../parts/Forks.js';
import { Icon } from '../parts/Icon.js';
import { Link } from '../parts/Link.js';
import { Problem, Stale } from '../parts/Problem.js';
import { useMayAct } from '../rights.js';
import { go, goBack, href } from '../router.js';

type Task = NonNullable<ReturnType<typeof useActivity>['data']>;
type Stream = ReturnType<typeof useActivityStream>;

const CONNECTIONS: Record<Stream['connection'], string> = {
  connecting: 'Connecting…',
  open: 'Live',
  retrying: 'Connection lost; it is made again',
  polling: 'Every 3 seconds',
  closed: '',
};

/** One task: what it does, has done, was asked and has answered. */
export function TaskView({ agentId }: { agentId: string }) {
  const task = useActivity(agentId);
  const stream = useActivityStream(agentId);
  const approvals = useApprovals({ agentId });
  const mayAct = useMayAct();
  const status = stream.status ?? task.data?.status;
  // What a task was asked does not change; the start of a queued one and the answer come with its status.
  const contents = usePolled(`contents ${agentId} ${status}`, (signal) => api.contents(agentId, signal), {
    enabled: task.data !== undefined,
    interval: () => false,
    keep: true,
  });
  // A task that runs gets as much place as it may need, so that nothing moves while it goes on.
  const [wasActive, setWasActive] = useState<boolean>();
  if (status && wasActive === undefined) setWasActive(isActive(status));
  useEscape(() => goBack(href('tasks')));
  useTitle(task.data?.agent_type);

  if (task.error && !task.data) {
    return (
      <>
        <Back />
        <Problem title="The task could not be loaded" error={task.error} onRetry={task.refetch} />
      </>
    );
  }
  if (!task.data || !status) return <Skeleton />;
  const { data } = task;
  const onActed = async () => {
    if (stream.connection === 'closed') stream.reconnect();
    await task.refetch();
  };
  const message = stream.message ?? data.logs.at(-1)?.message;
  return (
    <article className="d-task" data-status={status} data-live={wasActive || undefined}>
      <Back />
      <header className="d-task__head">
        <h1>
          <Untrusted text={data.agent_type} />
        </h1>
        <TaskStatus status={status} message={message} />
        <span className="d-task__connection d-muted" role="status">
          {status && isActive(status) ? CONNECTIONS[stream.connection] : ''}
        </span>
        {mayAct && <Acts task={data} status={status} onDone={onActed} />}
      </header>
      <p className="d-task__now">
        <Untrusted text={message} />
      </p>
      <ProgressBar
        className="d-task__progress"
        percentage={stream.percentage ?? data.percentage}
        status={status}
        showValue
      />
      <Facts task={data} start={startOf(status, message, contents.data)} queue={contents.data?.queue} />
      {data.error && <FoldedText className="ax-error" text={data.error} />}
      {approvals.approvals.map((approval) => (
        <ApprovalCard
          key={approval.call_id}
          approval={approval}
          pending={approvals.isPending(approval)}
          {...(mayAct
            ? { onApprove: approvals.approve, onApproveWith: approvals.approveWith, onReject: approvals.reject }
            : {})}
        />
      ))}
      <div className="d-task__body">
        <div className="d-task__run">
          <Part title="Timeline">
            <Following size={stream.events.length}>
              <RunTimeline events={stream.events} logs={data.logs} />
            </Following>
          </Part>
          <Part title="Log" note="UTC">
            <LogStream lines={stream.logs.length >= data.logs.length ? stream.logs : data.logs} text={stream.text} />
          </Part>
        </div>
        <div className="d-task__facts">
          <Part title="Context">
            <Json value={contents.data?.context} none="None" />
          </Part>
          <Part title="Result">
            <Json value={contents.data?.result} none={noResult(status, contents.data)} />
          </Part>
          {(data.usage.requests > 0 || data.budget) && (
            <Part title="Usage">
              <UsageSummary usage={data.usage} cost={data.cost} byModel={data.usage_by_model} budget={data.budget} />
            </Part>
          )}
          {data.children.length > 0 && (
            <Part title="Tasks that it has enqueued">
              <TaskTree
                tasks={data.children}
                moreBelow={data.more_below}
                onTaskClick={(id) => go(href(`tasks/${id}`))}
              />
            </Part>
          )}
          {contents.data?.metadata && Object.keys(contents.data.metadata).length > 0 && (
            <Part title="Metadata">
              <Json value={contents.data.metadata} none="None" />
            </Part>
          )}
          {contents.error && (
            <p className="ax-error">
              <Untrusted text={contents.error.message} />
            </p>
          )}
        </div>
      </div>
      <Stale error={task.error} />
    </article>
  );
}

/** Scrolls to its end as its content grows, unless the reader has scrolled back. */
function Following({ size, children }: { size: number; children: ReactNode }) {
  const scroller = useRef<HTMLDivElement>(null);
  const follows = useRef(true);
  // biome-ignore lint/correctness/useExhaustiveDependencies: follows whatever has been added.
  useLayoutEffect(() => {
    if (follows.current && scroller.current) scroller.current.scrollTop = scroller.current.scrollHeight;
  }, [size]);
  return (
    <section
      ref={scroller}
      className="d-following"
      // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keyboard.
      tabIndex={0}
      aria-label="Timeline of the run"
      onScroll={({ currentTarget: { scrollHeight, scrollTop, clientHeight } }) => {
        follows.current = scrollHeight - scrollTop - clientHeight < 24;
      }}
    >
      {children}
    </section>
  );
}

function Part({ title, note, children }: { title: string; note?: string; children: ReactNode }) {
  return (
    <section className="d-panel" aria-label={title}>
      <header className="d-panel__head">
        <h2>{title}</h2>
        {note && <span className="d-muted">{note}</span>}
      </header>
      {children}
    </section>
  );
}

/** JSON value; undefined while it is loaded. A text is shown as it is. */
function Json({ value, none }: { value: unknown; none: string }) {
  if (value === undefined) return <div className="ax-placeholder d-json" />;
  if (value === null) return <p className="d-muted d-json">{none}</p>;
  const text = typeof value === 'string' ? value : JSON.stringify(value, null, 2);
  return <FoldedText className="ax-code d-json" text={text} limit={1500} json={typeof value !== 'string'} />;
}

function noResult(status: string, contents: Contents | undefined): string {
  if (contents?.result_expired) return 'The result has expired.';
  if (status === 'complete') return 'None';
  return status === 'error' || status === 'canceled' ? 'None: the task did not complete.' : 'Not yet';
}

/** Return the time before which a queued task does not start. */
function startOf(status: Task['status'], message: string | undefined, contents: Contents | undefined) {
  return status === 'queued' && !waitsFor(status, message) ? contents?.run_at : undefined;
}

/** Start that is to come; nothing once its time has come. */
function Start({ time }: { time: string | null | undefined }) {
  const now = useNow(1000);
  const at = parseTime(time);
  if (!(at > now)) return null;
  return (
    <Fact name="Starts">
      in {formatDuration((at - now) / 1000)} ({clockTime(at, now)})
    </Fact>
  );
}

interface FactsProps {
  task: Task;
  start: string | null | undefined;
  queue: string | null | undefined;
}

function Facts({ task, start, queue }: FactsProps) {
  const { origin, forks } = relatives(task.logs);
  return (
    <dl className="d-facts">
      <Fact name="Id">
        <CopyId id={task.agent_id} />
      </Fact>
      <Start time={start} />
      <Fact name="Queue">{queue ? <Untrusted text={queue} /> : '–'}</Fact>
      <Fact name="Created">
        <RelativeTime time={task.created_at} />
      </Fact>
      <Fact name="Started">{task.started_at ? <RelativeTime time={task.started_at} /> : '–'}</Fact>
      <Fact name="Duration">{task.elapsed_seconds === null ? '–' : formatDuration(task.elapsed_seconds)}</Fact>
      {/* An attempt that parked itself, to wait, is not counted. */}
      <Fact name="Attempt">{task.attempt || (task.started_at ? 1 : '–')}</Fact>
      {task.deaths.length > 0 && <Fact name="Worker deaths">{task.deaths.length}</Fact>}
      {task.parent_id && (
        <Fact name="Enqueued by">
          <Link href={href(`tasks/${task.parent_id}`)}>{shortId(task.parent_id)}</Link>
        </Fact>
      )}
      {origin && (
        <Fact name="Forked from">
          <Relative id={origin} first={origin} second={task.agent_id} />
        </Fact>
      )}
      {forks.length > 0 && (
        <Fact name="Forks">
          {forks.map((fork) => (
            <Relative key={fork} id={fork} first={task.agent_id} second={fork} />
          ))}
        </Fact>
      )}
    </dl>
  );
}

function Fact({ name, children }: { name: string; children: ReactNode }) {
  return (
    <div className="ax-figure">
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}

function CopyId({ id }: { id: string }) {
  const [copied, setCopied] = useState(false);
  return (
    <button
      type="button"
      className="d-id"
      title={`${id}: copy it`}
      onClick={() => navigator.clipboard?.writeText(id).then(() => setCopied(true))}
      onBlur={() => setCopied(false)}
    >
      <code>{shortId(id)}</code>
      <span className="d-muted">{copied ? 'copied' : 'copy'}</span>
    </button>
  );
}

function Acts({ task, status, onDone }: { task: Task; status: string; onDone: () => Promise<void> }) {
  const [problem, setProblem] = useState<string>();
  const [sending, setSending] = useState(false);
  const act = async (send: () => Promise<{ changed: boolean }>, unchanged: string) => {
    if (sending) return;
    setSending(true);
    try {
      const { changed } = await send();
      setProblem(changed ? undefined : unchanged);
    } catch (error) {
      setProblem((error as Error).message);
    }
    await onDone();
    setSending(false);
  };
  return (
    <div className="d-task__acts">
      {problem && (
        <span role="alert" className="d-bad">
          <Untrusted text={problem} />
        </span>
      )}
      {task.usage.requests > 0 && <ForkButton agentId={task.agent_id} />}
      {status !== 'complete' && (
        <BudgetButton
          agentId={task.agent_id}
          budget={task.budget}
          ended={status === 'error' || status === 'canceled'}
          onDone={onDone}
        />
      )}
      {(status === 'queued' || status === 'running') && (
        <button
          type="button"
          className="ax-button"
          aria-disabled={sending}
          onClick={() => act(() => api.cancel(task.agent_id), 'It had ended before.')}
        >
          Cancel
        </button>
      )}
      {(status === 'error' || status === 'canceled') && (
        <button
          type="button"
          className="ax-button"
          aria-disabled={sending}
          onClick={() => act(() => api.retry(task.agent_id), 'It was put back before.')}
        >
          Retry
        </button>
      )}
    </div>
  );
}

function Back() {
  return (
    <nav className="d-back" aria-label="Back">
      <Link
        href={href('tasks')}
        onClick={(event) => {
          event.preventDefault();
          goBack(href('tasks'));
        }}
      >
        <Icon name="back" /> Tasks
      </Link>
    </nav>
  );
}

function Skeleton() {
  return (
    <div className="d-task" aria-busy="true">
      <Back />
      <p className="d-hidden" role="status">
        Loading the task…
      </p>
      <div className="ax-placeholder d-task__title" />
      <div className="ax-placeholder d-task__block" />
      <div className="ax-placeholder d-task__block" />
    </div>
  );
}

function useEscape(onEscape: () => void): void {
  useEffect(() => {
    const onKeyDown = (event: KeyboardEvent) => {
      const typing = (event.target as HTMLElement).closest?.('input, textarea, select, dialog');
      if (event.key === 'Escape' && !event.defaultPrevented && !typing) onEscape();
    };
    document.addEventListener('keydown', onKeyDown);
    return () => document.removeEventListener('keydown', onKeyDown);
  });
}

function useTitle(name: string | undefined): void {
  useEffect(() => {
    if (name) document.title = `${visible(name)} · agentexec`;
  }, [name]);
}
