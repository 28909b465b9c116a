import type { ActivityEvent } from './schemas.js';

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
  FailedGroup,
  FailedGroupList,
  FailedList,
  FailedTask,
  Overview,
  Pause,
  Queue,
  Run as TaskRun,
  ScheduleItem,
  Spent,
  Started,
  Status,
  Usage,
  Worker as WorkerProcess,
  WorkerDeath,
} from './schemas.js';

/** Type of an event of a task. */
export type EventType = ActivityEvent['type'];
