import type { Locator, Page } from '@playwright/test';
import type { Application } from './application.js';
import { expect, expectSound, PHONE, showOn, test } from './fixtures.js';

const PATH = '/agentexec';

async function post<Answer>(application: Application, path: string, body: object = {}): Promise<Answer> {
  const headers = { 'content-type': 'application/json' };
  const response = await fetch(application.url + path, { method: 'POST', headers, body: JSON.stringify(body) });
  if (!response.ok) throw new Error(`POST ${path}: ${response.status} ${await response.text()}`);
  return (await response.json()) as Answer;
}

/** Send a message to a conversation, and return the task that is its turn. */
async function say(application: Application, chat: string, text: string): Promise<string> {
  const path = `/api/conversations/${encodeURIComponent(chat)}/messages`;
  return (await post<{ agent_id: string }>(application, path, { text })).agent_id;
}

const card = (page: Page, text: string): Locator => page.locator('.ax-approval').filter({ hasText: text });
const logLines = (page: Page) => page.locator('.ax-log__message');
const status = (page: Page) => page.locator('.d-task__head .ax-status');

test('a call is approved with other arguments, those like it by a rule, and one is rejected', async ({
  page,
  application,
  company,
}) => {
  const { id } = await post<{ id: string }>(application, '/chats');
  await page.goto(`${application.url}${PATH}/approvals`);
  const first = await say(application, id, `Publish ${company}`);
  const asked = card(page, `"Publish ${company}"`);
  await asked.getByLabel('Change the arguments').check();
  const edited = asked.getByLabel('Arguments with which the call is made, as JSON');
  await edited.fill('{"company": ');
  await asked.getByRole('button', { name: 'Approve' }).click();
  await expect(asked.getByRole('alert')).toHaveText(/^The arguments are not JSON/);
  await edited.fill(JSON.stringify({ company, text: `${company} is sound.` }));
  await asked.getByLabel('Approve all like it').check();
  await asked.getByRole('combobox', { name: /^Of/ }).selectOption('all tasks of its conversation');
  await asked.getByRole('combobox', { name: /^For/ }).selectOption('1 hour');
  await asked.getByLabel(/^With arguments like these/).fill('company=Publish*');
  await asked.getByLabel(/^Why/).fill('Checked with Ada');
  await expectSound(page);
  await asked.getByRole('button', { name: 'Approve' }).click();
  await expect(asked).toHaveCount(0);

  // The rule is listed with who made it, and answers the next call of the conversation.
  const rule = page.getByRole('list', { name: 'Approval rules' }).getByRole('listitem').filter({ hasText: 'Ada' });
  await expect(rule).toContainText('publish_report company=Publish*');
  await expect(rule).toContainText(/all tasks of a conversation, by the page, expires in .*: Checked with Ada/);
  const second = await say(application, id, `Publish ${company} again`);
  await page.goto(`${application.url}${PATH}/tasks/${second}`);
  await expect(status(page)).toHaveText(/Complete/);
  await expect(logLines(page).filter({ hasText: /approved/i })).toContainText(/^Approved by rule .* of the page/);
  await page.goto(`${application.url}${PATH}/tasks/${first}`);
  await expect(logLines(page).filter({ hasText: /approved/i })).toContainText(/by the page/);
  const reports = await application.get<{ company: string; text: string }[]>('/reports');
  expect(reports).toContainEqual(expect.objectContaining({ company, text: `${company} is sound.` }));

  // Without the rule a person is asked again.
  await page.goto(`${application.url}${PATH}/approvals`);
  await rule.getByRole('button', { name: 'Revoke the rule for publish_report' }).click();
  await expect(rule).toHaveCount(0);
  const third = await say(application, id, `Publish ${company} at last`);
  const again = card(page, `"Publish ${company} at last"`);
  await again.getByLabel(/^Message to the model if rejected/).fill('Not on a Friday.');
  await again.getByRole('button', { name: 'Reject' }).click();
  await expect(again).toHaveCount(0);
  await page.goto(`${application.url}${PATH}/tasks/${third}`);
  await expect(status(page)).toHaveText(/Complete/);
  await expect(logLines(page).filter({ hasText: /rejected/i })).toContainText(/^Rejected by the page/);
  await page.goto(`${application.url}${PATH}/conversations/${encodeURIComponent(id)}`);
  const told = page.locator('.ax-chat__tool').last();
  await told.locator('summary').press('Enter');
  await expect(told).toContainText('Not on a Friday.');
});

test('a task gets a budget by keyboard, ends over it, and is retried with another', async ({
  page,
  application,
  company,
}) => {
  await showOn(page, PHONE);
  const path = `/research?${new URLSearchParams({ company })}`;
  const { agent_id: agentId } = await post<{ agent_id: string }>(application, path);
  await page.goto(`${application.url}${PATH}/tasks/${agentId}`);
  const asked = card(page, company);
  await expect(asked).toBeVisible();
  const open = page.getByRole('button', { name: 'Budget…' });
  await open.press('Enter');
  const form = page.getByRole('dialog', { name: 'Budget of this task' });
  await expect(form.getByLabel('Counted in')).toBeFocused();
  await page.keyboard.press('Escape');
  await expect(open).toBeFocused();
  await open.press('Enter');
  await form.getByLabel('Counted in').selectOption('tokens');
  await form.getByLabel('New limit, in tokens').fill('10');
  await expectSound(page);
  await showOn(page, PHONE);
  await page.keyboard.press('Enter');
  await expect(form).toHaveCount(0);
  await expect(logLines(page).filter({ hasText: 'Budget set to 10 tokens by the page.' })).toBeVisible();
  await asked.getByRole('button', { name: 'Approve' }).click();
  await expect(status(page)).toHaveText(/Failed|Error/);
  const usage = page.getByRole('region', { name: 'Usage' });
  await expect(usage.getByText(/tokens of 10 tokens/)).toBeVisible();

  await page.getByRole('button', { name: 'Retry with a budget…' }).click();
  const retry = page.getByRole('dialog', { name: 'Retry with another budget' });
  await retry.getByLabel('New limit, in tokens').fill('1000000');
  await retry.getByRole('button', { name: 'Retry with this budget' }).click();
  await expect(status(page)).toHaveText(/Complete/);
  await expect(usage.getByText(/tokens of 1,000,000 tokens/)).toBeVisible();
});
