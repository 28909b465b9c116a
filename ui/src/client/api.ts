// Made from the endpoints of the HTTP API by `./dev ui types`. Change the endpoints instead.
import type { Act, ActivityCount, ActivityDetail, ActivityList, Approval, ApprovalRule, Bulk, Caller, Comparison, Contents, Conversation, ConversationMessage, FailedGroupList, FailedList, HistoryItem, Overview, Queue, RuleSaved, Run, ScheduleItem, Spent, Started, Status, Worker } from '../types/schemas.js';
import { type ClientOptions, createRequest, type RequestOptions } from './client.js';

/** Further parts of an approval. */
export interface ApproveBody {
  /** Arguments for the call instead of the model's; they must fit the tool's schema. */
  arguments?: Record<string, unknown> | null | undefined;
  /** Approve later calls like this one too, without asking. */
  rule?: RuleScopeBody | null | undefined;
  /** Why, for people. */
  reason?: string | null | undefined;
}

/** Limit of what a task may spend in all. */
export interface BudgetBody {
  /** The new limit, like "$5.00" or "500000 tokens". */
  budget: string;
}

/** Filters of the tasks that are canceled. */
export interface BulkCancelBody {
  /** Only these tasks. */
  agent_ids?: string[] | null | undefined;
  /** Only tasks with this name. */
  task_name?: string | null | undefined;
  /** Only tasks of this queue. */
  queue?: string | null | undefined;
  /** Values that the metadata of the tasks has. */
  metadata?: Record<string, unknown> | null | undefined;
  /** true to act on all tasks, without any filter. */
  all?: boolean | undefined;
  /** Maximum number of tasks that are changed. */
  limit?: number | undefined;
  /** Count the tasks, and change nothing. */
  dry_run?: boolean | undefined;
  /** Only queued or only running tasks; by default both. */
  status?: "queued" | "running" | null | undefined;
  /** Only tasks created at this time or later. */
  created_after?: string | null | undefined;
  /** Only tasks created before this time. */
  created_before?: string | null | undefined;
}

/** Filters of the failed tasks that are retried. */
export interface BulkRetryBody {
  /** Only these tasks. */
  agent_ids?: string[] | null | undefined;
  /** Only tasks with this name. */
  task_name?: string | null | undefined;
  /** Only tasks of this queue. */
  queue?: string | null | undefined;
  /** Values that the metadata of the tasks has. */
  metadata?: Record<string, unknown> | null | undefined;
  /** true to act on all tasks, without any filter. */
  all?: boolean | undefined;
  /** Maximum number of tasks that are changed. */
  limit?: number | undefined;
  /** Count the tasks, and change nothing. */
  dry_run?: boolean | undefined;
  /** Only tasks that failed at this time or later. */
  since?: string | null | undefined;
  /** Only tasks with this last log line, or its first 500 characters: the `error` of a group. */
  error?: string | null | undefined;
}

/** Turn at which a task is forked, and what the fork changes. */
export interface ForkBody {
  /** The first turn that the new task takes itself, from 1. */
  at: number;
  /** Path of the run, if the task has several. */
  run?: string | null | undefined;
  /** Instructions of the agent from the turn on. */
  instructions?: string | null | undefined;
  /** Name of its model from the turn on. */
  model?: string | null | undefined;
  /** Message that the agent reads right before the turn. */
  input?: string | null | undefined;
}

/** A message to a conversation. */
export interface MessageBody {
  /** The message. */
  text: string;
  /** What it does while a turn runs or waits: queue, steer, interrupt or reject. */
  if_busy?: "queue" | "steer" | "interrupt" | "reject" | undefined;
  /** A second message with the same key is not sent. */
  idempotency_key?: string | null | undefined;
}

/** Reason of a pause. */
export interface PauseBody {
  /** Text for those who look. */
  reason?: string | null | undefined;
}

/** Reason of a rejection. */
export interface RejectBody {
  /** Text for the model. */
  message?: string | null | undefined;
  /** Why, for people. */
  reason?: string | null | undefined;
}

/** Changes that a retry makes to its task. */
export interface RetryBody {
  /** New limit of what the task may spend in all, like "$5.00". */
  budget?: string | null | undefined;
}

/** Rule that approves calls without asking. */
export interface RuleBody {
  /** Name of the tool, with * for any characters. */
  tool: string;
  /** Conditions on the arguments; an empty list for any arguments. */
  where: string[];
  /** Calls of which tasks: of one, of its conversation, or of those with labels. */
  scope?: "task" | "conversation" | "metadata" | undefined;
  /** Values that the metadata of the tasks has. */
  metadata?: Record<string, unknown> | null | undefined;
  /** Seconds for which the rule is in force. */
  expires_seconds?: number | undefined;
  /** The task, or one of the conversation; null for a rule about labels. */
  agent_id?: string | null | undefined;
  /** Why, for people. */
  reason?: string | null | undefined;
}

