// @vitest-environment node
import { describe, expect, test } from 'vitest';
import theme from '../src/styles/theme.css?raw';

const SHEETS = import.meta.glob<string>('../src/styles/*.css', { query: '?raw', import: 'default', eager: true });

/** Return the colors that the rules with a selector set. */
function colors(selector: string): Record<string, string> {
  const rule = theme.slice(theme.indexOf(selector));
  return Object.fromEntries(
    [...rule.slice(0, rule.indexOf('}')).matchAll(/--ax-([a-z-]+): (#[0-9a-f]{6});/g)].map(([, name, value]) => [
      name,
      value,
    ]),
  );
}

function luminance(color: string): number {
  const [red = 0, green = 0, blue = 0] = [1, 3, 5].map((at) => {
    const value = Number.parseInt(color.slice(at, at + 2), 16) / 255;
    return value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

function contrast(one: string | undefined, other: string | undefined): number {
  if (!one || !other) throw new Error('A color is missing.');
  const [dark = 0, light = 0] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (light + 0.05) / (dark + 0.05);
}

const THEMES = {
  light: colors(':root {'),
  dark: colors(':root:not('),
  'dark by choice': colors(':is([data-theme="dark"]'),
};

describe.each(Object.entries(THEMES))('the %s theme', (_name, color) => {
  test.each([
    ['text', 'background'],
    ['text', 'raised'],
    ['muted', 'background'],
    ['muted', 'raised'],
    ['muted', 'accent-soft'],
    ['text', 'accent-soft'],
    ['accent', 'background'],
    ['accent', 'raised'],
    ['accent', 'accent-soft'],
    ['on-accent', 'accent'],
    ['complete', 'background'],
    ['complete', 'raised'],
    ['complete', 'accent-soft'],
    ['error', 'background'],
    ['error', 'raised'],
    ['error', 'error-soft'],
    ['error', 'accent-soft'],
    ['waiting', 'background'],
    ['waiting', 'raised'],
    ['waiting', 'accent-soft'],
  ])('%s on %s can be read by everyone', (text, background) => {
    expect(contrast(color[text], color[background])).toBeGreaterThanOrEqual(4.5);
  });

  test.each([
    ['control-border', 'background'],
    ['accent', 'border'],
    ['complete', 'border'],
    ['error', 'border'],
  ])('%s stands out from %s', (part, background) => {
    expect(contrast(color[part], color[background])).toBeGreaterThanOrEqual(3);
  });
});

test('dark is the same by choice and by the system', () => {
  expect(THEMES['dark by choice']).toEqual(THEMES.dark);
});

test('all that moves asks first whether it may', () => {
  for (const [file, sheet] of Object.entries(SHEETS)) {
    const calm = sheet.replace(/@media \(prefers-reduced-motion: no-preference\) \{.*?\n\}/gs, '');
    expect(calm, file).not.toMatch(/\b(animation|transition)(-[a-z]+)?:/);
  }
});
