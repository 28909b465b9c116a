// Checks of the built package: what is in it, "use client", and that a bundle has only what it imports.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { build } from 'vite';

const root = fileURLToPath(new URL('..', import.meta.url));

/** Highest sizes in bytes of a minified and compressed bundle, without React. */
const LIMITS = {
  StatusBadge: 800,
  ProgressBar: 900,
  TaskList: 3000,
  'StatusBadge, ProgressBar, TaskList, TaskDetail, ActiveAgentsBadge': 7000,
  '*': 22_000,
};

const read = (...path) => readFileSync(join(root, ...path), 'utf8');

/** Return the minified bundle of an application that imports names and uses them. */
async function bundle(names) {
  const all = names === '*';
  const code = all
    ? `import * as ui from 'agentexec-ui'; globalThis.used = ui;`
    : `import { ${names} } from 'agentexec-ui'; globalThis.used = [${names}];`;
  const result = await build({
    root,
    configFile: false,
    logLevel: 'error',
    plugins: [
      {
        name: 'application',
        resolveId: (id) => (id === 'application' ? id : id === 'agentexec-ui' ? join(root, 'dist/index.js') : null),
        load: (id) => (id === 'application' ? code : null),
      },
    ],
    build: {
      write: false,
      minify: true,
      rolldownOptions: {
        input: 'application',
        external: [/^react($|\/)/],
        onLog: (level, log, handler) => log.code !== 'MODULE_LEVEL_DIRECTIVE' && handler(level, log),
      },
    },
  });
  return result.output.map((chunk) => chunk.code ?? '').join('');
}

function checkDirectives() {
  const sources = readdirSync(join(root, 'src'), { recursive: true, encoding: 'utf8' });
  for (const file of sources.filter((name) => /\.tsx?$/.test(name))) {
    const declared = read('src', file).startsWith("'use client';");
    const built = file.replace(/\.tsx?$/, '.js');
    let code;
    try {
      code = read('dist', built);
    } catch {
      continue; // A module of types only.
    }
    assert.equal(/^["']use client["'];/.test(code), declared, `"use client" differs in dist/${built}`);
  }
}

function checkContents() {
  const { files, name, version } = JSON.parse(
    execFileSync('npm', ['pack', '--dry-run', '--json', '--ignore-scripts'], { cwd: root, encoding: 'utf8' }),
  )[0];
  const paths = files.map((file) => file.path);
  for (const wanted of [
    'dist/index.js',
    'dist/index.d.ts',
    'dist/styles.css',
    'dist/r/registry.json',
    'README.md',
    'LICENSE',
  ]) {
    assert.ok(paths.includes(wanted), `${wanted} is missing from ${name} ${version}`);
  }
  const extra = paths.filter(
    (path) => !/^(dist\/.*\.(js|d\.ts|css|json)|package\.json|README\.md|LICENSE)$/.test(path),
  );
  assert.deepEqual(extra, [], 'files that do not belong in the package');
}

function checkStyles() {
  const { sideEffects } = JSON.parse(read('package.json'));
  assert.deepEqual(sideEffects, ['./dist/styles.css']);
  const styles = read('dist', 'styles.css');
  const used = new Set();
  for (const file of readdirSync(join(root, 'src/components'))) {
    for (const [name] of read('src/components', file).matchAll(/\bax-[a-z_-]+\b/g)) used.add(name);
  }
  const dead = [...styles.matchAll(/\.(ax-[a-z_-]+)/g)].map(([, name]) => name).filter((name) => !used.has(name));
  assert.deepEqual([...new Set(dead)], [], 'styles of classes that no component has');
}

function checkRegistry() {
  const contents = new Map();
  for (const name of readdirSync(join(root, 'dist/r')).filter((file) => file !== 'registry.json')) {
    const { files } = JSON.parse(read('dist/r', name));
    const paths = new Set(files.map(({ path }) => path));
    for (const { path, content } of files) {
      assert.equal(contents.get(path) ?? content, content, `${path} differs between items of the registry`);
      contents.set(path, content);
      for (const [, imported] of content.matchAll(/(?:from|import) '(\.[^']+)'/g)) {
        const wanted = join(path, '..', imported);
        const found = ['', '.ts', '.tsx'].some((extension) => paths.has(wanted + extension));
        assert.ok(found, `${name} lacks ${wanted}, which ${path} imports`);
      }
    }
  }
}

async function checkSizes() {
  for (const [names, limit] of Object.entries(LIMITS)) {
    const code = await bundle(names);
    const size = gzipSync(code).length;
    console.log(`${names}: ${size} bytes compressed (limit ${limit})`);
    assert.ok(size <= limit, `importing ${names} bundles ${size} bytes, more than ${limit}`);
    if (names === 'StatusBadge') assert.ok(!code.includes('ax-task-list'), 'StatusBadge brings TaskList along');
  }
}

checkDirectives();
checkContents();
checkStyles();
checkRegistry();
await checkSizes();
console.log(`${relative(process.cwd(), root) || '.'}: the package is sound`);
