import type { Status } from './types/index.js';

/** Word for each status, in the order of a task's life. */
export const STATUS_LABELS = {
  queued: 'Queued',
  running: 'Running',
  complete: 'Complete',
  error: 'Failed',
  canceled: 'Canceled',
} as const satisfies Record<Status, string>;

/** Return a queued task's reason to wait, from its last log line; undefined if it only waits for its turn. */
export function waitsFor(status: Status, message: string | null | undefined): 'approval' | 'event' | undefined {
  const found = status === 'queued' ? /^Waiting for (approval|event): /.exec(message ?? '') : null;
  return found?.[1] as 'approval' | 'event' | undefined;
}

/** Return true for a status that a task never leaves by itself. */
export function isFinal(status: Status): boolean {
  return status === 'complete' || status === 'error' || status === 'canceled';
}

/** Return true for queued and running tasks. */
export function isActive(status: Status): boolean {
  return status === 'queued' || status === 'running';
}
