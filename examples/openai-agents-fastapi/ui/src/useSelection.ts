import { useCallback, useSyncExternalStore } from 'react';

export interface Selection {
  taskId: string | null;
  chatId: string | null;
}

/** What is selected, which is kept in the address: `#task=…` and `#chat=…` can be shared, and Back works. */
export function useSelection(): [Selection, (kind: 'task' | 'chat', id: string | null) => void] {
  const hash = useSyncExternalStore(subscribe, () => window.location.hash);
  const select = useCallback((kind: 'task' | 'chat', id: string | null) => {
    window.location.hash = id ? `${kind}=${encodeURIComponent(id)}` : '';
  }, []);
  const selected = new URLSearchParams(hash.slice(1));
  return [{ taskId: selected.get('task'), chatId: selected.get('chat') }, select];
}

function subscribe(onChange: () => void): () => void {
  window.addEventListener('hashchange', onChange);
  return () => window.removeEventListener('hashchange', onChange);
}
