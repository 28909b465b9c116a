import { act, fireEvent, render, screen, waitFor } from '@testing-library/react';
import userEvent from '@testing-library/user-event';
import { AgentexecProvider } from 'agentexec-ui';
import type { ReactNode } from 'react';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { waitsFor } from '../../src/status.js';
import { AGENT_ID, approval, detail, item, list, log } from '../../tests/samples.js';
import { App } from '../src/App.js';
import { clockOrDay, clockTime } from '../src/clock.js';
import { client } from '../src/data.js';
import { useKeyboard } from '../src/keyboard.js';
import { Tasks } from '../src/parts/Tasks.js';
import { MeContext } from '../src/rights.js';
import { OverviewView } from '../src/views/OverviewView.js';
import { QueuesView } from '../src/views/QueuesView.js';
import { TasksView } from '../src/views/TasksView.js';
import { TaskView } from '../src/views/TaskView.js';

const ME = { name: null, rights: ['read', 'act'] as const, scoped: false };
const BAD = 'x\u202ey';

let answers: Record<string, unknown>;
let sent: { path: string; body: unknown }[];

beforeEach(() => {
  sent = [];
  answers = {};
  vi.stubGlobal('fetch', async (url: string | URL | Request, init?: RequestInit) => {
    const path = new URL(String(url), 'http://x').pathname.replace(/^.*\/api/, '');
    if (init?.method === 'POST') sent.push({ path, body: JSON.parse(String(init.body ?? '{}')) });
    const answer = answers[path];
    if (answer instanceof Error) return Response.json({ detail: answer.message }, { status: 409 });
    return Response.json(typeof answer === 'function' ? answer() : (answer ?? []));
  });
});
afterEach(() => vi.unstubAllGlobals());

const show = (view: ReactNode) =>
  render(
    <AgentexecProvider client={client}>
      <MeContext.Provider value={ME}>{view}</MeContext.Provider>
    </AgentexecProvider>,
  );

const QUEUE = {
  name: 'default',
  at: '2026-11-28T12:00:00Z',
  ready: 0,
  delayed: 0,
  running: 0,
  oldest_ready_at: null,
  ended_per_minute: 0,
  workers: 1,
  pause: null,
};

test('Enter in the reason pauses the queue, and Escape or Cancel closes the form', async () => {
  answers['/queues'] = [QUEUE];
  show(<QueuesView />);
  const user = userEvent.setup();
  const open = () => user.click(screen.getByRole('button', { name: 'Pause default' }));
  await screen.findByRole('button', { name: 'Pause default' });

  await open();
  await user.keyboard('late{Escape}');
  expect(screen.queryByRole('textbox')).toBeNull();
  expect(document.activeElement?.textContent).toBe('Pause…');
  await open();
  await user.click(screen.getByRole('button', { name: 'Cancel' }));
  expect(screen.queryByRole('textbox')).toBeNull();
  expect(sent).toEqual([]);

  await open();
  await user.keyboard('deploy{Enter}');
  await waitFor(() => expect(screen.queryByRole('textbox')).toBeNull());
  expect(sent).toEqual([{ path: '/queues/default/pause', body: { reason: 'deploy' } }]);
});

test('a pause that is refused says why, and the reason stays', async () => {
  answers = { '/queues': [QUEUE], '/queues/default/pause': new Error(`Not now ${BAD}.`) };
  show(<QueuesView />);
  const user = userEvent.setup();
  await user.click(await screen.findByRole('button', { name: 'Pause default' }));
  await user.keyboard('deploy{Enter}');
  expect((await screen.findByRole('alert')).textContent).toBe('Not now x\\u202ey.');
  expect((screen.getByRole('textbox') as HTMLInputElement).value).toBe('deploy');
});

test('who paused a queue and why hides nothing', async () => {
  answers['/queues'] = [{ ...QUEUE, pause: { paused_at: QUEUE.at, paused_by: BAD, reason: BAD } }];
  const { container } = show(<QueuesView />);
  await screen.findByText(/^Paused/);
  expect(container.innerHTML.match(/<bdi>x\\u202ey<\/bdi>/g)).toHaveLength(2);
});

const OVERVIEW = {
  at: '2026-11-28T12:00:00Z',
  queued: 12,
  running: 0,
  active: 12,
  oldest_queued_at: null,
  done_per_minute: [0],
  failed_per_minute: [0],
  workers: [],
};
const figure = (name: string) => screen.getByText(name).parentElement?.querySelector('dd')?.textContent;

test.each([
  [0, null, '$0.000 tokens'],
  [0, 0, '$0.000 tokens'],
  [2, null, 'unknowna model has no price'],
  [2, 1.5, '$1.5030 tokens'],
])('after %d model calls a cost of %s is shown as %s', async (requests, cost, shown) => {
  const usage = { requests, input_tokens: requests * 10, cached_tokens: 0, output_tokens: requests * 5 };
  answers = { '/overview': OVERVIEW, '/activity': list([item()]), '/spent': { minutes: 60, usage, cost } };
  show(<OverviewView />);
  await waitFor(() => expect(figure('Money per hour')).toBe(shown));
});

