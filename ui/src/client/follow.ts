import { isFinal } from '../status.js';
import type { ActivityDetail, ActivityEvent } from '../types/index.js';
import { type Client, RequestError, requestError } from './client.js';
import { EventStreamParser } from './sse.js';

/**
 * State of the connection to a task's events.
 *
 * - `connecting`: the first attempt
 * - `open`: events arrive as they happen
 * - `retrying`: the connection was lost and is made again
 * - `polling`: the stream cannot be opened, so the task is fetched again and again
 * - `closed`: the task has ended, or the API has refused
 */
export type ConnectionState = 'connecting' | 'open' | 'retrying' | 'polling' | 'closed';

export interface FollowOptions {
  /** Id of the last event that was received before. */
  after?: string | undefined;
  /** False leaves out the text of the model. */
  deltas?: boolean | undefined;
  signal: AbortSignal;
  onEvents: (events: ActivityEvent[]) => void;
  onConnection?: (state: ConnectionState) => void;
  /** Called with the task while it is polled. */
  onActivity?: (activity: ActivityDetail) => void;
  /** Number of connections in a row that fail before the task is polled. */
  failuresBeforePolling?: number;
  /** Milliseconds between two polls. */
  pollInterval?: number;
  /** Milliseconds before the first new connection; doubled after each failure. The server may name another number. */
  retryDelay?: number;
  /** Maximum of milliseconds between two connections. */
  maxRetryDelay?: number;
  /** Milliseconds without a byte after which a connection counts as lost; the server sends one every 15 seconds. */
  silence?: number;
  /** Random number from 0 to 1, which spreads the connections of many clients. */
  random?: () => number;
}

/**
 * Read the events of a task until it has ended. Lost connections resume after the last event, so that no log line is
 * lost or doubled.
 *
 * Resolves when the task has ended or `signal` is aborted. Rejects if the API refuses the request.
 */
export async function followActivity(client: Client, agentId: string, options: FollowOptions): Promise<void> {
  const { signal, random = Math.random, failuresBeforePolling = 3, maxRetryDelay = 30_000 } = options;
  const connection = new Connection(client, agentId, options);
  let failures = 0;
  let state: ConnectionState | undefined;
  const tell = (next: ConnectionState) => {
    if (next !== state && !signal.aborted) options.onConnection?.(next);
    state = next;
  };

  tell('connecting');
  while (!signal.aborted) {
    const outcome = await connection.read(() => {
      failures = 0;
      tell('open');
    });
    if (outcome === 'ended') return tell('closed');
    if (outcome instanceof RequestError && !outcome.temporary) {
      tell('closed');
      throw outcome;
    }
    failures += 1;
    const delay = Math.min(maxRetryDelay, connection.retryDelay * 2 ** (failures - 1)) * (0.5 + random() / 2);
    if (failures < failuresBeforePolling) {
      tell('retrying');
      await pause(delay, signal);
    } else {
      tell('polling');
      if (await poll(client, agentId, options, delay)) return tell('closed');
    }
  }
}

/** Milliseconds without a byte after which a connection counts as lost; the server sends one every 15 seconds. */
export const SILENCE = 45_000;

/** Milliseconds until the first byte after which a connection counts as failed. */
export const FIRST_BYTE = 15_000;

class Connection {
  retryDelay: number;
  #lastEventId: string | undefined;
  readonly #client: Client;
  readonly #agentId: string;
  readonly #options: FollowOptions;

  constructor(client: Client, agentId: string, options: FollowOptions) {
    this.#client = client;
    this.#agentId = agentId;
    this.#options = options;
    this.#lastEventId = options.after;
    this.retryDelay = options.retryDelay ?? 1000;
  }

