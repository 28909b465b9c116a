'use client';

import { useId } from 'react';
import type { ApproveBody } from '../client/api.js';
import { losesDigits } from '../format.js';

/** What a person has written besides the answer. */
export interface ChangesDraft {
  /** Arguments as JSON; undefined while they are not changed. */
  arguments?: string | undefined;
  /** True to approve later calls like this one too. */
  alike: boolean;
  scope: 'task' | 'conversation';
  /** Conditions on the arguments, one in each line. */
  where: string;
  hours: number;
  reason: string;
}

export const NO_CHANGES: ChangesDraft = { alike: false, scope: 'task', where: '', hours: 24, reason: '' };

export interface ApprovalChangesProps {
  draft: ChangesDraft;
  onChange: (draft: ChangesDraft) => void;
  /** Arguments of the model, as JSON. */
  given: string;
  /** False for a tool whose arguments cannot be changed. */
  editable: boolean;
  disabled: boolean;
}

/** Fields of an approval: other arguments, a rule for calls like it, and why. */
export function ApprovalChanges({ draft, onChange, given, editable, disabled }: ApprovalChangesProps) {
  const id = useId();
  const set = (change: Partial<ChangesDraft>) => onChange({ ...draft, ...change });
  const edits = draft.arguments !== undefined;
  return (
    <div className="ax-approval__changes">
      {editable && (
        <label>
          <input
            type="checkbox"
            checked={edits}
            disabled={disabled}
            onChange={(event) => set({ arguments: event.target.checked ? given : undefined })}
          />{' '}
          Change the arguments
        </label>
      )}
      {edits && (
        <label className="ax-approval__message" htmlFor={`${id}-arguments`}>
          Arguments with which the call is made, as JSON
          <textarea
            id={`${id}-arguments`}
            className="ax-approval__edited"
            rows={Math.min(12, (draft.arguments ?? '').split('\n').length + 1)}
            spellCheck={false}
            value={draft.arguments}
            disabled={disabled}
            onChange={(event) => set({ arguments: event.target.value })}
          />
        </label>
      )}
      <label>
        <input
          type="checkbox"
          checked={draft.alike}
          disabled={disabled}
          onChange={(event) => set({ alike: event.target.checked })}
        />{' '}
        Approve all like it
      </label>
      {draft.alike && (
        <fieldset className="ax-approval__rule" disabled={disabled}>
          <legend>Calls that are approved without asking</legend>
          <label className="ax-approval__message" htmlFor={`${id}-scope`}>
            Of
            <select
              id={`${id}-scope`}
              value={draft.scope}
              onChange={(event) => set({ scope: event.target.value === 'task' ? 'task' : 'conversation' })}
            >
              <option value="task">this task</option>
              <option value="conversation">all tasks of its conversation</option>
            </select>
          </label>
          <label className="ax-approval__message" htmlFor={`${id}-hours`}>
            For
            <select
              id={`${id}-hours`}
              value={draft.hours}
              onChange={(event) => set({ hours: Number(event.target.value) })}
            >
              <option value={1}>1 hour</option>
              <option value={24}>1 day</option>
              <option value={168}>7 days</option>
            </select>
          </label>
          <label className="ax-approval__message" htmlFor={`${id}-where`}>
            With arguments like these, one condition in each line; empty for the same arguments
            <textarea
              id={`${id}-where`}
              rows={2}
              placeholder="amount<=100"
              spellCheck={false}
              value={draft.where}
              onChange={(event) => set({ where: event.target.value })}
            />
          </label>
        </fieldset>
      )}
      {(edits || draft.alike) && (
        <label className="ax-approval__message" htmlFor={`${id}-reason`}>
          Why, for the record (optional)
          <input
            id={`${id}-reason`}
            maxLength={1000}
            value={draft.reason}
            disabled={disabled}
            onChange={(event) => set({ reason: event.target.value })}
          />
        </label>
      )}
    </div>
  );
}

/** Return what an approval sends, undefined without any change. Throws an Error for arguments that cannot be sent. */
export function bodyOf(draft: ChangesDraft): ApproveBody | undefined {
  if (draft.arguments === undefined && !draft.alike) return undefined;
  const conditions = draft.where.split('\n').flatMap((line) => line.trim() || []);
  return {
    ...(draft.arguments !== undefined && { arguments: parse(draft.arguments) }),
    ...(draft.alike && {
      rule: {
        scope: draft.scope,
        expires_seconds: draft.hours * 3600,
        where: conditions.length > 0 ? conditions : null,
      },
    }),
    ...(draft.reason.trim() && { reason: draft.reason.trim() }),
  };
}

function parse(text: string): Record<string, unknown> {
  if (losesDigits(text)) {
    throw new Error('A browser would round a number of the arguments; approve with `agentexec approve` instead.');
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new Error(`The arguments are not JSON: ${(error as Error).message}`);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new Error('The arguments must be a JSON object, like {"to": "ann@example.com"}.');
  }
  return value as Record<string, unknown>;
}
