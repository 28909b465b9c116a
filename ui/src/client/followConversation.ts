import type { ConversationEvent } from '../types/index.js';
import { type Client, RequestError, requestError } from './client.js';
import { FIRST_BYTE, pause, SILENCE, Watchdog } from './follow.js';
import { EventStreamParser } from './sse.js';

export interface FollowConversationOptions {
  signal: AbortSignal;
  onEvents: (events: ConversationEvent[]) => void;
  /** Called when a connection is there: what happens from now on is in its events. */
  onOpen?: () => void;
  /** Called when a connection is lost; it is made again. */
  onLost?: () => void;
  /** Milliseconds before the first new connection; doubled after each failure, up to 30 seconds. */
  retryDelay?: number;
}

const MAX_DELAY = 30_000;

/**
 * Read the events of a conversation across its turns, from the turn that runs or the next one on. Lost connections, and those
 * that the server has ended, resume after the last event.
 *
 * Resolves when `signal` is aborted. Rejects if the API refuses the request.
 */
export async function followConversation(
  client: Client,
  conversationId: string,
  options: FollowConversationOptions,
): Promise<void> {
  const { signal, retryDelay = 1000 } = options;
  let lastEventId: string | undefined;
  let failures = 0;
  while (!signal.aborted) {
    const watchdog = new Watchdog(signal, FIRST_BYTE);
    try {
      const response = await client.conversationEvents(conversationId, { lastEventId, signal: watchdog.signal });
      if (!response.ok) throw await requestError(response);
      const parser = new EventStreamParser();
      for await (const text of texts(response, watchdog)) {
        const frames = parser.push(text);
        if (failures >= 0) options.onOpen?.();
        failures = -1;
        lastEventId = parser.lastEventId ?? lastEventId;
        const events = frames.flatMap((frame) => readEvent(frame.data) ?? []);
        if (events.length > 0) options.onEvents(events);
      }
    } catch (error) {
      if (error instanceof RequestError && !error.temporary) throw error;
    } finally {
      watchdog.stop();
    }
    if (signal.aborted) return;
    options.onLost?.();
    failures = Math.max(failures, 0) + 1;
    await pause(Math.min(MAX_DELAY, retryDelay * 2 ** (failures - 1)) * (0.5 + Math.random() / 2), signal);
  }
}

/** Yield the text of a stream as it comes, until it ends or is silent for too long. */
async function* texts(response: Response, watchdog: Watchdog): AsyncGenerator<string> {
  if (!response.headers.get('content-type')?.startsWith('text/event-stream') || !response.body) return;
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done || watchdog.signal.aborted) return;
      watchdog.reset(SILENCE);
      yield decoder.decode(value, { stream: true });
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function readEvent(data: string): ConversationEvent | undefined {
  try {
    const event = JSON.parse(data) as Partial<ConversationEvent> | null;
    if (typeof event?.id !== 'string' || typeof event.type !== 'string' || typeof event.agent_id !== 'string')
      return undefined;
    return { ...(event as ConversationEvent), data: event.data && typeof event.data === 'object' ? event.data : {} };
  } catch {
    return undefined;
  }
}
