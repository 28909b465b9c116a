import { act, fireEvent, render, screen, within } from '@testing-library/react';
import userEvent from '@testing-library/user-event';
import {
  ActiveAgentsBadge,
  ApprovalCard,
  FoldedText,
  LogStream,
  ProgressBar,
  RelativeTime,
  StatusBadge,
  TaskDetail,
  TaskList,
  TaskTree,
  UsageSummary,
  WorkerList,
} from 'agentexec-ui';
import { version } from 'react';
import { describe, expect, test, vi } from 'vitest';
import { AGENT_ID, approval, child, detail, item, log, worker } from './samples.js';

test('the tests of each project run on its version of React', () => {
  expect(version.split('.')[0]).toBe(import.meta.env.VITE_REACT);
});

describe('StatusBadge', () => {
  test('says the status as a word, with an icon that is not read out', () => {
    const { container } = render(<StatusBadge status="error" className="mine" id="x" />);
    const badge = container.firstElementChild;
    expect(badge?.textContent).toBe('Failed');
    expect(badge?.className).toBe('ax-status mine');
    expect(badge?.id).toBe('x');
    expect(container.querySelector('svg')?.getAttribute('aria-hidden')).toBe('true');
  });

  test('takes another word and another icon', () => {
    const { container } = render(
      <StatusBadge status="complete" icon={null}>
        Fertig
      </StatusBadge>,
    );
    expect(container.textContent).toBe('Fertig');
    expect(container.querySelector('svg')).toBeNull();
  });

  test('shows a status that this version does not know', () => {
    render(<StatusBadge status={'paused' as never} />);
    expect(screen.getByText('paused')).toBeTruthy();
  });
});

describe('ProgressBar', () => {
  const value = () => (screen.getByRole('progressbar') as HTMLProgressElement).getAttribute('value');

  test.each([
    [65, 'running', '65'],
    [150, 'running', '100'],
    [-3, 'running', '0'],
    [null, 'running', null],
    [Number.NaN, 'running', null],
    [null, 'queued', '0'],
    [null, 'complete', '100'],
    [undefined, undefined, null],
  ] as const)('percentage %s of a task that is %s has the value %s', (percentage, status, expected) => {
    render(<ProgressBar percentage={percentage} status={status} />);
    expect(value()).toBe(expected);
  });

  test('shows the value beside the bar', () => {
    render(<ProgressBar percentage={12.6} showValue label="Upload" />);
    expect(screen.getByText('13%')).toBeTruthy();
    expect(screen.getByRole('progressbar', { name: 'Upload' })).toBeTruthy();
  });

  test('renders what the application wants beside the bar', () => {
    render(<ProgressBar percentage={40}>{(percentage) => <b>{percentage} of 100</b>}</ProgressBar>);
    expect(screen.getByText('40 of 100')).toBeTruthy();
  });
});

describe('ActiveAgentsBadge', () => {
  test('counts agents', () => {
    const { rerender } = render(<ActiveAgentsBadge count={1} />);
    expect(screen.getByRole('status').textContent).toBe('1 active agent');
    rerender(<ActiveAgentsBadge count={1200} />);
    expect(screen.getByRole('status').textContent).toBe('1,200 active agents');
    rerender(<ActiveAgentsBadge count={0}>{(count) => `${count} busy`}</ActiveAgentsBadge>);
    expect(screen.getByRole('status').textContent).toBe('0 busy');
  });

  test('keeps the count while it is loaded again', () => {
    const { rerender } = render(<ActiveAgentsBadge count={undefined} loading />);
    expect(screen.getByRole('status').textContent).toBe('Loading…');
    rerender(<ActiveAgentsBadge count={3} loading />);
    expect(screen.getByRole('status').textContent).toBe('3 active agents');
    expect(screen.getByRole('status').getAttribute('aria-busy')).toBe('true');
  });
});

