import { FoldedText, RelativeTime, Untrusted } from 'agentexec-ui';
import { useId, useState } from 'react';
import { formatCount, shortId } from '../../../src/format.js';
import { usePolled } from '../../../src/hooks/usePolled.js';
import { visible } from '../../../src/visible.js';
import { api, type FailedGroup, type FailedTask } from '../data.js';
import { SINCE_LABELS, sinceTime } from '../filters.js';
import { ActButton } from '../parts/ActButton.js';
import { BulkAct } from '../parts/BulkAct.js';
import { Link } from '../parts/Link.js';
import { Problem, Stale } from '../parts/Problem.js';
import { Table } from '../parts/Table.js';
import { useMayAct } from '../rights.js';
import { go, href } from '../router.js';

const LIMIT = 50;

/** Tasks that have finally failed: by error, and the newest, to retry one or all of them. */
export function FailedView({ query }: { query: URLSearchParams }) {
  const [opened] = useState(Date.now);
  const [retries, setRetries] = useState(false);
  const [group, setGroup] = useState<FailedGroup>();
  const mayAct = useMayAct();
  const task = query.get('task') ?? undefined;
  const queue = query.get('queue') ?? undefined;
  const since = query.get('since') ?? undefined;
  const filters = { task_name: task, queue, since: sinceTime(since, opened) };
  const key = JSON.stringify(filters);
  const options = { enabled: true, interval: () => 5000, keep: true };
  const failed = usePolled(`failed ${key}`, (signal) => api.failed(filters, LIMIT, signal), options);
  const groups = usePolled(`groups ${key}`, (signal) => api.failedGroups(filters, signal), options);
  const filtered = Boolean(task || queue || since);
  const refetch = () => {
    void failed.refetch();
    void groups.refetch();
  };

  if (failed.error && !failed.data) {
    return <Problem title="The failed tasks could not be loaded" error={failed.error} onRetry={failed.refetch} />;
  }
  const { total, total_is_exact: exact, items } = failed.data ?? {};
  return (
    <>
      <h1>Failed tasks</h1>
      <Filters task={task} queue={queue} since={since} />
      <div className="d-bar">
        <p className="d-muted" role="status">
          {total === undefined ? ' ' : `${exact ? '' : 'at least '}${formatCount(total, 'failed task')}`}
        </p>
        <span className="d-bar__new" />
        {mayAct && Boolean(total) && (
          <button type="button" className="ax-button" onClick={() => setRetries(true)}>
            Retry {filtered ? 'these' : 'all'}…
          </button>
        )}
      </div>
      <Groups groups={groups.data?.groups} onRetry={mayAct ? setGroup : undefined} />
      <h2>Newest</h2>
      <Table
        label="Newest failed tasks"
        heads={['Task', 'Failed', 'Attempts', 'Queue', 'Error', ...(mayAct ? [''] : [])]}
        rows={items?.map((item) => ({
          key: item.agent_id,
          cells: [
            <Link key="task" data-row="" href={href(`tasks/${item.agent_id}`)}>
              <Untrusted text={item.task_name} />
            </Link>,
            <RelativeTime key="at" time={item.failed_at} />,
            attempts(item),
            item.queue ? <Untrusted key="queue" text={item.queue} /> : '–',
            <FoldedText key="error" className="d-error" text={item.error ?? '–'} limit={200} />,
            ...(mayAct
              ? [
                  <ActButton
                    key="retry"
                    label={`Retry ${visible(item.task_name)} ${shortId(item.agent_id)}`}
                    onAct={() => api.retry(item.agent_id)}
                    onDone={failed.refetch}
                  >
                    Retry
                  </ActButton>,
                ]
              : []),
          ],
        }))}
        empty={filtered ? 'No failed task matches.' : 'No task has failed.'}
      />
      {total !== undefined && total > LIMIT && (
        <nav className="d-pages" aria-label="Pages">
          <span />
          <Link href={href('tasks', { status: 'error', task, queue, since })}>All of them</Link>
        </nav>
      )}
      <Stale error={failed.error ?? groups.error} />
      {retries && (
        <BulkAct
          verb="Retry"
          done="put back on their queues"
          which={which(task, queue, since)}
          send={(more) => api.retryMany({ ...filters, ...(filtered ? {} : { all: true }), ...more })}
          onClose={() => {
            setRetries(false);
            refetch();
          }}
        />
      )}
      {group && (
        <BulkAct
          verb="Retry"
          done="put back on their queues"
          which={`${which(group.task_name, queue, since)}, with this error`}
          send={(more) => api.retryMany({ ...filters, task_name: group.task_name, error: group.error ?? '', ...more })}
          onClose={() => {
            setGroup(undefined);
            refetch();
          }}
        />
      )}
    </>
  );
}

