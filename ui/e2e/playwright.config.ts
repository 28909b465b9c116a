import { defineConfig } from '@playwright/test';

/** Tests in a real browser: Debian's Chromium against a real server, real workers and the mock model. */
export default defineConfig({
  testDir: '.',
  outputDir: '../../.dev/e2e',
  // One server with its workers at a time: CI has two cores.
  workers: 1,
  timeout: 120_000,
  expect: { timeout: 30_000 },
  reporter: 'list',
  // A slow machine can miss a deadline once; the report calls such a test flaky.
  retries: 2,
  forbidOnly: true,
  // These only draw the pictures of the docs.
  grepInvert: process.env.PICTURES ? /^$/ : /a picture of/,
  use: {
    browserName: 'chromium',
    launchOptions: {
      executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
      args: ['--no-sandbox'], // CI runs as root, where Chromium has no sandbox
    },
    viewport: { width: 1280, height: 800 },
    trace: 'retain-on-failure',
  },
});
