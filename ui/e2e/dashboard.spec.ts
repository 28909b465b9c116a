import { join } from 'node:path';
import type { Page } from '@playwright/test';
import { type Application, ROOT } from './application.js';
import { DESKTOP, expect, expectSound, PHONE, showOn, test } from './fixtures.js';

/** The dashboard that the example application mounts. */
const PATH = '/agentexec';

async function queue(application: Application, company: string, path = '/research'): Promise<string> {
  const response = await fetch(`${application.url}${path}?${new URLSearchParams({ company })}`, { method: 'POST' });
  const { agent_id } = (await response.json()) as { agent_id: string };
  return agent_id;
}

const status = (page: Page) => page.locator('.d-task__head .ax-status');
const logLines = (page: Page) => page.locator('.ax-log__message');
const approve = (page: Page) => page.locator('.ax-approval').getByRole('button', { name: 'Approve' });

/** Expect that the page shows the log as the record has it: no line lost, none doubled, in order. */
async function expectWholeLog(page: Page, application: Application, agentId: string): Promise<void> {
  const { logs } = await application.task(agentId);
  await expect(logLines(page)).toHaveText(logs.map((line) => line.message));
}

for (const screen of [DESKTOP, PHONE]) {
  const on = `at ${screen.width} px, ${screen.colorScheme}`;

  test(`a task is found, opened by keyboard, approved, and ends without a reload, ${on}`, async ({
    page,
    application,
    company,
  }) => {
    await showOn(page, screen);
    await page.goto(`${application.url}${PATH}/tasks`);
    const agentId = await queue(application, company);
    // The first task appears by itself; others wait behind a button, so that no row moves.
    const row = page.locator(`.d-list a[href$="${agentId}"]`);
    await expect(row.or(page.getByRole('button', { name: /new task/ }))).toBeVisible();
    if (!(await row.isVisible())) await page.getByRole('button', { name: /new task/ }).click();
    await row.focus();
    await page.keyboard.press('Enter');
    await expect(page).toHaveURL(new RegExp(`${PATH}/tasks/${agentId}$`));
    await page.evaluate(() => Object.assign(window, { notReloaded: true }));
    const progress = page.locator('.d-task__progress .ax-progress__value');
    await expect(progress).not.toHaveText('0%');
    await expect(page.locator('.ax-approval').filter({ hasText: 'publish_report' })).toBeVisible();
    await approve(page).click();
    // The text of the model arrives in pieces, before the task ends.
    await expect(page.locator('.ax-log__text')).toContainText(`${company} is growing`);
    await expect(status(page)).toHaveText(/Complete/);
    await expect(progress).toHaveText('100%');
    await expect(page.getByRole('region', { name: 'Result' })).toContainText(company);
    await expectWholeLog(page, application, agentId);
    expect(await page.evaluate(() => 'notReloaded' in window)).toBe(true);
    await page.reload();
    await expect(status(page)).toHaveText(/Complete/);
  });

  test(`a task is canceled, ${on}`, async ({ page, application, company }) => {
    await showOn(page, screen);
    const agentId = await queue(application, company);
    await page.goto(`${application.url}${PATH}/tasks/${agentId}`);
    await page.getByRole('button', { name: 'Cancel', exact: true }).click();
    await expect(status(page)).toHaveText(/Canceled/);
    await expect(page.getByRole('button', { name: 'Retry', exact: true })).toBeVisible();
    await expectWholeLog(page, application, agentId);
  });
}

test('a worker is killed, and the task resumes before the reader', async ({ page, application, company }) => {
  const agentId = await queue(application, company);
  await page.goto(`${application.url}${PATH}/tasks/${agentId}`);
  await expect(logLines(page).filter({ hasText: 'Gathering financials' })).toBeVisible();
  await application.killWorkers();
  await expect(logLines(page).filter({ hasText: /^Resumed at turn \d/ })).toBeVisible();
  await approve(page).click();
  await expect(status(page)).toHaveText(/Complete/);
  await expectWholeLog(page, application, agentId);
});

test('a lost connection catches up without a lost or doubled line', async ({
  page,
  application,
  connection,
  complaints,
  company,
}) => {
  const agentId = await queue(application, company);
  await page.goto(`${connection.url}${PATH}/tasks/${agentId}`);
  const state = page.locator('.d-task__connection');
  await expect(state).toHaveText('Live');
  await expect(logLines(page).filter({ hasText: 'Gathering financials' })).toBeVisible();
  connection.cut();
  await expect(state).toHaveText(/Connection lost|Every 3 seconds/);
  await expect(page.locator('.d-stale').filter({ hasText: 'Trying again' }).first()).toBeVisible();
  await expect.poll(async () => (await application.task(agentId)).percentage).toBe(70);
  connection.restore();
  await expect(logLines(page).filter({ hasText: 'Writing the report' })).toBeVisible();
  await approve(page).click();
  await expect(status(page)).toHaveText(/Complete/);
  await expectWholeLog(page, application, agentId);
  // The browser tells of every request that failed meanwhile; nothing else may be there.
  expect(complaints.filter((text) => !/^Failed to load resource: net::ERR_/.test(text))).toEqual([]);
  complaints.length = 0;
});

test('every view is accessible on every screen', async ({ page, application, company }) => {
  const agentId = await queue(application, company);
  await expect.poll(async () => (await application.get<unknown[]>('/api/approvals')).length).toBeGreaterThan(0);
  for (const path of [
    '',
    'tasks',
    `tasks/${agentId}`,
    'approvals',
    'conversations',
    'failed',
    'queues',
    'schedules',
    'none',
  ]) {
    await page.goto(`${application.url}${PATH}/${path}`);
    await expect(page.locator('main :is(h1, h2)').first()).toBeVisible();
    await expect(page.locator('.ax-placeholder')).toHaveCount(0);
    await expectSound(page);
  }
});