  /** Read events until the connection ends. Return `ended` after the last event of the task, else an error or `lost`. */
  async read(onOpen: () => void): Promise<'ended' | 'lost' | RequestError> {
    const { signal, silence = SILENCE, deltas } = this.#options;
    // The server sends its first byte at once; a proxy that holds it back would hold back everything.
    const watchdog = new Watchdog(signal, Math.min(silence, FIRST_BYTE));
    try {
      const response = await this.#client.events(this.#agentId, {
        lastEventId: this.#lastEventId,
        deltas,
        signal: watchdog.signal,
      });
      if (response.status === 204) return 'ended';
      if (!response.ok) return await requestError(response);
      // A login page or a development server that answers every path with its own page.
      if (!response.headers.get('content-type')?.startsWith('text/event-stream') || !response.body) return 'lost';
      return await this.#frames(response.body, watchdog, onOpen);
    } catch {
      return 'lost';
    } finally {
      watchdog.stop();
    }
  }

  async #frames(body: ReadableStream<Uint8Array>, watchdog: Watchdog, onOpen: () => void): Promise<'ended' | 'lost'> {
    const reader = body.getReader();
    const parser = new EventStreamParser();
    const decoder = new TextDecoder();
    try {
      for (;;) {
        const { done, value } = await reader.read();
        if (done || watchdog.signal.aborted) return 'lost';
        watchdog.reset(this.#options.silence ?? SILENCE);
        const frames = parser.push(decoder.decode(value, { stream: true }));
        // Not before the first byte: a proxy may have answered, and keep back what follows.
        onOpen();
        this.retryDelay = Math.max(this.#options.retryDelay ?? 0, parser.retry ?? this.retryDelay);
        const events: ActivityEvent[] = [];
        for (const frame of frames) {
          const event = readEvent(frame.data);
          if (event === undefined || event.id === this.#lastEventId) continue;
          this.#lastEventId = event.id;
          events.push(event);
        }
        if (events.length > 0) this.#options.onEvents(events);
        if (events.some((event) => isFinalEvent(event))) return 'ended';
      }
    } finally {
      reader.cancel().catch(() => {});
    }
  }
}

/** Signal that is aborted with another one, or after a silence. */
export class Watchdog {
  readonly #controller = new AbortController();
  #timer: ReturnType<typeof setTimeout> | undefined;
  readonly #abort = () => this.#controller.abort();
  readonly #outer: AbortSignal;

  constructor(outer: AbortSignal, silence: number) {
    this.#outer = outer;
    if (outer.aborted) this.#abort();
    outer.addEventListener('abort', this.#abort);
    this.reset(silence);
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  reset(silence: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(this.#abort, silence);
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#outer.removeEventListener('abort', this.#abort);
  }
}

/** Fetch the task again and again for a time. Return true if it has ended. */
async function poll(client: Client, agentId: string, options: FollowOptions, time: number): Promise<boolean> {
  const { signal, pollInterval = 3000, onActivity } = options;
  for (let left = Math.max(time, pollInterval); left > 0 && !signal.aborted; left -= pollInterval) {
    try {
      const activity = await client.activity(agentId, { signal });
      if (signal.aborted) return false;
      onActivity?.(activity);
      if (isFinal(activity.status)) return true;
    } catch (error) {
      if (error instanceof RequestError && !error.temporary) throw error;
    }
    await pause(pollInterval, signal);
  }
  return false;
}

/** Wait, but not while there is nothing to wait for: the network has come back, or the signal is aborted. */
export function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const events = typeof window === 'undefined' ? undefined : window;
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', done);
      events?.removeEventListener('online', done);
      resolve();
    };
    const timer = setTimeout(done, milliseconds);
    signal.addEventListener('abort', done);
    events?.addEventListener('online', done);
    if (signal.aborted) done();
  });
}

function readEvent(data: string): ActivityEvent | undefined {
  try {
    const event = JSON.parse(data) as Partial<ActivityEvent> | null;
    if (typeof event?.id !== 'string' || typeof event.type !== 'string' || typeof event.at !== 'string')
      return undefined;
    return { ...(event as ActivityEvent), data: event.data && typeof event.data === 'object' ? event.data : {} };
  } catch {
    return undefined;
  }
}

/** Return true for the event that ends a task's stream. */
export function isFinalEvent(event: ActivityEvent): boolean {
  return event.type === 'result' || event.type === 'error' || event.type === 'canceled';
}
