import { render, screen, within } from '@testing-library/react';
import { buildTimeline, eventsFromLogs, RunTimeline, type TimelineEntry } from 'agentexec-ui';
import { describe, expect, test } from 'vitest';
import { event, log } from './samples.js';

const status = (second: number, status: string, message: string) => event(second, 'status', { status, message });
const usage = (second: number, input: number) =>
  event(second, 'usage', { model: 'm', input_tokens: input, output_tokens: 10, cached_tokens: 0 });
const call = (second: number, id: string, tool = 'search') =>
  event(second, 'tool_called', { tool, call_id: id, arguments: '{"q":1}' });
const output = (second: number, id: string) => event(second, 'tool_output', { call_id: id, output: 'found' });

/** Entries as lines: kind, label, status and seconds, indented. */
function outline(entries: TimelineEntry[], indent = ''): string[] {
  return entries.flatMap((entry) => {
    const seconds = entry.end === null ? '…' : `${(entry.end - entry.start) / 1000}s`;
    return [
      `${indent}${entry.kind} ${entry.label} (${entry.status}, ${seconds})`,
      ...outline(entry.children, `${indent}  `),
    ];
  });
}

describe('a timeline', () => {
  test('has live events between the log lines of their time, also for who comes late and gets the log first', () => {
    const entries = buildTimeline([
      status(0, 'queued', 'Waiting to start.'),
      status(1, 'running', 'Task started.'),
      event(4, 'log', { message: 'Halfway' }),
      event(2, 'agent', { agent: 'Researcher' }),
      usage(3, 100),
      call(3, 'a'),
      output(5, 'a'),
      event(6, 'result', { status: 'complete', message: 'Done.' }),
    ]);
    expect(outline(entries)).toEqual([
      'wait Waiting to start. (done, 1s)',
      'attempt Attempt 1 (done, 5s)',
      '  agent Researcher (done, 4s)',
      '    turn Turn 1 (done, 3s)',
      '      tool search (done, 2s)',
      '    log Halfway (done, 0s)',
      'end Done. (done, 0s)',
    ]);
  });

  test('has turns with their tools, and the tools of parallel calls', () => {
    const entries = buildTimeline(
      [
        status(0, 'queued', 'Waiting to start.'),
        status(2, 'running', 'Task started.'),
        event(2, 'agent', { agent: 'Researcher' }),
        usage(5, 100),
        call(5, 'a'),
        call(5, 'b', 'fetch'),
        output(8, 'b'),
        output(9, 'a'),
        event(10, 'text_delta', { text: 'Acme makes' }),
        event(11, 'text_delta', { text: ' anvils.' }),
        usage(12, 200),
        event(12, 'result', { status: 'complete', message: 'Done.' }),
      ],
      { priceOf: (used) => used.input_tokens / 1000 },
    );
    expect(outline(entries)).toEqual([
      'wait Waiting to start. (done, 2s)',
      'attempt Attempt 1 (done, 10s)',
      '  agent Researcher (done, 10s)',
      '    turn Turn 1 (done, 7s)',
      '      tool search (done, 4s)',
      '      tool fetch (done, 3s)',
      '    turn Turn 2 (done, 2s)',
      'end Done. (done, 0s)',
    ]);
    const [first, second] = entries[1]?.children[0]?.children ?? [];
    expect(first).toMatchObject({ cost: 0.1, usage: { input_tokens: 100 } });
    expect(second).toMatchObject({ output: 'Acme makes anvils.', cost: 0.2 });
    expect(first?.children[0]).toMatchObject({ input: '{"q":1}', output: 'found' });
  });

  test('shows what goes on as not ended', () => {
    const entries = buildTimeline([status(0, 'running', 'Task started.'), usage(3, 1), call(3, 'a')]);
    expect(outline(entries)).toEqual([
      'attempt Attempt 1 (running, …)',
      '  turn Turn 1 (running, …)',
      '    tool search (running, …)',
    ]);
  });

  test('has the model calls of nested agents inside their tool', () => {
    const entries = buildTimeline([
      status(0, 'running', ''),
      usage(1, 1),
      call(1, 'a', 'ask_expert'),
      usage(4, 50),
      output(5, 'a'),
    ]);
    expect(outline(entries)).toEqual([
      'attempt Attempt 1 (running, …)',
      '  turn Turn 1 (done, 5s)',
      '    tool ask_expert (done, 4s)',
      '      turn Model call of a nested agent (done, 3s)',
    ]);
  });

  test('has approvals with their answer, and waits', () => {
    const entries = buildTimeline([
      status(0, 'running', ''),
      usage(1, 1),
      status(2, 'queued', 'Waiting for approval: send_email({})'),
      event(50, 'log', { status: 'queued', message: 'Approved by Ada: 1st: send_email({})' }),
      status(52, 'running', ''),
      event(52, 'log', { status: 'running', message: 'Resumed at turn 2 (attempt 1)' }),
      usage(53, 1),
      status(54, 'queued', 'Waiting for event: paid'),
    ]);
    expect(outline(entries)).toEqual([
      'attempt Attempt 1 (done, 2s)',
      '  turn Turn 1 (done, 1s)',
      'approval send_email({}) (done, 50s)',
      'attempt Resumed (done, 2s)',
      '  log Resumed at turn 2 (attempt 1) (done, 0s)',
      '  turn Turn 2 (done, 1s)',
      'wait Waiting for event: paid (waiting, …)',
    ]);
    expect(entries[1]?.output).toBe('Approved by Ada: 1st: send_email({})');
  });

  test('has failed attempts and the deaths of worker processes', () => {
    const entries = buildTimeline([
      status(0, 'running', ''),
      call(1, 'a'),
      status(3, 'queued', 'The worker process was killed by SIGKILL; the task goes back to the queue.'),
      status(5, 'running', ''),
      status(6, 'queued', 'Attempt 2 failed with ValueError; attempt 3 of 3 starts in 1 s.'),
      status(8, 'running', ''),
      event(9, 'error', { status: 'error', message: 'Task failed.', error: 'ValueError: no' }),
    ]);
    expect(outline(entries)).toEqual([
      'attempt Attempt 1 (failed, 3s)',
      '  turn Turn 1 (failed, 2s)',
      '    tool search (failed, 2s)',
      'log The worker process was killed by SIGKILL; the task goes back to the queue. (failed, 0s)',
      'wait Queued again (done, 2s)',
      'attempt Attempt 2 (failed, 1s)',
      'log Attempt 2 failed with ValueError; attempt 3 of 3 starts in 1 s. (failed, 0s)',
      'wait Queued again (done, 2s)',
      'attempt Attempt 3 (failed, 1s)',
      'end Task failed. (failed, 0s)',
    ]);
    expect(entries.at(-1)?.output).toBe('ValueError: no');
  });

  test('can be made from the log alone', () => {
    const entries = buildTimeline(
      eventsFromLogs([
        log(0, { status: 'queued', message: 'Waiting to start.' }),
        log(2, { message: 'Task started.' }),
        log(3, { message: 'Gathering' }),
        log(4, { status: 'queued', message: 'Waiting for approval: pay({})' }),
        log(6, { status: 'queued', message: 'Rejected: pay({})' }),
        log(7, { message: 'Task started.' }),
        log(9, { status: 'canceled', message: 'Canceled.' }),
      ]),
    );
    expect(outline(entries)).toEqual([
      'wait Waiting to start. (done, 2s)',
      'attempt Attempt 1 (done, 2s)',
      '  log Gathering (done, 0s)',
      'approval pay({}) (canceled, 3s)',
      'attempt Resumed (canceled, 2s)',
      'end Canceled. (canceled, 0s)',
    ]);
  });

  test('says where events are missing', () => {
    const entries = buildTimeline([
      status(0, 'running', ''),
      event(1, 'dropped', { events: 12 }),
      output(2, 'unknown'),
    ]);
    expect(outline(entries)[1]).toBe('  dropped 12 events are missing here (done, 0s)');
  });
});