test('a task is forked, and compared with its fork', async ({ page, application, company }) => {
  const agentId = await queue(application, company);
  await page.goto(`${application.url}${PATH}/tasks/${agentId}`);
  await expect(approve(page)).toBeVisible();
  await page.getByRole('button', { name: 'Fork…' }).click();
  const form = page.getByRole('dialog', { name: 'Fork this task' });
  await form.getByLabel(/^First turn/).fill('2');
  await form.getByLabel(/^Message that the agent reads/).fill('Be brief.');
  await form.getByRole('button', { name: 'Fork' }).click();
  await expect(page).not.toHaveURL(new RegExp(agentId));
  await expect(logLines(page).first()).toHaveText(/^Forked from task .* at turn 2 of .* with a message/);
  await page.getByRole('link', { name: `Compare with ${agentId.slice(-8)}` }).click();
  await expect(page.getByText(/^\d+ steps? of both$/).first()).toBeVisible();
  await expectSound(page);
});

test('the overview shows what is spent of a shared budget', async ({ page, application, company }) => {
  const agentId = await queue(application, company);
  await expect.poll(async () => (await application.task(agentId)).percentage).toBe(70);
  await page.goto(`${application.url}${PATH}`);
  const budgets = page.getByRole('region', { name: 'Shared budgets' });
  await expect(budgets.getByText(/^All tasks per month/)).toBeVisible();
  await expect(budgets.getByText(/[1-9][\d,]* tokens of 1,000,000,000 tokens/)).toBeVisible();
});

test('the keys work in every view', async ({ page, application, company }) => {
  await queue(application, company);
  const agentId = await queue(application, company);
  await expect.poll(async () => (await application.task(agentId)).percentage).toBe(70);
  await page.goto(`${application.url}${PATH}`);
  await page.keyboard.press('?');
  await expect(page.getByRole('dialog', { name: 'Keys' })).toBeVisible();
  await page.keyboard.press('Escape');
  await expect(page.getByRole('dialog')).toHaveCount(0);
  await page.keyboard.press('/');
  await expect(page.getByRole('searchbox')).toBeFocused();
  await page.keyboard.type('no such task');
  await expect(page).toHaveURL(/q=no\+such\+task/);
  await page.keyboard.press('Escape');
  await page.keyboard.press('g');
  await page.keyboard.press('a');
  await expect(page).toHaveURL(new RegExp(`${PATH}/approvals$`));
  await expect(page.locator('.ax-approval').first()).toBeVisible();
  await page.keyboard.press('j');
  await expect(page.locator('.ax-approval').first()).toBeFocused();

  // From the list into a task and back, and on to the next row from where the reader was.
  await page.keyboard.press('g');
  await page.keyboard.press('t');
  const rows = page.locator('.d-list .ax-task-list__row');
  await expect(rows.nth(1)).toBeVisible();
  await page.keyboard.press('j');
  await expect(rows.first()).toBeFocused();
  // By their links: a task that is queued meanwhile becomes the first row.
  const [first, second] = await rows.evaluateAll((found) => found.map((row) => row.getAttribute('href')));
  const linked = (href: string | null | undefined) => page.locator(`.ax-task-list__row[href="${href}"]`);
  await page.keyboard.press('Enter');
  await expect(page).toHaveURL(new RegExp(`${PATH}/tasks/[\\w-]{36}$`));
  await expect(page.locator('.d-task__head')).toBeVisible();
  await page.keyboard.press('Escape');
  await expect(page).toHaveURL(new RegExp(`${PATH}/tasks$`));
  await expect(linked(first)).toBeVisible();
  await page.keyboard.press('j');
  await expect(linked(second)).toBeFocused();
  await page.keyboard.press('k');
  await expect(linked(first)).toBeFocused();
});

test('a picture of the dashboard, with a call that waits for a person', async ({ page, application }) => {
  for (const company of ['Acme', 'Globex', 'Initech', 'Hooli', 'Tyrell']) await queue(application, company);
  const approvals = () => application.get<{ agent_id: string; call_id: string }[]>('/api/approvals');
  await expect.poll(async () => (await approvals()).length).toBe(5);
  for (const { agent_id, call_id } of (await approvals()).slice(1)) {
    const url = `${application.url}/api/approvals/${agent_id}/${call_id}/approve`;
    await fetch(url, { method: 'POST', headers: { 'content-type': 'application/json' } });
    await expect.poll(async () => (await application.task(agent_id)).status).toBe('complete');
  }
  const agentId = await queue(application, 'Wayne');
  // With PICTURES=1 this draws the pictures of the docs.
  const pictures = process.env.PICTURES ? join(ROOT, 'docs/pictures') : test.info().outputDir;
  await page.setViewportSize({ width: 1280, height: 860 });
  for (const [name, path] of [
    ['task', `tasks/${agentId}`],
    ['overview', ''],
  ]) {
    await page.goto(`${application.url}${PATH}/${path}`);
    await expect(page.locator('.ax-placeholder')).toHaveCount(0);
    if (name === 'task') await expect(approve(page)).toBeVisible();
    for (const colorScheme of ['light', 'dark'] as const) {
      await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
      await page.screenshot({ path: join(pictures, `dashboard-${name}-${colorScheme}.png`) });
    }
  }
});
