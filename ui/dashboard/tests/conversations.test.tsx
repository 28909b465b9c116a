import { render, screen } from '@testing-library/react';
import { AgentexecProvider } from 'agentexec-ui';
import { expect, test, vi } from 'vitest';
import { client } from '../src/data.js';
import { MeContext } from '../src/rights.js';
import { ConversationsView, ConversationView } from '../src/views/ConversationsView.js';

const json = (value: unknown) =>
  new Response(JSON.stringify(value), { headers: { 'content-type': 'application/json' } });

test('conversations are listed, and lead to their pages', async () => {
  const found = { id: 'support:42/a', task: 'support', messages: 1234, updated_at: '2026-11-24T21:49:00Z' };
  vi.stubGlobal('fetch', async () => json([found]));
  render(<ConversationsView />);
  const link = await screen.findByRole('link', { name: 'support:42/a' });
  expect(link.getAttribute('href')).toBe('/conversations/support%3A42%2Fa');
  expect(screen.getByText('1,234')).toBeTruthy();
});

test('who may not act only reads a conversation', async () => {
  vi.stubGlobal('fetch', async () => json([]));
  for (const rights of [['read'], ['read', 'act']] as const) {
    const { unmount } = render(
      <AgentexecProvider client={client}>
        <MeContext.Provider value={{ name: null, rights, scoped: false }}>
          <ConversationView conversationId="support:42" />
        </MeContext.Provider>
      </AgentexecProvider>,
    );
    expect(screen.getByRole('heading', { name: 'support:42' })).toBeTruthy();
    expect(screen.queryByLabelText('Message') !== null).toBe(rights.length === 2);
    unmount();
  }
});