describe('TaskList', () => {
  test.each([
    [
      { kind: 'start', until: '2099-12-12T18:30:05Z', name: null },
      'Scheduled',
      'Scheduled for 12 Dec 2099, 18:30:05 UTC.',
    ],
    [{ kind: 'lock', until: null, name: 'user:7' }, 'Waiting', 'Waiting for lock user:7.'],
    [{ kind: 'sleep', until: null, name: null }, 'Sleeping', 'Waiting to start.'],
    [null, 'Queued', 'Waiting to start.'],
  ] as const)('says why a queued task waits: %o', (waiting, status, text) => {
    const queued = item({ status: 'queued', started_at: null, latest_log_message: 'Waiting to start.', waiting });
    const { container } = render(<TaskList items={[queued]} />);
    expect(container.querySelector('.ax-status')?.textContent).toBe(status);
    expect(container.querySelector('.ax-task-list__message')?.textContent).toBe(text);
  });

  const items = ['a', 'b', 'c'].map((agent_id) => item({ agent_id, agent_type: `task_${agent_id}` }));

  test('lists tasks, and marks the selected one', () => {
    render(<TaskList items={items} selectedAgentId="b" onTaskClick={() => {}} />);
    const rows = screen.getAllByRole('listitem');
    expect(rows).toHaveLength(3);
    expect(rows[1]?.dataset).toMatchObject({ status: 'running', selected: 'true' });
    expect(screen.getByRole('button', { current: true }).textContent).toContain('task_b');
  });

  test('a click and Enter open a task; the arrow keys, Home and End move between tasks', async () => {
    const open = vi.fn();
    const user = userEvent.setup();
    render(<TaskList items={items} onTaskClick={open} />);
    const [first, second, third] = screen.getAllByRole('button');
    await user.click(first as HTMLElement);
    expect(open).toHaveBeenLastCalledWith('a');
    await user.keyboard('{ArrowDown}');
    expect(document.activeElement).toBe(second);
    await user.keyboard('{Enter}');
    expect(open).toHaveBeenLastCalledWith('b');
    await user.keyboard('{End}{ArrowDown}');
    expect(document.activeElement).toBe(third);
    await user.keyboard('{Home}{ArrowUp}');
    expect(document.activeElement).toBe(first);
  });

  test('a queued task that waits for a person or an event says so, in a list and in detail', () => {
    const message = 'Waiting for approval: refund';
    const words = (container: HTMLElement) => container.querySelector('.ax-status')?.textContent;
    const rows = render(<TaskList items={[item({ status: 'queued', latest_log_message: message })]} />);
    expect(words(rows.container)).toBe('Waiting');
    const waiting = detail({ status: 'queued', logs: [log(1, { status: 'queued', message })] });
    const { container } = render(<TaskDetail activity={waiting} />);
    expect(words(container)).toBe('Waiting for approval');
  });

  test('without onTaskClick there is nothing to press', () => {
    render(<TaskList items={items} />);
    expect(screen.queryByRole('button')).toBeNull();
  });

  test('an empty list says so, and one that loads does not', () => {
    const { container, rerender } = render(<TaskList items={[]} empty="Enqueue one." />);
    expect(container.textContent).toBe('Enqueue one.');
    rerender(<TaskList items={undefined} loading />);
    expect(container.textContent).toBe('Loading tasks…');
    expect(container.querySelectorAll('.ax-placeholder')).toHaveLength(5);
    rerender(<TaskList items={items} loading />);
    expect(screen.getAllByRole('listitem')).toHaveLength(3);
  });

  test('rows can be replaced', () => {
    render(
      <TaskList
        items={items}
        renderItem={({ agent_id }, { selected }) => `${agent_id} ${selected}`}
        selectedAgentId="a"
      />,
    );
    expect(screen.getByText('a true')).toBeTruthy();
    expect(screen.getByText('b false')).toBeTruthy();
  });

  test('an update keeps the focus on the task', () => {
    const { rerender } = render(<TaskList items={items} onTaskClick={() => {}} />);
    const button = screen.getAllByRole('button')[1] as HTMLElement;
    button.focus();
    rerender(<TaskList items={[item({ agent_id: 'new' }), ...items]} onTaskClick={() => {}} />);
    expect(document.activeElement).toBe(button);
  });

  test('text of a task is text', () => {
    const { container } = render(<TaskList items={[item({ latest_log_message: '<img src=x onerror=alert(1)>' })]} />);
    expect(container.querySelector('img')).toBeNull();
  });

  test('makes its rows links, which a plain click follows inside the page', () => {
    const open = vi.fn();
    render(<TaskList items={[item()]} taskHref={(id) => `#/tasks/${id}`} onTaskClick={open} />);
    const link = screen.getByRole('link');
    expect(link.getAttribute('href')).toBe(`#/tasks/${AGENT_ID}`);
    expect(fireEvent.click(link, { ctrlKey: true })).toBe(true);
    expect(open).not.toHaveBeenCalled();
    expect(fireEvent.click(link)).toBe(false);
    expect(open).toHaveBeenCalledWith(AGENT_ID);
  });
});

