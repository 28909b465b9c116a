import { render, screen } from '@testing-library/react';
import userEvent from '@testing-library/user-event';
import { ApprovalCard, RuleList } from 'agentexec-ui';
import { expect, test, vi } from 'vitest';
import { approval, rule } from './samples.js';

const CHANGEABLE = approval({ arguments_schema: '{}', arguments: '{"amount":3}' });

function show(call = CHANGEABLE) {
  const [approve, approveWith] = [vi.fn(), vi.fn()];
  render(<ApprovalCard approval={call} onApprove={approve} onApproveWith={approveWith} />);
  const press = () => userEvent.click(screen.getByRole('button', { name: 'Approve' }));
  return { approve, approveWith, press };
}

test('a call is approved with other arguments, and with why', async () => {
  const { approve, approveWith, press } = show();
  await userEvent.click(screen.getByLabelText('Change the arguments'));
  const field = screen.getByLabelText(/^Arguments with which/);
  await userEvent.clear(field);
  await userEvent.type(field, '{{"amount": 2}');
  await userEvent.type(screen.getByLabelText(/^Why/), 'too much');
  await press();
  expect(approveWith.mock.calls).toEqual([[CHANGEABLE, { arguments: { amount: 2 }, reason: 'too much' }]]);
  expect(approve).not.toHaveBeenCalled();
});

test.each([
  ['[1]', /must be a JSON object/],
  ['{{"amount": ', /are not JSON/],
  ['{{"amount": 12345678901234567}', /would round a number/],
])('arguments like %s are not sent', async (text, reason) => {
  const { approve, approveWith, press } = show();
  await userEvent.click(screen.getByLabelText('Change the arguments'));
  const field = screen.getByLabelText(/^Arguments with which/);
  await userEvent.clear(field);
  await userEvent.type(field, text.replace(/\[/g, '[['));
  await press();
  expect((await screen.findByRole('alert')).textContent).toMatch(reason);
  expect(approve).not.toHaveBeenCalled();
  expect(approveWith).not.toHaveBeenCalled();
});

test('a rule approves all like it', async () => {
  const { approveWith, press } = show();
  await userEvent.click(screen.getByLabelText('Approve all like it'));
  await userEvent.selectOptions(screen.getByLabelText('Of'), 'conversation');
  await userEvent.selectOptions(screen.getByLabelText('For'), '1 hour');
  await userEvent.type(screen.getByLabelText(/^With arguments like these/), 'amount<=100\n');
  await press();
  const sent = { scope: 'conversation', expires_seconds: 3600, where: ['amount<=100'] };
  expect(approveWith.mock.calls).toEqual([[CHANGEABLE, { rule: sent }]]);
});

test('without a change it is a plain approval, and arguments that cannot be changed have no field', async () => {
  const { approve, approveWith, press } = show(approval({ arguments_schema: null }));
  expect(screen.queryByLabelText('Change the arguments')).toBeNull();
  await press();
  expect(approve).toHaveBeenCalledTimes(1);
  expect(approveWith).not.toHaveBeenCalled();
});

test('an application that takes no changes shows no fields for them', () => {
  render(<ApprovalCard approval={CHANGEABLE} onApprove={vi.fn()} />);
  expect(screen.queryByRole('checkbox')).toBeNull();
});

test('a rule is revoked, or says why not', async () => {
  const revoke = vi.fn(() => Promise.reject(new Error('Not yours.')));
  const chat = { rule_id: 'c', scope: 'conversation', agent_id: null } as const;
  const rules = [rule(), rule({ rule_id: 'b', tool: 'pay', active: false }), rule({ ...chat, active: false })];
  render(<RuleList rules={rules} onRevoke={revoke} />);
  expect(screen.getByText(/^all tasks of a conversation, by/)).toBeTruthy();
  await userEvent.click(screen.getByRole('button', { name: 'Revoke the rule for send_email' }));
  expect(revoke).toHaveBeenCalledWith(rule());
  expect((await screen.findByRole('alert')).textContent).toBe('Not yours.');
  expect(screen.queryByRole('button', { name: /pay/ })).toBeNull();
});
