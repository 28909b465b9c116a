const DAY = { day: 'numeric', month: 'short', timeZone: 'UTC' } as const;

/** Return a time with its day, unless it is today, in UTC as in logs: `18:30:05 UTC`, `12 Dec 2026, 18:30:05 UTC`. */
export function clockTime(at: number, now: number): string {
  const clock = `${new Date(at).toISOString().slice(11, 19)} UTC`;
  if (isSameDay(at, now)) return clock;
  return `${new Date(at).toLocaleDateString('en-GB', { ...DAY, year: 'numeric' })}, ${clock}`;
}

/** Return the time of a moment of today, or else its day: `18:30 UTC`, `12 Dec`. */
export function clockOrDay(at: number, now: number): string {
  if (isSameDay(at, now)) return `${new Date(at).toISOString().slice(11, 16)} UTC`;
  return new Date(at).toLocaleDateString('en-GB', DAY);
}

function isSameDay(at: number, now: number): boolean {
  return new Date(at).toISOString().slice(0, 10) === new Date(now).toISOString().slice(0, 10);
}
