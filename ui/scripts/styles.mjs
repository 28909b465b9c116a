// The style sheet, made from src/styles: the theme first, then that of each component.
import { readdirSync, readFileSync } from 'node:fs';

const folder = new URL('../src/styles/', import.meta.url);

/** Names of the components that have styles of their own. */
export const styled = readdirSync(folder)
  .map((file) => file.replace(/\.css$/, ''))
  .filter((name) => name !== 'theme')
  .sort();

/** Return the styles of a component, or of `theme`. */
export function readStyles(name) {
  return readFileSync(new URL(`${name}.css`, folder), 'utf8');
}

/** Return the whole style sheet. It is a layer, so that any style of the application wins. */
export function styleSheet() {
  const parts = ['theme', ...styled].map((name) => readStyles(name).trimEnd());
  const indented = parts.join('\n\n').replace(/^(?=.)/gm, '  ');
  return `@layer agentexec {\n${indented}\n}\n`;
}
