import { formatClock } from './format.js';
import type { ActivityListItem } from './types/index.js';

type Waiting = NonNullable<ActivityListItem['waiting']>;

/** Words for the status of a queued task that waits for something else than a person or an event. */
export const WAIT_LABELS: Partial<Record<Waiting['kind'], string>> = {
  start: 'Scheduled',
  retry: 'Retrying',
  sleep: 'Sleeping',
  lock: 'Waiting',
  version: 'Waiting',
};

/** Return what a queued task waits for, unless its latest log line says so, or that line. */
export function latestText(
  item: Partial<Pick<ActivityListItem, 'waiting' | 'started_at' | 'latest_log_message'>>,
  now: number = Date.now(),
): string | null | undefined {
  const { waiting } = item;
  if (waiting?.kind === 'lock') return `Waiting for lock ${waiting.name}.`;
  if (waiting?.kind !== 'start' || item.started_at) return item.latest_log_message;
  return waiting.until ? `Scheduled for ${formatClock(Date.parse(waiting.until), now)}.` : 'Scheduled.';
}