test('RunTimeline shows time, tokens, money, and the arguments of tools', () => {
  render(
    <RunTimeline
      priceOf={() => 0.25}
      events={[
        status(0, 'running', ''),
        usage(4, 12_345),
        call(4, 'a'),
        output(5, 'a'),
        event(6, 'error', { message: 'Task failed.' }),
      ]}
    />,
  );
  const timeline = screen.getByRole('list', { name: 'Timeline of the run' });
  expect(within(timeline).getByText('12.3k in, 10 out').title).toContain('12,345 input tokens');
  expect(within(timeline).getByText('$0.25')).toBeTruthy();
  expect(within(timeline).getByText('5.0 s')).toBeTruthy();
  expect(within(timeline).getByText('Arguments').parentElement?.textContent).toContain('"q": 1');
  expect(within(timeline).getAllByText('(failed)').length).toBeGreaterThan(0);
});

test('RunTimeline uses the log if there are no events, and says if there is nothing', () => {
  const { rerender } = render(<RunTimeline events={[]} logs={[log(1, { message: 'Started' })]} />);
  expect(screen.getByText('Attempt 1')).toBeTruthy();
  rerender(<RunTimeline events={[]} />);
  expect(screen.getByText('Nothing has happened yet.')).toBeTruthy();
  rerender(<RunTimeline logs={[log(1)]} renderEntry={(entry) => <b>{entry.kind}</b>} />);
  expect(screen.getByText('attempt')).toBeTruthy();
});
