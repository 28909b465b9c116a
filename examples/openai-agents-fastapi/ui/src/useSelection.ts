import { useCallback, useSyncExternalStore } from 'react';

/** The selected task, which is kept in the address: `#task=…` can be shared, and Back works. */
export function useSelection(): [string | null, (agentId: string | null) => void] {
  const hash = useSyncExternalStore(subscribe, () => window.location.hash);
  const select = useCallback((agentId: string | null) => {
    window.location.hash = agentId ? `task=${agentId}` : '';
  }, []);
  return [new URLSearchParams(hash.slice(1)).get('task'), select];
}

function subscribe(onChange: () => void): () => void {
  window.addEventListener('hashchange', onChange);
  return () => window.removeEventListener('hashchange', onChange);
}
