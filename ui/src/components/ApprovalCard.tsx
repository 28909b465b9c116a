'use client';

import { type ComponentPropsWithoutRef, type ReactNode, useId, useState } from 'react';
import type { ApproveBody } from '../client/api.js';
import { formatJson } from '../format.js';
import type { Approval } from '../types/index.js';
import { ApprovalChanges, bodyOf, NO_CHANGES } from './ApprovalChanges.js';
import { classes } from './classes.js';
import { FoldedText } from './FoldedText.js';
import { RelativeTime } from './RelativeTime.js';
import { Untrusted } from './Untrusted.js';

export interface ApprovalCardProps extends Omit<ComponentPropsWithoutRef<'article'>, 'children'> {
  approval: Approval;
  onApprove?: ((approval: Approval) => unknown) | undefined;
  /** Called instead of onApprove with other arguments or a rule, for which fields are there only with it. */
  onApproveWith?: ((approval: Approval, body: ApproveBody) => unknown) | undefined;
  /** `message` is for the model; undefined if the person wrote none. */
  onReject?: ((approval: Approval, message: string | undefined) => unknown) | undefined;
  /** True while an answer is being sent. A promise returned by onApprove or onReject does the same. */
  pending?: boolean | undefined;
  /** Reason why the answer was not accepted. */
  error?: Error | string | null | undefined;
  onTaskClick?: ((agentId: string) => void) | undefined;
  /** Level of the heading, to fit those of the page. */
  headingLevel?: 2 | 3 | 4 | 5 | 6;
  renderArguments?: ((approval: Approval) => ReactNode) | undefined;
}

/** Call that waits for a person, with its arguments and buttons to approve or reject it. */
export function ApprovalCard({
  approval,
  onApprove,
  onApproveWith,
  onReject,
  pending = false,
  error,
  onTaskClick,
  headingLevel = 2,
  renderArguments,
  className,
  ...rest
}: ApprovalCardProps) {
  const id = useId();
  const [message, setMessage] = useState('');
  const [draft, setDraft] = useState(NO_CHANGES);
  const [sending, setSending] = useState(false);
  const [failure, setFailure] = useState<unknown>();

  const answer = async (send: () => unknown) => {
    if (sending) return;
    setSending(true);
    setFailure(undefined);
    try {
      await send();
    } catch (reason) {
      setFailure(reason);
    } finally {
      setSending(false);
    }
  };

  const approve = () => {
    const body = onApproveWith && bodyOf(draft);
    return body ? onApproveWith(approval, body) : onApprove?.(approval);
  };

  const Heading = `h${headingLevel}` as const;
  const busy = pending || sending;
  const problem = error ?? failure;
  return (
    <article
      aria-labelledby={`${id}-title`}
      {...rest}
      className={classes('ax-approval', className)}
      data-kind={approval.kind}
      data-pending={busy}
      aria-busy={busy}
    >
      <header className="ax-approval__header">
        <Heading id={`${id}-title`} className="ax-approval__title">
          {approval.kind === 'repeat' ? 'Repeat' : 'Approve'}{' '}
          <code>
            <Untrusted text={approval.tool} strictly />
          </code>
          ?
        </Heading>
        <RelativeTime time={approval.created_at} />
      </header>
      <p className="ax-approval__task">
        {approval.kind === 'repeat' && 'The call was interrupted, and may have been made. '}
        Asked by{' '}
        {onTaskClick ? (
          <button type="button" className="ax-link" onClick={() => onTaskClick(approval.agent_id)}>
            <Untrusted text={approval.agent_type} strictly />
          </button>
        ) : (
          <Untrusted text={approval.agent_type} strictly />
        )}
        {approval.expires_at && (
          <>
            , expires <RelativeTime time={approval.expires_at} />
          </>
        )}
      </p>
      {renderArguments ? (
        renderArguments(approval)
      ) : (
        <FoldedText
          className="ax-approval__arguments ax-code"
          text={formatJson(approval.arguments)}
          limit={1000}
          json
          strictly
        />
      )}
      {problem ? (
        <p role="alert" className="ax-error">
          <Untrusted text={problem instanceof Error ? problem.message : String(problem)} />
        </p>
      ) : null}
      {onApprove && onApproveWith && approval.kind === 'approval' && (
        <ApprovalChanges
          draft={draft}
          onChange={setDraft}
          given={formatJson(approval.arguments)}
          editable={Boolean(approval.arguments_schema)}
          disabled={busy}
        />
      )}
      {onReject && (
        <label className="ax-approval__message">
          Message to the model if rejected (optional)
          <textarea rows={1} value={message} disabled={busy} onChange={(event) => setMessage(event.target.value)} />
        </label>
      )}
      <div className="ax-approval__actions">
        {onApprove && (
          // aria-disabled instead of disabled: a button that is disabled loses the focus.
          <button
            type="button"
            className="ax-button ax-button--primary"
            aria-disabled={busy}
            aria-describedby={`${id}-title`}
            onClick={() => !busy && answer(async () => approve())}
          >
            {approval.kind === 'repeat' ? 'Repeat the call' : 'Approve'}
          </button>
        )}
        {onReject && (
          <button
            type="button"
            className="ax-button"
            aria-disabled={busy}
            aria-describedby={`${id}-title`}
            onClick={() => !busy && answer(() => onReject(approval, message.trim() || undefined))}
          >
            Reject
          </button>
        )}
      </div>
    </article>
  );
}
