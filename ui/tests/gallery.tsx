import {
  ActiveAgentsBadge,
  ApprovalCard,
  BudgetBar,
  BudgetForm,
  BudgetList,
  ChatPanel,
  CopyButton,
  createClient,
  FoldedText,
  ForkForm,
  LogStream,
  ProgressBar,
  RelativeTime,
  RuleList,
  RunTimeline,
  StatusBadge,
  TaskComparison,
  TaskDetail,
  TaskList,
  TaskTree,
  UsageSummary,
  WorkerList,
} from 'agentexec-ui';
import type { ReactNode } from 'react';
import { approval, budget, child, comparison, detail, event, item, log, rule, worker } from './samples.js';

const nothing = () => {};
/** Client of an API that never answers. */
const chatClient = createClient({ fetch: () => new Promise(() => {}) });
const usage = { requests: 2, input_tokens: 1000, cached_tokens: 0, output_tokens: 50 };
const tree = [
  child('a', { children: [child('a1'), child('a2', { status: 'error' })] }),
  child('b', { more_below: true }),
];

/** Every component in each of its states. */
export const GALLERY: Record<string, ReactNode> = {
  'StatusBadge of each status': (
    <>
      {(['queued', 'running', 'complete', 'error', 'canceled'] as const).map((status) => (
        <StatusBadge key={status} status={status} />
      ))}
    </>
  ),
  'ProgressBar with and without a percentage': (
    <>
      <ProgressBar percentage={40} status="running" showValue />
      <ProgressBar status="running" showValue label="Second" />
    </>
  ),
  ActiveAgentsBadge: <ActiveAgentsBadge count={3} />,
  'TaskList with a selection': (
    <TaskList
      items={[item(), item({ agent_id: 'b', status: 'error', latest_log_message: 'Failed' })]}
      onTaskClick={nothing}
      selectedAgentId="b"
    />
  ),
  'TaskList to read': <TaskList items={[item()]} />,
  'TaskList that loads': <TaskList items={undefined} loading />,
  'TaskList without tasks': <TaskList items={[]} />,
  TaskDetail: <TaskDetail activity={detail({ children: tree, error: 'ValueError: no' })} onClose={nothing} />,
  'TaskDetail that loads': <TaskDetail activity={null} loading onClose={nothing} />,
  'TaskDetail with an error': <TaskDetail activity={null} error="There is no such task." onClose={nothing} />,
  'TaskTree with a selection': <TaskTree tasks={tree} moreBelow selectedAgentId="a1" onTaskClick={nothing} />,
  ApprovalCard: <ApprovalCard approval={approval()} onApprove={nothing} onReject={nothing} onTaskClick={nothing} />,
  'ApprovalCard with fields for changes': (
    <ApprovalCard approval={approval({ arguments_schema: '{}' })} onApprove={nothing} onApproveWith={nothing} />
  ),
  RuleList: (
    <RuleList
      rules={[
        rule(),
        rule({ rule_id: 'b', scope: 'metadata', metadata: { tenant: 'acme' }, where: null, arguments: { to: 'a' } }),
        rule({ rule_id: 'c', active: false, revoked_at: '2026-11-24T21:49:00Z' }),
      ]}
      onRevoke={nothing}
      onTaskClick={nothing}
    />
  ),
  'ApprovalCard with an error': (
    <ApprovalCard approval={approval({ kind: 'repeat' })} onApprove={nothing} error="It has expired." pending />
  ),
  LogStream: <LogStream lines={[log(1), log(2, { message: 'x'.repeat(2000), percentage: 50 })]} text="Acme makes" />,
  'LogStream with earlier lines': <LogStream lines={[log(1), log(2)]} limit={1} />,
  UsageSummary: <UsageSummary usage={usage} cost={0.5} byModel={{ a: usage, b: usage }} />,
  'UsageSummary with a budget': <UsageSummary usage={usage} budget={budget({ title: 'task', period: null })} />,
  'BudgetBar beyond its limit': <BudgetBar budget={budget({ spent: 60, reserved: 1 })} />,
  BudgetForm: <BudgetForm budget={budget({ title: 'task', period: null })} onBudget={nothing} onCancel={nothing} />,
  'BudgetForm without a budget, with an error': <BudgetForm budget={null} onBudget={nothing} error="It has ended." />,
  BudgetList: <BudgetList budgets={[budget(), budget({ title: '*', unit: 'tokens' })]} />,
  'BudgetList that loads, and without budgets': (
    <>
      <BudgetList budgets={undefined} />
      <BudgetList budgets={[]} />
    </>
  ),
  ChatPanel: <ChatPanel conversationId="support:42" client={chatClient} />,
  'ChatPanel to read': <ChatPanel conversationId="support:42" client={chatClient} readOnly />,
  CopyButton: <CopyButton text="a" />,
  ForkForm: <ForkForm runs={[{ run: 'A#1', turns: 2, last: 3 }]} onFork={nothing} onCancel={nothing} />,
  'ForkForm with several runs and an error': (
    <ForkForm
      runs={[
        { run: 'A#1', turns: 2, last: 3 },
        { run: 'B#1', turns: 1, last: 1 },
      ]}
      onFork={nothing}
      error="There is no such turn."
    />
  ),
  'ForkForm that loads, and without runs': (
    <>
      <ForkForm runs={undefined} onFork={nothing} />
      <ForkForm runs={[]} onFork={nothing} />
    </>
  ),
  TaskComparison: <TaskComparison comparison={comparison({ is_complete: false })} onTaskClick={nothing} />,
  'TaskComparison that loads, and with an error': (
    <>
      <TaskComparison comparison={undefined} />
      <TaskComparison comparison={undefined} error="There is no such task." />
    </>
  ),
  WorkerList: <WorkerList workers={[worker(), worker({ worker_id: 'w2', draining: true })]} />,
  'WorkerList without workers': <WorkerList workers={[]} />,
  RunTimeline: (
    <RunTimeline
      priceOf={() => 0.01}
      events={[
        event(0, 'status', { status: 'queued', message: 'Waiting to start.' }),
        event(2, 'status', { status: 'running', message: 'Task started.' }),
        event(2, 'agent', { agent: 'Researcher' }),
        event(4, 'usage', { model: 'm', input_tokens: 12_345, output_tokens: 20, cached_tokens: 0 }),
        event(4, 'tool_called', { tool: 'search', call_id: 'a', arguments: '{"q":"Acme"}' }),
        event(6, 'tool_output', { call_id: 'a', output: 'found' }),
        event(7, 'error', { status: 'error', message: 'Task failed.', error: 'ValueError: no' }),
      ]}
    />
  ),
  'RelativeTime and FoldedText': (
    <>
      <RelativeTime time="2026-11-24T21:49:15Z" />
      <FoldedText text={'x'.repeat(2000)} />
    </>
  ),
};
