import { type ActivityEvent, type Client, createClient } from 'agentexec-ui';

/** Frame of an event, as `agentexec.contrib.fastapi` sends it. */
export function frame(event: ActivityEvent): string {
  const name = event.type === 'error' ? 'failed' : event.type;
  return `id: ${event.id}\nevent: ${name}\ndata: ${JSON.stringify(event)}\n\n`;
}

/** Response that streams text; without `end` it stays open. */
export function stream(
  parts: readonly string[],
  { end = true, signal }: { end?: boolean; signal?: AbortSignal | null } = {},
) {
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      for (const part of parts) controller.enqueue(new TextEncoder().encode(part));
      if (end) controller.close();
      signal?.addEventListener('abort', () => {
        try {
          controller.error(new DOMException('aborted', 'AbortError'));
        } catch {}
      });
    },
  });
  return new Response(body, { headers: { 'content-type': 'text/event-stream; charset=utf-8' } });
}

export interface Call {
  method: string;
  url: string;
  headers: Headers;
  body: unknown;
  signal: AbortSignal | null;
}

/** Client whose requests a function answers; it sees how many came before to the same path. */
export function fakeApi(answer: (call: Call, before: number) => Response | Promise<Response> | Error) {
  const calls: Call[] = [];
  const client: Client = createClient({
    baseUrl: '/api',
    fetch: async (url, init = {}) => {
      const call: Call = {
        method: init.method ?? 'GET',
        url: String(url),
        headers: new Headers(init.headers),
        body: typeof init.body === 'string' ? JSON.parse(init.body) : undefined,
        signal: init.signal ?? null,
      };
      const path = call.url.split('?', 1)[0];
      const before = calls.filter((other) => other.url.split('?', 1)[0] === path).length;
      calls.push(call);
      const response = await answer(call, before);
      if (response instanceof Error) throw response;
      if (call.signal?.aborted) throw new DOMException('aborted', 'AbortError');
      return response;
    },
  });
  const to = (path: string) => calls.filter((call) => call.url.split('?', 1)[0] === `/api${path}`);
  return { client, calls, to };
}

export function json(value: unknown, status = 200): Response {
  return new Response(JSON.stringify(value), { status, headers: { 'content-type': 'application/json' } });
}
