import { act } from '@testing-library/react';
import { useActivities, useActivityStream } from 'agentexec-ui';
import { hydrateRoot } from 'react-dom/client';
import { renderToString } from 'react-dom/server';
import { expect, test, vi } from 'vitest';
import { GALLERY } from './gallery.js';

test.each(Object.entries(GALLERY))(
  '%s is rendered on a server, and taken over in the browser',
  async (_name, content) => {
    const page = document.createElement('div');
    page.innerHTML = renderToString(content);
    document.body.append(page);
    const complaints = vi.spyOn(console, 'error').mockImplementation(() => {});
    const root = await act(async () =>
      hydrateRoot(page, content, { onRecoverableError: (error) => complaints(error) }),
    );
    expect(complaints.mock.calls).toEqual([]);
    act(() => root.unmount());
    page.remove();
  },
);

function Page() {
  const tasks = useActivities();
  const { connection } = useActivityStream('a');
  return `${tasks.loading} ${connection}`;
}

test('hooks render on a server, and fetch nothing there', () => {
  const fetched = vi.fn();
  vi.stubGlobal('fetch', fetched);
  expect(renderToString(<Page />)).toBe('true connecting');
  expect(fetched).not.toHaveBeenCalled();
});