describe('TaskDetail', () => {
  test('shows a task with its log, usage, cost and children', async () => {
    const open = vi.fn();
    render(<TaskDetail activity={detail({ children: [child('c1')] })} onTaskClick={open} />);
    const region = screen.getByRole('region', { name: 'research_company' });
    expect(region.dataset.status).toBe('running');
    expect(within(region).getByRole('log').textContent).toContain('Gathering financials');
    expect(within(region).getByText('$0.042')).toBeTruthy();
    expect(within(region).getByText('12,345')).toBeTruthy();
    await userEvent.click(within(region).getByRole('treeitem'));
    expect(open).toHaveBeenCalledWith('c1');
  });

  test('the button and Escape close it', async () => {
    const close = vi.fn();
    render(<TaskDetail activity={detail()} onClose={close} />);
    await userEvent.click(screen.getByRole('button', { name: 'Close' }));
    await userEvent.keyboard('{Escape}');
    expect(close).toHaveBeenCalledTimes(2);
  });

  test('shows why it could not be loaded, beside what is there', () => {
    const { rerender } = render(<TaskDetail activity={undefined} error={new Error('No such task.')} />);
    expect(screen.getByRole('alert').textContent).toBe('No such task.');
    rerender(<TaskDetail activity={detail()} error="The API is away." />);
    expect(screen.getByRole('alert').textContent).toBe('The API is away.');
    expect(screen.getByRole('log')).toBeTruthy();
  });

  test('loads with a placeholder, and says when nothing is selected', () => {
    const { container, rerender } = render(<TaskDetail activity={null} loading />);
    expect(container.querySelector('.ax-placeholder')).toBeTruthy();
    rerender(<TaskDetail activity={null} />);
    expect(container.textContent).toContain('No task is selected.');
  });

  test('tells screen readers of the status and of each quarter, not of every percent', () => {
    const { rerender } = render(<TaskDetail activity={detail({ percentage: 26 })} />);
    const told = screen.getByRole('status');
    expect(told.textContent).toBe('research_company: Running, 25%');
    rerender(<TaskDetail activity={detail({ percentage: 49 })} />);
    expect(told.textContent).toBe('research_company: Running, 25%');
    rerender(<TaskDetail activity={detail({ percentage: 50 })} />);
    expect(told.textContent).toBe('research_company: Running, 50%');
    rerender(<TaskDetail activity={detail({ status: 'complete', percentage: 100 })} />);
    expect(told.textContent).toBe('research_company: Complete');
  });

  test('log and content can be replaced', () => {
    const { rerender } = render(<TaskDetail activity={detail()} renderLog={(logs) => <p>{logs.length} lines</p>} />);
    expect(screen.getByText('3 lines')).toBeTruthy();
    rerender(<TaskDetail activity={detail()}>{(activity) => <p>{activity.agent_id}</p>}</TaskDetail>);
    expect(screen.getByText(AGENT_ID)).toBeTruthy();
    expect(screen.queryByRole('log')).toBeNull();
  });
});

describe('TaskTree', () => {
  const tasks = [child('a', { children: [child('a1'), child('a2')] }), child('b', { more_below: true })];
  const focused = () => (document.activeElement as HTMLElement).dataset.agentId;

  test('the keys of a tree move, open, close and choose', async () => {
    const open = vi.fn();
    const user = userEvent.setup();
    render(<TaskTree tasks={tasks} onTaskClick={open} />);
    await user.tab();
    expect(focused()).toBe('a');
    await user.keyboard('{ArrowRight}');
    expect(focused()).toBe('a1');
    await user.keyboard('{ArrowDown}{ArrowDown}');
    expect(focused()).toBe('b');
    await user.keyboard('{ArrowUp}{ArrowLeft}');
    expect(focused()).toBe('a');
    await user.keyboard('{ArrowLeft}');
    expect(screen.getAllByRole('treeitem')).toHaveLength(2);
    await user.keyboard('{ArrowRight}{End}{Enter}');
    expect(open).toHaveBeenCalledWith('b');
    await user.keyboard('{Home} ');
    expect(open).toHaveBeenLastCalledWith('a');
    await user.tab();
    expect(document.activeElement).toBe(document.body);
  });

  test('stays reachable by Tab when the focused task has gone', async () => {
    const user = userEvent.setup();
    const { rerender } = render(<TaskTree tasks={tasks} />);
    await user.tab();
    await user.keyboard('{End}');
    rerender(<TaskTree tasks={[child('c')]} />);
    expect(screen.getByRole('treeitem').tabIndex).toBe(0);
  });

  test('says that there are more tasks than it shows', () => {
    render(<TaskTree tasks={tasks} moreBelow />);
    expect(screen.getAllByText('…and more tasks')).toHaveLength(2);
  });

  test('the pointer opens and closes branches without choosing them', async () => {
    const open = vi.fn();
    const { container } = render(<TaskTree tasks={tasks} onTaskClick={open} />);
    await userEvent.click(container.querySelector('.ax-tree__toggle') as Element);
    expect(screen.getAllByRole('treeitem')).toHaveLength(2);
    expect(open).not.toHaveBeenCalled();
  });
});

