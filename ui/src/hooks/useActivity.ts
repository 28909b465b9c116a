'use client';

import { activityInterval } from '../client/queries.js';
import type { ActivityDetail } from '../types/index.js';
import { useClient } from './AgentexecProvider.js';
import type { FetchOptions } from './useActivities.js';
import { type Fetched, usePolled } from './usePolled.js';

/** Fetch one activity with its log, and keep it fresh until the task has ended. Without an id, nothing is fetched. */
export function useActivity(agentId: string | null | undefined, options: FetchOptions = {}): Fetched<ActivityDetail> {
  const client = useClient(options.client);
  return usePolled(
    JSON.stringify([client.baseUrl, agentId]),
    (signal) => client.activity(agentId as string, { signal }),
    {
      enabled: Boolean(agentId) && (options.enabled ?? true),
      interval: (activity) => {
        const interval = activityInterval(activity);
        return interval === false ? false : (options.refetchInterval ?? interval);
      },
    },
  );
}
