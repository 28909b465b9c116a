import { render, screen, waitFor, within } from '@testing-library/react';
import userEvent from '@testing-library/user-event';
import { BudgetBar, BudgetForm, BudgetList, CopyButton, ForkForm, TaskComparison, TaskDetail } from 'agentexec-ui';
import { describe, expect, test, vi } from 'vitest';
import { AGENT_ID, budget, comparison, detail } from './samples.js';

const RUNS = [
  { run: 'Writer#1', turns: 2, last: 3 },
  { run: 'Editor#1', turns: 1, last: 2 },
];

describe('BudgetBar', () => {
  const level = (fields: Parameters<typeof budget>[0]) => {
    const { container, unmount } = render(<BudgetBar budget={budget(fields)} />);
    const found = container.firstElementChild?.getAttribute('data-level');
    unmount();
    return found;
  };

  test('says in words what is spent, reserved and allowed', () => {
    render(<BudgetBar budget={budget({ reserved: 0.5 })} />);
    const meter = screen.getByRole('meter', { name: 'tenant=acme per day' });
    expect(meter.getAttribute('aria-valuetext')).toBe('$12.50 of $50.00');
    expect(screen.getByText(', $0.50 reserved')).toBeTruthy();
  });

  test('tells a budget that is nearly spent from one that is spent', () => {
    expect(level({ spent: 44 })).toBe('ok');
    expect(level({ spent: 44, reserved: 1 })).toBe('near');
    expect(level({ spent: 50 })).toBe('full');
    expect(level({ spent: 60, limit: 0 })).toBe('full');
  });

  test('shows a label of a user without its tricks', () => {
    render(<BudgetList budgets={[budget({ title: 'tenant=x\u202ey' }), budget({ title: '*', period: 'week' })]} />);
    expect(screen.getByText(/tenant=x\\u202ey per day/)).toBeTruthy();
    expect(screen.getByText('All tasks per week')).toBeTruthy();
  });
});

describe('BudgetForm', () => {
  const submit = () => screen.getByRole('button', { name: 'Set the budget' });

  test('sends another limit in the unit of the present one', async () => {
    const user = userEvent.setup();
    const onBudget = vi.fn();
    const mine = { title: 'task', period: null };
    const { rerender } = render(<BudgetForm budget={budget(mine)} onBudget={onBudget} />);
    const field = screen.getByLabelText('New limit, in dollars');
    expect((field as HTMLInputElement).value).toBe('50');
    expect(screen.getByRole('meter', { name: 'Until now' }).getAttribute('aria-valuetext')).toBe('$12.50 of $50.00');
    await user.clear(field);
    await user.type(field, '12.5');
    expect(screen.getByText(/As much is spent already/)).toBeTruthy();
    await user.clear(field);
    await user.click(submit());
    expect(onBudget).not.toHaveBeenCalled();
    await user.type(field, '99.95{Enter}');
    rerender(<BudgetForm budget={budget({ ...mine, unit: 'tokens' })} onBudget={onBudget} />);
    await user.clear(screen.getByLabelText('New limit, in tokens'));
    await user.type(screen.getByLabelText('New limit, in tokens'), '5000{Enter}');
    expect(onBudget.mock.calls).toEqual([['$99.95'], ['5000 tokens']]);
  });

  test('lets a task without a budget choose its unit, and says why a limit was refused', async () => {
    const user = userEvent.setup();
    const onBudget = vi.fn().mockRejectedValue(new Error('The price of the model is unknown.'));
    render(<BudgetForm budget={null} onBudget={onBudget} />);
    await user.selectOptions(screen.getByLabelText('Counted in'), 'tokens');
    await user.type(screen.getByLabelText('New limit, in tokens'), '5000{Enter}');
    expect((await screen.findByRole('alert')).textContent).toBe('The price of the model is unknown.');
    expect(onBudget).toHaveBeenCalledWith('5000 tokens');
  });
});

