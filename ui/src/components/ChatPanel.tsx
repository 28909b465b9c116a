'use client';

import {
  type ComponentPropsWithoutRef,
  type FormEvent,
  type KeyboardEvent,
  useEffect,
  useId,
  useRef,
  useState,
} from 'react';
import type { ChatEntry } from '../client/chatState.js';
import type { Client } from '../client/client.js';
import { useApprovals } from '../hooks/useApprovals.js';
import { useConversation } from '../hooks/useConversation.js';
import type { ConversationMessage } from '../types/index.js';
import { ApprovalCard } from './ApprovalCard.js';
import { classes } from './classes.js';
import { FoldedText } from './FoldedText.js';
import { Untrusted } from './Untrusted.js';

export interface ChatPanelProps extends Omit<ComponentPropsWithoutRef<'section'>, 'children'> {
  conversationId: string;
  client?: Client | undefined;
  /** True leaves out the field for messages and the answers to approvals. */
  readOnly?: boolean | undefined;
  /** What a message does first while a turn runs; the reader may choose another rule. */
  ifBusy?: 'steer' | 'interrupt' | 'queue' | undefined;
  /** Milliseconds between two looks for calls that wait for a person. */
  refetchInterval?: number | undefined;
  /** Milliseconds before a lost connection is made again. */
  retryDelay?: number | undefined;
  onTaskClick?: ((agentId: string) => void) | undefined;
  /** Level of the headings of calls that wait, to fit those of the page. */
  headingLevel?: 2 | 3 | 4 | 5 | 6;
}

const RULES: readonly [rule: ConversationMessage['if_busy'], label: string][] = [
  ['steer', 'joins the running turn'],
  ['interrupt', 'stops the running turn'],
  ['queue', 'waits for its own turn'],
];

const WHO = { user: 'You', assistant: 'Agent' } as const;

