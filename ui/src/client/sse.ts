/** One server-sent event. */
export interface ServerSentEvent {
  id: string | undefined;
  event: string;
  data: string;
}

/** Parser of an event stream. An event that is cut off at the end of the stream is dropped, as the standard says. */
export class EventStreamParser {
  /** Milliseconds after which the server wants clients to reconnect, if it has said so. */
  retry: number | undefined;
  #rest = '';
  #id: string | undefined;
  #event = '';
  #data: string[] = [];
  #begun = false;

  /** Id of the last event, or of the place in which the stream begins. */
  get lastEventId(): string | undefined {
    return this.#id;
  }

  /** Take the next piece of the stream, and return the events that it completes. */
  push(chunk: string): ServerSentEvent[] {
    let text = this.#rest + chunk;
    if (!this.#begun && text) {
      this.#begun = true;
      text = text.replace(/^\uFEFF/, '');
    }
    // A carriage return at the end may be half of a line end.
    const end = text.endsWith('\r') ? text.length - 1 : text.length;
    const lines = text.slice(0, end).split(/\r\n|\n|\r/);
    this.#rest = (lines.pop() ?? '') + text.slice(end);
    return lines.flatMap((line) => this.#line(line) ?? []);
  }

  #line(line: string): ServerSentEvent | undefined {
    if (line === '') return this.#dispatch();
    const colon = line.indexOf(':');
    if (colon === 0) return undefined;
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
    if (field === 'data') this.#data.push(value);
    else if (field === 'event') this.#event = value;
    else if (field === 'id' && !value.includes('\0')) this.#id = value;
    else if (field === 'retry' && /^\d+$/.test(value)) this.retry = Number(value);
    return undefined;
  }

  #dispatch(): ServerSentEvent | undefined {
    const data = this.#data;
    const event = this.#event || 'message';
    this.#data = [];
    this.#event = '';
    return data.length > 0 ? { id: this.#id, event, data: data.join('\n') } : undefined;
  }
}
