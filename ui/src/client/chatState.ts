import type { ConversationEvent, ConversationMessage, HistoryItem } from '../types/index.js';

/** One entry of a chat. */
export interface ChatEntry {
  key: string;
  kind: 'user' | 'assistant' | 'tool' | 'note';
  /** What was said; arguments of a tool; why a turn ended. */
  text: string;
  tool?: string | undefined;
  output?: string | undefined;
}

/** Turn that was seen from its start, until the history has it. */
interface LiveTurn {
  agentId: string;
  entries: ChatEntry[];
  /** True while the model writes the last entry. */
  writes: boolean;
  status: string;
  ended: boolean;
}

export interface ChatState {
  history: readonly HistoryItem[];
  turns: readonly LiveTurn[];
  /** Messages that wait for their turns. */
  waiting: readonly ConversationMessage[];
  /** Numbers of messages that have had their turn, so that an older list does not bring them back. */
  taken: ReadonlySet<number>;
  /** Why turns ended without an answer, by the IDs of their tasks. */
  problems: Readonly<Record<string, string>>;
}

export const EMPTY_CHAT: ChatState = { history: [], turns: [], waiting: [], taken: new Set(), problems: {} };

/** Return a chat after an event of its conversation. */
export function afterEvent(state: ChatState, event: ConversationEvent): ChatState {
  const { agent_id: agentId, data, id: key } = event;
  if (event.type === 'message') {
    const number = typeof data.number === 'number' ? data.number : 0;
    return withMessage(state, agentId, number, asText(data.text), data.state === 'joined');
  }
  const turns = withTurn(state.turns, agentId, (turn) => turnAfter(turn, event, key));
  if (event.type === 'error' || event.type === 'canceled') {
    const problem = asText(data.message) || event.type;
    return { ...state, turns, problems: { ...state.problems, [agentId]: problem } };
  }
  return { ...state, turns };
}

/** Return a chat whose turn has a message: its first one, or one that has joined it after the outputs that it has. */
function withMessage(state: ChatState, agentId: string, number: number, text: string, joined: boolean): ChatState {
  const entry: ChatEntry = { key: `message ${number}`, kind: 'user', text };
  if (state.turns.some(({ entries }) => entries.some(({ key }) => key === entry.key))) return state;
  const add = (turn: LiveTurn): LiveTurn => {
    const before = joined
      ? turn.entries.findLastIndex(({ kind, output }) => kind === 'user' || output !== undefined)
      : -1;
    return { ...turn, entries: turn.entries.toSpliced(joined ? before + 1 : turn.entries.length, 0, entry) };
  };
  // The stream tells of joined messages when their turn has ended, which the history may have by then.
  const known = state.turns.some((turn) => turn.agentId === agentId);
  return {
    ...state,
    taken: new Set(state.taken).add(number),
    waiting: state.waiting.filter((message) => message.number !== number),
    turns: joined && !known ? state.turns : withTurn(state.turns, agentId, add),
  };
}

function withTurn(
  turns: readonly LiveTurn[],
  agentId: string,
  change: (turn: LiveTurn) => LiveTurn,
): readonly LiveTurn[] {
  if (turns.some((turn) => turn.agentId === agentId)) {
    return turns.map((turn) => (turn.agentId === agentId ? change(turn) : turn));
  }
  return [...turns, change({ agentId, entries: [], writes: false, status: '', ended: false })];
}

function turnAfter(turn: LiveTurn, { type, data }: ConversationEvent, key: string): LiveTurn {
  const { entries } = turn;
  const last = entries.at(-1);
  switch (type) {
    case 'text_delta': {
      const text = asText(data.text);
      if (turn.writes && last) {
        return { ...turn, entries: [...entries.slice(0, -1), { ...last, text: last.text + text }] };
      }
      return { ...turn, writes: true, entries: [...entries, { key, kind: 'assistant', text }] };
    }
    case 'tool_called': {
      const entry: ChatEntry = {
        key: `call ${asText(data.call_id)}`,
        kind: 'tool',
        tool: asText(data.tool),
        text: asText(data.arguments),
      };
      return { ...turn, writes: false, entries: [...entries, entry] };
    }
    case 'tool_output': {
      const called = `call ${asText(data.call_id)}`;
      const output = asText(data.output);
      return { ...turn, entries: entries.map((entry) => (entry.key === called ? { ...entry, output } : entry)) };
    }
    case 'usage':
      return { ...turn, writes: false };
    case 'status': {
      // An attempt that starts again asks the model again for what it has not finished.
      const kept = turn.writes ? entries.slice(0, -1) : entries;
      return { ...turn, writes: false, entries: kept, status: data.status === 'running' ? '' : asText(data.message) };
    }
    case 'result': {
      const answer = data.value;
      const spoken = entries.some((entry) => entry.kind === 'assistant') || typeof answer !== 'string';
      const entry: ChatEntry = { key, kind: 'assistant', text: spoken ? '' : answer };
      return { ...turn, writes: false, status: '', ended: true, entries: spoken ? entries : [...entries, entry] };
    }
    case 'error':
    case 'canceled':
      return { ...turn, writes: false, status: '', ended: true };
    default:
      return turn;
  }
}