/** Tool, arguments and tasks of a rule that approves calls without asking. */
export interface RuleScopeBody {
  /** Conditions on the arguments, like amount<=100 or to=*@example.com; null for the same arguments as those of the approved call. */
  where?: string[] | null | undefined;
  /** Calls of which tasks: of this one, of its conversation, or of those with labels. */
  scope?: "task" | "conversation" | "metadata" | undefined;
  /** Values that the metadata of the tasks has. */
  metadata?: Record<string, unknown> | null | undefined;
  /** Seconds for which the rule is in force. */
  expires_seconds?: number | undefined;
  /** Name of the tool, with * for any characters; null for that of the call. */
  tool?: string | null | undefined;
}

export interface GetOverviewQuery {
  /** Minutes, for each of which the ended tasks are counted. */
  minutes?: number | undefined;
}

export interface GetSpentQuery {
  /** Length of the time span, up to now. */
  minutes?: number | undefined;
}

export interface ListSchedulesQuery {
  /** Only tasks of this queue. */
  queue?: string | null | undefined;
}

export interface ListActivitiesQuery {
  /** Number of the page, counted from 1. */
  page?: number | undefined;
  /** Activities on a page. */
  pageSize?: number | undefined;
  /** `next_cursor` of the page before, instead of `page`. */
  after?: string | null | undefined;
  /** Only tasks with this status, or one of these. */
  status?: Status[] | null | undefined;
  /** Only tasks with this name. */
  taskName?: string | null | undefined;
  /** Only tasks of this queue. */
  queue?: string | null | undefined;
  /** Only tasks with this value in their metadata: `key=text`, or `key:=json` for a number or boolean. May be given several times, for several keys. */
  metadata?: string[] | null | undefined;
  /** Only tasks with this text in their name or latest message, or with this agent_id. */
  text?: string | null | undefined;
  /** Only tasks created at this time or later. */
  createdAfter?: string | null | undefined;
  /** Only tasks created before this time. */
  createdBefore?: string | null | undefined;
}

export interface CountActivitiesQuery {
  /** Only tasks with this value in their metadata: `key=text`, or `key:=json` for a number or boolean. May be given several times, for several keys. */
  metadata?: string[] | null | undefined;
}

export interface ListApprovalsQuery {
  /** Only calls of this task. */
  agentId?: string | null | undefined;
  /** pending: without an answer, oldest first; decided or all: newest first. */
  state?: "pending" | "decided" | "all" | undefined;
  /** Maximum number of calls. */
  limit?: number | undefined;
}

export interface ListApprovalRulesQuery {
  /** Whether to list those too that have expired or were revoked. */
  ended?: boolean | undefined;
  /** Maximum number of rules. */
  limit?: number | undefined;
}

export interface ListConversationsQuery {
  /** Maximum number of conversations. */
  limit?: number | undefined;
}

export interface ListFailedQuery {
  /** Only tasks with this name. */
  taskName?: string | null | undefined;
  /** Only tasks of this queue. */
  queue?: string | null | undefined;
  /** Only tasks that failed at this time or later. */
  since?: string | null | undefined;
  /** Only tasks with this value in their metadata: `key=text`, or `key:=json` for a number or boolean. May be given several times, for several keys. */
  metadata?: string[] | null | undefined;
  /** Maximum number of tasks. */
  limit?: number | undefined;
}

export interface GroupFailedQuery {
  /** Only tasks with this name. */
  taskName?: string | null | undefined;
  /** Only tasks of this queue. */
  queue?: string | null | undefined;
  /** Only tasks that failed at this time or later. */
  since?: string | null | undefined;
  /** Only tasks with this value in their metadata: `key=text`, or `key:=json` for a number or boolean. May be given several times, for several keys. */
  metadata?: string[] | null | undefined;
  /** Maximum number of groups. */
  limit?: number | undefined;
}

export interface PauseScheduleQuery {
  /** Only tasks of this queue. */
  queue?: string | null | undefined;
}

export interface ResumeScheduleQuery {
  /** Only tasks of this queue. */
  queue?: string | null | undefined;
}

export interface RunScheduleQuery {
  /** Only tasks of this queue. */
  queue?: string | null | undefined;
}

export interface ListMessagesQuery {
  /** Maximum number of entries, the latest ones. */
  limit?: number | undefined;
  /** `number` of an entry; only those before it are returned. */
  before?: number | null | undefined;
}

export interface GetHistoryQuery {
  /** Maximum number of entries, the latest ones. */
  limit?: number | undefined;
  /** `number` of an entry; only those before it are returned. */
  before?: number | null | undefined;
}

