import { render, screen, waitFor } from '@testing-library/react';
import userEvent from '@testing-library/user-event';
import { AgentexecProvider } from 'agentexec-ui';
import type { ReactNode } from 'react';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { AGENT_ID, budget, comparison, detail, log } from '../../tests/samples.js';
import { client } from '../src/data.js';
import { relatives } from '../src/parts/Forks.js';
import { MeContext } from '../src/rights.js';
import { DiffView } from '../src/views/DiffView.js';
import { FailedView } from '../src/views/FailedView.js';
import { OverviewView } from '../src/views/OverviewView.js';
import { TaskView } from '../src/views/TaskView.js';

const FORK = `${AGENT_ID.slice(0, -1)}b`;

let answers: Record<string, unknown>;
let sent: { path: string; body: unknown }[];

beforeEach(() => {
  sent = [];
  answers = {};
  HTMLDialogElement.prototype.showModal = function () {
    this.open = true;
  };
  HTMLDialogElement.prototype.close = function () {
    this.open = false;
  };
  vi.stubGlobal('fetch', async (url: string | URL | Request, init?: RequestInit) => {
    const path = new URL(String(url), 'http://x').pathname.replace(/^.*\/api/, '');
    if (init?.method === 'POST') sent.push({ path, body: JSON.parse(String(init.body ?? '{}')) });
    return Response.json(answers[path] ?? []);
  });
});
afterEach(() => vi.unstubAllGlobals());

const show = (view: ReactNode, rights: ('read' | 'act')[] = ['read', 'act']) =>
  render(
    <AgentexecProvider client={client}>
      <MeContext.Provider value={{ name: null, rights, scoped: false }}>{view}</MeContext.Provider>
    </AgentexecProvider>,
  );

test('a task is forked in a dialog, which leads to the fork', async () => {
  answers[`/activity/${AGENT_ID}`] = detail({ status: 'complete' });
  answers[`/activity/${AGENT_ID}/runs`] = [{ run: 'Researcher#1', turns: 2, last: 2 }];
  answers[`/activity/${AGENT_ID}/fork`] = { agent_id: FORK };
  show(<TaskView agentId={AGENT_ID} />);
  const user = userEvent.setup();
  await user.click(await screen.findByRole('button', { name: 'Fork…' }));
  await user.type(await screen.findByLabelText(/^Message that the agent reads/), 'In German.');
  await user.click(screen.getByRole('button', { name: 'Fork' }));
  await waitFor(() => expect(location.pathname).toMatch(new RegExp(`tasks/${FORK}$`)));
  expect(sent).toEqual([{ path: `/activity/${AGENT_ID}/fork`, body: { at: 2, input: 'In German.' } }]);
});

test('who may only read does not fork, and sees where a task comes from', async () => {
  const logs = [
    log(1, { message: `Forked from task ${FORK} at turn 2 of Researcher#1 with a message by Ada.` }),
    log(2, { message: `Forked at turn 1 of Researcher#1 as task ${FORK}.` }),
  ];
  answers[`/activity/${AGENT_ID}`] = detail({ logs });
  show(<TaskView agentId={AGENT_ID} />, ['read']);
  const [from, to] = await screen.findAllByRole('link', { name: `Compare with ${FORK.slice(-8)}` });
  expect(from?.getAttribute('href')).toMatch(new RegExp(`tasks/${FORK}/diff/${AGENT_ID}$`));
  expect(to?.getAttribute('href')).toMatch(new RegExp(`tasks/${AGENT_ID}/diff/${FORK}$`));
  expect(screen.queryByRole('button', { name: 'Fork…' })).toBeNull();
});

test('only lines that say so name a relative', () => {
  expect(
    relatives([{ message: `I was Forked from task ${FORK} at turn 2` }, { message: 'Forked from task x' }]),
  ).toEqual({
    origin: undefined,
    forks: [],
  });
});

