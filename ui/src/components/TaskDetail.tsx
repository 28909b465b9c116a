'use client';

import { type ComponentPropsWithoutRef, type KeyboardEvent, type ReactNode, useId } from 'react';
import { formatDuration } from '../format.js';
import { STATUS_LABELS } from '../status.js';
import type { ActivityDetail, ActivityLog, Status } from '../types/index.js';
import { CopyButton } from './CopyButton.js';
import { classes } from './classes.js';
import { FoldedText } from './FoldedText.js';
import { type LogLine, LogStream } from './LogStream.js';
import { ProgressBar } from './ProgressBar.js';
import { RelativeTime } from './RelativeTime.js';
import { TaskStatus } from './TaskStatus.js';
import { TaskTree } from './TaskTree.js';
import { Untrusted } from './Untrusted.js';
import { UsageSummary } from './UsageSummary.js';
import { VisuallyHidden } from './VisuallyHidden.js';

/** Task with its log. Status and percentage come from the last log line if the API does not return them. */
export type TaskDetailActivity = Pick<ActivityDetail, 'agent_id' | 'agent_type'> & Partial<ActivityDetail>;

export interface TaskDetailProps<Activity extends TaskDetailActivity = ActivityDetail>
  extends Omit<ComponentPropsWithoutRef<'section'>, 'children'> {
  activity: Activity | null | undefined;
  /** A placeholder is shown while there is no activity yet. */
  loading?: boolean | undefined;
  /** Reason why the activity could not be loaded. */
  error?: Error | string | null | undefined;
  /** Called by the close button, and by Escape while the focus is inside. */
  onClose?: (() => void) | undefined;
  /** Called with the id of a task that this task has enqueued. */
  onTaskClick?: ((agentId: string) => void) | undefined;
  /** Level of the heading, to fit those of the page. */
  headingLevel?: 2 | 3 | 4 | 5 | 6;
  /** Text that the model is writing, of `useActivityStream`. */
  text?: string | undefined;
  renderLog?: ((logs: readonly ActivityLog[]) => ReactNode) | undefined;
  /** Content instead of everything below the title. */
  children?: ((activity: Activity) => ReactNode) | undefined;
}

/** Task with its status, progress, usage, log and the tasks that it has enqueued. */
export function TaskDetail<Activity extends TaskDetailActivity = ActivityDetail>({
  activity,
  loading = false,
  error,
  onClose,
  onTaskClick,
  headingLevel = 2,
  text,
  renderLog,
  children,
  className,
  ...rest
}: TaskDetailProps<Activity>) {
  const title = useId();
  const Heading = `h${headingLevel}` as const;
  const last = activity?.logs?.at(-1);
  const status: Status = activity?.status ?? last?.status ?? 'queued';
  const percentage = activity?.percentage ?? last?.percentage;

  const closeOnEscape = (event: KeyboardEvent<HTMLElement>) => {
    rest.onKeyDown?.(event);
    if (event.key !== 'Escape' || event.defaultPrevented || !onClose) return;
    event.stopPropagation();
    onClose();
  };

  return (
    <section
      aria-labelledby={title}
      {...rest}
      className={classes('ax-task-detail', className)}
      data-status={activity ? status : undefined}
      data-loading={loading}
      aria-busy={loading}
      onKeyDown={closeOnEscape}
    >
      <header className="ax-task-detail__header">
        <Heading id={title} className="ax-task-detail__title">
          {activity ? <Untrusted text={activity.agent_type} /> : 'Task'}
        </Heading>
        {activity && <TaskStatus status={status} message={last?.message} />}
        {onClose && (
          <button type="button" className="ax-button ax-task-detail__close" aria-label="Close" onClick={onClose}>
            <span aria-hidden="true">×</span>
          </button>
        )}
      </header>
      {error && (
        <p role="alert" className="ax-error">
          <Untrusted text={typeof error === 'string' ? error : error.message} />
        </p>
      )}
      {activity ? (
        (children?.(activity) ?? (
          <>
            <Announcement name={activity.agent_type} status={status} percentage={percentage} />
            <ProgressBar percentage={percentage} status={status} showValue />
            <Facts activity={activity} />
            {activity.error && <FoldedText className="ax-error" text={activity.error} />}
            {activity.usage && (activity.usage.requests > 0 || activity.budget) && (
              <UsageSummary
                usage={activity.usage}
                cost={activity.cost}
                byModel={activity.usage_by_model}
                budget={activity.budget}
              />
            )}
            {renderLog
              ? renderLog(activity.logs ?? [])
              : activity.logs && <LogStream lines={activity.logs satisfies LogLine[]} text={text} />}
            {activity.children && activity.children.length > 0 && (
              <TaskTree
                tasks={activity.children}
                moreBelow={activity.more_below}
                onTaskClick={onTaskClick}
                label="Tasks that this task has enqueued"
              />
            )}
          </>
        ))
      ) : loading ? (
        <>
          <VisuallyHidden role="status">Loading the task…</VisuallyHidden>
          <div className="ax-placeholder ax-task-detail__placeholder" aria-hidden="true" />
        </>
      ) : (
        !error && <div className="ax-empty">No task is selected.</div>
      )}
    </section>
  );
}

/** Tells screen readers of a new status and of every quarter of the progress, not of every percent. */
function Announcement(props: { name: string; status: Status; percentage: number | null | undefined }) {
  const quarter = Math.floor((props.percentage ?? 0) / 25) * 25;
  const progress = props.status === 'running' && quarter > 0 ? `, ${quarter}%` : '';
  return (
    <VisuallyHidden role="status">
      <Untrusted text={props.name} />: {STATUS_LABELS[props.status]}
      {progress}
    </VisuallyHidden>
  );
}

function Facts({ activity }: { activity: TaskDetailActivity }) {
  return (
    <dl className="ax-task-detail__facts">
      <Fact name="Agent ID">
        <code>{activity.agent_id}</code> <CopyButton text={activity.agent_id} label="the agent ID" />
      </Fact>
      {activity.created_at && (
        <Fact name="Created">
          <RelativeTime time={activity.created_at} />
        </Fact>
      )}
      {activity.updated_at && (
        <Fact name="Last change">
          <RelativeTime time={activity.updated_at} />
        </Fact>
      )}
      {typeof activity.elapsed_seconds === 'number' && (
        <Fact name="Duration">{formatDuration(activity.elapsed_seconds)}</Fact>
      )}
      {activity.attempt !== undefined && activity.attempt > 1 && <Fact name="Attempt">{activity.attempt}</Fact>}
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