/** A function for each endpoint of agentexec's HTTP API. `Client.events` opens the streams. */
export interface Api {
  /** Get the caller's rights. */
  getMe(options?: RequestOptions): Promise<Caller>;
  /** Get the overview. */
  getOverview(query?: GetOverviewQuery, options?: RequestOptions): Promise<Overview>;
  /** Get recent usage and cost. */
  getSpent(query?: GetSpentQuery, options?: RequestOptions): Promise<Spent>;
  /** List worker processes. */
  listWorkers(options?: RequestOptions): Promise<Worker[]>;
  /** List queues. */
  listQueues(options?: RequestOptions): Promise<Queue[]>;
  /** List schedules. */
  listSchedules(query?: ListSchedulesQuery, options?: RequestOptions): Promise<ScheduleItem[]>;
  /** List activities. */
  listActivities(query?: ListActivitiesQuery, options?: RequestOptions): Promise<ActivityList>;
  /** Count active tasks. */
  countActivities(query?: CountActivitiesQuery, options?: RequestOptions): Promise<ActivityCount>;
  /** Cancel all tasks that match. */
  cancelActivities(body: BulkCancelBody, options?: RequestOptions): Promise<Bulk>;
  /** List calls that wait for a person, or that are decided. */
  listApprovals(query?: ListApprovalsQuery, options?: RequestOptions): Promise<Approval[]>;
  /** List rules that approve calls without asking. */
  listApprovalRules(query?: ListApprovalRulesQuery, options?: RequestOptions): Promise<ApprovalRule[]>;
  /** Make a rule that approves calls without asking. */
  addApprovalRule(body: RuleBody, options?: RequestOptions): Promise<RuleSaved>;
  /** List conversations. */
  listConversations(query?: ListConversationsQuery, options?: RequestOptions): Promise<Conversation[]>;
  /** List failed tasks. */
  listFailed(query?: ListFailedQuery, options?: RequestOptions): Promise<FailedList>;
  /** Group failed tasks by error. */
  groupFailed(query?: GroupFailedQuery, options?: RequestOptions): Promise<FailedGroupList>;
  /** Retry all failed tasks that match. */
  retryFailed(body: BulkRetryBody, options?: RequestOptions): Promise<Bulk>;
  /** Pause a queue. */
  pauseQueue(name: string, body?: PauseBody, options?: RequestOptions): Promise<Act>;
  /** Resume a queue. */
  resumeQueue(name: string, options?: RequestOptions): Promise<Act>;
  /** Pause a schedule. */
  pauseSchedule(name: string, query?: PauseScheduleQuery, options?: RequestOptions): Promise<Act>;
  /** Resume a schedule. */
  resumeSchedule(name: string, query?: ResumeScheduleQuery, options?: RequestOptions): Promise<Act>;
  /** Run a schedule's task now. */
  runSchedule(name: string, query?: RunScheduleQuery, options?: RequestOptions): Promise<Started>;
  /** Get an activity. */
  getActivity(agentId: string, options?: RequestOptions): Promise<ActivityDetail>;
  /** Get context and result of a task. */
  getContents(agentId: string, options?: RequestOptions): Promise<Contents>;
  /** Cancel a task. */
  cancelActivity(agentId: string, options?: RequestOptions): Promise<Act>;
  /** Retry a task. */
  retryActivity(agentId: string, body?: RetryBody, options?: RequestOptions): Promise<Act>;
  /** Set the budget of a task. */
  setActivityBudget(agentId: string, body: BudgetBody, options?: RequestOptions): Promise<Act>;
  /** List the runs of a task. */
  listTaskRuns(agentId: string, options?: RequestOptions): Promise<Run[]>;
  /** Fork a task at a turn. */
  forkActivity(agentId: string, body: ForkBody, options?: RequestOptions): Promise<Started>;
  /** Revoke a rule. */
  revokeApprovalRule(ruleId: string, options?: RequestOptions): Promise<Act>;
  /** List the messages of a conversation. */
  listMessages(conversationId: string, query?: ListMessagesQuery, options?: RequestOptions): Promise<ConversationMessage[]>;
  /** Send a message. */
  sendMessage(conversationId: string, body: MessageBody, options?: RequestOptions): Promise<ConversationMessage>;
  /** Get the history of a conversation. */
  getHistory(conversationId: string, query?: GetHistoryQuery, options?: RequestOptions): Promise<HistoryItem[]>;
  /** Get a conversation. */
  getConversation(conversationId: string, options?: RequestOptions): Promise<Conversation>;
  /** Delete a conversation. */
  removeConversation(conversationId: string, options?: RequestOptions): Promise<Act>;
  /** Compare two tasks. */
  compareActivities(agentId: string, otherId: string, options?: RequestOptions): Promise<Comparison>;
  /** Approve a call. */
  approveCall(agentId: string, callId: string, body?: ApproveBody, options?: RequestOptions): Promise<Act>;
  /** Reject a call. */
  rejectCall(agentId: string, callId: string, body?: RejectBody, options?: RequestOptions): Promise<Act>;
}

