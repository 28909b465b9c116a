import type {
  ActivityChild,
  ActivityDetail,
  ActivityEvent,
  ActivityList,
  ActivityListItem,
  ActivityLog,
  Approval,
  ApprovalRule,
  Budget,
  Comparison,
  EventType,
  WorkerProcess,
} from 'agentexec-ui';

// Answers of the API. The casts let a model get a field without a change here.

export const AGENT_ID = '01a20f88-9c47-7904-8c27-ab1c480d3ca6';

const usage = { requests: 3, input_tokens: 12_345, cached_tokens: 2000, output_tokens: 678 };

export function item(fields: Partial<ActivityListItem> = {}): ActivityListItem {
  return {
    agent_id: AGENT_ID,
    agent_type: 'research_company',
    task_name: 'research_company',
    status: 'running',
    percentage: 30,
    created_at: '2026-11-24T21:49:00Z',
    updated_at: '2026-11-24T21:49:15Z',
    started_at: '2026-11-24T21:49:01Z',
    finished_at: null,
    latest_log_message: 'Gathering financials',
    latest_log_timestamp: '2026-11-24T21:49:15Z',
    usage,
    elapsed_seconds: 14.2,
    elapsed_time_seconds: 14,
    ...fields,
  } as ActivityListItem;
}

export function list(items: ActivityListItem[]): ActivityList {
  return {
    items,
    total: items.length,
    page: 1,
    page_size: 20,
    total_is_exact: true,
    next_cursor: null,
    total_pages: Math.ceil(items.length / 20),
  };
}

export function log(id: number, fields: Partial<ActivityLog> = {}): ActivityLog {
  return {
    id,
    created_at: `2026-11-24T21:49:${String(id % 60).padStart(2, '0')}Z`,
    message: `Line ${id}`,
    status: 'running',
    percentage: null,
    ...fields,
  };
}

export function child(agentId: string, fields: Partial<ActivityChild> = {}): ActivityChild {
  return {
    agent_id: agentId,
    agent_type: `task_${agentId}`,
    task_name: `task_${agentId}`,
    status: 'complete',
    percentage: 100,
    latest_log_message: 'Done',
    children: [],
    more_below: false,
    ...fields,
  } as ActivityChild;
}

export function detail(fields: Partial<ActivityDetail> = {}): ActivityDetail {
  const { latest_log_message: _, latest_log_timestamp: __, elapsed_time_seconds: ___, ...shared } = item();
  return {
    ...shared,
    id: AGENT_ID,
    parent_id: null,
    children: [],
    more_below: false,
    attempt: 1,
    error: null,
    usage_by_model: { 'gpt-4o': usage },
    deaths: [],
    cost: 0.0421,
    logs: [
      log(1, { status: 'queued', message: 'Waiting to start.', percentage: 0 }),
      log(2, { message: 'Task started.', percentage: 0 }),
      log(3, { message: 'Gathering financials', percentage: 30 }),
    ],
    ...fields,
  } as ActivityDetail;
}

export function approval(fields: Partial<Approval> = {}): Approval {
  return {
    agent_id: AGENT_ID,
    agent_type: 'answer',
    task_name: 'answer',
    call_id: 'call_1',
    kind: 'approval',
    tool: 'send_email',
    arguments: '{"to":"ann@example.com","text":"Hello"}',
    created_at: '2026-11-24T21:49:00Z',
    expires_at: null,
    ...fields,
  } as Approval;
}

export function worker(fields: Partial<WorkerProcess> = {}): WorkerProcess {
  return {
    worker_id: 'w1',
    queue: 'agentexec_tasks',
    queues: ['agentexec_tasks'],
    host: 'host-a',
    pid: 4711,
    concurrency: 10,
    running: 3,
    draining: false,
    cpu_percent: 42.4,
    rss_bytes: 123_456_789,
    started_at: '2026-11-24T20:00:00Z',
    seen_at: new Date().toISOString(),
    ...fields,
  } as WorkerProcess;
}

/** Event at a second of a fixed minute. */
export function event(second: number, type: EventType, data: Record<string, unknown> = {}): ActivityEvent {
  const at = new Date(Date.UTC(2026, 10, 24, 21, 49, 0) + second * 1000).toISOString();
  return { id: `${second}-${type}`, type, at, data };
}

export function budget(fields: Partial<Budget> = {}): Budget {
  return {
    title: 'tenant=acme',
    unit: 'dollars',
    limit: 50,
    spent: 12.5,
    reserved: 0,
    period: 'day',
    ends_at: '2026-11-25T00:00:00Z',
    ...fields,
  } as Budget;
}

export function comparison(fields: Partial<Comparison> = {}): Comparison {
  const task = {
    agent_id: AGENT_ID,
    task_name: 'research_company',
    status: 'complete',
    result: 'first',
    steps: 3,
    requests: 2,
    input_tokens: 1200,
    output_tokens: 30,
    cost: 0.0421,
    elapsed_seconds: 14.2,
  } as const;
  const step = { path: 'Researcher#1', kind: 'model', contents: ['first'], count: 1 };
  return {
    first: task,
    second: { ...task, agent_id: `${AGENT_ID.slice(0, -1)}b`, result: { words: 2 }, cost: null, elapsed_seconds: null },
    steps: [
      { change: 'same', path: null, kind: null, contents: null, count: 2 },
      { ...step, change: 'removed' },
      { ...step, change: 'added', contents: [{ call: 'search', arguments: '{"q":"b"}' }] },
    ],
    is_complete: true,
    ...fields,
  } as Comparison;
}

export function rule(fields: Partial<ApprovalRule> = {}): ApprovalRule {
  return {
    rule_id: 'a',
    scope: 'task',
    agent_id: AGENT_ID,
    metadata: {},
    tool: 'send_email',
    where: ['to=*@example.com'],
    arguments: null,
    created_at: '2026-11-24T21:49:00Z',
    created_by: 'Ada',
    created_from: 'http 10.0.0.5',
    reason: 'they know her',
    expires_at: '2026-11-25T21:49:00Z',
    revoked_at: null,
    revoked_by: null,
    active: true,
    ...fields,
  } as ApprovalRule;
}
