'use client';

import { useCallback, useEffect, useRef, useState, useSyncExternalStore } from 'react';
import type { Client } from '../client/client.js';
import { followActivity } from '../client/follow.js';
import { type StreamState, StreamStore } from '../client/streamState.js';
import { useClient } from './AgentexecProvider.js';

export interface ActivityStreamOptions {
  client?: Client | undefined;
  /** False closes the stream. */
  enabled?: boolean | undefined;
  /** False leaves out the text of the model. */
  deltas?: boolean | undefined;
  /** Milliseconds between two requests while the stream cannot be opened. */
  pollInterval?: number | undefined;
}

/** State of a stream, and the reason if the API refuses it. */
export interface ActivityStream extends StreamState {
  refusal: Error | undefined;
  /** Follow a task further that had ended, once it has been retried. */
  reconnect: () => void;
}

/**
 * Follow a task: its log, text, tool calls and result, as they happen.
 *
 * A lost connection resumes where it was; if none can be made, the task is fetched every few seconds instead.
 */
export function useActivityStream(
  agentId: string | null | undefined,
  options: ActivityStreamOptions = {},
): ActivityStream {
  const { enabled = true, deltas, pollInterval } = options;
  const client = useClient(options.client);
  const key = JSON.stringify([client.baseUrl, agentId, deltas]);
  const [followed, setFollowed] = useState(() => ({ key, store: new StreamStore() }));
  const [round, setRound] = useState(0);
  const [refused, setRefused] = useState<{ key: string; error: Error }>();

  // Another task begins with an empty state, in this very render.
  let current = followed;
  if (followed.key !== key) {
    current = { key, store: new StreamStore() };
    setFollowed(current);
  }
  const { store } = current;

  // An application may make its client anew in each render; only another API is a reason to connect again.
  const latest = useRef(client);
  useEffect(() => {
    latest.current = client;
  });

  // biome-ignore lint/correctness/useExhaustiveDependencies: each round connects again.
  useEffect(() => {
    if (!enabled || !agentId) return undefined;
    const stop = new AbortController();
    const after = store.snapshot().events.at(-1)?.id;
    setRefused(undefined);
    followActivity(latest.current, agentId, {
      signal: stop.signal,
      ...(after === undefined ? {} : { after }),
      ...(deltas === undefined ? {} : { deltas }),
      ...(pollInterval === undefined ? {} : { pollInterval }),
      onEvents: (events) => store.addEvents(events),
      onActivity: (activity) => store.setActivity(activity),
      onConnection: (connection) => store.setConnection(connection),
    }).catch((error: Error) => {
      if (!stop.signal.aborted) setRefused({ key, error });
    });
    return () => stop.abort();
  }, [agentId, enabled, deltas, pollInterval, store, key, round]);

  const state = useSyncExternalStore(store.subscribe, store.snapshot, store.snapshot);
  const reconnect = useCallback(() => setRound((before) => before + 1), []);
  return { ...state, refusal: refused?.key === key ? refused.error : undefined, reconnect };
}
