import { useEffect } from 'react';
import { go, href } from './router.js';

/** Rows that `j` and `k` go through: those of task lists, and whatever else says that it is one. */
const ROWS = '.ax-task-list__row, [data-row]';

/** Keys of the page, for its help. */
export const KEYS: readonly [keys: string, does: string][] = [
  ['/', 'Search the tasks'],
  ['j', 'Next row'],
  ['k', 'Previous row'],
  ['Enter', 'Open the row'],
  ['Esc', 'Close, or back to the list'],
  ['g then o', 'Overview'],
  ['g then t', 'Tasks'],
  ['g then a', 'Approvals'],
  ['g then c', 'Conversations'],
  ['g then f', 'Failed tasks'],
  ['g then q', 'Queues'],
  ['g then s', 'Schedules'],
  ['?', 'These keys'],
];

const PLACES: Record<string, string> = {
  o: '',
  t: 'tasks',
  a: 'approvals',
  c: 'conversations',
  f: 'failed',
  q: 'queues',
  s: 'schedules',
};

/** Milliseconds within which the second key must follow `g`. */
const CHORD = 1500;

/** Handle the keys that work on every view. Whoever types a text types them as text. */
export function useKeyboard(onHelp: () => void): void {
  useEffect(() => {
    let afterG = 0;
    let last: string | null = null;
    const onFocus = ({ target }: FocusEvent) => {
      if (target instanceof HTMLElement && target.matches(ROWS)) last = target.getAttribute('href');
    };
    const onKeyDown = (event: KeyboardEvent) => {
      if (event.defaultPrevented || event.altKey || event.ctrlKey || event.metaKey) return;
      if (isTyping(event.target) || document.querySelector('dialog[open]')) return;
      const chord = event.timeStamp - afterG < CHORD;
      afterG = 0;
      const target = chord ? PLACES[event.key] : undefined;
      if (target !== undefined) go(href(target));
      else if (event.key === 'g') afterG = event.timeStamp;
      else if (event.key === 'j' || event.key === 'k') moveRow(event.key === 'j' ? 1 : -1, last);
      else if (event.key === '/') focusSearch();
      else if (event.key === '?') onHelp();
      else return;
      event.preventDefault();
    };
    document.addEventListener('keydown', onKeyDown);
    document.addEventListener('focusin', onFocus);
    return () => {
      document.removeEventListener('keydown', onKeyDown);
      document.removeEventListener('focusin', onFocus);
    };
  }, [onHelp]);
}

function isTyping(target: EventTarget | null): boolean {
  return target instanceof HTMLElement && target.closest('input, textarea, select, [contenteditable]') !== null;
}

/** Move the focus by a row; from the link that last had it if no row has, as after the way back from a task. */
function moveRow(step: number, last: string | null): void {
  const rows = [...document.querySelectorAll<HTMLElement>(ROWS)].filter((row) => row.offsetParent !== null);
  const focused = rows.indexOf(document.activeElement as HTMLElement);
  const current = focused < 0 && last ? rows.findIndex((row) => row.getAttribute('href') === last) : focused;
  const target = current < 0 ? rows[step > 0 ? 0 : rows.length - 1] : rows[current + step];
  target?.focus();
}

function focusSearch(): void {
  const search = document.querySelector<HTMLInputElement>('input[type="search"]');
  if (search) search.select();
  else go(href('tasks', { focus: 'search' }));
}