describe('LogStream', () => {
  test('follows its end until the reader scrolls back, and returns on request', async () => {
    const lines = [log(1), log(2)];
    const { rerender } = render(<LogStream lines={lines} />);
    const scroller = screen.getByRole('log');
    const at = (scrollTop: number) => {
      Object.defineProperties(scroller, {
        scrollHeight: { value: 1000, configurable: true },
        clientHeight: { value: 100, configurable: true },
      });
      scroller.scrollTop = scrollTop;
      fireEvent.scroll(scroller);
    };
    at(300);
    rerender(<LogStream lines={[...lines, log(3), log(4)]} />);
    expect(scroller.scrollTop).toBe(300);
    await userEvent.click(screen.getByRole('button', { name: '2 new lines' }));
    expect(scroller.scrollTop).toBe(1000);
    at(900);
    rerender(<LogStream lines={[...lines, log(3), log(4), log(5)]} />);
    expect(screen.queryByRole('button')).toBeNull();
  });

  test('a long log shows its end, and earlier lines on request', async () => {
    const lines = Array.from({ length: 120 }, (_, index) => log(index + 1));
    const { container } = render(<LogStream lines={lines} limit={50} />);
    expect(container.querySelectorAll('li')).toHaveLength(50);
    fireEvent.click(screen.getByText('Show earlier lines (70 lines)'));
    expect(container.querySelectorAll('li')).toHaveLength(100);
    expect(screen.getByText('Line 120')).toBeTruthy();
  });

  test('shows the text that the model writes without reading it out', () => {
    render(<LogStream lines={[]} text="Acme makes" />);
    expect(screen.getByText('Acme makes').closest('[aria-live]')?.getAttribute('aria-live')).toBe('off');
  });

  test('an empty log says so', () => {
    render(<LogStream lines={[]} />);
    expect(screen.getByText('No lines yet.')).toBeTruthy();
  });
});

test('FoldedText folds a long text, and says how much more there is', async () => {
  const { container } = render(<FoldedText text={'x'.repeat(2000)} limit={500} />);
  const button = screen.getByRole('button', { name: 'Show 1,500 more characters', expanded: false });
  expect(container.textContent?.length).toBeLessThan(600);
  await userEvent.click(button);
  expect(screen.getByText('x'.repeat(2000))).toBeTruthy();
  expect(screen.getByRole('button', { name: 'Show less', expanded: true })).toBeTruthy();
});

test('RelativeTime shows the time that has passed, the exact time on hover, and goes on', () => {
  vi.useFakeTimers({ now: Date.UTC(2026, 10, 24, 21, 50, 0) });
  render(<RelativeTime time="2026-11-24T21:49:15" />);
  const time = screen.getByText('45 s ago');
  expect(time.title).toBe('2026-11-24 21:49:15 UTC');
  expect(time.getAttribute('datetime')).toBe('2026-11-24T21:49:15.000Z');
  act(() => void vi.advanceTimersByTime(60_000));
  expect(time.textContent).toBe('1 m ago');
});