describe('CopyButton', () => {
  test('copies the ID of a task, and says so', async () => {
    const user = userEvent.setup();
    render(<TaskDetail activity={detail()} />);
    await user.click(screen.getByRole('button', { name: 'Copy the agent ID' }));
    expect(await navigator.clipboard.readText()).toBe(AGENT_ID);
    expect(screen.getByText('Copied.')).toBeTruthy();
  });

  test('says that the browser did not allow it', async () => {
    const user = userEvent.setup();
    vi.spyOn(navigator.clipboard, 'writeText').mockRejectedValue(new Error('denied'));
    render(<CopyButton text="a" />);
    await user.click(screen.getByRole('button', { name: 'Copy the ID' }));
    expect(await screen.findByText('The browser did not allow it.')).toBeTruthy();
  });
});

describe('ForkForm', () => {
  const fork = () => screen.getByRole('button', { name: 'Fork' });

  test('sends the last turn, and only what is changed', async () => {
    const user = userEvent.setup();
    const onFork = vi.fn();
    render(<ForkForm runs={RUNS.slice(0, 1)} onFork={onFork} />);
    await user.type(screen.getByLabelText(/^Message that the agent reads/), 'In German.');
    await user.click(fork());
    expect(onFork.mock.calls).toEqual([[{ at: 3, input: 'In German.' }]]);
  });

  test('names the run if there are several, and starts at its last turn', async () => {
    const user = userEvent.setup();
    const onFork = vi.fn();
    render(<ForkForm runs={RUNS} onFork={onFork} />);
    await user.selectOptions(screen.getByLabelText('Run'), 'Editor#1');
    await user.type(screen.getByLabelText(/^Another model/), 'gpt-9');
    await user.click(fork());
    expect(onFork.mock.calls).toEqual([[{ at: 2, run: 'Editor#1', model: 'gpt-9' }]]);
  });

  test('does not send a turn that the run has not', async () => {
    const user = userEvent.setup();
    const onFork = vi.fn();
    render(<ForkForm runs={RUNS.slice(0, 1)} onFork={onFork} />);
    const turn = screen.getByRole('spinbutton');
    for (const value of ['4', '0', '1.5']) {
      await user.clear(turn);
      await user.type(turn, value);
      await user.click(fork());
    }
    expect(onFork).not.toHaveBeenCalled();
  });

  test('shows why it was refused, and what was written stays', async () => {
    const user = userEvent.setup();
    render(<ForkForm runs={RUNS} onFork={() => Promise.reject(new Error('The database is away.'))} />);
    await user.type(screen.getByLabelText(/^Other instructions/), 'Be brief.');
    await user.click(fork());
    expect((await screen.findByRole('alert')).textContent).toBe('The database is away.');
    await waitFor(() =>
      expect((screen.getByLabelText(/^Other instructions/) as HTMLTextAreaElement).disabled).toBe(false),
    );
    expect((screen.getByLabelText(/^Other instructions/) as HTMLTextAreaElement).value).toBe('Be brief.');
  });
});

describe('TaskComparison', () => {
  test('puts what each task did on its side', async () => {
    const onTaskClick = vi.fn();
    render(<TaskComparison comparison={comparison()} onTaskClick={onTaskClick} />);
    const [outcome, steps] = screen.getAllByRole('table');
    const cells = (row: string) =>
      within(within(outcome as HTMLElement).getByRole('row', { name: new RegExp(`^${row}`) }))
        .getAllByRole('cell')
        .map(({ textContent }) => textContent);
    expect(cells('Estimated cost')).toEqual(['$0.042', 'unknown']);
    expect(cells('Duration')).toEqual(['14 s', '–']);
    const rows = within(steps as HTMLElement)
      .getAllByRole('row')
      .slice(1);
    expect(
      rows.map((row) =>
        within(row)
          .getAllByRole('cell')
          .map(({ textContent }) => textContent),
      ),
    ).toEqual([['2 steps of both'], ['−Researcher#1first', ''], ['', '+Researcher#1search({"q":"b"})']]);
    await userEvent.click(screen.getByRole('button', { name: AGENT_ID.slice(-8) }));
    expect(onTaskClick.mock.calls).toEqual([[AGENT_ID]]);
  });
});
