import { act, render, screen } from '@testing-library/react';
import type { ActivityList } from 'agentexec-ui';
import { beforeEach, expect, test, vi } from 'vitest';
import { item, list } from '../../tests/samples.js';
import { client } from '../src/data.js';
import { useStableList } from '../src/stable.js';

function Rows({ found, wanted = 'all' }: { found: ActivityList | undefined; wanted?: string }) {
  const { items, added, apply } = useStableList(found, wanted);
  return (
    <>
      <p>{items?.map(({ agent_id, status }) => `${agent_id}:${status}`).join(' ')}</p>
      <button type="button" onClick={apply}>
        {added}
      </button>
    </>
  );
}

const rows = () => screen.getByText((_, element) => element?.tagName === 'P').textContent;
const added = () => screen.getByRole('button').textContent;
const page = (...entries: string[]) =>
  list(
    entries.map((entry) => {
      const [agent_id, status = 'running'] = entry.split(':');
      return item({ agent_id: agent_id as string, status: status as 'running' });
    }),
  );

beforeEach(() => {
  vi.spyOn(client, 'activity').mockRejectedValue(new Error('not asked for'));
});

test('rows change in place, and new tasks wait', () => {
  const { rerender } = render(<Rows found={undefined} />);
  rerender(<Rows found={page('a', 'b')} />);
  rerender(<Rows found={page('c', 'b', 'a:complete')} />);
  expect(rows()).toBe('a:complete b:running');
  expect(added()).toBe('1');
  act(() => screen.getByRole('button').click());
  expect(rows()).toBe('c:running b:running a:complete');
  expect(added()).toBe('0');
});

test('the first tasks appear by themselves', () => {
  const { rerender } = render(<Rows found={page()} />);
  rerender(<Rows found={page('a')} />);
  expect(rows()).toBe('a:running');
});

test('another query shows its own rows, and the old ones until they are there', () => {
  const all = page('a', 'b');
  const { rerender } = render(<Rows found={all} />);
  rerender(<Rows found={all} wanted="other" />);
  expect(rows()).toBe('a:running b:running');
  rerender(<Rows found={page('b')} wanted="other" />);
  expect(rows()).toBe('b:running');
  rerender(<Rows found={page()} wanted="none" />);
  expect(rows()).toBe('');
});

test('a task that has left the page because it ended is shown as it ended', async () => {
  vi.mocked(client.activity).mockResolvedValue({ ...item({ agent_id: 'a', status: 'error' }), logs: [] } as never);
  const { rerender } = render(<Rows found={page('a', 'b')} />);
  await act(async () => rerender(<Rows found={page('b', 'c')} />));
  expect(rows()).toBe('a:error b:running');
  expect(client.activity).toHaveBeenCalledTimes(1);
});
