import { parseTime } from './format.js';
import { isFinal } from './status.js';
import type { ActivityEvent, ActivityLog, EventType } from './types/index.js';

export type TimelineKind = 'wait' | 'attempt' | 'agent' | 'turn' | 'tool' | 'approval' | 'log' | 'dropped' | 'end';

export type TimelineStatus = 'running' | 'waiting' | 'done' | 'failed' | 'canceled';

/** Tokens of model calls. */
export interface TimelineUsage {
  model: string | undefined;
  input_tokens: number;
  cached_tokens: number;
  output_tokens: number;
}

/** Part of a run, with the parts that happened inside it. */
export interface TimelineEntry {
  id: string;
  kind: TimelineKind;
  label: string;
  status: TimelineStatus;
  /** Start in milliseconds since 1970. */
  start: number;
  /** End; null while it goes on. */
  end: number | null;
  usage: TimelineUsage | undefined;
  /** Dollars, of this part alone; undefined if there is no usage, null if the price is not known. */
  cost: number | null | undefined;
  /** Arguments of a tool, as JSON, or text of the model. */
  input: string | undefined;
  output: string | undefined;
  children: TimelineEntry[];
}

export interface TimelineOptions {
  /** Return the price of a model call in dollars, or null if it is not known. */
  priceOf?: ((usage: TimelineUsage) => number | null) | undefined;
}

/** Return the parts of a task's run, in order, from its events. */
export function buildTimeline(events: readonly ActivityEvent[], options: TimelineOptions = {}): TimelineEntry[] {
  const builder = new Builder(options);
  for (const event of inOrder(events)) builder.add(event);
  return builder.entries;
}

/** Return events by their time. Who comes late gets the log of the past first, and then the live events between its lines. */
function inOrder(events: readonly ActivityEvent[]): readonly ActivityEvent[] {
  let last = Number.NEGATIVE_INFINITY;
  const timed = events.map((event) => {
    const at = parseTime(event.at);
    if (!Number.isNaN(at)) last = at;
    return { event, at: last };
  });
  if (timed.every(({ at }, index) => index === 0 || at >= (timed[index - 1]?.at ?? at))) return events;
  return timed.sort((one, other) => one.at - other.at).map(({ event }) => event);
}

/** Return the events that a log tells, for tasks whose live events are gone. */
export function eventsFromLogs(logs: readonly ActivityLog[]): ActivityEvent[] {
  return logs.map((line, index) => {
    const before = logs[index - 1];
    const changed = before === undefined || before.status !== line.status || line.status === 'queued';
    return { id: String(line.id), type: eventType(line, changed), at: line.created_at, data: { ...line } };
  });
}

function eventType(line: ActivityLog, changed: boolean): EventType {
  if (isFinal(line.status)) return line.status === 'complete' ? 'result' : (line.status as 'error' | 'canceled');
  const answer = /^(Approved|Rejected)(?: by .{1,200}?)?: /.test(line.message);
  return changed && !answer ? 'status' : 'log';
}

class Builder {
  readonly entries: TimelineEntry[] = [];
  readonly #priceOf: TimelineOptions['priceOf'];
  #attempt: TimelineEntry | undefined;
  #agent: TimelineEntry | undefined;
  #turn: TimelineEntry | undefined;
  #wait: TimelineEntry | undefined;
  readonly #tools = new Map<string, TimelineEntry>();
  #attempts = 0;
  #turns = 0;
  #failed = true;
  #last = 0;
  #ids = 0;

  constructor(options: TimelineOptions) {
    this.#priceOf = options.priceOf;
  }

  add(event: ActivityEvent): void {
    const at = parseTime(event.at);
    switch (event.type) {
      case 'status':
        if (event.data.status === 'running') this.#start(at);
        else this.#requeue(text(event.data.message), at);
        break;
      case 'log':
        this.#log(text(event.data.message), at);
        break;
      case 'agent':
        this.#endAgent(at);
        this.#agent = this.#open('agent', text(event.data.agent), at, this.#attempt);
        break;
      case 'text_delta':
        this.#write(text(event.data.text), at);
        break;
      case 'tool_called':
        this.#callTool(event, at);
        break;
      case 'tool_output':
        this.#endTool(event, at);
        break;
      case 'usage':
        this.#use(event, at);
        break;
      case 'dropped':
        this.#point('dropped', droppedLabel(event.data.events), at);
        break;
      case 'result':
      case 'error':
      case 'canceled':
        this.#end(event, at);
        break;
    }
    this.#last = Math.max(this.#last, parseTime(text(event.data.until)) || at);
  }

  #start(at: number): void {
    this.#endWait(at);
    this.#endAttempt(at, 'failed');
    if (this.#failed) this.#attempts += 1;
    this.#attempt = this.#open('attempt', this.#failed ? `Attempt ${this.#attempts}` : 'Resumed', at, undefined);
    this.#failed = false;
    this.#turns = 0;
  }

  #requeue(message: string, at: number): void {
    if (this.#attempt) {
      this.#failed = /^(The worker process |Attempt \d+ failed )/.test(message);
      this.#endAttempt(at, this.#failed ? 'failed' : 'done');
      if (this.#failed) this.#point('log', message, at, 'failed');
    }
    this.#endWait(at);
    const approval = /^Waiting for approval: /.exec(message);
    const label = approval
      ? message.slice(approval[0].length)
      : this.#failed && this.#attempts
        ? 'Queued again'
        : message;
    this.#wait = this.#open(approval ? 'approval' : 'wait', label, at, undefined, 'waiting');
  }

