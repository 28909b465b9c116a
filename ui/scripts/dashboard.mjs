// Builds the dashboard into agentexec/web/static/. With --check it only compares: what is committed must be what is built.
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'vite';

const target = fileURLToPath(new URL('../../agentexec/web/static/', import.meta.url));

/** Return the content of each file of a folder, by its path. */
function contents(folder) {
  const files = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  return new Map(
    files.map(({ parentPath, name }) => {
      const path = join(parentPath, name);
      return [path.slice(folder.length), readFileSync(path, 'latin1')];
    }),
  );
}

const folder = `${mkdtempSync(join(tmpdir(), 'dashboard-'))}/`;
try {
  await build({
    configFile: fileURLToPath(new URL('../dashboard/vite.config.mjs', import.meta.url)),
    build: { outDir: folder },
  });
  if (process.argv.includes('--check')) {
    const [built, committed] = [contents(folder), contents(target)];
    const paths = new Set([...built.keys(), ...committed.keys()]);
    const different = [...paths].filter((path) => built.get(path) !== committed.get(path)).sort();
    if (different.length > 0) {
      console.error(`agentexec/web/static/ is not what ui/dashboard/ builds: ${different.join(', ')}.`);
      console.error('Run `./dev ui dashboard`, and commit what it changes.');
      process.exitCode = 1;
    }
  } else {
    rmSync(target, { recursive: true, force: true });
    cpSync(folder, target, { recursive: true });
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
