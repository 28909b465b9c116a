import { AgentexecProvider } from 'agentexec-ui';
import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';
import { App } from './App.js';
import { client } from './data.js';
import { applyTheme } from './theme.js';
import 'agentexec-ui/styles.css';
import './styles/page.css';
import './styles/parts.css';
import './styles/views.css';

applyTheme();
createRoot(document.getElementById('root') as HTMLElement).render(
  <StrictMode>
    <AgentexecProvider client={client}>
      <App />
    </AgentexecProvider>
  </StrictMode>,
);
