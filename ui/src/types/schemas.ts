// Made from the pydantic models by `./dev ui types`. Change the models instead.

/** Outcome of an act. */
export interface Act {
  /** false if there was nothing to change any more. */
  changed: boolean;
}

/** Task that another task has enqueued, with the tasks that it has enqueued itself. */
export interface ActivityChild {
  agent_id: string;
  agent_type: string;
  status: Status;
  percentage: number;
  latest_log_message: string | null;
  children: ActivityChild[];
  more_below: boolean;
  /** Name of the task, as `agent_type`. */
  task_name: string;
}

/** Numbers of tasks that have not ended. */
export interface ActivityCount {
  queued: number;
  running: number;
  /** Number of queued and running tasks. */
  active: number;
}

/**
 * Activity with its whole log.
 *
 * `children` is the tree of the tasks that it has enqueued, oldest first, with up to 1,000 tasks on up to 20 levels.
 * `more_below` is true where a task has more children than the tree shows.
 */
export interface ActivityDetail {
  agent_id: string;
  /** Name of the task. */
  agent_type: string;
  status: Status;
  percentage: number;
  created_at: string;
  /** Time of the last change of status or report. */
  updated_at: string;
  /** Start of the first attempt; null before it. */
  started_at: string | null;
  /** End of the task, with any final status; null before it. */
  finished_at: string | null;
  id: string;
  parent_id: string | null;
  children: ActivityChild[];
  more_below: boolean;
  attempt: number;
  error: string | null;
  expires_at: string | null;
  /** Version of the code that began its run; null before it, or without one. */
  version: string | null;
  /** Budget of the task itself; null without one. */
  budget: Budget | null;
  usage_by_model: Record<string, Usage>;
  logs: ActivityLog[];
  /** Name of the task, as `agent_type`. */
  task_name: string;
  /** Sums over all models and attempts; zeros if no model was called. */
  usage: Usage;
  /** Seconds from the start to the end, or to the last change of a running task; null before the start. */
  elapsed_seconds: number | null;
  /** Deaths of worker processes while they ran the task, oldest first, as its log tells them. */
  deaths: WorkerDeath[];
  /** Estimated cost in dollars; null unless the price of every model that was called is known. */
  cost: number | null;
}

/**
 * Event of a task, from `ax.activity.stream`.
 *
 * `id` is opaque; pass it as `after=` to resume the stream after this event.
 *
 * There is one durable event for each log line: `log`, or `status` if the line changed the status, or for the last
 * line `result`, `error` or `canceled`. Live events are short-lived: `text_delta`, `tool_called`, `tool_output`,
 * `agent` (another agent took over) and `usage`. `dropped` stands where some of them are missing.
 */
export interface ActivityEvent {
  id: string;
  type: "log" | "status" | "text_delta" | "tool_called" | "tool_output" | "agent" | "usage" | "result" | "error" | "canceled" | "dropped";
  at: string;
  data: Record<string, unknown>;
}

/** Activity in a list. */
export interface ActivityListItem {
  agent_id: string;
  /** Name of the task. */
  agent_type: string;
  status: Status;
  percentage: number;
  created_at: string;
  /** Time of the last change of status or report. */
  updated_at: string;
  /** Start of the first attempt; null before it. */
  started_at: string | null;
  /** End of the task, with any final status; null before it. */
  finished_at: string | null;
  latest_log_message: string | null;
  /** Reason for which a queued task does not start yet; null if it waits for its turn only. */
  waiting: Wait | null;
  /** Name of the task, as `agent_type`. */
  task_name: string;
  /** Sums over all models and attempts; zeros if no model was called. */
  usage: Usage;
  /** Seconds from the start to the end, or to the last change of a running task; null before the start. */
  elapsed_seconds: number | null;
  /** Time of the log's latest line, as `updated_at`: both are written together. */
  latest_log_timestamp: string;
  /** `elapsed_seconds` as a whole number; 0 before the start. */
  elapsed_time_seconds: number;
}

/**
 * Page of activities; `page` counts from 1.
 *
 * `total` is the number of matching activities, or a lower bound if `total_is_exact` is false. `next_cursor` is the
 * `after=` of the next page, null on a page that is not full.
 */
export interface ActivityList {
  items: ActivityListItem[];
  total: number;
  page: number;
  page_size: number;
  total_is_exact: boolean;
  next_cursor: string | null;
  /** Number of pages; 0 if nothing matches. */
  total_pages: number;
}

