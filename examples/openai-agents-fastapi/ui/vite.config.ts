import react from '@vitejs/plugin-react';
import { defineConfig, loadEnv } from 'vite';

export default defineConfig(({ mode }) => {
  // Where the web app is while you work on the page: `npm run dev` here, `python run.py --no-page` one folder up.
  const target = loadEnv(mode, '.', 'API_').API_URL ?? 'http://127.0.0.1:8000';
  return {
    plugins: [react()],
    // agentexec-ui is a link to the repository's ui/, which has a React of its own for its tests.
    resolve: { dedupe: ['react', 'react-dom'] },
    server: {
      proxy: Object.fromEntries(['/api', '/research', '/comparisons', '/reports'].map((path) => [path, target])),
    },
  };
});
