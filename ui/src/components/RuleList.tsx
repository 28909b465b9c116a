'use client';

import { type ComponentPropsWithoutRef, type ReactNode, useState } from 'react';
import { shortId } from '../format.js';
import type { ApprovalRule } from '../types/index.js';
import { classes } from './classes.js';
import { FoldedText } from './FoldedText.js';
import { RelativeTime } from './RelativeTime.js';
import { Untrusted } from './Untrusted.js';
import { VisuallyHidden } from './VisuallyHidden.js';

export interface RuleListProps extends Omit<ComponentPropsWithoutRef<'ul'>, 'children'> {
  /** Rules, of `listApprovalRules`; undefined while they are loaded. */
  rules: readonly ApprovalRule[] | undefined;
  /** Called by the button that ends a rule, which is there only with it. */
  onRevoke?: ((rule: ApprovalRule) => unknown) | undefined;
  onTaskClick?: ((agentId: string) => void) | undefined;
  /** Shown while there is none. */
  empty?: ReactNode;
  /** Name for screen readers. */
  label?: string;
}

/** Rules that approve calls without asking: which calls, of which tasks, until when, and who made them. */
export function RuleList({
  rules,
  onRevoke,
  onTaskClick,
  empty = 'No rule approves calls without asking.',
  label = 'Approval rules',
  className,
  ...rest
}: RuleListProps) {
  if (!rules) {
    return (
      <div className={classes('ax-rules', className)} aria-busy="true">
        <VisuallyHidden role="status">Loading the rules…</VisuallyHidden>
        <div className="ax-placeholder ax-rules__placeholder" aria-hidden="true" />
      </div>
    );
  }
  if (rules.length === 0) return <div className={classes('ax-empty', className)}>{empty}</div>;
  return (
    <ul aria-label={label} {...rest} className={classes('ax-rules', className)}>
      {rules.map((rule) => (
        <li key={rule.rule_id} className="ax-rule" data-active={rule.active}>
          <Rule rule={rule} onRevoke={onRevoke} onTaskClick={onTaskClick} />
        </li>
      ))}
    </ul>
  );
}

type RuleProps = { rule: ApprovalRule } & Pick<RuleListProps, 'onRevoke' | 'onTaskClick'>;

function Rule({ rule, onRevoke, onTaskClick }: RuleProps) {
  const [sending, setSending] = useState(false);
  const [failure, setFailure] = useState<unknown>();
  const revoke = async () => {
    if (sending) return;
    setSending(true);
    setFailure(undefined);
    try {
      await onRevoke?.(rule);
    } catch (reason) {
      setFailure(reason);
    } finally {
      setSending(false);
    }
  };
  const agentId = rule.agent_id;
  return (
    <>
      <span className="ax-rule__calls">
        <code>
          <Untrusted text={rule.tool} strictly />
        </code>{' '}
        {rule.where ? (
          <Untrusted text={rule.where.length > 0 ? rule.where.join(', ') : 'with any arguments'} strictly />
        ) : (
          <FoldedText text={`with ${JSON.stringify(rule.arguments)}`} limit={200} strictly />
        )}
      </span>
      <span className="ax-rule__facts">
        {rule.scope === 'metadata' ? (
          <>
            tasks with <Untrusted text={labels(rule.metadata)} strictly />
          </>
        ) : rule.scope === 'conversation' ? (
          'all tasks of a conversation'
        ) : (
          <>
            {'task '}
            {agentId && onTaskClick ? (
              <button type="button" className="ax-link" onClick={() => onTaskClick(agentId)}>
                {shortId(agentId)}
              </button>
            ) : (
              agentId && shortId(agentId)
            )}
          </>
        )}
        {rule.created_by && (
          <>
            , by <Untrusted text={rule.created_by} strictly />
          </>
        )}
        {rule.revoked_at ? (
          <>
            , revoked <RelativeTime time={rule.revoked_at} />
          </>
        ) : (
          <>
            , {rule.active ? 'expires' : 'expired'} <RelativeTime time={rule.expires_at} />
          </>
        )}
        {rule.reason && (
          <>
            : <Untrusted text={rule.reason} strictly />
          </>
        )}
      </span>
      {failure ? (
        <p role="alert" className="ax-error">
          <Untrusted text={failure instanceof Error ? failure.message : String(failure)} />
        </p>
      ) : null}
      {onRevoke && rule.active && (
        <button type="button" className="ax-button ax-rule__revoke" aria-disabled={sending} onClick={revoke}>
          Revoke
          <VisuallyHidden>
            {' the rule for '}
            <Untrusted text={rule.tool} strictly />
          </VisuallyHidden>
        </button>
      )}
    </>
  );
}

function labels(metadata: Record<string, unknown>): string {
  const pairs = Object.entries(metadata).map(
    ([name, value]) => `${name}=${typeof value === 'string' ? value : JSON.stringify(value)}`,
  );
  return pairs.join(', ') || 'any labels';
}