/** Return the typed functions of an API. */
export function createApi(options: ClientOptions = {}): Api {
  const request = createRequest(options);
  return {
    getMe: (options) => request('GET', '/me', {}, options),
    getOverview: (query, options) => request('GET', '/overview', { query }, options),
    getSpent: (query, options) => request('GET', '/spent', { query }, options),
    listWorkers: (options) => request('GET', '/workers', {}, options),
    listQueues: (options) => request('GET', '/queues', {}, options),
    listSchedules: (query, options) => request('GET', '/schedules', { query }, options),
    listActivities: (query, options) => request('GET', '/activity', { query }, options),
    countActivities: (query, options) => request('GET', '/activity/count', { query }, options),
    cancelActivities: (body, options) => request('POST', '/activity/cancel', { body }, options),
    listApprovals: (query, options) => request('GET', '/approvals', { query }, options),
    listApprovalRules: (query, options) => request('GET', '/approval-rules', { query }, options),
    addApprovalRule: (body, options) => request('POST', '/approval-rules', { body }, options),
    listConversations: (query, options) => request('GET', '/conversations', { query }, options),
    listFailed: (query, options) => request('GET', '/failed', { query }, options),
    groupFailed: (query, options) => request('GET', '/failed/groups', { query }, options),
    retryFailed: (body, options) => request('POST', '/failed/retry', { body }, options),
    pauseQueue: (name, body, options) => request('POST', `/queues/${encodeURIComponent(name)}/pause`, { body }, options),
    resumeQueue: (name, options) => request('POST', `/queues/${encodeURIComponent(name)}/resume`, {}, options),
    pauseSchedule: (name, query, options) => request('POST', `/schedules/${encodeURIComponent(name)}/pause`, { query }, options),
    resumeSchedule: (name, query, options) => request('POST', `/schedules/${encodeURIComponent(name)}/resume`, { query }, options),
    runSchedule: (name, query, options) => request('POST', `/schedules/${encodeURIComponent(name)}/run`, { query }, options),
    getActivity: (agentId, options) => request('GET', `/activity/${encodeURIComponent(agentId)}`, {}, options),
    getContents: (agentId, options) => request('GET', `/activity/${encodeURIComponent(agentId)}/contents`, {}, options),
    cancelActivity: (agentId, options) => request('POST', `/activity/${encodeURIComponent(agentId)}/cancel`, {}, options),
    retryActivity: (agentId, body, options) => request('POST', `/activity/${encodeURIComponent(agentId)}/retry`, { body }, options),
    setActivityBudget: (agentId, body, options) => request('POST', `/activity/${encodeURIComponent(agentId)}/budget`, { body }, options),
    listTaskRuns: (agentId, options) => request('GET', `/activity/${encodeURIComponent(agentId)}/runs`, {}, options),
    forkActivity: (agentId, body, options) => request('POST', `/activity/${encodeURIComponent(agentId)}/fork`, { body }, options),
    revokeApprovalRule: (ruleId, options) => request('POST', `/approval-rules/${encodeURIComponent(ruleId)}/revoke`, {}, options),
    listMessages: (conversationId, query, options) => request('GET', `/conversations/${encodeURIComponent(conversationId)}/messages`, { query }, options),
    sendMessage: (conversationId, body, options) => request('POST', `/conversations/${encodeURIComponent(conversationId)}/messages`, { body }, options),
    getHistory: (conversationId, query, options) => request('GET', `/conversations/${encodeURIComponent(conversationId)}/history`, { query }, options),
    getConversation: (conversationId, options) => request('GET', `/conversations/${encodeURIComponent(conversationId)}`, {}, options),
    removeConversation: (conversationId, options) => request('DELETE', `/conversations/${encodeURIComponent(conversationId)}`, {}, options),
    compareActivities: (agentId, otherId, options) => request('GET', `/activity/${encodeURIComponent(agentId)}/diff/${encodeURIComponent(otherId)}`, {}, options),
    approveCall: (agentId, callId, body, options) => request('POST', `/approvals/${encodeURIComponent(agentId)}/${encodeURIComponent(callId)}/approve`, { body }, options),
    rejectCall: (agentId, callId, body, options) => request('POST', `/approvals/${encodeURIComponent(agentId)}/${encodeURIComponent(callId)}/reject`, { body }, options),
  };
}
