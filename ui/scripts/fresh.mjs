// Installs the packed package into new applications, as a user does, and builds them: Vite with React 19, and Next.js
// with a server component that imports client components.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'agentexec-fresh-'));

const TSCONFIG = {
  compilerOptions: {
    target: 'ES2022',
    lib: ['ES2023', 'DOM', 'DOM.Iterable'],
    module: 'ESNext',
    moduleResolution: 'Bundler',
    jsx: 'preserve',
    strict: true,
    noEmit: true,
    isolatedModules: true,
    noUncheckedSideEffectImports: true,
    skipLibCheck: true, // as the templates of both have it
  },
  include: ['**/*.ts', '**/*.tsx'],
  exclude: ['node_modules', 'dist'],
};

const TASKS = `
import { StatusBadge, TaskList, useActivities } from 'agentexec-ui';

export function Tasks() {
  const { data, loading } = useActivities();
  return (
    <>
      <StatusBadge status="running" />
      <TaskList items={data?.items} loading={loading} />
    </>
  );
}
`;

const APPLICATIONS = {
  vite: {
    packages: {
      '@types/react': '^19',
      '@types/react-dom': '^19',
      '@vitejs/plugin-react': '^6',
      typescript: '5.9',
      vite: '^8',
    },
    build: [
      ['tsc', '--noEmit'],
      ['vite', 'build', '--logLevel', 'warn'],
    ],
    built: ['dist/index.html'],
    files: {
      'index.html': '<div id="root"></div><script type="module" src="/main.tsx"></script>',
      'vite.config.ts':
        "import react from '@vitejs/plugin-react';\nimport { defineConfig } from 'vite';\nexport default defineConfig({ plugins: [react()] });",
      'tsconfig.json': JSON.stringify({
        ...TSCONFIG,
        compilerOptions: { ...TSCONFIG.compilerOptions, jsx: 'react-jsx' },
      }),
      'main.tsx': `import { createRoot } from 'react-dom/client';
import 'agentexec-ui/styles.css';
import { Tasks } from './Tasks';

createRoot(document.getElementById('root')!).render(<Tasks />);`,
      'Tasks.tsx': TASKS,
    },
  },
  next: {
    packages: {
      '@types/node': '^20',
      '@types/react': '^19',
      '@types/react-dom': '^19',
      next: '^16',
      typescript: '5.9',
    },
    build: [['next', 'build']],
    built: ['.next/BUILD_ID'],
    files: {
      'tsconfig.json': JSON.stringify(TSCONFIG),
      // Both the package's components in a server component, and a component of the application's own that uses hooks.
      'app/page.tsx': `import { ProgressBar, StatusBadge } from 'agentexec-ui';
import { Tasks } from './Tasks';

export default function Page() {
  return (
    <main>
      <StatusBadge status="complete" />
      <ProgressBar percentage={65} status="running" />
      <Tasks />
    </main>
  );
}`,
      'app/Tasks.tsx': `'use client';\n${TASKS}`,
      'app/layout.tsx': `import 'agentexec-ui/styles.css';
import type { ReactNode } from 'react';

export default function Layout({ children }: { children: ReactNode }) {
  return (
    <html lang="en">
      <body>{children}</body>
    </html>
  );
}`,
    },
  },
};

function run(cwd, program, ...args) {
  execFileSync(program, args, {
    cwd,
    stdio: ['ignore', 'inherit', 'inherit'],
    env: { ...process.env, NEXT_TELEMETRY_DISABLED: '1' },
  });
}

function build(name, archive) {
  const { packages, build, built, files } = APPLICATIONS[name];
  const started = performance.now();
  const cwd = join(folder, name);
  const manifest = {
    private: true,
    type: 'module',
    dependencies: { 'agentexec-ui': `file:${archive}`, react: '^19', 'react-dom': '^19' },
    devDependencies: packages,
  };
  for (const [path, text] of Object.entries({ ...files, 'package.json': JSON.stringify(manifest) })) {
    mkdirSync(dirname(join(cwd, path)), { recursive: true });
    writeFileSync(join(cwd, path), text);
  }
  run(cwd, 'npm', 'install', '--no-audit', '--no-fund', '--loglevel=error', '--prefer-offline');
  for (const [program, ...args] of build) run(cwd, join(cwd, 'node_modules/.bin', program), ...args);
  for (const path of built) assert.ok(readFileSync(join(cwd, path), 'utf8').length > 0, `${path} is empty`);
  console.log(`${name}: installed and built in ${Math.round((performance.now() - started) / 1000)} s`);
}

try {
  // dist is built: `./dev ui` calls this after it has checked the package.
  const packed = execFileSync('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', folder], {
    cwd: root,
    encoding: 'utf8',
  });
  const archive = join(folder, JSON.parse(packed)[0].filename);
  for (const name of Object.keys(APPLICATIONS)) build(name, archive);
} finally {
  rmSync(folder, { recursive: true, force: true });
}
