'use client';

import type { ActivityFilters, Client } from '../client/client.js';
import { activitiesInterval } from '../client/queries.js';
import type { ActivityList } from '../types/index.js';
import { useClient } from './AgentexecProvider.js';
import { type Fetched, usePolled } from './usePolled.js';

export interface FetchOptions {
  client?: Client | undefined;
  /** False fetches nothing. */
  enabled?: boolean | undefined;
  /** Milliseconds between two requests; false fetches once. By default it depends on how much is going on. */
  refetchInterval?: number | false | undefined;
}

/** Fetch a page of activities, and keep it fresh. The page before is shown until the next one has come. */
export function useActivities(filters: ActivityFilters = {}, options: FetchOptions = {}): Fetched<ActivityList> {
  const client = useClient(options.client);
  return usePolled(JSON.stringify([client.baseUrl, filters]), (signal) => client.activities(filters, { signal }), {
    enabled: options.enabled ?? true,
    interval: (list) => options.refetchInterval ?? activitiesInterval(list),
    keep: true,
  });
}