/** Line of an activity's log. */
export interface ActivityLog {
  id: number;
  created_at: string;
  message: string;
  status: Status;
  percentage: number | null;
}

/** Rule that approves calls without asking. */
export interface ApprovalRule {
  rule_id: string;
  scope: "task" | "conversation" | "metadata";
  /** The task of its scope; null for other scopes. */
  agent_id: string | null;
  /** Values that the metadata of its tasks has. */
  metadata: Record<string, unknown>;
  /** Name of the tool, with * for any characters. */
  tool: string;
  /** Conditions on the arguments; null if only the same arguments match. */
  where: string[] | null;
  /** The only arguments that match, if there are no conditions. */
  arguments: unknown;
  created_at: string;
  /** Who made it. */
  created_by: string | null;
  /** From where it was made. */
  created_from: string | null;
  reason: string | null;
  expires_at: string;
  revoked_at: string | null;
  revoked_by: string | null;
  /** true until it expires or is revoked. */
  active: boolean;
}

/**
 * Question about a call, and its answer once there is one.
 *
 * `kind` is "approval" for a tool that needs approval, and "repeat" for a call with the policy "ask" that was
 * interrupted and may be made again. `arguments` is the JSON that the model wrote.
 */
export interface Approval {
  agent_id: string;
  agent_type: string;
  call_id: string;
  kind: "approval" | "repeat";
  tool: string;
  arguments: string;
  created_at: string;
  expires_at: string | null;
  status: "pending" | "approved" | "rejected" | "expired";
  arguments_schema: string | null;
  decided_arguments: string | null;
  decided_at: string | null;
  decided_by: string | null;
  decided_from: string | null;
  reason: string | null;
  message: string | null;
  rule_id: string | null;
  run: number | null;
  /** Name of the task, as `agent_type`. */
  task_name: string;
  /** true if it was approved with changed arguments. */
  edited: boolean;
}

/** Budget of a task, or of the tasks that share one in a period. Amounts are in its unit. */
export interface Budget {
  /** "task", or the label and value of a shared one, like "tenant=acme"; "*" for all tasks. */
  title: string;
  unit: "dollars" | "tokens";
  /** Limit, with what people have added to it. */
  limit: number;
  /** Sum of the recorded responses. */
  spent: number;
  /** Sum of what calls in flight are expected to take. */
  reserved: number;
  /** minute, hour, day, week or month; null for a task's own. */
  period: string | null;
  /** End of the period. */
  ends_at: string | null;
}

/** Outcome of an act on all tasks that match. */
export interface Bulk {
  /** Whether nothing was changed. */
  dry_run: boolean;
  /** Number of tasks that matched before; a lower bound unless it is exact. */
  matched: number;
  matched_is_exact: boolean;
  /** Number of tasks that were changed. */
  changed: number;
  /** Whether matching tasks are left; repeat the request until it is false. */
  more: boolean;
}

/** Caller of the API, and its rights. */
export interface Caller {
  /** Name under which its acts are recorded. */
  name: string | null;
  /** What it may do: read, act. */
  rights: ("read" | "act")[];
  /** Whether it sees only a part of the tasks, and neither workers nor queues. */
  scoped: boolean;
  /** The only task that it may read; null for lists. */
  agent_id: string | null;
  /** Time at which its read token expires. */
  expires_at: string | null;
}

/** Step of one of the tasks of a comparison, or steps in a row that both have. */
export interface ComparedStep {
  /** same: both have it; removed: only the first task; added: only the second one. */
  change: "same" | "removed" | "added";
  /** Run or call within the task; null for steps in a row. */
  path: string | null;
  /** model, outcome or raised; null for steps in a row. */
  kind: string | null;
  /** Texts and calls of a response, or the value of a call. */
  contents: unknown;
  /** Number of steps in a row that both have. */
  count: number;
}

/** Task of a comparison. */
export interface ComparedTask {
  agent_id: string;
  task_name: string;
  status: Status;
  /** Result without secrets, cut if it is long; null without one. */
  result: unknown;
  /** Number of its steps: responses of models, and values of calls. */
  steps: number;
  requests: number;
  input_tokens: number;
  output_tokens: number;
  /** Estimated cost in dollars; null if a price is unknown. */
  cost: number | null;
  elapsed_seconds: number | null;
}

