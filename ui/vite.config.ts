import { fileURLToPath } from 'node:url';
import { defineConfig, type Plugin } from 'vite';
import { styleSheet } from './scripts/styles.mjs';

const styles: Plugin = {
  name: 'agentexec-ui:styles',
  generateBundle() {
    this.emitFile({ type: 'asset', fileName: 'styles.css', source: styleSheet() });
    // For `import 'agentexec-ui/styles.css'` under TypeScript's noUncheckedSideEffectImports.
    this.emitFile({ type: 'asset', fileName: 'styles.d.ts', source: 'export {};\n' });
  },
};

export default defineConfig({
  logLevel: 'warn',
  plugins: [styles],
  build: {
    lib: {
      entry: fileURLToPath(new URL('src/index.ts', import.meta.url)),
      formats: ['es'],
    },
    target: 'es2022',
    minify: false,
    reportCompressedSize: false,
    sourcemap: false,
    rolldownOptions: {
      external: [/^react($|\/)/],
      // A file for each module: bundlers drop what is not imported, and each file keeps its own "use client".
      output: { preserveModules: true, preserveModulesRoot: 'src', entryFileNames: '[name].js' },
      onLog(level, log, handler) {
        // They are kept, which scripts/package.mjs checks.
        if (log.code !== 'MODULE_LEVEL_DIRECTIVE') handler(level, log);
      },
    },
  },
});
