import type {
  ActivityDetail,
  ActivityList,
  Approval,
  ConversationMessage,
  HistoryItem,
  Status,
} from '../types/index.js';
import type { ApproveBody } from './api.js';

/** Which activities to list. Other keys are sent along, for filters of your own API. */
export interface ActivityFilters {
  page?: number | undefined;
  pageSize?: number | undefined;
  /** Cursor: `next_cursor` of the page before. */
  after?: string | undefined;
  status?: Status | readonly Status[] | undefined;
  taskName?: string | undefined;
  [name: string]: string | number | boolean | readonly string[] | undefined;
}

export interface ApprovalFilters {
  agentId?: string | undefined;
  limit?: number | undefined;
}

export interface RequestOptions {
  signal?: AbortSignal | undefined;
}

/** `body`: other arguments, a rule for calls like it, and why. */
export interface ApproveOptions extends RequestOptions {
  body?: ApproveBody | undefined;
}

export interface EventsOptions extends RequestOptions {
  /** Id of the last event that was received. */
  lastEventId?: string | undefined;
  /** False leaves out the text of the model. */
  deltas?: boolean | undefined;
}

/** A message to a conversation. */
export interface OutgoingMessage {
  text: string;
  /** What it does while a turn runs or waits; `queue` by default. */
  if_busy?: ConversationMessage['if_busy'] | undefined;
  /** A second message with the same key is not sent. */
  idempotency_key?: string | undefined;
}

/** Access to the API. Hooks and query options use it; replace single methods to adapt it to an API of your own. */
export interface Client {
  /** Identifies the API in query keys. */
  readonly baseUrl: string;
  activities(filters?: ActivityFilters, options?: RequestOptions): Promise<ActivityList>;
  activity(agentId: string, options?: RequestOptions): Promise<ActivityDetail>;
  approvals(filters?: ApprovalFilters, options?: RequestOptions): Promise<Approval[]>;
  approve(agentId: string, callId: string, options?: ApproveOptions): Promise<void>;
  reject(agentId: string, callId: string, message?: string, options?: RequestOptions): Promise<void>;
  /** Open the stream of a task's server-sent events. The response may be an error; its body has not been read. */
  events(agentId: string, options?: EventsOptions): Promise<Response>;
  /** Fetch the latest messages that were sent to a conversation. */
  messages(conversationId: string, options?: RequestOptions): Promise<ConversationMessage[]>;
  /** Fetch the latest items of a conversation's history. */
  history(conversationId: string, options?: RequestOptions): Promise<HistoryItem[]>;
  send(conversationId: string, message: OutgoingMessage, options?: RequestOptions): Promise<ConversationMessage>;
  /** Open the stream of a conversation's events, as `events` does that of a task. */
  conversationEvents(conversationId: string, options?: EventsOptions): Promise<Response>;
}

/** Paths of the API's endpoints, relative to the base URL. */
export interface Paths {
  activities: string;
  activity: (agentId: string) => string;
  events: (agentId: string) => string;
  approvals: string;
  approve: (agentId: string, callId: string) => string;
  reject: (agentId: string, callId: string) => string;
  conversation: (conversationId: string) => string;
}

export interface ClientOptions {
  /** Where the API is, such as `/api` or `https://example.com/api`. */
  baseUrl?: string;
  /** Headers of every request; a function is called before each, for tokens that expire. */
  headers?: HeadersInit | (() => HeadersInit | Promise<HeadersInit>);
  credentials?: RequestCredentials;
  paths?: Partial<Paths>;
  fetch?: typeof globalThis.fetch;
}

/** Answer of the API that is not a success. */
export class RequestError extends Error {
  override readonly name = 'RequestError';

  constructor(
    message: string,
    readonly status: number,
  ) {
    super(message);
  }

  /** True if the same request may succeed later. */
  get temporary(): boolean {
    return this.status >= 500 || [408, 425, 429].includes(this.status);
  }
}

const PATHS: Paths = {
  activities: '/activity',
  activity: (agentId) => `/activity/${encodeURIComponent(agentId)}`,
  events: (agentId) => `/activity/${encodeURIComponent(agentId)}/events`,
  approvals: '/approvals',
  approve: (agentId, callId) => `/approvals/${encodeURIComponent(agentId)}/${encodeURIComponent(callId)}/approve`,
  reject: (agentId, callId) => `/approvals/${encodeURIComponent(agentId)}/${encodeURIComponent(callId)}/reject`,
  conversation: (conversationId) => `/conversations/${encodeURIComponent(conversationId)}`,
};