/** Two tasks side by side, and the steps that only one of them has. */
export interface Comparison {
  first: ComparedTask;
  second: ComparedTask;
  /** In order; steps in a row that both have are one entry. */
  steps: ComparedStep[];
  /** false if there are more steps, or more that differ, than are shown. */
  is_complete: boolean;
}

/**
 * Context, result, and what the queue knows of a task, for people who look after it.
 *
 * Values are without secrets, as far as these are known or look like one, and long ones are cut and say so.
 */
export interface Contents {
  agent_id: string;
  /** Queue; null for an activity that has none. */
  queue: string | null;
  priority: "high" | "low" | null;
  /** The task starts no earlier than this. */
  run_at: string | null;
  metadata: Record<string, unknown> | null;
  lock_key: string | null;
  concurrency_key: string | null;
  /** Context of the task; null without one. */
  context: unknown;
  /** Result of the task; null without one. */
  result: unknown;
  /** Whether the result was removed after its time to live. */
  result_expired: boolean;
}

/**
 * Event of a conversation, from `chat.stream()`.
 *
 * `message` says that a turn has taken a message, or that one has joined it; its data are the message. The others are the
 * events of the turn, see [`ActivityEvent`][agentexec.activity.ActivityEvent]. `id` is opaque; pass it as `after=` to
 * resume the stream after this event.
 */
export interface ConversationEvent {
  id: string;
  type: string;
  at: string;
  agent_id: string;
  data: Record<string, unknown>;
}

/** A message that was sent to a conversation. */
export interface ConversationMessage {
  conversation: string;
  number: number;
  text: string;
  if_busy: "queue" | "steer" | "interrupt" | "reject";
  state: "waiting" | "taken" | "joined" | "dropped";
  agent_id: string;
  created_at: string;
  taken_at: string | null;
}

/** A conversation. */
export interface Conversation {
  id: string;
  /** Task of its turns; null if only a session has used it. */
  task: string | null;
  /** Labels of all of its turns. */
  metadata: Record<string, unknown> | null;
  /** Number of messages that were sent to it. */
  messages: number;
  created_at: string;
  updated_at: string;
}

/** The largest groups of failed tasks. */
export interface FailedGroupList {
  groups: FailedGroup[];
  /** false if only the newest failures were grouped. */
  is_complete: boolean;
}

/** Failed tasks of one name with the same last log line. */
export interface FailedGroup {
  task_name: string;
  /** Last line of their logs. */
  error: string;
  count: number;
  /** Time of the latest failure. */
  latest_at: string | null;
  /** Task that failed last. */
  latest_agent_id: string;
}

/** The newest of the tasks that failed for good. */
export interface FailedList {
  items: FailedTask[];
  /** Number of tasks that match; a lower bound unless it is exact. */
  total: number;
  total_is_exact: boolean;
}

/** Task that failed for good. */
export interface FailedTask {
  agent_id: string;
  task_name: string;
  queue: string;
  attempts: number;
  crashes: number;
  created_at: string;
  failed_at: string | null;
  /** First line of its error. */
  error: string;
}

/** An item of a conversation's history. */
export interface HistoryItem {
  number: number;
  item: Record<string, unknown>;
  agent_id: string | null;
}

/** Queued, running and recently ended tasks, and the worker processes. */
export interface Overview {
  /** Time of the query. */
  at: string;
  /** Number of queued tasks, including those that may not start yet. */
  queued: number;
  /** Number of running tasks. */
  running: number;
  /** Creation time of the oldest queued task that may start. */
  oldest_queued_at: string | null;
  /** Numbers of completed tasks, one per minute; the last one counts the last 60 seconds. */
  done_per_minute: number[];
  /** Numbers of tasks that ended in ERROR, likewise. */
  failed_per_minute: number[];
  /** Number of the latest minutes in which all tasks are counted. With a metadata filter, the minutes before may lack some: tasks are then counted among the 10,000 that ended last. */
  exact_minutes: number;
  /** Worker processes of all queues; lost ones stay for ten minutes. */
  workers: Worker[];
  /** Number of queued and running tasks. */
  active: number;
}

/** Pause of a queue, whose tasks no worker claims meanwhile. */
export interface Pause {
  queue: string;
  paused_at: string;
  /** User and host of the command that paused it, or the name given by a program. */
  paused_by: string;
  /** Reason that was given. */
  reason: string | null;
}

