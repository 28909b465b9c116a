'use client';

import type { ComponentPropsWithoutRef, KeyboardEvent, ReactNode } from 'react';
import type { ActivityListItem } from '../types/index.js';
import { latestText } from '../waiting.js';
import { classes } from './classes.js';
import { ProgressBar } from './ProgressBar.js';
import { RelativeTime } from './RelativeTime.js';
import { TaskStatus } from './TaskStatus.js';
import { Untrusted } from './Untrusted.js';
import { VisuallyHidden } from './VisuallyHidden.js';

/** Task of a list. Only the fields that identify it are needed, so that tests and other APIs need not fill the rest. */
export type TaskListItem = Pick<ActivityListItem, 'agent_id' | 'agent_type' | 'status'> & Partial<ActivityListItem>;

export interface TaskListProps<Item extends TaskListItem = ActivityListItem>
  extends Omit<ComponentPropsWithoutRef<'div'>, 'children'> {
  items: readonly Item[] | undefined;
  /** Placeholders are shown while there are no items yet; later the list stays as it is while it is loaded again. */
  loading?: boolean | undefined;
  /** Makes each task a button. */
  onTaskClick?: ((agentId: string) => void) | undefined;
  /** Makes each task a link; a plain click calls `onTaskClick` if it is given, others open the link as browsers do. */
  taskHref?: ((agentId: string) => string) | undefined;
  selectedAgentId?: string | null | undefined;
  /** Name of the list for screen readers. */
  label?: string;
  /** Shown instead of an empty list. */
  empty?: ReactNode;
  /** Number of placeholders. */
  placeholders?: number;
  /** Content of one task's row. */
  renderItem?: ((item: Item, state: { selected: boolean }) => ReactNode) | undefined;
}

/** Page of tasks. The arrow keys, Home and End move between them, and Enter opens the task. */
export function TaskList<Item extends TaskListItem = ActivityListItem>({
  items,
  loading = false,
  onTaskClick,
  taskHref,
  selectedAgentId,
  label = 'Tasks',
  empty = 'No tasks yet.',
  placeholders = 5,
  renderItem,
  className,
  ...rest
}: TaskListProps<Item>) {
  const waits = loading && !items?.length;
  return (
    <div {...rest} className={classes('ax-task-list', className)} aria-busy={loading} data-loading={loading}>
      {waits ? (
        <Placeholders count={placeholders} />
      ) : !items?.length ? (
        <div className="ax-empty">{empty}</div>
      ) : (
        // biome-ignore lint/a11y/noRedundantRoles: Safari drops the role of a list without bullets.
        <ul className="ax-task-list__items" role="list" aria-label={label} onKeyDown={moveFocus}>
          {items.map((item) => {
            const selected = item.agent_id === selectedAgentId;
            const content = renderItem ? renderItem(item, { selected }) : <TaskRow item={item} />;
            return (
              <li
                key={item.agent_id}
                className="ax-task-list__item"
                data-status={item.status}
                data-selected={selected || undefined}
              >
                {taskHref ? (
                  <a
                    href={taskHref(item.agent_id)}
                    className="ax-task-list__row"
                    aria-current={selected || undefined}
                    onClick={(event) => {
                      const plain = !(event.altKey || event.ctrlKey || event.metaKey || event.shiftKey);
                      if (!onTaskClick || !plain) return;
                      event.preventDefault();
                      onTaskClick(item.agent_id);
                    }}
                  >
                    {content}
                  </a>
                ) : onTaskClick ? (
                  <button
                    type="button"
                    className="ax-task-list__row"
                    aria-current={selected || undefined}
                    onClick={() => onTaskClick(item.agent_id)}
                  >
                    {content}
                  </button>
                ) : (
                  <div className="ax-task-list__row">{content}</div>
                )}
              </li>
            );
          })}
        </ul>
      )}
    </div>
  );
}

function TaskRow({ item }: { item: TaskListItem }) {
  return (
    <>
      <TaskStatus status={item.status} message={item.latest_log_message} waiting={item.waiting} short />
      <span className="ax-task-list__name">
        <Untrusted text={item.agent_type} />
      </span>
      <span className="ax-task-list__message">
        <Untrusted text={latestText(item)} />
      </span>
      <ProgressBar percentage={item.percentage} status={item.status} showValue />
      <RelativeTime className="ax-task-list__time" time={item.latest_log_timestamp ?? item.updated_at} />
    </>
  );
}

function Placeholders({ count }: { count: number }) {
  return (
    <>
      <VisuallyHidden role="status">Loading tasks…</VisuallyHidden>
      <div className="ax-task-list__items" aria-hidden="true">
        {Array.from({ length: count }, (_, index) => (
          // biome-ignore lint/suspicious/noArrayIndexKey: placeholders have no identity.
          <div key={index} className="ax-task-list__row ax-placeholder" />
        ))}
      </div>
    </>
  );
}

function moveFocus(event: KeyboardEvent<HTMLUListElement>): void {
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  const rows = [...event.currentTarget.querySelectorAll<HTMLElement>(':scope > li > :is(a, button)')];
  const current = rows.indexOf(event.target as HTMLElement);
  if (current < 0) return;
  const targets: Record<string, number> = {
    ArrowDown: Math.min(current + 1, rows.length - 1),
    ArrowUp: Math.max(current - 1, 0),
    Home: 0,
    End: rows.length - 1,
  };
  const target = targets[event.key];
  if (target === undefined) return;
  event.preventDefault();
  rows[target]?.focus();
}
