import { join } from 'node:path';
import type { Page } from '@playwright/test';
import { type Application, ROOT } from './application.js';
import { DESKTOP, expect, expectSound, PHONE, showOn, test } from './fixtures.js';

/** Queue a task on the page, and return its id. */
async function queue(page: Page, company: string, button = 'Research'): Promise<string> {
  const before = page.url();
  await page.getByLabel('Company', { exact: true }).fill(company);
  await page.getByRole('button', { name: button, exact: true }).click();
  await expect(page).not.toHaveURL(before);
  await expect(page).toHaveURL(/#task=[\w-]{36}$/);
  return new URL(page.url()).hash.slice('#task='.length);
}

const logLines = (page: Page) => page.locator('.task .ax-log__message');

/** Expect that the page shows the log as the record has it: no line lost, none doubled, in order. */
async function expectWholeLog(page: Page, application: Application, agentId: string): Promise<void> {
  const { logs } = await application.task(agentId);
  await expect(logLines(page)).toHaveText(logs.map((line) => line.message));
}

/** Card of the call that waits for a person; other tests may leave tasks that wait, too. */
const approvalOf = (page: Page, company: string) =>
  page.getByRole('article').filter({ hasText: `${company} is growing` });

/** Wait until the task works; the page may learn of several steps at a time, so RUNNING need not be seen. */
const started = (page: Page) => expect(logLines(page).filter({ hasText: 'Gathering financials' })).toBeVisible();

const statusOf = (page: Page) => page.locator('.ax-task-detail__header .ax-status');

/** Note every value of the task's progress from now on; a reload would lose the notes. */
async function watchProgress(page: Page): Promise<() => Promise<number[]>> {
  const bar = page.locator('.task progress').first();
  await bar.evaluate((element) => {
    const values: number[] = [];
    Object.assign(window, { values });
    const note = () => {
      const value = Number(element.getAttribute('value'));
      if (value !== values.at(-1)) values.push(value);
    };
    new MutationObserver(note).observe(element, { attributes: true });
    note();
  });
  return () => page.evaluate(() => (window as unknown as { values: number[] }).values);
}

for (const screen of [DESKTOP, PHONE]) {
  const on = `at ${screen.width} px, ${screen.colorScheme}`;

  test(`a task is queued, shows its progress, is approved and ends, without a reload, ${on}`, async ({
    page,
    application,
    company,
  }) => {
    await showOn(page, screen);
    await page.goto(application.url);
    const agentId = await queue(page, company);
    const progress = await watchProgress(page);
    await started(page);
    const card = approvalOf(page, company);
    await expect(card).toContainText('publish_report');
    await card.getByRole('button', { name: 'Approve' }).click();
    await expect(card).toBeHidden();
    // The text of the model arrives in pieces, before the task ends.
    await expect(page.locator('.ax-log__text')).toContainText(`${company} is growing`);
    await expect(statusOf(page)).toHaveText(/Complete/);
    await expect(page.locator('.reports li').filter({ hasText: `${company} is growing` })).toBeVisible();
    const seen = await progress();
    expect(seen.length, String(seen)).toBeGreaterThan(2);
    expect(seen).toEqual(seen.toSorted((a, b) => a - b));
    expect(seen).toContain(70);
    expect(seen.at(-1)).toBe(100);
    await expectWholeLog(page, application, agentId);
  });

  test(`a task is canceled on the page, ${on}`, async ({ page, application, company }) => {
    await showOn(page, screen);
    await page.goto(application.url);
    const agentId = await queue(page, company);
    await started(page);
    await page.getByRole('button', { name: 'Cancel', exact: true }).click();
    await expect(statusOf(page)).toHaveText(/Canceled/);
    await expect(page.getByRole('button', { name: 'Cancel', exact: true })).toBeHidden();
    await expectWholeLog(page, application, agentId);
  });
}

test('a worker is killed, and the page sees the task resume', async ({ page, application, company }) => {
  await page.goto(application.url);
  const agentId = await queue(page, company);
  await started(page);
  await application.killWorkers();
  await expect(logLines(page).filter({ hasText: /^Resumed at turn \d/ })).toBeVisible();
  await approvalOf(page, company).getByRole('button', { name: 'Approve' }).click();
  await expect(statusOf(page)).toHaveText(/Complete/);
  await expectWholeLog(page, application, agentId);
  await expect(page.locator('.reports li').filter({ hasText: `${company} is growing` })).toHaveCount(1);
});

test('a lost connection catches up without a lost or doubled line', async ({
  page,
  application,
  connection,
  complaints,
  company,
}) => {
  await page.goto(connection.url);
  const agentId = await queue(page, company);
  const state = page.locator('.connection');
  await expect(state).toHaveText('Live');
  await started(page);
  connection.cut();
  await expect(state).toHaveText(/connecting again|fetched every few seconds/);
  // Lines are written while nobody hears them.
  await expect.poll(async () => (await application.task(agentId)).percentage).toBe(70);
  await expect(logLines(page).filter({ hasText: 'Writing the report' })).toHaveCount(0);
  connection.restore();
  await expect(logLines(page).filter({ hasText: 'Writing the report' })).toBeVisible();
  await approvalOf(page, company).getByRole('button', { name: 'Approve' }).click();
  await expect(statusOf(page)).toHaveText(/Complete/);
  await expectWholeLog(page, application, agentId);
  // The browser tells of every request that failed meanwhile; nothing else may be there.
  expect(complaints.filter((text) => !/^Failed to load resource: net::ERR_/.test(text))).toEqual([]);
  complaints.length = 0;
});

test('the pipeline runs', async ({ page, application, company }) => {
  await page.goto(application.url);
  const agentId = await queue(page, company, 'Weigh');
  await expect(statusOf(page)).toHaveText(/Complete/);
  await expect(logLines(page).filter({ hasText: 'Step 2 of 2: verdict' })).toBeVisible();
  await expectWholeLog(page, application, agentId);
});

test('the page works by keyboard, and is accessible on every screen', async ({ page, application, company }) => {
  await page.goto(application.url);
  await page.getByLabel('Company', { exact: true }).press('Tab'); // the field is reached, and left
  await queue(page, company);
  const card = approvalOf(page, company);
  await expect(card).toBeVisible();
  await expectSound(page);
  await card.getByRole('button', { name: 'Reject' }).click();
  await expect(statusOf(page)).toHaveText(/Complete/);
  await expectSound(page);
  await page.locator('.ax-task-detail__close').focus();
  await page.keyboard.press('Escape');
  await expect(page.locator('.task')).toHaveCount(0);
});

test('a picture of the page, with a run that waits for a person', async ({ page, application }) => {
  await page.goto(application.url);
  await queue(page, 'Stark');
  await page.getByRole('button', { name: 'Cancel', exact: true }).click();
  await expect(statusOf(page)).toHaveText(/Canceled/);
  await queue(page, 'Wayne');
  await expect(page.getByRole('article').filter({ hasText: 'Wayne' })).toBeVisible();
  await expect(logLines(page).filter({ hasText: 'Writing the report' })).toBeVisible();
  // With PICTURES=1 this draws the pictures of the docs.
  const pictures = process.env.PICTURES ? join(ROOT, 'docs/pictures') : test.info().outputDir;
  await page.setViewportSize({ width: 1280, height: 960 });
  for (const colorScheme of ['light', 'dark'] as const) {
    await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
    await page.screenshot({ path: join(pictures, `example-${colorScheme}.png`) });
  }
});
