import type { Status } from 'agentexec-ui';

/** Return a queued task's reason to wait, from its last log line; undefined if it only waits for its turn. */
export function waitsFor(status: Status, message: string | null | undefined): 'approval' | 'event' | undefined {
  const found = status === 'queued' ? /^Waiting for (approval|event): /.exec(message ?? '') : null;
  return found?.[1] as 'approval' | 'event' | undefined;
}

/** Return a time with its day, unless it is today, in the reader's zone: `18:30:05`, `12 Dec 2026, 18:30:05`. */
export function clockTime(at: number, now: number): string {
  const time = new Date(at);
  const clock = time.toLocaleTimeString('en-GB');
  const isToday = time.toDateString() === new Date(now).toDateString();
  return isToday
    ? clock
    : `${time.toLocaleDateString('en-GB', { day: 'numeric', month: 'short', year: 'numeric' })}, ${clock}`;
}