/** Queue, as the record has it. */
export interface Queue {
  name: string;
  /** Time of the query. */
  at: string;
  /** Number of queued tasks that may start now. */
  ready: number;
  /** Number of queued tasks that may start later, or wait for something. */
  delayed: number;
  /** Number of running tasks. */
  running: number;
  /** Time since which the oldest of the ready tasks could start. */
  oldest_ready_at: string | null;
  /** Tasks that ended per minute, over the last minutes. */
  ended_per_minute: number;
  /** Number of live worker processes that serve it. */
  workers: number;
  /** Its pause; null if it is not paused. */
  pause: Pause | null;
  /** Seconds for which the oldest of the ready tasks could have started; null without one. */
  oldest_age: number | null;
}

/** Rule that was made. */
export interface RuleSaved {
  rule_id: string;
}

/** Run of an agent within a task, and the turns at which the task can be forked. */
export interface Run {
  /** Path of the run, such as "Writer#1". */
  run: string;
  /** Number of its recorded turns. */
  turns: number;
  /** The last turn at which a fork can begin; the first one is 1. */
  last: number;
}

/** Schedule, as of its latest tick. */
export interface ScheduleItem {
  queue: string;
  name: string;
  /** Task that each tick enqueues. */
  task_name: string;
  /** Cron expression, or "@every SECONDS". */
  cron: string;
  /** Time zone in which the expression is read. */
  timezone: string;
  /** Number of tasks after which it ends; null for no end. */
  repeat: number | null;
  /** Number of tasks so far. */
  runs: number;
  /** Time of its next tick; null once it has ended. */
  next_at: string | null;
  /** Time of the tick of its latest task. */
  last_at: string | null;
  /** Its latest task. */
  last_agent_id: string | null;
  /** Time since which it is paused; null if it is not. */
  paused_at: string | null;
}

/** Usage and cost of the tasks that ended in the last minutes. */
export interface Spent {
  /** Length of the time span in minutes. */
  minutes: number;
  usage: Usage;
  /** Estimated cost in dollars; null if a model that was used has no price. */
  cost: number | null;
  /** Shared budgets of the present periods; none for a caller who sees some tasks only. */
  budgets: Budget[];
}

/** Task that was started. */
export interface Started {
  agent_id: string;
}

/** Status of a task. COMPLETE, ERROR and CANCELED are final: a task reaches exactly one of them. */
export type Status = "queued" | "running" | "complete" | "error" | "canceled";

/** Recorded usage of model calls. */
export interface Usage {
  /** Number of model calls that were answered. */
  requests: number;
  /** Input tokens, including the cached ones. */
  input_tokens: number;
  cached_tokens: number;
  output_tokens: number;
}

/** Reason for which a queued task does not start yet. */
export interface Wait {
  /** Its start time, the next attempt after a failed one, a sleep, a person, an event, a lock, or a worker of the version that it began with. */
  kind: "start" | "retry" | "sleep" | "approval" | "event" | "lock" | "version";
  /** Time at which it starts at the latest; null if there is none. */
  until: string | null;
  /** The calls, event, lock or version that it waits for. */
  name: string | null;
}

/** Death of a worker process that ran a task. */
export interface WorkerDeath {
  /** Time at which the death was noticed. */
  at: string;
  /** Signal that killed the process; null without one. */
  signal: string | null;
  /** Completes the sentence "The worker process …". */
  reason: string;
}

/** Worker process, as of its latest report. */
export interface Worker {
  worker_id: string;
  /** Queue that it serves, or the first one. */
  queue: string;
  /** All queues that it serves. */
  queues: string[];
  /** Versions of its tasks, by name. */
  versions: Record<string, string>;
  /** Whether it runs only what began with these versions, and new tasks. */
  pinned: boolean;
  host: string;
  pid: number;
  /** Maximum number of tasks that it runs at once. */
  concurrency: number;
  /** Number of tasks that it runs. */
  running: number;
  /** Whether it is about to stop and claims no more tasks. */
  draining: boolean;
  /** CPU usage; 100 is one processor. */
  cpu_percent: number;
  /** Resident memory in bytes. */
  rss_bytes: number;
  started_at: string;
  /** Time of its latest report; after 20 seconds without one it is lost. */
  seen_at: string;
}
