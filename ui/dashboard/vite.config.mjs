import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vite';
import { styleSheet } from '../scripts/styles.mjs';

const path = (name) => fileURLToPath(new URL(name, import.meta.url));

/** The style sheet of the package, as `npm run build` makes it. */
const styles = {
  name: 'dashboard:styles',
  enforce: 'pre',
  resolveId: (id) => (id === 'agentexec-ui/styles.css' ? '\0agentexec-ui.css' : null),
  load: (id) => (id === '\0agentexec-ui.css' ? styleSheet() : null),
};

export default defineConfig({
  root: path('.'),
  // Relative to the page's <base>, which the server sets: the page works below any path.
  base: './',
  logLevel: 'warn',
  plugins: [styles],
  resolve: { alias: [{ find: /^agentexec-ui$/, replacement: path('../src/index.ts') }] },
  build: {
    outDir: path('../../agentexec/web/static'),
    emptyOutDir: true,
    target: 'es2022',
    // No inline content: the page's Content-Security-Policy forbids it.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
    sourcemap: false,
    // The licenses of what is in the bundle ask to be passed on with it.
    license: { fileName: 'licenses.md' },
    rolldownOptions: {
      onLog(level, log, handler) {
        // "use client" is for servers that render the components.
        if (log.code !== 'MODULE_LEVEL_DIRECTIVE') handler(level, log);
      },
    },
  },
  // `npm run dashboard:dev`: the page with hot reload, the API from `agentexec dashboard`.
  server: { proxy: { '^/api/': process.env.AGENTEXEC_API ?? 'http://127.0.0.1:8765' } },
});
