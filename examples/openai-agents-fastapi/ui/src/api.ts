/** The application's own endpoints, and the acts on tasks. Lists, details, events and approvals are in agentexec-ui. */

export type Kind = 'research' | 'comparisons';

export interface Report {
  id: number;
  agent_id: string;
  company: string;
  text: string;
  published_at: string;
}

export interface Counts {
  active: number;
}

/** Queue a task, and return its id. */
export async function start(kind: Kind, company: string): Promise<string> {
  const task = await request<{ agent_id: string }>(`/${kind}?${new URLSearchParams({ company })}`, 'POST');
  return task.agent_id;
}

/** Begin a conversation, and return its id. */
export async function beginChat(): Promise<string> {
  return (await request<{ id: string }>('/chats', 'POST')).id;
}

export const cancel = (agentId: string) => request(`/api/activity/${encodeURIComponent(agentId)}/cancel`, 'POST');

export const reports = () => request<Report[]>('/reports');

export const counts = () => request<Counts>('/api/activity/count');

async function request<Answer>(path: string, method: 'GET' | 'POST' = 'GET'): Promise<Answer> {
  const post = { method, body: '{}', headers: { 'Content-Type': 'application/json' } };
  const response = await fetch(path, method === 'POST' ? post : {});
  if (!response.ok) {
    const answer = (await response.json().catch(() => null)) as { detail?: unknown } | null;
    const detail = answer?.detail;
    throw new Error(typeof detail === 'string' ? detail : `The server answered with ${response.status}.`);
  }
  return (await response.json()) as Answer;
}
