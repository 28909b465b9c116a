import type { ActivityEvent } from './schemas.js';

export type {
  ActivityChild,
  ActivityDetail,
  ActivityEvent,
  ActivityList,
  ActivityListItem,
  ActivityLog,
  Approval,
  Overview,
  Spent,
  Status,
  Usage,
  Worker as WorkerProcess,
  WorkerDeath,
} from './schemas.js';

/** Type of an event of a task. */
export type EventType = ActivityEvent['type'];