interface GroupsProps {
  groups: readonly FailedGroup[] | undefined;
  onRetry: ((group: FailedGroup) => void) | undefined;
}

function Groups({ groups, onRetry }: GroupsProps) {
  if (groups?.length === 0) return null;
  return (
    <>
      <h2>By error</h2>
      <Table
        label="Failed tasks by error"
        heads={['Task', 'Failures', 'Latest', 'Error', ...(onRetry ? [''] : [])]}
        numbers={['Failures']}
        rows={groups?.map((group) => ({
          key: `${group.task_name} ${group.error}`,
          cells: [
            <Link key="task" data-row="" href={href('failed', { task: group.task_name })}>
              <Untrusted text={group.task_name} />
            </Link>,
            group.count.toLocaleString('en-US'),
            <Link key="latest" href={href(`tasks/${group.latest_agent_id}`)}>
              <RelativeTime time={group.latest_at} />
            </Link>,
            <FoldedText key="error" className="d-error" text={group.error ?? '–'} limit={200} />,
            ...(onRetry
              ? [
                  <button
                    key="retry"
                    type="button"
                    className="ax-button"
                    aria-label={`Retry all ${visible(group.task_name)} with this error`}
                    onClick={() => onRetry(group)}
                  >
                    Retry…
                  </button>,
                ]
              : []),
          ],
        }))}
        empty=""
      />
    </>
  );
}

function Filters({
  task,
  queue,
  since,
}: {
  task?: string | undefined;
  queue?: string | undefined;
  since?: string | undefined;
}) {
  const id = useId();
  const queues = usePolled('queues', api.queues, { enabled: true, interval: () => 60_000 });
  const set = (change: Record<string, string>) => go(href('failed', { task, queue, since, ...change }));
  const names = queues.data?.map(({ name }) => name) ?? [];
  return (
    <search className="d-filters">
      <div className="d-fields">
        <label htmlFor={`${id}-task`}>
          Task name
          <input
            key={task}
            id={`${id}-task`}
            defaultValue={task}
            placeholder="any"
            onBlur={(event) => set({ task: event.currentTarget.value.trim() })}
            onKeyDown={(event) => event.key === 'Enter' && set({ task: event.currentTarget.value.trim() })}
          />
        </label>
        <label htmlFor={`${id}-queue`}>
          Queue
          <select id={`${id}-queue`} value={queue ?? ''} onChange={(event) => set({ queue: event.target.value })}>
            <option value="">any</option>
            {(queue && !names.includes(queue) ? [queue, ...names] : names).map((name) => (
              <option key={name} value={name}>
                {visible(name)}
              </option>
            ))}
          </select>
        </label>
        <label htmlFor={`${id}-since`}>
          Failed
          <select id={`${id}-since`} value={since ?? ''} onChange={(event) => set({ since: event.target.value })}>
            {Object.entries(SINCE_LABELS).map(([value, label]) => (
              <option key={value} value={value}>
                {label}
              </option>
            ))}
          </select>
        </label>
      </div>
    </search>
  );
}

function attempts({ attempts: number, crashes }: FailedTask): string {
  return crashes > 0 ? `${number}, ${formatCount(crashes, 'crash', 'crashes')}` : String(number);
}

function which(task?: string, queue?: string, since?: string): string {
  const parts = [
    'that have failed',
    task && `named ${task}`,
    queue && `of the queue ${queue}`,
    since && `in the ${SINCE_LABELS[since]}`,
  ];
  return parts.filter(Boolean).join(', ');
}
