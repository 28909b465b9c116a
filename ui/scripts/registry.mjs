// A shadcn registry item for each styled component, made from the same source as the package:
//     npx shadcn add https://<host>/r/TaskList.json
// Each item holds every source file that its component needs, and the styles of all components among them.
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { readStyles, styled } from './styles.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const source = join(root, 'src');
const target = join(root, 'dist/r');
const { description } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));

/** Return the files that a source file imports, and itself, in the order of imports. */
function closure(file, found = new Set()) {
  if (found.has(file)) return found;
  for (const [, path] of readFileSync(file, 'utf8').matchAll(/from '(\.[^']+)\.js'/g)) {
    closure(resolve(join(dirname(file), path)), found);
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

function registryItem(name) {
  const component = join(source, 'components', `${name}.tsx`);
  const files = [...closure(component)];
  const parts = styled.filter((other) => files.includes(join(source, 'components', `${other}.tsx`)));
  const style = `styles/${name}.css`;
  const css = ['theme', ...parts].map((part) => readStyles(part)).join('\n');
  return {
    $schema: 'https://ui.shadcn.com/schema/registry-item.json',
    name,
    type: 'registry:component',
    title: name,
    description: readFileSync(component, 'utf8').match(
      /\/\*\*(?: | \n \* |\n \* )([^\n]*?)(?: \*\/)?\nexport function/,
    )?.[1],
    dependencies: [],
    files: [
      ...files.map((file) => {
        const path = relative(source, file);
        const code = readFileSync(file, 'utf8').replace(/(from '\.[^']+)\.js'/g, "$1'");
        return {
          path,
          type: file === component ? 'registry:component' : 'registry:file',
          target: `components/agentexec/${path}`,
          content: file === component ? withStyles(code, style) : code,
        };
      }),
      { path: style, type: 'registry:file', target: `components/agentexec/${style}`, content: css },
    ],
  };
}

/** Add the import of the styles, after a directive. */
function withStyles(code, style) {
  const line = `import '../${style}';\n`;
  return code.startsWith("'use client';\n\n")
    ? code.replace("'use client';\n\n", `'use client';\n\n${line}`)
    : line + code;
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
