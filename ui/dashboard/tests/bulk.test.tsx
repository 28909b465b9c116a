import { act, render, screen } from '@testing-library/react';
import { beforeEach, expect, test, vi } from 'vitest';
import { BulkAct } from '../src/parts/BulkAct.js';

beforeEach(() => {
  // jsdom has dialogs, but not these methods.
  HTMLDialogElement.prototype.showModal = function () {
    this.open = true;
  };
  HTMLDialogElement.prototype.close = function () {
    this.open = false;
  };
});

const answer = (matched: number, changed: number, more = false) => ({
  dry_run: changed === 0,
  matched,
  matched_is_exact: true,
  changed,
  more,
});
const show = async (send: (body: { dry_run?: boolean }) => Promise<ReturnType<typeof answer>>) => {
  await act(async () => {
    render(<BulkAct verb="Cancel" done="canceled" which="named research" send={send} onClose={() => {}} />);
  });
};
const text = () => screen.getByRole('status').textContent;

test('it counts first, and acts only when it is told to', async () => {
  const send = vi.fn(async ({ dry_run }: { dry_run?: boolean }) =>
    dry_run ? answer(1234, 0, true) : answer(1234, 1234),
  );
  await show(send);
  expect(send.mock.calls).toEqual([[{ dry_run: true }]]);
  expect(text()).toBe('Cancel 1,234 tasks named research?');
  await act(async () => screen.getByRole('button', { name: 'Cancel 1,234 tasks' }).click());
  expect(text()).toBe('1,234 tasks canceled.');
});

test('it goes on until none is left, and stops where nothing changes', async () => {
  const answers = [answer(2500, 0), answer(2500, 1000, true), answer(1500, 1000, true), answer(500, 0, true)];
  const send = vi.fn(async () => answers.shift() as ReturnType<typeof answer>);
  await show(send);
  await act(async () => screen.getByRole('button', { name: /^Cancel/ }).click());
  expect(send).toHaveBeenCalledTimes(4);
  expect(text()).toBe('2,000 tasks canceled.');
});

test('without a task there is nothing to confirm', async () => {
  await show(async () => answer(0, 0));
  expect(text()).toBe('No task named research is left.');
  expect(screen.getAllByRole('button').map(({ textContent }) => textContent)).toEqual(['Close']);
});

test('it tells how many were changed before it failed', async () => {
  let calls = 0;
  await show(async () => {
    calls += 1;
    if (calls === 3) throw new Error('The database cannot be reached.');
    return calls === 1 ? answer(2000, 0) : answer(2000, 1000, true);
  });
  await act(async () => screen.getByRole('button', { name: /^Cancel/ }).click());
  expect(text()).toBe('The database cannot be reached. 1,000 tasks canceled.');
});
