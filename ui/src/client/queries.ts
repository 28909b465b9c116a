import { isActive, isFinal } from '../status.js';
import type { ActivityDetail, ActivityList, Approval } from '../types/index.js';
import type { ActivityFilters, ApprovalFilters, Client } from './client.js';

/** Milliseconds between two requests while something changes. */
const BUSY = 2000;
/** Milliseconds between two requests while nothing is active. */
const CALM = 10_000;

// Options of TanStack Query, without depending on it: what `useQuery`, `prefetchQuery` and the others take.
interface Context {
  signal: AbortSignal;
}

interface Current<Data> {
  state: { data: Data | undefined };
}

/** Options of a query for a page of activities: `useQuery(activitiesQuery(client, { page: 1 }))`. */
export function activitiesQuery(client: Client, filters: ActivityFilters = {}) {
  return {
    queryKey: ['agentexec', client.baseUrl, 'activities', filters] as const,
    queryFn: ({ signal }: Context) => client.activities(filters, { signal }),
    refetchInterval: (query: Current<ActivityList>) => activitiesInterval(query.state.data),
  };
}

/** Options of a query for one activity; it is not fetched again after the task has ended. */
export function activityQuery(client: Client, agentId: string) {
  return {
    queryKey: ['agentexec', client.baseUrl, 'activity', agentId] as const,
    queryFn: ({ signal }: Context) => client.activity(agentId, { signal }),
    refetchInterval: (query: Current<ActivityDetail>) => activityInterval(query.state.data),
  };
}

/** Options of a query for the calls that wait for a person. */
export function approvalsQuery(client: Client, filters: ApprovalFilters = {}) {
  return {
    queryKey: ['agentexec', client.baseUrl, 'approvals', filters] as const,
    queryFn: ({ signal }: Context) => client.approvals(filters, { signal }),
    refetchInterval: (_query: Current<Approval[]>) => BUSY,
  };
}

/** Options of a mutation that approves a call. */
export function approveMutation(client: Client) {
  return {
    mutationKey: ['agentexec', client.baseUrl, 'approve'] as const,
    mutationFn: (call: Pick<Approval, 'agent_id' | 'call_id'>) => client.approve(call.agent_id, call.call_id),
  };
}

/** Options of a mutation that rejects a call, with an optional message to the model. */
export function rejectMutation(client: Client) {
  return {
    mutationKey: ['agentexec', client.baseUrl, 'reject'] as const,
    mutationFn: (call: Pick<Approval, 'agent_id' | 'call_id'> & { message?: string | null }) =>
      client.reject(call.agent_id, call.call_id, call.message ?? undefined),
  };
}

/** Return the milliseconds until a list should be fetched again: fewer while one of its tasks is active. */
export function activitiesInterval(list: ActivityList | undefined): number {
  return list === undefined || list.items.some((item) => isActive(item.status)) ? BUSY : CALM;
}

/** Return the milliseconds until a task should be fetched again; false if it has ended. */
export function activityInterval(activity: ActivityDetail | undefined): number | false {
  return activity !== undefined && isFinal(activity.status) ? false : BUSY;
}

/** Return the milliseconds until the calls that wait should be fetched again. */
export function approvalsInterval(): number {
  return BUSY;
}
