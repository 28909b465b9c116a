// A shadcn registry item for each styled component, made from the same source as the package:
//     npx shadcn add https://<host>/r/TaskList.json
// Each item holds every source file that its component needs, and their styles.
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { readStyles, styled } from './styles.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const source = join(root, 'src');
const target = join(root, 'dist/r');
const { description } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));

/** Return the files that a source file imports, and itself, in the order of imports. */
function closure(file, found = new Set(), seen = new Set()) {
  // Two files may import types of each other.
  if (seen.has(file)) return found;
  seen.add(file);
  for (const [, path] of readFileSync(file, 'utf8').matchAll(/from '(\.[^']+)\.js'/g)) {
    closure(resolve(join(dirname(file), path)), found, seen);
  }
  found.add(file);
  return found;
}

function resolve(path) {
  for (const extension of ['.ts', '.tsx']) {
    try {
      readFileSync(path + extension);
      return path + extension;
    } catch (error) {
      if (error.code !== 'ENOENT') throw error;
    }
  }
  throw new Error(`There is no source file ${path}.ts or .tsx.`);
}

/** Return the first sentence of the comment above the component. */
function describe(code, name) {
  const comment =
    code
      .slice(0, code.indexOf(`export function ${name}`))
      .split('/**')
      .at(-1) ?? '';
  return comment
    .split('*/')[0]
    .replace(/^[ *]+/gm, '')
    .trim()
    .split('\n')[0]
    .trim();
}

/** Return the code of a source file as the registry has it: without extensions in imports, and with its styles. */
function code(file) {
  const text = readFileSync(file, 'utf8').replace(/(from '\.[^']+)\.js'/g, "$1'");
  const name = styleOf(file);
  if (!name) return text;
  const lines = ['theme', name].map((part) => `import '../styles/${part}.css';\n`).join('');
  const directive = "'use client';\n\n";
  return text.startsWith(directive) ? directive + lines + text.slice(directive.length) : lines + text;
}

function styleOf(file) {
  return styled.find((name) => file === join(source, 'components', `${name}.tsx`));
}

function registryItem(name) {
  const component = join(source, 'components', `${name}.tsx`);
  const files = [...closure(component)];
  const entry = (path, type, content) => ({ path, type, target: `components/agentexec/${path}`, content });
  return {
    $schema: 'https://ui.shadcn.com/schema/registry-item.json',
    name,
    type: 'registry:component',
    title: name,
    description: describe(readFileSync(component, 'utf8'), name),
    dependencies: [],
    // A file is the same in every item that has it, so that items can be added in any order.
    files: [
      ...files.map((file) =>
        entry(relative(source, file), file === component ? 'registry:component' : 'registry:file', code(file)),
      ),
      ...['theme', ...files.map(styleOf).filter(Boolean)].map((part) =>
        entry(`styles/${part}.css`, 'registry:file', readStyles(part)),
      ),
    ],
  };
}

rmSync(target, { recursive: true, force: true });
mkdirSync(target, { recursive: true });
const items = styled.map(registryItem);
for (const item of items) writeFileSync(join(target, `${item.name}.json`), `${JSON.stringify(item, null, 2)}\n`);
const index = {
  $schema: 'https://ui.shadcn.com/schema/registry.json',
  name: 'agentexec-ui',
  homepage: 'https://www.npmjs.com/package/agentexec-ui',
  description,
  items: items.map(({ $schema: _, ...item }) => ({
    ...item,
    files: item.files.map(({ content: __, ...file }) => file),
  })),
};
writeFileSync(join(target, 'registry.json'), `${JSON.stringify(index, null, 2)}\n`);
