import { isFinal } from '../status.js';
import type { ActivityDetail, ActivityEvent, ActivityLog, Status } from '../types/index.js';
import { type ConnectionState, isFinalEvent } from './follow.js';

/** Everything that a task's events have told so far. */
export interface StreamState {
  connection: ConnectionState;
  /** Events so far, consecutive text in one event. Only the latest 5,000 are kept. */
  events: readonly ActivityEvent[];
  /** Log of the task, without gaps. */
  logs: readonly ActivityLog[];
  /** Text that the model has written in the running attempt. */
  text: string;
  status: Status | undefined;
  percentage: number | null;
  /** Latest log line. */
  message: string | undefined;
  /** Result of a completed task, as JSON. */
  result: unknown;
  /** Reason in one line, if the task has failed or was canceled. */
  error: string | undefined;
  /** True after the task has ended. */
  ended: boolean;
}

const MAX_EVENTS = 5000;

const FINAL_STATUS: Partial<Record<ActivityEvent['type'], Status>> = {
  result: 'complete',
  error: 'error',
  canceled: 'canceled',
};

/** State of a stream, and whoever wants to know of its changes. */
export class StreamStore {
  #state: StreamState = {
    connection: 'connecting',
    events: [],
    logs: [],
    text: '',
    status: undefined,
    percentage: null,
    message: undefined,
    result: undefined,
    error: undefined,
    ended: false,
  };
  /** Log as the events have told it. It is behind while the task is polled, and catches up afterwards. */
  #streamed: readonly ActivityLog[] = [];
  readonly #listeners = new Set<() => void>();

  /** Current state; a new object after each change. */
  readonly snapshot = (): StreamState => this.#state;

  /** Call a function after each change, until the returned function is called. */
  readonly subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  setConnection(connection: ConnectionState): void {
    this.#set({ connection });
  }

  addEvents(added: readonly ActivityEvent[]): void {
    const change: Partial<StreamState> = {};
    const events = [...this.#state.events];
    let text = this.#state.text;
    for (const event of added) {
      append(events, event);
      if (event.type === 'text_delta') text += asText(event.data.text);
      if (event.type === 'status' && event.data.status === 'running') text = '';
      if (event.type === 'status' && !isFinalEvent(event)) Object.assign(change, { error: undefined, ended: false });
      if (event.type === 'result') change.result = event.data.value;
      if (event.type === 'error' || event.type === 'canceled') change.error = asText(event.data.error) || undefined;
      if (isFinalEvent(event)) change.ended = true;
    }
    const lines = added.filter(isLogEvent).map((event, index) => toLog(event, this.#streamed.length + index + 1));
    if (lines.length > 0) this.#streamed = [...this.#streamed, ...lines];
    if (lines.length > 0 && this.#streamed.length >= this.#state.logs.length) {
      Object.assign(change, afterLogs(this.#streamed, this.#state.percentage));
    }
    this.#set({ ...change, text, events: events.slice(-MAX_EVENTS) });
  }

  /** Take over the task as it was fetched because its events could not be read. */
  setActivity(activity: ActivityDetail): void {
    const ahead = activity.logs.length >= this.#state.logs.length;
    this.#set({
      ...(ahead ? afterLogs(activity.logs, activity.percentage) : {}),
      status: activity.status,
      percentage: activity.percentage,
      error: activity.error?.split('\n', 1)[0] ?? undefined,
      ended: isFinal(activity.status),
    });
  }

  #set(change: Partial<StreamState>): void {
    this.#state = { ...this.#state, ...change };
    for (const listener of this.#listeners) listener();
  }
}

function afterLogs(logs: readonly ActivityLog[], percentage: number | null): Partial<StreamState> {
  const last = logs.at(-1);
  return { logs, status: last?.status, message: last?.message, percentage: last?.percentage ?? percentage };
}

/** Add an event; consecutive text of one answer stays one event. */
function append(events: ActivityEvent[], event: ActivityEvent): void {
  const last = events.at(-1);
  if (event.type === 'text_delta' && last?.type === 'text_delta' && last.data.item_id === event.data.item_id) {
    const text = asText(last.data.text) + asText(event.data.text);
    // The new id, but the time at which the text began.
    events[events.length - 1] = { ...event, at: last.at, data: { ...event.data, text, until: event.at } };
  } else {
    events.push(event);
  }
}

function isLogEvent(event: ActivityEvent): boolean {
  return event.type === 'log' || event.type === 'status' || isFinalEvent(event);
}

function toLog(event: ActivityEvent, id: number): ActivityLog {
  const { message, percentage, status } = event.data;
  return {
    id,
    created_at: event.at,
    message: asText(message),
    status: (typeof status === 'string' ? status : (FINAL_STATUS[event.type] ?? 'running')) as Status,
    percentage: typeof percentage === 'number' ? percentage : null,
  };
}

function asText(value: unknown): string {
  return typeof value === 'string' ? value : '';
}
