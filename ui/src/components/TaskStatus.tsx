import { waitsFor } from '../status.js';
import type { ActivityListItem, Status } from '../types/index.js';
import { WAIT_LABELS } from '../waiting.js';
import { StatusBadge } from './StatusBadge.js';

interface TaskStatusProps {
  status: Status;
  /** Latest log line, which says what a queued task waits for. */
  message: string | null | undefined;
  /** Reason to wait, where the task is of a list. */
  waiting?: ActivityListItem['waiting'] | undefined;
  /** Leaves out what it waits for, where the message stands beside it. */
  short?: boolean;
}

/** Status of a task; one that waits for a person or an event is not called queued. */
export function TaskStatus({ status, message, waiting, short = false }: TaskStatusProps) {
  const reason = waitsFor(status, message);
  const word = waiting ? WAIT_LABELS[waiting.kind] : undefined;
  if (!reason) return <StatusBadge status={status}>{word}</StatusBadge>;
  const label = reason === 'approval' ? 'Waiting for approval' : 'Waiting for an event';
  return (
    <StatusBadge status={status} data-waiting={reason} title={short ? label : undefined}>
      {short ? 'Waiting' : label}
    </StatusBadge>
  );
}