/** Return a chat after its messages were fetched: those that wait, and those that have joined a turn that was seen. */
export function afterMessages(state: ChatState, messages: readonly ConversationMessage[]): ChatState {
  const seen = new Set(state.turns.filter(({ ended }) => !ended).map(({ agentId }) => agentId));
  const joined = messages.filter((message) => message.state === 'joined' && seen.has(message.agent_id));
  const waiting = messages.filter((message) => message.state === 'waiting' && !state.taken.has(message.number));
  return joined.reduce<ChatState>(
    (chat, { agent_id, number, text }) => withMessage(chat, agent_id, number, text, true),
    {
      ...state,
      waiting,
    },
  );
}

/** Return a chat after its history and messages were fetched; `ended` are the turns that had ended before. */
export function afterFetch(
  state: ChatState,
  ended: ReadonlySet<string>,
  history: readonly HistoryItem[],
  messages: readonly ConversationMessage[],
): ChatState {
  const recorded = new Set(history.map((item) => item.agent_id));
  // A handler without the conversation's session leaves nothing in the history.
  const turns = state.turns.filter((turn) => !(ended.has(turn.agentId) && recorded.has(turn.agentId)));
  return afterMessages({ ...state, history, turns }, messages);
}

/** Return a chat after a message was sent. */
export function afterSending(state: ChatState, message: ConversationMessage): ChatState {
  const { number } = message;
  if (message.state !== 'waiting' || state.taken.has(number)) return state;
  return { ...state, waiting: [...state.waiting.filter((other) => other.number !== number), message] };
}

/** Return the entries of a chat: its history, and the turns that it does not have yet. */
export function entriesOf({ history, turns, problems }: ChatState): ChatEntry[] {
  const live = new Set(turns.map((turn) => turn.agentId));
  const entries: ChatEntry[] = [];
  const outputs = new Map(history.flatMap(({ item }) => outputOf(item)));
  const shown = history.filter(({ agent_id }) => agent_id === null || !live.has(agent_id));
  shown.forEach(({ item, number, agent_id }, index) => {
    const entry = entryOf(item, `item ${number}`, outputs);
    if (entry) entries.push(entry);
    if (agent_id !== null && shown[index + 1]?.agent_id !== agent_id) entries.push(...problemOf(problems, agent_id));
  });
  for (const turn of turns) entries.push(...turn.entries, ...problemOf(problems, turn.agentId));
  return entries;
}

function problemOf(problems: ChatState['problems'], agentId: string): ChatEntry[] {
  const text = problems[agentId];
  return text === undefined ? [] : [{ key: `problem ${agentId}`, kind: 'note', text }];
}

function outputOf(item: HistoryItem['item']): [string, string][] {
  return item.type === 'function_call_output' ? [[asText(item.call_id), contentOf(item.output)]] : [];
}

function entryOf(item: HistoryItem['item'], key: string, outputs: Map<string, string>): ChatEntry | undefined {
  if (item.type === 'function_call') {
    const output = outputs.get(asText(item.call_id));
    return { key, kind: 'tool', tool: asText(item.name), text: asText(item.arguments), output };
  }
  if (item.role !== 'user' && item.role !== 'assistant') return undefined;
  return { key, kind: item.role, text: contentOf(item.content) };
}

function contentOf(content: unknown): string {
  if (typeof content === 'string') return content;
  if (!Array.isArray(content)) return '';
  return content
    .map((part: { text?: unknown; refusal?: unknown } | null) => asText(part?.text ?? part?.refusal))
    .join('');
}

function asText(value: unknown): string {
  return typeof value === 'string' ? value : '';
}
