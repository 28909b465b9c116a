import { type ActivityList, type ActivityListItem, isActive } from 'agentexec-ui';
import { useEffect, useState } from 'react';
import { client } from './data.js';

/** Rows that have left the page of the answer, and are fetched one by one. */
const MAX_LEFT = 8;

interface Shown {
  key: string;
  items: readonly ActivityListItem[];
}

export interface StableList {
  items: readonly ActivityListItem[] | undefined;
  /** Number of tasks that the newest answer has, and the list not yet. */
  added: number;
  /** Show the newest answer. */
  apply: () => void;
}

/**
 * Keep a list where it is while somebody reads it: rows change in place, and new tasks wait until they are asked for.
 *
 * `key` is the query; another one has other rows.
 */
export function useStableList(list: ActivityList | undefined, key: string): StableList {
  const [answer, setAnswer] = useState<{ key: string; list: ActivityList }>();
  const [shown, setShown] = useState<Shown>();
  const [left, setLeft] = useState<ReadonlyMap<string, ActivityListItem>>(new Map());

  // The first new answer after a change of the query is one to the new query; before it, the old rows stay.
  let latest = answer;
  if (list && answer?.list !== list) {
    latest = { key, list };
    setAnswer(latest);
  }
  let current = shown;
  if (list && latest?.key === key && (shown?.key !== key || (shown.items.length === 0 && list.items.length > 0))) {
    current = { key, items: list.items };
    setShown(current);
    if (left.size > 0) setLeft(new Map());
  }
  const newest = new Map(list?.items.map((item) => [item.agent_id, item]));
  const items = current?.items.map((item) => newest.get(item.agent_id) ?? left.get(item.agent_id) ?? item);
  const known = new Set(items?.map((item) => item.agent_id));
  const added = list && current?.key === key ? list.items.filter((item) => !known.has(item.agent_id)).length : 0;

  // Tasks that were active and have left the page, because they have ended, are shown as they ended.
  const gone = (items ?? [])
    .filter((item) => !newest.has(item.agent_id) && isActive(item.status))
    .slice(0, MAX_LEFT)
    .map((item) => item.agent_id)
    .join(' ');
  useEffect(() => {
    if (!gone || !list) return undefined;
    const stop = new AbortController();
    for (const id of gone.split(' ')) {
      client.activity(id, { signal: stop.signal }).then(
        ({ logs, ...activity }) => {
          const last = logs.at(-1);
          const item = {
            ...activity,
            latest_log_message: last?.message ?? null,
            waiting: null,
            latest_log_timestamp: activity.updated_at,
            elapsed_time_seconds: Math.floor(activity.elapsed_seconds ?? 0),
          };
          setLeft((before) => new Map(before).set(id, item));
        },
        () => {},
      );
    }
    return () => stop.abort();
  }, [gone, list]);

  const apply = () => {
    if (list) setShown({ key, items: list.items });
    setLeft(new Map());
  };
  return { items, added, apply };
}
