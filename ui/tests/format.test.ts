// @vitest-environment node
import { expect, test } from 'vitest';
import * as format from '../src/format.js';

test.each([
  [0.04, '0.0 s'],
  [9.94, '9.9 s'],
  [9.96, '10 s'],
  [59.6, '1 m 00 s'],
  [185, '3 m 05 s'],
  [7620, '2 h 07 m'],
  [273_600, '3 d 04 h'],
])('%d seconds are %s', (seconds, expected) => {
  expect(format.formatDuration(seconds)).toBe(expected);
});

test.each([
  [999, '999'],
  [1000, '1k'],
  [12_345, '12.3k'],
  [999_949, '1,000k'],
  [999_950, '1M'],
  [4_500_000, '4.5M'],
])('%d in short is %s', (value, expected) => {
  expect(format.formatShort(value)).toBe(expected);
});

test.each([
  [0, '$0.00'],
  [0.00042, '$0.00042'],
  [0.0421, '$0.042'],
  [1.254, '$1.25'],
  [12_345.6, '$12,345.60'],
])('%d dollars are %s', (value, expected) => {
  expect(format.formatMoney(value)).toBe(expected);
});

test('times without an offset are UTC', () => {
  expect(format.parseTime('2026-11-24T21:49:15')).toBe(format.parseTime('2026-11-24T23:49:15+02:00'));
  expect(format.parseTime(undefined)).toBeNaN();
});

test('times ahead and behind', () => {
  const at = (seconds: number) => format.formatRelative(0, seconds * 1000);
  expect([3, 12, 200, 7300, 200_000, -90].map(at)).toEqual([
    'now',
    '12 s ago',
    '3 m ago',
    '2 h ago',
    '2 d ago',
    'in 1 m',
  ]);
});

test('the short form of an id tells tasks of the same minute apart', () => {
  const ids = ['01a2275f-2e9b-7f14-a6e2-1b32c94da78a', '01a2275f-9c55-7f75-84f7-b27c6d1c23a4'];
  expect(ids.map(format.shortId)).toEqual(['c94da78a', '6d1c23a4']);
});
