import { render } from '@testing-library/react';
import axe from 'axe-core';
import { expect, test } from 'vitest';
import { GALLERY } from './gallery.js';

// Colors need a layout engine, and are checked in styles.test.ts. These are parts of a page, so they need no landmarks.
const RULES = { 'color-contrast': { enabled: false }, region: { enabled: false } };

// jsdom has no canvas, on which axe looks whether a font has icons.
HTMLCanvasElement.prototype.getContext = () => null;

test.each(Object.entries(GALLERY))('%s has no violation', async (_name, content) => {
  const { container } = render(<main>{content}</main>);
  const { violations } = await axe.run(container, { rules: RULES, resultTypes: ['violations'] });
  expect(violations.map((found) => `${found.id}: ${found.nodes.map((node) => node.html).join(' ')}`)).toEqual([]);
});
