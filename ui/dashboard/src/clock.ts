export { formatClock as clockTime } from '../../src/format.js';

const DAY = { day: 'numeric', month: 'short', timeZone: 'UTC' } as const;

/** Return the time of a moment of today, or else its day: `18:30 UTC`, `12 Dec`. */
export function clockOrDay(at: number, now: number): string {
  if (isSameDay(at, now)) return `${new Date(at).toISOString().slice(11, 16)} UTC`;
  return new Date(at).toLocaleDateString('en-GB', DAY);
}

function isSameDay(at: number, now: number): boolean {
  return new Date(at).toISOString().slice(0, 10) === new Date(now).toISOString().slice(0, 10);
}
