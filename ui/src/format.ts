const WHOLE = /*#__PURE__*/ new Intl.NumberFormat('en-US', { maximumFractionDigits: 0 });

/** Return a whole number with separators: `12,345`. */
export function formatNumber(value: number): string {
  return WHOLE.format(value);
}

/** Return a number and its noun: `1 agent`, `2 agents`. */
export function formatCount(count: number, singular: string, plural = `${singular}s`): string {
  return `${formatNumber(count)} ${count === 1 ? singular : plural}`;
}

/** Return a short number: `950`, `12.3k`, `4.5M`. */
export function formatShort(value: number): string {
  if (value < 1000) return formatNumber(value);
  const [divisor, unit] = value < 999_950 ? [1000, 'k'] : [1_000_000, 'M'];
  const scaled = value / (divisor as number);
  return `${scaled < 100 ? scaled.toFixed(1).replace(/\.0$/, '') : formatNumber(scaled)}${unit}`;
}

/** Return an amount of dollars; small ones keep two significant digits: `$1.25`, `$0.0042`. */
export function formatMoney(dollars: number): string {
  if (dollars === 0 || Math.abs(dollars) >= 0.1) {
    return `$${dollars.toLocaleString('en-US', { minimumFractionDigits: 2, maximumFractionDigits: 2 })}`;
  }
  return `$${dollars.toLocaleString('en-US', { maximumSignificantDigits: 2 })}`;
}

/** Return a length of time: `0.4 s`, `12 s`, `3 m 05 s`, `2 h 07 m`, `3 d 04 h`. */
export function formatDuration(seconds: number): string {
  const value = Math.max(0, seconds);
  if (value < 9.95) return `${value.toFixed(1)} s`;
  const whole = Math.round(value);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} m ${pad(whole % 60)} s`;
  if (whole < 86_400) return `${Math.floor(whole / 3600)} h ${pad(Math.floor((whole % 3600) / 60))} m`;
  return `${formatNumber(Math.floor(whole / 86_400))} d ${pad(Math.floor((whole % 86_400) / 3600))} h`;
}

/** Return a time relative to now: `now`, `12 s ago`, `in 3 m`. */
export function formatRelative(time: number, now: number): string {
  const seconds = Math.round((now - time) / 1000);
  const size = Math.abs(seconds);
  if (size < 5) return 'now';
  const [value, unit] =
    size < 60
      ? [size, 's']
      : size < 3600
        ? [Math.floor(size / 60), 'm']
        : size < 86_400
          ? [Math.floor(size / 3600), 'h']
          : [Math.floor(size / 86_400), 'd'];
  return seconds > 0 ? `${value} ${unit} ago` : `in ${value} ${unit}`;
}

/** Return a number of bytes: `512 B`, `12.0 MB`. */
export function formatBytes(bytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let value = Math.max(0, bytes);
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${unit === 0 ? value : value.toFixed(value < 100 ? 1 : 0)} ${units[unit]}`;
}

const JSON_STRINGS = /"(?:[^"\\]|\\.)*"/g;

/** Return true for JSON with a number that JavaScript may round. */
export function losesDigits(text: string): boolean {
  return /[\d.]{16}|\de/i.test(text.replace(JSON_STRINGS, ''));
}

/** Return JSON indented for reading, or the text itself if it is not JSON, or has a number that JavaScript may round. */
export function formatJson(text: string): string {
  if (losesDigits(text)) return text;
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

/** Return milliseconds since 1970 of an API time, or NaN. Times without an offset are UTC, as the API means them. */
export function parseTime(time: string | null | undefined): number {
  if (!time) return Number.NaN;
  return Date.parse(/(?:Z|[+-]\d\d:?\d\d)$/i.test(time) ? time : `${time}Z`);
}

function pad(value: number): string {
  return String(value).padStart(2, '0');
}

/** Return a time with its day, unless it is today, in UTC as in logs: `18:30:05 UTC`, `12 Dec 2026, 18:30:05 UTC`. */
export function formatClock(at: number, now: number): string {
  const clock = `${new Date(at).toISOString().slice(11, 19)} UTC`;
  if (new Date(at).toISOString().slice(0, 10) === new Date(now).toISOString().slice(0, 10)) return clock;
  const day = { day: 'numeric', month: 'short', year: 'numeric', timeZone: 'UTC' } as const;
  return `${new Date(at).toLocaleDateString('en-GB', day)}, ${clock}`;
}

/** Short form of an id: its end, which is random. Its beginning is the time, and equal for tasks of the same minute. */
export function shortId(id: string): string {
  return id.slice(-8);
}
