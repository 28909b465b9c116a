import {
  type ApprovalRule,
  type Comparison,
  type Conversation,
  createClient,
  type ForkBody,
  type Overview,
  RequestError,
  type Spent,
  type TaskRun,
  type WorkerProcess,
} from 'agentexec-ui';
import { BASE } from './router.js';

/** What the reader of the page may do. */
export interface Me {
  name: string | null;
  rights: readonly ('read' | 'act')[];
  scoped: boolean;
}

export interface Contents {
  agent_id: string;
  queue: string | null;
  priority: string | null;
  run_at: string | null;
  metadata: Record<string, unknown> | null;
  lock_key: string | null;
  /** JSON values without secrets, cut where they are long; null without one. */
  context: unknown;
  result: unknown;
  result_expired: boolean;
}

export interface Queue {
  name: string;
  at: string;
  ready: number;
  delayed: number;
  running: number;
  oldest_ready_at: string | null;
  ended_per_minute: number;
  workers: number;
  pause: { paused_at: string; paused_by: string | null; reason: string | null } | null;
}

export interface Schedule {
  queue: string;
  name: string;
  task_name: string;
  cron: string;
  timezone: string;
  repeat: number | null;
  runs: number;
  next_at: string | null;
  last_at: string | null;
  last_agent_id: string | null;
  paused_at: string | null;
}

export interface FailedTask {
  agent_id: string;
  task_name: string;
  queue: string | null;
  attempts: number;
  crashes: number;
  created_at: string;
  failed_at: string | null;
  error: string | null;
}

export interface FailedGroup {
  task_name: string;
  error: string | null;
  count: number;
  latest_at: string | null;
  latest_agent_id: string;
}

export interface FailedFilters {
  task_name?: string | undefined;
  queue?: string | undefined;
  since?: string | undefined;
}

/** Answer to an act on many tasks. */
export interface Bulk {
  dry_run: boolean;
  matched: number;
  /** False if more may match than were counted. */
  matched_is_exact: boolean;
  changed: number;
  more: boolean;
}

/** Sent with every request that changes something: no page of another site can send it. */
const HEADERS = { 'X-Agentexec': 'dashboard' };

/** Fired on `window` when the server asks for a login. */
export const LOGGED_OUT = 'dashboard:logged-out';

/** Fired on `window` after an act, taken or not. */
export const ACTED = 'dashboard:acted';

const API = `${BASE}api`;

/** True if this dashboard asks for a token, so that there is a login to end. */
export const HAS_LOGIN = document.querySelector('base')?.dataset.login !== undefined;

async function fetchOrLogIn(input: RequestInfo | URL, init?: RequestInit): Promise<Response> {
  const response = await fetch(input, { ...init, credentials: 'same-origin' });
  if (response.status === 401) window.dispatchEvent(new Event(LOGGED_OUT));
  else if (init?.method === 'POST') window.dispatchEvent(new Event(ACTED));
  return response;
}

/** The package's client of the dashboard's API. */
export const client = createClient({ baseUrl: API, headers: HEADERS, fetch: fetchOrLogIn });

async function request<Data>(path: string, init: RequestInit = {}): Promise<Data> {
  const response = await fetchOrLogIn(API + path, { ...init, headers: { ...HEADERS, ...init.headers } });
  if (!response.ok) {
    const body = (await response.json().catch(() => null)) as { detail?: unknown } | null;
    const text = typeof body?.detail === 'string' ? body.detail : `The server answered ${response.status}.`;
    throw new RequestError(text, response.status);
  }
  return response.status === 204 ? (undefined as Data) : ((await response.json()) as Data);
}

function get<Data>(path: string, query: object = {}, signal?: AbortSignal): Promise<Data> {
  const wanted = Object.entries(query).filter(([, value]) => value !== undefined && value !== '');
  const text = new URLSearchParams(wanted.map(([name, value]) => [name, String(value)])).toString();
  return request(path + (text && `?${text}`), signal ? { signal } : {});
}

function post<Data = unknown>(path: string, body: object = {}): Promise<Data> {
  return request(path, {
    method: 'POST',
    body: JSON.stringify(body),
    headers: { 'Content-Type': 'application/json' },
  });
}

const encode = encodeURIComponent;

export const api = {
  logIn: (token: string) => post('/login', { token }),
  logOut: () => post('/logout'),
  me: (signal?: AbortSignal) => get<Me>('/me', {}, signal),
  overview: (minutes: number, signal?: AbortSignal) => get<Overview>('/overview', { minutes }, signal),
  spent: (minutes: number, signal?: AbortSignal) => get<Spent>('/spent', { minutes }, signal),
  workers: (signal?: AbortSignal) => get<WorkerProcess[]>('/workers', {}, signal),
  contents: (agentId: string, signal?: AbortSignal) =>
    get<Contents>(`/activity/${encode(agentId)}/contents`, {}, signal),
  cancel: (agentId: string) => post<{ changed: boolean }>(`/activity/${encode(agentId)}/cancel`),
  retry: (agentId: string, budget?: string) =>
    post<{ changed: boolean }>(`/activity/${encode(agentId)}/retry`, budget === undefined ? {} : { budget }),
  setBudget: (agentId: string, budget: string) =>
    post<{ changed: boolean }>(`/activity/${encode(agentId)}/budget`, { budget }),
  runs: (agentId: string, signal?: AbortSignal) => get<TaskRun[]>(`/activity/${encode(agentId)}/runs`, {}, signal),
  fork: (agentId: string, body: ForkBody) => post<{ agent_id: string }>(`/activity/${encode(agentId)}/fork`, body),
  compare: (agentId: string, otherId: string, signal?: AbortSignal) =>
    get<Comparison>(`/activity/${encode(agentId)}/diff/${encode(otherId)}`, {}, signal),
  conversations: (signal?: AbortSignal) => get<Conversation[]>('/conversations', {}, signal),
  rules: (signal?: AbortSignal) => get<ApprovalRule[]>('/approval-rules', {}, signal),
  revokeRule: (ruleId: string) => post(`/approval-rules/${encode(ruleId)}/revoke`),
  cancelMany: (body: object) => post<Bulk>('/activity/cancel', body),
  retryMany: (body: object) => post<Bulk>('/failed/retry', body),
  queues: (signal?: AbortSignal) => get<Queue[]>('/queues', {}, signal),
  pauseQueue: (name: string, reason: string | undefined) =>
    post(`/queues/${encode(name)}/pause`, reason ? { reason } : {}),
  resumeQueue: (name: string) => post(`/queues/${encode(name)}/resume`),
  schedules: (signal?: AbortSignal) => get<Schedule[]>('/schedules', {}, signal),
  actOnSchedule: (schedule: Schedule, act: 'pause' | 'resume' | 'run') =>
    post<{ agent_id?: string }>(`/schedules/${encode(schedule.name)}/${act}?queue=${encode(schedule.queue)}`),
  failed: (filters: FailedFilters, limit: number, signal?: AbortSignal) =>
    get<{ total: number; total_is_exact: boolean; items: FailedTask[] }>('/failed', { ...filters, limit }, signal),
  failedGroups: (filters: FailedFilters, signal?: AbortSignal) =>
    get<{ groups: FailedGroup[]; is_complete: boolean }>('/failed/groups', filters, signal),
};