  #log(message: string, at: number): void {
    const answer = /^(Approved|Rejected)(?: by .{1,200}?)?: /.exec(message);
    if (answer && this.#wait?.kind === 'approval') {
      this.#wait.output = message;
      this.#wait.status = answer[1] === 'Approved' ? 'done' : 'canceled';
      return;
    }
    // Replayed turns are not published, so the next one has this number.
    const resumed = /^Resumed at turn (\d+)/.exec(message);
    if (resumed) this.#turns = Number(resumed[1]) - 1;
    this.#point('log', message, at);
  }

  #write(written: string, at: number): void {
    const turn = this.#openTurn(at);
    turn.output = (turn.output ?? '') + written;
  }

  #callTool(event: ActivityEvent, at: number): void {
    const turn = this.#turn ?? this.#openTurn(at);
    const tool = this.#open('tool', text(event.data.tool) || 'tool', at, turn);
    // A turn lasts as long as its tools do.
    turn.end = null;
    turn.status = 'running';
    tool.input = text(event.data.arguments) || undefined;
    this.#tools.set(text(event.data.call_id), tool);
  }

  #endTool(event: ActivityEvent, at: number): void {
    const callId = text(event.data.call_id);
    const tool = this.#tools.get(callId);
    if (!tool) return;
    this.#tools.delete(callId);
    tool.output = text(event.data.output);
    close(tool, at, 'done');
    if (this.#turn?.usage && this.#tools.size === 0) close(this.#turn, at, 'done');
  }

  /** A model call has ended. Inside a tool it is that of a nested agent. */
  #use(event: ActivityEvent, at: number): void {
    const usage: TimelineUsage = {
      model: text(event.data.model) || undefined,
      input_tokens: count(event.data.input_tokens),
      cached_tokens: count(event.data.cached_tokens),
      output_tokens: count(event.data.output_tokens),
    };
    const tool = [...this.#tools.values()].at(-1);
    const entry = tool
      ? this.#open('turn', 'Model call of a nested agent', this.#last, tool)
      : this.#openTurn(this.#last);
    entry.usage = usage;
    entry.cost = this.#priceOf?.(usage);
    close(entry, at, 'done');
  }

  #end(event: ActivityEvent, at: number): void {
    const statuses = { result: 'done', error: 'failed', canceled: 'canceled' } as const;
    const status = statuses[event.type as keyof typeof statuses];
    this.#endAttempt(at, status);
    this.#endWait(at, status);
    const entry = this.#point('end', text(event.data.message), at, status);
    entry.output = text(event.data.error) || undefined;
  }

  /** Return the turn that goes on; a turn whose model call has ended is over as soon as the next one begins. */
  #openTurn(at: number): TimelineEntry {
    if (this.#turn && this.#turn.usage === undefined) return this.#turn;
    this.#endTurn(at);
    this.#turns += 1;
    this.#turn = this.#open('turn', `Turn ${this.#turns}`, at, this.#agent ?? this.#attempt);
    return this.#turn;
  }

  #endTurn(at: number, status: TimelineStatus = 'done'): void {
    if (this.#turn) {
      for (const tool of this.#tools.values()) close(tool, at, status);
      this.#tools.clear();
      close(this.#turn, at, status);
    }
    this.#turn = undefined;
  }

  #endAgent(at: number, status: TimelineStatus = 'done'): void {
    this.#endTurn(at, status);
    if (this.#agent) close(this.#agent, at, status);
    this.#agent = undefined;
  }

  #endAttempt(at: number, status: TimelineStatus): void {
    this.#endAgent(at, status);
    if (this.#attempt) close(this.#attempt, at, status);
    this.#attempt = undefined;
  }

  #endWait(at: number, status: TimelineStatus = 'done'): void {
    if (this.#wait) close(this.#wait, at, this.#wait.status === 'waiting' ? status : this.#wait.status);
    this.#wait = undefined;
  }

  #open(
    kind: TimelineKind,
    label: string,
    start: number,
    parent: TimelineEntry | undefined,
    status: TimelineStatus = 'running',
  ): TimelineEntry {
    this.#ids += 1;
    const entry: TimelineEntry = {
      id: String(this.#ids),
      kind,
      label,
      status,
      start,
      end: null,
      usage: undefined,
      cost: undefined,
      input: undefined,
      output: undefined,
      children: [],
    };
    (parent?.children ?? this.entries).push(entry);
    return entry;
  }

  #point(kind: TimelineKind, label: string, at: number, status: TimelineStatus = 'done'): TimelineEntry {
    const entry = this.#open(kind, label, at, kind === 'end' ? undefined : (this.#agent ?? this.#attempt), status);
    entry.end = at;
    return entry;
  }
}

function close(entry: TimelineEntry, at: number, status: TimelineStatus): void {
  entry.end ??= at;
  if (entry.status === 'running' || entry.status === 'waiting') entry.status = status;
}

function droppedLabel(events: unknown): string {
  return typeof events === 'number' ? `${events} events are missing here` : 'Events are missing here';
}

function text(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

function count(value: unknown): number {
  return typeof value === 'number' && Number.isFinite(value) ? value : 0;
}
