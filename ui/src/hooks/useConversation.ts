'use client';

import { useCallback, useEffect, useMemo, useRef, useState } from 'react';
import {
  afterEvent,
  afterFetch,
  afterMessages,
  afterSending,
  type ChatEntry,
  type ChatState,
  EMPTY_CHAT,
  entriesOf,
} from '../client/chatState.js';
import type { Client } from '../client/client.js';
import { followConversation } from '../client/followConversation.js';
import type { ConversationMessage } from '../types/index.js';
import { useClient } from './AgentexecProvider.js';

/** Events that come after a model call has begun. */
const FOLLOW_A_CALL: ReadonlySet<string> = new Set(['tool_called', 'usage', 'status']);

export interface ChatOptions {
  client?: Client | undefined;
  /** Milliseconds before a lost connection is made again. */
  retryDelay?: number | undefined;
}

export interface Chat {
  /** What was said and done, oldest first, with the turn that runs. */
  entries: readonly ChatEntry[];
  /** Messages that wait for their turns. */
  waiting: readonly ConversationMessage[];
  /** Task of the turn that runs or waits. */
  agentId: string | undefined;
  /** What the turn waits for, such as an approval. */
  status: string;
  /** True while a turn runs or a message waits. */
  busy: boolean;
  loading: boolean;
  /** True while the connection is made again. */
  lost: boolean;
  /** Why the API refuses the conversation. */
  error: Error | undefined;
  /** Send a message. Rejects if the API refuses it. */
  send: (text: string, ifBusy?: ConversationMessage['if_busy']) => Promise<void>;
}

interface Shown {
  key: string;
  state: ChatState;
  loading: boolean;
  lost: boolean;
  error: Error | undefined;
}

const newShown = (key: string): Shown => ({ key, state: EMPTY_CHAT, loading: true, lost: false, error: undefined });

/** Follow a conversation across its turns, and send messages to it. */
export function useConversation(conversationId: string, options: ChatOptions = {}): Chat {
  const { retryDelay } = options;
  const client = useClient(options.client);
  const key = JSON.stringify([client.baseUrl, conversationId]);
  const [kept, setShown] = useState(() => newShown(key));
  const shown = kept.key === key ? kept : newShown(key);
  const latest = useRef(client);
  const draft = useRef<{ text: string; key: string }>(undefined);
  useEffect(() => {
    latest.current = client;
  });
  const change = useCallback(
    (make: (before: Shown) => Partial<Shown>) =>
      setShown((before) => {
        const current = before.key === key ? before : newShown(key);
        return { ...current, ...make(current) };
      }),
    [key],
  );

  useEffect(() => {
    const stop = new AbortController();
    const { signal } = stop;
    const ended = new Set<string>();
    let writes = false;
    const load = async () => {
      const before = new Set(ended);
      const options = { signal };
      try {
        const [history, messages] = await Promise.all([
          latest.current.history(conversationId, options),
          latest.current.messages(conversationId, options),
        ]);
        if (signal.aborted) return;
        change(({ state }) => ({ state: afterFetch(state, before, history, messages), loading: false }));
      } catch {
        // The stream tells what is wrong, and loads again once it is open.
      }
    };
    // Messages join before a model call, and no event tells of it while the turn lasts. What the call writes may be seen first, or
    // its usage, or that the turn waits again. Each is looked at: an earlier look may have come before the message has joined.
    const findJoined = async () => {
      try {
        const messages = await latest.current.messages(conversationId, { signal });
        if (!signal.aborted) change(({ state }) => ({ state: afterMessages(state, messages) }));
      } catch {
        // The history has them when the turn has ended.
      }
    };
    followConversation(latest.current, conversationId, {
      signal,
      ...(retryDelay === undefined ? {} : { retryDelay }),
      onOpen: () => {
        change(() => ({ lost: false }));
        void load();
      },
      onLost: () => change(() => ({ lost: true })),
      onEvents: (events) => {
        change(({ state }) => ({ state: events.reduce(afterEvent, state) }));
        const begins = events.filter(({ type }) => {
          const begun = FOLLOW_A_CALL.has(type) || (type === 'text_delta' && !writes);
          writes = type === 'text_delta';
          return begun;
        });
        if (begins.length > 0) void findJoined();
        const ends = events.filter(({ type }) => type === 'result' || type === 'error' || type === 'canceled');
        for (const { agent_id: agentId } of ends) ended.add(agentId);
        if (ends.length > 0) void load();
      },
    }).catch((error: Error) => {
      if (!signal.aborted) change(() => ({ error, loading: false }));
    });
    return () => stop.abort();
  }, [conversationId, change, retryDelay]);

  const send = useCallback(
    async (text: string, ifBusy: ConversationMessage['if_busy'] = 'queue') => {
      // The same message again, after an answer that was lost, is sent once.
      if (draft.current?.text !== text) draft.current = { text, key: `${Date.now()} ${Math.random()}` };
      const message = { text, if_busy: ifBusy, idempotency_key: draft.current.key };
      const sent = await latest.current.send(conversationId, message);
      draft.current = undefined;
      change(({ state }) => ({ state: afterSending(state, sent) }));
    },
    [conversationId, change],
  );

  const { state, loading, lost, error } = shown;
  const entries = useMemo(() => entriesOf(state), [state]);
  const turn = state.turns.find(({ ended }) => !ended);
  return {
    entries,
    waiting: state.waiting,
    agentId: turn?.agentId,
    status: turn?.status ?? '',
    busy: turn !== undefined || state.waiting.length > 0,
    loading,
    lost,
    error,
    send,
  };
}
