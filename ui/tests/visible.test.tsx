import { render, screen } from '@testing-library/react';
import {
  type ActivityEvent,
  ApprovalCard,
  FoldedText,
  LogStream,
  RunTimeline,
  TaskDetail,
  TaskList,
  TaskTree,
  Untrusted,
  UsageSummary,
  WorkerList,
} from 'agentexec-ui';
import { expect, test } from 'vitest';
import { formatJson } from '../src/format.js';
import { visible } from '../src/visible.js';
import { approval, child, detail, item, log, worker } from './samples.js';

const FAMILY = '\u{1f469}\u200d\u{1f467}';
const BIDI = [...'\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069'];

test.each([...BIDI, '\u0000', '\u001b', '\r', '\u007f', '\u009b', '\u200b', '\u2060', '\u2028', '\ufeff', '\ud800'])(
  'a hidden character is shown as its escape: %j',
  (char) => {
    const shown = `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`;
    expect(visible(`a${char}b`)).toBe(`a${shown}b`);
    expect(visible(`a${char}b`, true)).toBe(`a${shown}b`);
  },
);

test('running text keeps its lines, and what emoji and scripts are written with', () => {
  expect(visible('one\r\n\ttwo')).toBe('one\n\ttwo');
  for (const text of [FAMILY, 'می\u200cخواهم', 'क्\u200dष', 'hy\u00adphen', '❤\ufe0f', 'אבג 日本']) {
    expect(visible(text)).toBe(text);
  }
  expect(visible('pay\u200dpal\u200c')).toBe('pay\\u200dpal\\u200c');
});

test('where a person decides, joiners, fillers and tags are shown too', () => {
  expect(visible(FAMILY, true)).toBe('\u{1f469}\\u200d\u{1f467}');
  expect(visible('a\u00ad\u3164\ufe0f\ue000', true)).toBe('a\\u00ad\\u3164\\ufe0f\\ue000');
  expect(visible('\u{e0041}', true)).toBe('\\udb40\\udc41');
  expect(visible('אבג 日本 é\n\t', true)).toBe('אבג 日本 é\n\t');
});

test('an approval shows what the call says, in the order in which it says it', () => {
  const text = JSON.stringify({ to: 'a\u202etxt.exe\u200b', family: FAMILY, name: 'אבג', amount: 100 });
  const { container } = render(
    <ApprovalCard
      approval={approval({ tool: 'pay\u200b', agent_type: 'bill\u202eing', arguments: text })}
      error={'no\u202e'}
    />,
  );
  const shown = container.querySelector('.ax-approval__arguments bdi');
  expect(shown?.textContent).toContain('"to": "a\\u202etxt.exe\\u200b"');
  expect(shown?.textContent).toContain('\u{1f469}\\u200d\u{1f467}');
  expect(shown?.getAttribute('dir')).toBe('ltr');
  // Letters that are written to the left keep to their own string.
  const strings = [...(shown?.querySelectorAll('bdi') ?? [])].map(({ textContent }) => textContent);
  expect(strings).toContain('"אבג"');
  expect(screen.getByRole('heading').textContent).toBe('Approve pay\\u200b?');
  expect(container.textContent).toContain('bill\\u202eing');
  expect(screen.getByRole('alert').textContent).toBe('no\\u202e');
});

test('arguments that are not JSON are shown as strictly', () => {
  const { container } = render(<ApprovalCard approval={approval({ arguments: `{"a": \u202e${FAMILY}` })} />);
  expect(container.querySelector('.ax-approval__arguments')?.textContent).toBe(
    '{"a": \\u202e\u{1f469}\\u200d\u{1f467}',
  );
});

test.each(['{"id": 9007199254740993}', '{"a": 0.12345678901234567}', '{"a": 1e400}'])(
  'a number is not rounded for reading: %s',
  (text) => {
    expect(formatJson(text)).toBe(text);
  },
);

test('long digits in a string do not keep JSON from being indented', () => {
  expect(formatJson('{"card": "1234567812345678"}')).toBe('{\n  "card": "1234567812345678"\n}');
});

const TOOL: ActivityEvent[] = [
  { id: '1', type: 'status', at: '2026-11-24T21:49:00Z', data: { status: 'running', message: 'Started.' } },
  {
    id: '2',
    type: 'tool_called',
    at: '2026-11-24T21:49:01Z',
    data: { call_id: 'c', tool: 'send\u202e', arguments: '{"to": "\u202e"}' },
  },
];

const BAD = 'x\u202ey\u0007';

test.each([
  ['FoldedText', <FoldedText key="0" text={BAD} />],
  ['Untrusted', <Untrusted key="0" text={BAD} />],
  ['LogStream', <LogStream key="0" lines={[log(1, { message: BAD })]} text={BAD} />],
  [
    'RunTimeline',
    <RunTimeline
      key="0"
      events={TOOL}
      logs={[log(1, { message: BAD, status: 'queued' }), log(2, { message: BAD, status: 'error' })]}
    />,
  ],
  ['RunTimeline of a log', <RunTimeline key="0" logs={[log(1, { message: BAD, status: 'queued' })]} />],
  [
    'TaskDetail',
    <TaskDetail
      key="0"
      activity={detail({ agent_type: BAD, error: BAD, logs: [log(1, { message: BAD })], children: [child('1')] })}
      text={BAD}
      error={BAD}
    />,
  ],
  ['TaskList', <TaskList key="0" items={[item({ agent_type: BAD, latest_log_message: BAD })]} />],
  ['TaskTree', <TaskTree key="0" tasks={[{ ...child('1'), agent_type: BAD, latest_log_message: BAD }]} />],
  [
    'UsageSummary',
    <UsageSummary key="0" usage={detail().usage} byModel={{ [BAD]: detail().usage, b: detail().usage }} />,
  ],
  ['WorkerList', <WorkerList key="0" workers={[worker({ host: BAD, queue: BAD })]} />],
])('%s lets no text hide or reorder anything', (_name, element) => {
  const { container } = render(element);
  expect(container.innerHTML).toContain('\\u202e');
  expect(container.innerHTML).not.toMatch(/(?!\n)[\p{Cc}\u202e]/u);
  const texts = [...container.querySelectorAll('*')].filter(
    ({ children, textContent }) => children.length === 0 && textContent?.includes('\\u202e'),
  );
  // Texts for screen readers alone are not drawn.
  expect(texts.filter(({ localName }) => localName !== 'bdi')).toEqual([]);
});