test.each([
  [12, '–none is ready'],
  [0, '–nothing waits'],
])('with %d queued tasks of which none may start, it says: %s', async (queued, shown) => {
  answers = { '/overview': { ...OVERVIEW, queued }, '/activity': list([item()]) };
  answers['/spent'] = { minutes: 60, usage: { requests: 0, input_tokens: 0, output_tokens: 0 }, cost: 0 };
  show(<OverviewView />);
  await waitFor(() => expect(figure('Oldest waiting')).toBe(shown));
});

test('only a queued task waits for a person or an event', () => {
  expect(waitsFor('queued', 'Waiting for approval: refund')).toBe('approval');
  expect(waitsFor('queued', 'Waiting for event: paid')).toBe('event');
  expect(waitsFor('running', 'Waiting for approval: refund')).toBeUndefined();
  expect(waitsFor('queued', 'Waiting to start.')).toBeUndefined();
  expect(waitsFor('queued', null)).toBeUndefined();
});

test('a list tells the tasks that wait for a person from those that wait for their turn', () => {
  const waiting = item({ status: 'queued', latest_log_message: `Waiting for approval: ${BAD}` });
  const { container } = show(<Tasks items={[waiting, item({ agent_id: '2', status: 'queued' })]} />);
  expect([...container.querySelectorAll('.ax-status')].map(({ textContent }) => textContent)).toEqual([
    'Waiting',
    'Queued',
  ]);
  expect(container.innerHTML).not.toContain('\u202e');
});

test.each([
  ['Waiting to start.', 'Queued', true],
  ['Waiting for approval: refund', 'Waiting for approval', false],
])('a queued task says what it waits for: %s', async (message, status, starts) => {
  answers = {
    [`/activity/${AGENT_ID}`]: detail({ status: 'queued', logs: [log(1, { message, status: 'queued' })] }),
    [`/activity/${AGENT_ID}/contents`]: {
      queue: BAD,
      run_at: new Date(Date.now() + 3_600_000).toISOString(),
      metadata: { [BAD]: BAD },
      context: BAD,
      result: null,
    },
  };
  const { container } = show(<TaskView agentId={AGENT_ID} />);
  await waitFor(() => expect(container.querySelector('.d-task__head .ax-status')?.textContent).toBe(status));
  await waitFor(() => expect(container.textContent).toContain('x\\u202ey'));
  expect(container.innerHTML).not.toContain('\u202e');
  expect(screen.queryByText('Starts') !== null).toBe(starts);
  if (starts) expect(screen.getByText(/^in (59 m \d\d s|1 h 00 m) \(.*\d\d:\d\d:\d\d UTC\)$/)).toBeTruthy();
});

test('a start on another day says the day', () => {
  const noon = Date.UTC(2026, 10, 28, 12);
  expect(clockTime(noon + 60_000, noon)).toBe('12:01:00 UTC');
  expect(clockTime(noon + 86_400_000, noon)).toBe('29 Nov 2026, 12:00:00 UTC');
  expect(clockOrDay(noon - 60_000, noon)).toBe('11:59 UTC');
  expect(clockOrDay(noon - 86_400_000, noon)).toBe('27 Nov');
});

const onHelp = () => {};

function Keys({ shown }: { shown: boolean }) {
  useKeyboard(onHelp);
  return shown
    ? ['a', 'b', 'c'].map((name) => (
        <a key={name} href={`/${name}`} data-row="">
          {name}
        </a>
      ))
    : null;
}

test('back from a task, j goes on from its row', () => {
  // jsdom lays nothing out.
  vi.spyOn(HTMLElement.prototype, 'offsetParent', 'get').mockReturnValue(document.body);
  const { rerender } = render(<Keys shown />);
  const press = (key: string) => fireEvent.keyDown(document.body, { key });
  press('j');
  press('j');
  expect(document.activeElement?.textContent).toBe('b');
  rerender(<Keys shown={false} />);
  rerender(<Keys shown />);
  press('j');
  expect(document.activeElement?.textContent).toBe('c');
});

test('the number of approvals follows an act at once', async () => {
  let waiting = [approval()];
  answers = {
    '/me': ME,
    '/approvals': () => waiting,
    '/queues': [QUEUE],
    '/queues/default/resume': () => {
      waiting = [];
      return null;
    },
  };
  answers['/queues'] = [{ ...QUEUE, pause: { paused_at: QUEUE.at, paused_by: 'eve', reason: null } }];
  history.replaceState({}, '', '/queues');
  const { container } = show(<App />);
  await waitFor(() => expect(container.querySelector('.d-count')?.textContent).toBe('1'));
  const resume = await screen.findByRole('button', { name: 'Resume default' });
  await act(async () => resume.click());
  // The next regular question would come after 5 seconds.
  await waitFor(() => expect(container.querySelector('.d-count')).toBeNull(), { timeout: 3000 });
});

test('a list that ends on its first page has a count, and one that goes on has at least as many', async () => {
  const page = { ...list([item()]), total: 1, total_is_exact: false };
  answers = { '/activity': { ...page, next_cursor: null } };
  const { unmount } = show(<TasksView query={new URLSearchParams()} />);
  await waitFor(() => expect(screen.getByText('1 task')).toBeTruthy());
  unmount();
  answers = { '/activity': { ...page, next_cursor: 'more' } };
  show(<TasksView query={new URLSearchParams()} />);
  await waitFor(() => expect(screen.getByText('at least 1 task')).toBeTruthy());
});