describe('ApprovalCard', () => {
  test('approves and rejects, with a message if there is one', async () => {
    const [approve, reject] = [vi.fn(), vi.fn()];
    render(<ApprovalCard approval={approval()} onApprove={approve} onReject={reject} />);
    expect(screen.getByRole('article', { name: /^Approve send_email/ })).toBeTruthy();
    expect(screen.getByText(/"to": "ann@example.com"/)).toBeTruthy();
    await userEvent.click(screen.getByRole('button', { name: 'Approve' }));
    expect(approve).toHaveBeenCalledWith(approval());
    await userEvent.click(screen.getByRole('button', { name: 'Reject' }));
    expect(reject).toHaveBeenLastCalledWith(approval(), undefined);
    await userEvent.type(screen.getByRole('textbox'), ' Not her. ');
    await userEvent.click(screen.getByRole('button', { name: 'Reject' }));
    expect(reject).toHaveBeenLastCalledWith(approval(), 'Not her.');
  });

  test('an answer is sent once, and a refusal is shown', async () => {
    let refuse = (_reason: Error) => {};
    const approve = vi.fn(() => new Promise((_, reject) => (refuse = reject)));
    render(<ApprovalCard approval={approval()} onApprove={approve} />);
    const button = screen.getByRole('button', { name: 'Approve' });
    await userEvent.click(button);
    await userEvent.click(button);
    expect(approve).toHaveBeenCalledTimes(1);
    expect(document.activeElement).toBe(button);
    await act(async () => refuse(new Error('The call has expired.')));
    expect(screen.getByRole('alert').textContent).toBe('The call has expired.');
  });

  test('says that an interrupted call may have been made', () => {
    render(<ApprovalCard approval={approval({ kind: 'repeat', arguments: 'not json' })} onApprove={() => {}} />);
    expect(screen.getByText(/may have been made/)).toBeTruthy();
    expect(screen.getByText('not json')).toBeTruthy();
    expect(screen.getByRole('button', { name: 'Repeat the call' })).toBeTruthy();
  });
});

test('UsageSummary shows what is spent and reserved of a budget, in its unit', () => {
  const budget = {
    title: 'task',
    unit: 'dollars' as const,
    limit: 2,
    spent: 1.25,
    reserved: 0.5,
    period: null,
    ends_at: null,
  };
  const { rerender } = render(<UsageSummary usage={detail().usage} budget={budget} />);
  expect(screen.getByRole('meter', { name: 'Budget' }).getAttribute('aria-valuetext')).toBe('$1.25 of $2.00');
  expect(screen.getByText(', $0.50 reserved')).toBeTruthy();
  rerender(
    <UsageSummary usage={detail().usage} budget={{ ...budget, unit: 'tokens', limit: 5000, spent: 30, reserved: 0 }} />,
  );
  expect(screen.getByText('30 tokens of 5,000 tokens')).toBeTruthy();
  expect(screen.queryByText(/reserved/)).toBeNull();
});

test('UsageSummary shows models if there are several, and an unknown cost as unknown', () => {
  const usage = { requests: 2, input_tokens: 1000, cached_tokens: 0, output_tokens: 50 };
  const { rerender } = render(<UsageSummary usage={usage} byModel={{ a: usage }} cost={null} />);
  expect(screen.getByText('unknown')).toBeTruthy();
  expect(screen.queryByRole('table')).toBeNull();
  rerender(<UsageSummary usage={usage} byModel={{ a: usage, b: usage }} />);
  expect(screen.getAllByRole('row')).toHaveLength(3);
  expect(screen.queryByText('Estimated cost')).toBeNull();
});

test('WorkerList judges by the time of the query if it is told', () => {
  const seen_at = '2026-11-24T21:49:00Z';
  const { rerender } = render(<WorkerList workers={[worker({ seen_at })]} at="2026-11-24T21:49:15Z" />);
  expect(screen.getByText('Working')).toBeTruthy();
  rerender(<WorkerList workers={[worker({ seen_at })]} at="2026-11-24T21:49:30Z" />);
  expect(screen.getByText('Lost')).toBeTruthy();
});

test('WorkerList shows which workers work, drain, idle and are lost', () => {
  const seen_at = new Date(Date.now() - 60_000).toISOString();
  render(
    <WorkerList
      workers={[
        worker({ worker_id: '1' }),
        worker({ worker_id: '2', running: 0 }),
        worker({ worker_id: '3', draining: true }),
        worker({ worker_id: '4', seen_at }),
      ]}
    />,
  );
  const states = screen
    .getAllByRole('row')
    .slice(1)
    .map((row) => row.dataset.state);
  expect(states).toEqual(['working', 'idle', 'draining', 'lost']);
  expect(screen.getAllByText('123 MB')).toHaveLength(4);
  expect(screen.getByRole('table', { name: 'Worker processes' })).toBeTruthy();
});
