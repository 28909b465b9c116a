import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

const path = (name: string) => fileURLToPath(new URL(name, import.meta.url));

const alias = { 'agentexec-ui': path('src/index.ts') };

// Its own folder, because React 18's react-dom must find React 18 by itself.
const react18 = Object.fromEntries(
  ['react', 'react-dom', '@testing-library/react'].map((name) => [name, path(`tests/react18/node_modules/${name}`)]),
);

const test = {
  environment: 'jsdom',
  include: ['tests/*.test.{ts,tsx}'],
  setupFiles: ['tests/setup.ts'],
  // Style sheets are read as they are.
  css: true,
  // So that it finds the React of the project.
  server: { deps: { inline: ['@tanstack/react-query'] } },
  restoreMocks: true,
  isolate: false,
  testTimeout: 30_000,
};

export default defineConfig({
  test: {
    maxWorkers: 1,
    projects: [
      { resolve: { alias }, test: { ...test, name: 'react-19', env: { VITE_REACT: '19' } } },
      { resolve: { alias }, test: { ...test, name: 'dashboard', include: ['dashboard/tests/*.test.{ts,tsx}'] } },
      {
        resolve: { alias: { ...alias, ...react18 } },
        test: { ...test, name: 'react-18', env: { VITE_REACT: '18' }, include: ['tests/*.test.tsx'] },
      },
    ],
  },
});