/** Conversation with an agent: what was said, what is being written, calls that wait for a person, and a field to write. */
export function ChatPanel({
  conversationId,
  client,
  readOnly = false,
  ifBusy = 'steer',
  refetchInterval = 3000,
  retryDelay,
  onTaskClick,
  headingLevel = 3,
  className,
  ...rest
}: ChatPanelProps) {
  const id = useId();
  const chat = useConversation(conversationId, { client, retryDelay });
  const [text, setText] = useState('');
  const [rule, setRule] = useState<ConversationMessage['if_busy']>(ifBusy);
  const [sending, setSending] = useState(false);
  const [failure, setFailure] = useState<unknown>();
  const scroller = useRef<HTMLDivElement>(null);
  const atEnd = useRef(true);

  // biome-ignore lint/correctness/useExhaustiveDependencies: what is shown is a reason to scroll.
  useEffect(() => {
    if (atEnd.current && scroller.current) scroller.current.scrollTop = scroller.current.scrollHeight;
  }, [chat.entries, chat.waiting]);

  const send = async (event?: FormEvent) => {
    event?.preventDefault();
    if (sending || text.trim() === '') return;
    setSending(true);
    setFailure(undefined);
    atEnd.current = true;
    try {
      await chat.send(text, chat.busy ? rule : 'queue');
      setText('');
    } catch (reason) {
      setFailure(reason);
    } finally {
      setSending(false);
    }
  };
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.key === 'Enter' && !event.shiftKey && !event.nativeEvent.isComposing) {
      event.preventDefault();
      void send();
    }
  };
  const problem = chat.error ?? failure;

  return (
    <section aria-label="Conversation" {...rest} className={classes('ax-chat', className)} aria-busy={chat.loading}>
      <div
        ref={scroller}
        className="ax-chat__scroller"
        // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reached by keyboard.
        tabIndex={0}
        role="log"
        aria-label="Messages"
        onScroll={({ currentTarget: { scrollHeight, scrollTop, clientHeight } }) => {
          atEnd.current = scrollHeight - scrollTop - clientHeight < 24;
        }}
      >
        {!chat.loading && chat.entries.length === 0 && chat.waiting.length === 0 && !chat.error && (
          <p className="ax-empty">Nothing was said yet.</p>
        )}
        {chat.entries.map((entry) => (
          <Entry key={entry.key} entry={entry} />
        ))}
        {chat.agentId !== undefined && (
          <p className="ax-chat__status">
            {chat.status ? <Untrusted text={chat.status} /> : 'The agent is working.'}{' '}
            {onTaskClick && (
              <button type="button" className="ax-link" onClick={() => onTaskClick(chat.agentId as string)}>
                Show the task
              </button>
            )}
          </p>
        )}
        {chat.waiting.map((message) => (
          <div key={message.number} className="ax-chat__entry" data-kind="user" data-waiting="true">
            <span className="ax-chat__who">You, waiting</span>
            <Said text={message.text} />
          </div>
        ))}
      </div>
      {chat.agentId !== undefined && (
        <Approvals
          agentId={chat.agentId}
          client={client}
          readOnly={readOnly}
          refetchInterval={refetchInterval}
          headingLevel={headingLevel}
        />
      )}
      {chat.lost && !chat.error && <p className="ax-chat__status">The connection is lost, and made again.</p>}
      {problem ? (
        <p role="alert" className="ax-error">
          <Untrusted text={problem instanceof Error ? problem.message : String(problem)} />
        </p>
      ) : null}
      {!readOnly && (
        <form className="ax-chat__form" onSubmit={send} aria-busy={sending}>
          <label className="ax-chat__field" htmlFor={`${id}-text`}>
            Message
            <textarea
              id={`${id}-text`}
              rows={2}
              value={text}
              readOnly={sending}
              onChange={(event) => setText(event.target.value)}
              onKeyDown={onKeyDown}
            />
          </label>
          <div className="ax-chat__actions">
            {chat.busy && (
              <>
                <label htmlFor={`${id}-rule`}>The message</label>
                <select
                  id={`${id}-rule`}
                  value={rule}
                  onChange={(event) => setRule(event.target.value as ConversationMessage['if_busy'])}
                >
                  {RULES.map(([value, label]) => (
                    <option key={value} value={value}>
                      {label}
                    </option>
                  ))}
                </select>
              </>
            )}
            <button
              type="submit"
              className="ax-button ax-button--primary"
              aria-disabled={sending || text.trim() === ''}
            >
              Send
            </button>
          </div>
        </form>
      )}
    </section>
  );
}

function Entry({ entry }: { entry: ChatEntry }) {
  if (entry.kind === 'note') {
    return (
      <p className="ax-chat__status" data-kind="note">
        <Untrusted text={entry.text} />
      </p>
    );
  }
  if (entry.kind === 'tool') {
    return (
      <details className="ax-chat__tool">
        <summary>
          <code>
            <Untrusted text={entry.tool} strictly />
          </code>
          {entry.output === undefined && ' …'}
        </summary>
        <FoldedText className="ax-code" text={entry.text} limit={1000} json />
        {entry.output !== undefined && <FoldedText className="ax-code" text={entry.output} limit={1000} />}
      </details>
    );
  }
  return (
    <div className="ax-chat__entry" data-kind={entry.kind}>
      <span className="ax-chat__who">{WHO[entry.kind]}</span>
      <Said text={entry.text} />
    </div>
  );
}

function Said({ text }: { text: string }) {
  return (
    <p className="ax-chat__text">
      <Untrusted text={text} />
    </p>
  );
}

interface ApprovalsProps {
  agentId: string;
  client: Client | undefined;
  readOnly: boolean;
  refetchInterval: number;
  headingLevel: 2 | 3 | 4 | 5 | 6;
}

/** Calls of the turn that wait for a person. */
function Approvals({ agentId, client, readOnly, refetchInterval, headingLevel }: ApprovalsProps) {
  const { approvals, approve, approveWith, reject, isPending } = useApprovals({ agentId }, { client, refetchInterval });
  return approvals.map((approval) => (
    <ApprovalCard
      key={approval.call_id}
      approval={approval}
      headingLevel={headingLevel}
      pending={isPending(approval)}
      {...(readOnly ? {} : { onApprove: approve, onApproveWith: approveWith, onReject: reject })}
    />
  ));
}
