'use client';

import { type ComponentPropsWithoutRef, type KeyboardEvent, type ReactNode, useState } from 'react';
import { STATUS_LABELS } from '../status.js';
import type { ActivityChild } from '../types/index.js';
import { visible } from '../visible.js';
import { classes } from './classes.js';
import { ProgressBar } from './ProgressBar.js';
import { StatusBadge } from './StatusBadge.js';
import { Untrusted } from './Untrusted.js';

/** Task of a tree. */
export type TaskTreeItem = Pick<ActivityChild, 'agent_id' | 'agent_type' | 'status'> &
  Partial<Omit<ActivityChild, 'children'>> & { children?: readonly TaskTreeItem[] };

export interface TaskTreeProps extends Omit<ComponentPropsWithoutRef<'ul'>, 'children'> {
  tasks: readonly TaskTreeItem[];
  /** True if there are more tasks on the first level than `tasks` has. */
  moreBelow?: boolean | undefined;
  onTaskClick?: ((agentId: string) => void) | undefined;
  selectedAgentId?: string | null | undefined;
  /** Name of the tree for screen readers. */
  label?: string;
  renderTask?: ((task: TaskTreeItem) => ReactNode) | undefined;
}

interface Shared {
  closed: ReadonlySet<string>;
  focusable: string | undefined;
  selected: string | null | undefined;
  onClick: (task: TaskTreeItem) => void;
  onToggle: (task: TaskTreeItem) => void;
  onFocus: (agentId: string) => void;
  renderTask: TaskTreeProps['renderTask'];
}

/**
 * Tasks that a task has enqueued, and theirs.
 *
 * Up, Down, Home and End move the focus, Right opens and Left closes a branch, Enter calls `onTaskClick`.
 */
export function TaskTree({
  tasks,
  moreBelow,
  onTaskClick,
  selectedAgentId,
  label = 'Tasks',
  renderTask,
  className,
  ...rest
}: TaskTreeProps) {
  const [closed, setClosed] = useState<ReadonlySet<string>>(new Set());
  const [focused, setFocused] = useState<string>();

  const setOpen = (agentId: string, open: boolean) =>
    setClosed((before) => {
      const after = new Set(before);
      if (open) after.delete(agentId);
      else after.add(agentId);
      return after;
    });

  const onKeyDown = (event: KeyboardEvent<HTMLUListElement>) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const item = (event.target as HTMLElement).closest<HTMLElement>('[role="treeitem"]');
    const agentId = item?.dataset.agentId;
    if (!item || !agentId) return;
    const expanded = item.getAttribute('aria-expanded');
    if (event.key === 'Enter' || event.key === ' ') onTaskClick?.(agentId);
    else if (event.key === 'ArrowRight' && expanded === 'false') setOpen(agentId, true);
    else if (event.key === 'ArrowLeft' && expanded === 'true') setOpen(agentId, false);
    else if (MOVES.has(event.key)) moveTarget(event.currentTarget, item, event.key)?.focus();
    else return;
    event.preventDefault();
  };

  const shared: Shared = {
    closed,
    // A tree is one stop of the Tab key. The focused task may have gone.
    focusable: focused && isShown(tasks, focused, closed) ? focused : tasks[0]?.agent_id,
    selected: selectedAgentId,
    onClick: (task) => onTaskClick?.(task.agent_id),
    onToggle: (task) => setOpen(task.agent_id, closed.has(task.agent_id)),
    onFocus: setFocused,
    renderTask,
  };
  return (
    // biome-ignore lint/a11y/noNoninteractiveElementToInteractiveRole: the pattern of a tree view is made of lists.
    <ul {...rest} role="tree" aria-label={label} className={classes('ax-tree', className)} onKeyDown={onKeyDown}>
      {tasks.map((task) => (
        <Branch key={task.agent_id} task={task} shared={shared} />
      ))}
      {moreBelow && <More />}
    </ul>
  );
}

function Branch({ task, shared }: { task: TaskTreeItem; shared: Shared }) {
  const children = task.children ?? [];
  const hasChildren = children.length > 0 || Boolean(task.more_below);
  const open = hasChildren && !shared.closed.has(task.agent_id);
  return (
    // biome-ignore lint/a11y/useKeyWithClickEvents: the tree handles the keys of all its items.
    <li
      role="treeitem"
      className="ax-tree__item"
      data-agent-id={task.agent_id}
      data-status={task.status}
      aria-label={`${visible(task.agent_type)}, ${STATUS_LABELS[task.status] ?? task.status}`}
      aria-expanded={hasChildren ? open : undefined}
      aria-selected={task.agent_id === shared.selected}
      tabIndex={task.agent_id === shared.focusable ? 0 : -1}
      onFocus={(event) => {
        event.stopPropagation();
        shared.onFocus(task.agent_id);
      }}
      onClick={(event) => {
        event.stopPropagation();
        shared.onClick(task);
      }}
    >
      <span className="ax-tree__row">
        {/* Tree items have keys of their own for this, so it is for the pointer only. */}
        <span
          className="ax-tree__toggle"
          aria-hidden="true"
          data-open={hasChildren ? open : undefined}
          onClick={(event) => {
            if (!hasChildren) return;
            event.stopPropagation();
            shared.onToggle(task);
          }}
        >
          {hasChildren ? (open ? '▾' : '▸') : ''}
        </span>
        {shared.renderTask ? (
          shared.renderTask(task)
        ) : (
          <>
            <StatusBadge status={task.status} />
            <span className="ax-tree__name">
              <Untrusted text={task.agent_type} />
            </span>
            <span className="ax-tree__message">
              <Untrusted text={task.latest_log_message} />
            </span>
            <ProgressBar percentage={task.percentage} status={task.status} showValue />
          </>
        )}
      </span>
      {open && (
        // biome-ignore lint/a11y/useSemanticElements: the children of a tree item are a group.
        <ul role="group" className="ax-tree__children">
          {children.map((child) => (
            <Branch key={child.agent_id} task={child} shared={shared} />
          ))}
          {task.more_below && <More />}
        </ul>
      )}
    </li>
  );
}

const MOVES = /*#__PURE__*/ new Set(['ArrowDown', 'ArrowUp', 'Home', 'End', 'ArrowRight', 'ArrowLeft']);

/** Return the tree item that a key moves the focus to. */
function moveTarget(tree: HTMLElement, item: HTMLElement, key: string): HTMLElement | null | undefined {
  if (key === 'ArrowLeft') return item.parentElement?.closest<HTMLElement>('[role="treeitem"]');
  if (key === 'ArrowRight') return item.querySelector<HTMLElement>('[role="treeitem"]');
  const items = [...tree.querySelectorAll<HTMLElement>('[role="treeitem"]')];
  const at = items.indexOf(item);
  return (
    { ArrowDown: items[at + 1], ArrowUp: items[at - 1], Home: items[0] }[key] ?? (key === 'End' ? items.at(-1) : null)
  );
}

function More() {
  return (
    <li role="none" className="ax-tree__more">
      …and more tasks
    </li>
  );
}

function isShown(tasks: readonly TaskTreeItem[], agentId: string, closed: ReadonlySet<string>): boolean {
  return tasks.some(
    (task) =>
      task.agent_id === agentId || (!closed.has(task.agent_id) && isShown(task.children ?? [], agentId, closed)),
  );
}
