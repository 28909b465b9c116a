import { useSyncExternalStore } from 'react';

/** Place in the dashboard: path below its base, and what the view keeps in the query. */
export interface Place {
  /** Parts of the path, decoded: `[]` for the overview, `['tasks', '…']` for a task. */
  path: readonly string[];
  query: URLSearchParams;
}

export type Query = Record<string, string | undefined>;

/** URL below which the dashboard is, with a slash at the end. The server sets it with <base>. */
export const BASE = document.querySelector('base') ? new URL('.', document.baseURI).pathname : '/';

/** Fired on `window` after each change of place that the dashboard makes. */
const CHANGED = 'dashboard:place';

/** Return the URL of a place. */
export function href(path: string, query: Query = {}): string {
  const text = new URLSearchParams(
    Object.entries(query).filter((entry): entry is [string, string] => Boolean(entry[1])),
  ).toString();
  return BASE + path + (text && `?${text}`);
}

/** Go to a URL of the dashboard. `replace` keeps the browser's history as it is, for filters while they are typed. */
export function go(url: string, { replace = false } = {}): void {
  if (url === location.pathname + location.search) return;
  if (replace) history.replaceState(history.state, '', url);
  else history.pushState({ inside: true }, '', url);
  window.dispatchEvent(new Event(CHANGED));
  if (!replace) window.scrollTo(0, 0);
}

/** Go back if the place before is one of the dashboard, else to a URL. */
export function goBack(otherwise: string): void {
  if ((history.state as { inside?: boolean } | null)?.inside) history.back();
  else go(otherwise);
}

/** Return the place, and render again whenever it changes. */
export function usePlace(): Place {
  useSyncExternalStore(subscribe, () => location.pathname + location.search);
  return place();
}

export function place(): Place {
  const path = location.pathname.startsWith(BASE) ? location.pathname.slice(BASE.length) : '';
  return { path: path.split('/').filter(Boolean).map(decode), query: new URLSearchParams(location.search) };
}

function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

function subscribe(changed: () => void): () => void {
  window.addEventListener('popstate', changed);
  window.addEventListener(CHANGED, changed);
  return () => {
    window.removeEventListener('popstate', changed);
    window.removeEventListener(CHANGED, changed);
  };
}
