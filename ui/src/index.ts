export {
  type Api,
  type ApproveBody,
  type BudgetBody,
  type BulkCancelBody,
  type BulkRetryBody,
  createApi,
  type ForkBody,
  type ListActivitiesQuery,
} from './client/api.js';
export type { ChatEntry } from './client/chatState.js';
export {
  type ActivityFilters,
  type ApprovalFilters,
  type ApproveOptions,
  type Client,
  type ClientOptions,
  createClient,
  type EventsOptions,
  type OutgoingMessage,
  type Paths,
  RequestError,
  type RequestOptions,
} from './client/client.js';
export { type ConnectionState, type FollowOptions, followActivity } from './client/follow.js';
export { followConversation } from './client/followConversation.js';
export {
  activitiesQuery,
  activityQuery,
  approvalsQuery,
  approveMutation,
  rejectMutation,
} from './client/queries.js';
export type { StreamState } from './client/streamState.js';
export { ActiveAgentsBadge, type ActiveAgentsBadgeProps } from './components/ActiveAgentsBadge.js';
export { ApprovalCard, type ApprovalCardProps } from './components/ApprovalCard.js';
export { BudgetBar, type BudgetBarProps } from './components/BudgetBar.js';
export { BudgetForm, type BudgetFormProps } from './components/BudgetForm.js';
export { BudgetList, type BudgetListProps } from './components/BudgetList.js';
export { ChatPanel, type ChatPanelProps } from './components/ChatPanel.js';
export { CopyButton, type CopyButtonProps } from './components/CopyButton.js';
export { FoldedText, type FoldedTextProps } from './components/FoldedText.js';
export { ForkForm, type ForkFormProps } from './components/ForkForm.js';
export { type LogLine, LogStream, type LogStreamProps } from './components/LogStream.js';
export { ProgressBar, type ProgressBarProps } from './components/ProgressBar.js';
export { RelativeTime, type RelativeTimeProps } from './components/RelativeTime.js';
export { RuleList, type RuleListProps } from './components/RuleList.js';
export { RunTimeline, type RunTimelineProps } from './components/RunTimeline.js';
export { StatusBadge, type StatusBadgeProps } from './components/StatusBadge.js';
export { TaskComparison, type TaskComparisonProps } from './components/TaskComparison.js';
export { TaskDetail, type TaskDetailActivity, type TaskDetailProps } from './components/TaskDetail.js';
export { TaskList, type TaskListItem, type TaskListProps } from './components/TaskList.js';
export { TaskTree, type TaskTreeItem, type TaskTreeProps } from './components/TaskTree.js';
export { Untrusted, type UntrustedProps } from './components/Untrusted.js';
export { UsageSummary, type UsageSummaryProps } from './components/UsageSummary.js';
export { WorkerList, type WorkerListProps, type WorkerState, workerState } from './components/WorkerList.js';
export { AgentexecProvider, type AgentexecProviderProps, useClient } from './hooks/AgentexecProvider.js';
export { type FetchOptions, useActivities } from './hooks/useActivities.js';
export { useActivity } from './hooks/useActivity.js';
export { type ActivityStream, type ActivityStreamOptions, useActivityStream } from './hooks/useActivityStream.js';
export { type Approvals, useApprovals } from './hooks/useApprovals.js';
export { type Chat, type ChatOptions, useConversation } from './hooks/useConversation.js';
export type { Fetched } from './hooks/usePolled.js';
export { isActive, isFinal, STATUS_LABELS } from './status.js';
export {
  buildTimeline,
  eventsFromLogs,
  type TimelineEntry,
  type TimelineKind,
  type TimelineOptions,
  type TimelineStatus,
  type TimelineUsage,
} from './timeline.js';
export type {
  Act,
  ActivityChild,
  ActivityCount,
  ActivityDetail,
  ActivityEvent,
  ActivityList,
  ActivityListItem,
  ActivityLog,
  Approval,
  ApprovalRule,
  Budget,
  Bulk,
  Caller,
  ComparedStep,
  ComparedTask,
  Comparison,
  Contents,
  Conversation,
  ConversationEvent,
  ConversationMessage,
  EventType,
  FailedGroup,
  FailedGroupList,
  FailedList,
  FailedTask,
  HistoryItem,
  Overview,
  Pause,
  Queue,
  ScheduleItem,
  Spent,
  Started,
  Status,
  TaskRun,
  Usage,
  WorkerDeath,
  WorkerProcess,
} from './types/index.js';
