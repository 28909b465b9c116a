import type { Page } from '@playwright/test';
import type { Application } from './application.js';
import { expect, expectSound, PHONE, showOn, test } from './fixtures.js';

interface Message {
  text: string;
  state: string;
}

interface Item {
  item: { role?: string; content?: string | { text: string }[]; type?: string; output?: string };
}

/** Begin a conversation, as the example's page does. */
async function begin(application: Application): Promise<string> {
  const response = await fetch(`${application.url}/chats`, { method: 'POST' });
  return ((await response.json()) as { id: string }).id;
}

const path = (id: string) => `/api/conversations/${encodeURIComponent(id)}`;
const chat = (page: Page) => page.locator('.ax-chat');
const said = (page: Page) => chat(page).locator('.ax-chat__entry:not([data-waiting]) .ax-chat__text');
const waiting = (page: Page) => chat(page).locator('.ax-chat__entry[data-waiting] .ax-chat__text');
const call = (page: Page, text: string) => chat(page).locator('.ax-approval').filter({ hasText: text });

async function send(page: Page, text: string): Promise<void> {
  await chat(page).getByLabel('Message', { exact: true }).fill(text);
  await page.keyboard.press('Enter');
}

/** Note each length of the agent's latest text from now on. */
async function watchText(page: Page): Promise<() => Promise<number[]>> {
  await chat(page).evaluate((element) => {
    const lengths: number[] = [];
    Object.assign(window, { lengths });
    new MutationObserver(() => {
      const texts = element.querySelectorAll('[data-kind="assistant"] .ax-chat__text');
      const length = texts.item(texts.length - 1)?.textContent?.length ?? 0;
      if (length !== lengths.at(-1)) lengths.push(length);
    }).observe(element, { subtree: true, childList: true, characterData: true });
  });
  return () => page.evaluate(() => (window as unknown as { lengths: number[] }).lengths);
}

test('messages get answers that are streamed, join a turn, and stop one', async ({ page, application, company }) => {
  const id = await begin(application);
  await page.goto(`${application.url}/agentexec/conversations`);
  await page.getByRole('link', { name: id }).press('Enter');
  const texts = await watchText(page);
  await send(page, `How is ${company}?`);
  const answer = `You asked: How is ${company}? The figures are sound`;
  await expect(said(page).last()).toHaveText(new RegExp(`^You asked: How is ${company}. The figures .* year\\.$`));
  const lengths = await texts();
  expect(lengths.length, String(lengths)).toBeGreaterThan(3);
  expect(lengths).toEqual(lengths.toSorted((a, b) => a - b));

  // The turn waits for a person, so it has not ended when the next messages come.
  await send(page, `Publish ${company}`);
  await expect(call(page, `"Publish ${company}"`)).toBeVisible();
  const rule = chat(page).getByRole('combobox', { name: 'The message' });
  await expect(rule).toHaveValue('steer');
  await send(page, 'And Globex');
  await expect(waiting(page)).toHaveText(['And Globex']);
  await expectSound(page);
  await call(page, `"Publish ${company}"`).getByRole('button', { name: 'Approve' }).click();
  // The model has read it, and the page shows it in the turn that it has joined.
  await expect(call(page, '"And Globex"')).toBeVisible();
  await expect(waiting(page)).toHaveCount(0);
  await expect(said(page).last()).toHaveText('And Globex');

  await rule.selectOption('interrupt');
  await send(page, 'Say hello instead');
  await expect(waiting(page)).toHaveText(['Say hello instead']);
  await call(page, '"And Globex"').getByRole('button', { name: 'Approve' }).click();
  await expect(chat(page).getByText('Interrupted by the next message of the conversation.')).toBeVisible();
  await call(page, '"Say hello instead"').getByRole('button', { name: 'Reject' }).click();
  await expect(said(page).last()).toHaveText(/^The report about Say hello instead went to a person/);
  const states = await application.get<Message[]>(`${path(id)}/messages`);
  expect(states.map(({ state }) => state)).toEqual(['taken', 'taken', 'joined', 'taken']);

  // All of it is there after a reload, in its order, as the record has it.
  const whole = [/^How is /, answer, `Publish ${company}`, 'And Globex', 'Say hello instead', /^The report about/];
  await expect(said(page)).toContainText(whole);
  await page.reload();
  await expect(said(page)).toContainText(whole);
  const history = await application.get<Item[]>(`${path(id)}/history`);
  const recorded = history.flatMap(({ item: { role, content } }) =>
    role ? [typeof content === 'string' ? content : (content?.map(({ text }) => text).join('') ?? '')] : [],
  );
  await expect(said(page)).toHaveText(recorded);
  const outputs = history.flatMap(({ item }) => (item.type === 'function_call_output' ? [item.output] : []));
  expect(outputs.slice(1, 3)).toEqual(['The report is published.', 'Not run: the user has sent another message.']);
});

test("the panel of the package works in the example's page, on a phone", async ({ page, application, company }) => {
  await showOn(page, PHONE);
  await page.goto(application.url);
  await page.getByRole('button', { name: 'Ask', exact: true }).click();
  await expect(chat(page).getByText('Nothing was said yet.')).toBeVisible();
  await send(page, `Publish ${company}`);
  const card = call(page, `"Publish ${company}"`);
  await expect(card).toBeVisible();
  await expectSound(page);
  await showOn(page, PHONE);
  await card.getByRole('button', { name: 'Approve' }).click();
  await expect(said(page).last()).toHaveText(/^The report about .* what becomes of it\.$/);
  await page.reload();
  await expect(said(page)).toHaveText([`Publish ${company}`, /^The report about .* what becomes of it\.$/]);
  await page.getByRole('button', { name: 'Close' }).click();
  await expect(chat(page)).toHaveCount(0);
});
