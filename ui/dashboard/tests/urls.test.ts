import { beforeEach, describe, expect, test } from 'vitest';
import { activityFilters, bulkBody, filtersOf, describe as inWords } from '../src/filters.js';
import { go, goBack, href, place } from '../src/router.js';

const NOW = Date.parse('2026-11-28T12:30:45Z');
const query = (text: string) => new URLSearchParams(text);

describe('filters', () => {
  test('are those of the URL, without empty ones', () => {
    expect(filtersOf(query('status=error&q=+&task=research&page=3'))).toEqual({ status: 'error', task: 'research' });
  });

  test('are sent as the API names them, with a time that stays the same for a minute', () => {
    expect(activityFilters(query('q=acme&label=org%3Da&since=1h'), NOW)).toMatchObject({
      text: 'acme',
      metadata: 'org=a',
      createdAfter: '2026-11-28T11:30:00.000Z',
    });
    expect(activityFilters(query('since=forever'), NOW).createdAfter).toBeUndefined();
  });

  test('of an act on many tasks are exactly those of the list, or there is no act', () => {
    expect(bulkBody(query('status=running&task=research&queue=high'), NOW)).toEqual({
      status: 'running',
      task_name: 'research',
      queue: 'high',
    });
    for (const text of ['q=acme', 'label=a%3Db', 'status=complete']) expect(bulkBody(query(text), NOW)).toBeNull();
  });

  test('are told in words', () => {
    expect(inWords(query('status=queued&task=research'))).toBe('that are queued, named research');
    expect(inWords(query(''))).toBe('that are queued or running');
  });
});

describe('places', () => {
  beforeEach(() => history.replaceState(null, '', '/'));

  test('have URLs that can be loaded again', () => {
    go(href('tasks/a b', { q: 'x&y', task: undefined }));
    expect(location.pathname + location.search).toBe('/tasks/a%20b?q=x%26y');
    expect(place().path).toEqual(['tasks', 'a b']);
    expect(place().query.get('q')).toBe('x&y');
  });

  test('that are damaged are shown as they are', () => {
    history.replaceState(null, '', '/tasks/%E0%A4%A');
    expect(place().path).toEqual(['tasks', '%E0%A4%A']);
  });

  test('without one before lead back to the list', () => {
    goBack(href('tasks'));
    expect(location.pathname).toBe('/tasks');
  });
});
