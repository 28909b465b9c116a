'use client';

import { useCallback, useEffect, useRef, useState } from 'react';
import { RequestError } from '../client/client.js';

/** Result of a hook that fetches. */
export interface Fetched<Data> {
  /** Latest data; it stays while it is fetched again and after errors. */
  data: Data | undefined;
  /** Reason why the latest request failed. */
  error: Error | undefined;
  /** True while there is neither data nor an error. */
  loading: boolean;
  /** Fetch at once. Resolves after the answer. */
  refetch: () => Promise<void>;
}

interface PolledOptions<Data> {
  enabled: boolean;
  /** Milliseconds until the next request; false for none. */
  interval: (data: Data | undefined) => number | false;
  /** Show the data of the former key until that of the new one has come. */
  keep?: boolean;
}

interface Shown<Data> {
  key: string;
  data: Data | undefined;
  error: Error | undefined;
}

/** Longest time between two requests after failures, in milliseconds. */
const MAX_DELAY = 60_000;

/** Fetch data, again and again; less often after failures, and not while the page is hidden. */
export function usePolled<Data>(
  key: string,
  fetchData: (signal: AbortSignal) => Promise<Data>,
  options: PolledOptions<Data>,
): Fetched<Data> {
  const { enabled, keep = false } = options;
  const [shown, setShown] = useState<Shown<Data>>({ key, data: undefined, error: undefined });
  const latest = useRef({ fetchData, interval: options.interval });
  const refetchNow = useRef<() => Promise<void>>(async () => {});

  useEffect(() => {
    latest.current = { fetchData, interval: options.interval };
  });

  useEffect(() => {
    if (!enabled) return undefined;
    let request = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    let failures = 0;
    let stopped = false;
    let data: Data | undefined;

    const run = async () => {
      clearTimeout(timer);
      request.abort();
      request = new AbortController();
      const { signal } = request;
      let delay: number | false;
      try {
        const found = await latest.current.fetchData(signal);
        if (signal.aborted) return;
        data = found;
        failures = 0;
        setShown({ key, data, error: undefined });
        delay = latest.current.interval(data);
      } catch (reason) {
        if (signal.aborted) return;
        failures += 1;
        const error = reason instanceof Error ? reason : new Error(String(reason));
        setShown((before) => ({ key, data: keep || before.key === key ? before.data : undefined, error }));
        const refused = error instanceof RequestError && !error.temporary;
        delay = refused ? false : latest.current.interval(data);
      }
      if (delay !== false && !stopped) timer = setTimeout(runIfVisible, Math.min(MAX_DELAY, delay * 2 ** failures));
    };
    let due = false;
    const runIfVisible = () => {
      due = document.hidden;
      if (!due) void run();
    };
    const onVisible = () => {
      if (due && !document.hidden) runIfVisible();
    };

    refetchNow.current = run;
    void run();
    document.addEventListener('visibilitychange', onVisible);
    return () => {
      stopped = true;
      clearTimeout(timer);
      request.abort();
      document.removeEventListener('visibilitychange', onVisible);
      refetchNow.current = async () => {};
    };
  }, [key, enabled, keep]);

  const refetch = useCallback(() => refetchNow.current(), []);
  const current = shown.key === key;
  const data = current || keep ? shown.data : undefined;
  const error = current ? shown.error : undefined;
  return { data, error, loading: enabled && data === undefined && error === undefined, refetch };
}