test('two tasks are compared', async () => {
  answers[`/activity/${AGENT_ID}/diff/${FORK}`] = comparison();
  show(<DiffView agentId={AGENT_ID} otherId={FORK} />);
  expect(await screen.findByText('2 steps of both')).toBeTruthy();
});

test('all failed tasks of a group are retried by its error', async () => {
  const group = { task_name: 'research', error: 'It broke.', count: 12, latest_at: null, latest_agent_id: AGENT_ID };
  answers['/failed'] = { items: [], total: 12, total_is_exact: true };
  answers['/failed/groups'] = { groups: [group], is_complete: true };
  answers['/failed/retry'] = { dry_run: true, matched: 10_000, matched_is_exact: false, changed: 0, more: false };
  show(<FailedView query={new URLSearchParams()} />);
  const user = userEvent.setup();
  await user.click(await screen.findByRole('button', { name: 'Retry all research with this error' }));
  await user.click(await screen.findByRole('button', { name: 'Retry more than 10,000 tasks' }));
  const body = { task_name: 'research', error: 'It broke.' };
  expect(sent).toEqual([
    { path: '/failed/retry', body: { ...body, dry_run: true } },
    { path: '/failed/retry', body },
  ]);
});

test('the overview has the shared budgets, and a task its own', async () => {
  answers['/overview'] = {
    at: '2026-11-24T12:00:00Z',
    active: 0,
    queued: 0,
    running: 0,
    oldest_queued_at: null,
    done_per_minute: [],
    failed_per_minute: [],
    workers: [],
  };
  const usage = { requests: 0, input_tokens: 0, cached_tokens: 0, output_tokens: 0 };
  answers['/spent'] = { minutes: 60, usage, cost: 0, budgets: [budget()] };
  answers['/activity'] = { items: [], total: 0 };
  show(<OverviewView />);
  expect(await screen.findByRole('meter', { name: 'tenant=acme per day' })).toBeTruthy();
  answers[`/activity/${AGENT_ID}`] = detail({ usage, budget: budget({ title: 'task', period: null }) });
  show(<TaskView agentId={AGENT_ID} />);
  expect(await screen.findByRole('meter', { name: 'Budget' })).toBeTruthy();
});

test('a task gets another budget, and one that failed is retried with it', async () => {
  const mine = budget({ title: 'task', period: null, spent: 50 });
  answers[`/activity/${AGENT_ID}`] = detail({ status: 'running', budget: mine });
  answers[`/activity/${AGENT_ID}/budget`] = { changed: true };
  answers[`/activity/${AGENT_ID}/retry`] = { changed: true };
  const user = userEvent.setup();
  const set = async (open: string, button: string) => {
    await user.click(await screen.findByRole('button', { name: open }));
    const field = screen.getByLabelText('New limit, in dollars');
    await user.clear(field);
    await user.type(field, '60');
    await user.click(screen.getByRole('button', { name: button }));
    await waitFor(() => expect(screen.queryByRole('dialog')).toBeNull());
  };
  const { unmount } = show(<TaskView agentId={AGENT_ID} />);
  await set('Budget…', 'Set the budget');
  unmount();
  answers[`/activity/${AGENT_ID}`] = detail({ status: 'error', budget: mine });
  show(<TaskView agentId={AGENT_ID} />);
  await set('Retry with a budget…', 'Retry with this budget');
  expect(sent).toEqual([
    { path: `/activity/${AGENT_ID}/budget`, body: { budget: '$60' } },
    { path: `/activity/${AGENT_ID}/retry`, body: { budget: '$60' } },
  ]);
});

test('who may only read sets no budget', async () => {
  answers[`/activity/${AGENT_ID}`] = detail({ status: 'running' });
  show(<TaskView agentId={AGENT_ID} />, ['read']);
  await screen.findByRole('heading', { level: 1 });
  expect(screen.queryByRole('button', { name: 'Budget…' })).toBeNull();
});
