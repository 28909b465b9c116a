import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { test as base, expect, type Page } from '@playwright/test';
import { Application } from './application.js';
import { Connection } from './connection.js';

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

interface Fixtures {
  /** Errors in the browser's console so far; the test fails if there are some at its end. */
  complaints: string[];
  /** Company that no other test asks about: all share the application, and some leave tasks that wait. */
  company: string;
}

interface WorkerFixtures {
  application: Application;
  /** Way to the application, for tests that lose the connection. */
  connection: Connection;
}

/** Number of companies that tests have asked about. */
let companies = 0;

export const test = base.extend<Fixtures, WorkerFixtures>({
  application: [
    // biome-ignore lint/correctness/noEmptyPattern: Playwright reads which fixtures are wanted from the pattern
    async ({}, use) => {
      const env = { AGENTEXEC_BUDGETS: '*=1000000000 tokens/month' };
      const application = await Application.start({ env });
      await use(application);
      await application.stop();
    },
    { scope: 'worker', timeout: 300_000 },
  ],
  connection: [
    async ({ application }, use) => {
      const connection = await Connection.before(application.url);
      await use(connection);
      await connection.close();
    },
    { scope: 'worker' },
  ],
  // biome-ignore lint/correctness/noEmptyPattern: see above
  company: async ({}, use) => {
    companies += 1;
    const names = ['Acme', 'Globex', 'Initech', 'Umbrella', 'Soylent', 'Hooli', 'Stark', 'Tyrell', 'Wonka', 'Monarch'];
    await use(`${names[companies % names.length]} ${companies}`);
  },
  complaints: [
    async ({ page }, use) => {
      const complaints: string[] = [];
      page.on('console', (message) => {
        if (message.type() === 'error' || message.type() === 'warning') complaints.push(message.text());
      });
      page.on('pageerror', (error) => complaints.push(String(error)));
      await use(complaints);
      expect(complaints).toEqual([]);
    },
    { auto: true },
  ],
});

export { expect };

export const SCREENS = [
  { width: 1280, height: 800, colorScheme: 'light' },
  { width: 1280, height: 800, colorScheme: 'dark' },
  { width: 390, height: 844, colorScheme: 'light' },
  { width: 390, height: 844, colorScheme: 'dark' },
] as const;

/** Screens that differ in all: acts are tried on both. */
export const DESKTOP = SCREENS[0];
export const PHONE = SCREENS[3];

/** Show the page on a screen. */
export async function showOn(page: Page, { width, height, colorScheme }: (typeof SCREENS)[number]): Promise<void> {
  await page.emulateMedia({ colorScheme });
  await page.setViewportSize({ width, height });
}

/** Expect that axe finds nothing, and that nothing is wider than the page. */
export async function expectSound(page: Page): Promise<void> {
  if (!(await page.evaluate(() => 'axe' in window))) await page.evaluate(AXE);
  for (const screen of SCREENS) {
    await showOn(page, screen);
    // Colors change with the theme and roles with the width: the first and the last screen have all of both.
    const isCorner = screen === DESKTOP || screen === PHONE;
    expect(await violations(page, isCorner ? [] : ['color-contrast']), JSON.stringify(screen)).toEqual([]);
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
    expect(overflow, 'the page scrolls sideways').toBeLessThanOrEqual(0);
  }
}

/** Return what axe finds by some of its rules, or by all. */
function violations(page: Page, rules: string[]): Promise<string[][]> {
  return page.evaluate(async (rules) => {
    const options = { resultTypes: ['violations'], ...(rules.length > 0 && { runOnly: rules }) };
    // @ts-expect-error axe has been evaluated in the page
    const { violations } = await window.axe.run(document, options);
    return violations.map((violation: { id: string; nodes: { html: string; failureSummary?: string }[] }) => [
      violation.id,
      ...violation.nodes.map((node) => `${node.html}: ${node.failureSummary}`),
    ]);
  }, rules);
}
