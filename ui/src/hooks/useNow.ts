'use client';

import { useSyncExternalStore } from 'react';

/** Return the current time, in milliseconds, renewed every `interval` ms; 0 on a server and in the first render of its page. */
export function useNow(interval = 10_000): number {
  return useSyncExternalStore(
    (changed) => {
      const timer = setInterval(changed, interval);
      return () => clearInterval(timer);
    },
    // Rounded, because the value must not change between two calls of one render.
    () => Math.floor(Date.now() / 1000) * 1000,
    () => 0,
  );
}