/** What a request sends besides its path. */
export interface RequestParts {
  query?: object | undefined;
  body?: unknown;
}

interface Sender {
  readonly baseUrl: string;
  send(path: string, init: RequestInit, accept: string): Promise<Response>;
}

function createSender(options: ClientOptions): Sender {
  const baseUrl = (options.baseUrl ?? '').replace(/\/+$/, '');
  return {
    baseUrl,
    send: async (path, init, accept) => {
      const given = typeof options.headers === 'function' ? await options.headers() : options.headers;
      const headers = new Headers(given);
      for (const [name, value] of new Headers(init.headers)) headers.set(name, value);
      headers.set('Accept', accept);
      const request: RequestInit = { ...init, headers };
      if (options.credentials) request.credentials = options.credentials;
      // Looked up for each request, so that what replaces `fetch` later, such as a tracer, is used.
      return (options.fetch ?? globalThis.fetch)(baseUrl + path, request);
    },
  };
}

/** Return a function that sends a request to an API, and returns its answer. It rejects with a RequestError. */
export function createRequest(options: ClientOptions | Sender) {
  const { send } = 'send' in options ? options : createSender(options);
  return async <Answer>(
    method: 'GET' | 'POST' | 'DELETE',
    path: string,
    { query, body }: RequestParts = {},
    { signal }: RequestOptions = {},
  ): Promise<Answer> => {
    const init: RequestInit = { signal: signal ?? null };
    if (method !== 'GET') {
      init.method = method;
      // Also without a body: the API refuses the types that a form of another site can have.
      init.headers = { 'Content-Type': 'application/json' };
      if (method === 'POST') init.body = JSON.stringify(body ?? {});
    }
    const response = await send(path + queryString(query ?? {}), init, 'application/json');
    if (!response.ok) throw await requestError(response);
    return (response.status === 204 ? undefined : await response.json()) as Answer;
  };
}

/** Return a client of an API that has the paths of agentexec's FastAPI router, or those of `paths`. */
export function createClient(options: ClientOptions = {}): Client {
  const paths = { ...PATHS, ...options.paths };
  const sender = createSender(options);
  const request = createRequest(sender);
  const openStream = (path: string, { lastEventId, deltas, signal }: EventsOptions) =>
    sender.send(
      path + (deltas === false ? '?deltas=false' : ''),
      {
        headers: lastEventId === undefined ? {} : { 'Last-Event-ID': lastEventId },
        cache: 'no-store',
        signal: signal ?? null,
      },
      'text/event-stream',
    );
  return {
    baseUrl: sender.baseUrl,
    activities: (filters, options) => request('GET', paths.activities, { query: filters }, options),
    activity: (agentId, options) => request('GET', paths.activity(agentId), {}, options),
    approvals: (filters, options) => request('GET', paths.approvals, { query: filters }, options),
    approve: (agentId, callId, options) =>
      request('POST', paths.approve(agentId, callId), { body: options?.body }, options),
    reject: (agentId, callId, message, options) =>
      request('POST', paths.reject(agentId, callId), { body: message === undefined ? {} : { message } }, options),
    events: (agentId, options = {}) => openStream(paths.events(agentId), options),
    messages: (conversationId, options) =>
      request('GET', `${paths.conversation(conversationId)}/messages`, {}, options),
    history: (conversationId, options) => request('GET', `${paths.conversation(conversationId)}/history`, {}, options),
    send: (conversationId, message, options) =>
      request('POST', `${paths.conversation(conversationId)}/messages`, { body: message }, options),
    conversationEvents: (conversationId, options = {}) =>
      openStream(`${paths.conversation(conversationId)}/events`, options),
  };
}

/** Return the error for a response that is not a success, with the API's own sentence if it has one. */
export async function requestError(response: Response): Promise<RequestError> {
  let detail: unknown;
  try {
    detail = ((await response.json()) as { detail?: unknown } | null)?.detail;
  } catch {
    detail = undefined;
  }
  const text =
    typeof detail === 'string' ? detail : `The API answered ${response.status} ${response.statusText}`.trim();
  return new RequestError(text, response.status);
}

function queryString(filters: object): string {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(filters)) {
    const key = name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
    for (const item of Array.isArray(value) ? value : [value]) {
      if (item !== undefined && item !== null && item !== '') query.append(key, String(item));
    }
  }
  const text = query.toString();
  return text && `?${text}`;
}
