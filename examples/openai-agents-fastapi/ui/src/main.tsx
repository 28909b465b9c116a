import { QueryClient, QueryClientProvider } from '@tanstack/react-query';
import { AgentexecProvider, createClient } from 'agentexec-ui';
import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';
import { App } from './App';
import 'agentexec-ui/styles.css';
import './app.css';

const queries = new QueryClient();
const client = createClient({ baseUrl: '/api' });
const root = document.getElementById('root');
if (!root) throw new Error('The page has no element #root.');

createRoot(root).render(
  <StrictMode>
    <QueryClientProvider client={queries}>
      <AgentexecProvider client={client}>
        <App />
      </AgentexecProvider>
    </QueryClientProvider>
  </StrictMode>,
);
