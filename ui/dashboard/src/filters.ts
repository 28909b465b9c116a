import type { ActivityFilters } from 'agentexec-ui';
import type { Query } from './router.js';

/** Lengths of time to choose from, and their hours. */
export const SINCE = { '1h': 1, '6h': 6, '24h': 24, '7d': 168, '30d': 720 } as const;

export const SINCE_LABELS: Record<string, string> = {
  '': 'any time',
  '1h': 'last hour',
  '6h': 'last 6 hours',
  '24h': 'last 24 hours',
  '7d': 'last 7 days',
  '30d': 'last 30 days',
};

/** Filters as they are in the URL. */
export const NAMES = ['status', 'q', 'task', 'queue', 'label', 'since'] as const;

export type FilterName = (typeof NAMES)[number];

/** Return the filters of a URL, without empty ones. */
export function filtersOf(query: URLSearchParams): Partial<Record<FilterName, string>> {
  return Object.fromEntries(NAMES.map((name) => [name, query.get(name)?.trim()]).filter(([, value]) => value));
}

/** Return the time at which a length of time began, to the minute, so that the query stays the same meanwhile. */
export function sinceTime(since: string | undefined, now: number): string | undefined {
  const hours = SINCE[since as keyof typeof SINCE];
  if (hours === undefined) return undefined;
  return new Date(Math.floor(now / 60_000) * 60_000 - hours * 3_600_000).toISOString();
}

/** Return the filters as the API names them. */
export function activityFilters(query: URLSearchParams, now: number): ActivityFilters {
  const { status, q, task, queue, label, since } = filtersOf(query);
  return {
    status: status as ActivityFilters['status'],
    text: q,
    taskName: task,
    queue,
    metadata: label,
    createdAfter: sinceTime(since, now),
  };
}

/** Return the body of an act on all tasks that a query finds; null if the act cannot take one of its filters. */
export function bulkBody(query: URLSearchParams, now: number): Query | null {
  const { status, q, task, queue, label, since } = filtersOf(query);
  if (q || label || (status && status !== 'queued' && status !== 'running')) return null;
  const body = { status, task_name: task, queue, created_after: sinceTime(since, now) };
  return Object.fromEntries(Object.entries(body).filter(([, value]) => value !== undefined));
}

/** Return what the filters of a query say, after "tasks". */
export function describe(query: URLSearchParams): string {
  const { status, task, queue, since } = filtersOf(query);
  const parts = [
    status && `that are ${status}`,
    task && `named ${task}`,
    queue && `of the queue ${queue}`,
    since && `of the ${SINCE_LABELS[since]}`,
  ];
  return parts.filter(Boolean).join(', ') || 'that are queued or running';
}
