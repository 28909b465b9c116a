'use client';

import { type ComponentPropsWithoutRef, type FormEvent, useId, useState } from 'react';
import type { ForkBody } from '../client/api.js';
import type { TaskRun } from '../types/index.js';
import { visible } from '../visible.js';
import { classes } from './classes.js';
import { Untrusted } from './Untrusted.js';

export interface ForkFormProps extends Omit<ComponentPropsWithoutRef<'form'>, 'children' | 'onSubmit'> {
  /** Runs of the task, of `listTaskRuns`; undefined while they are loaded. */
  runs: readonly TaskRun[] | undefined;
  /** Sends the fork. While a promise that it returns is open, the form waits. */
  onFork: (body: ForkBody) => unknown;
  /** Called by the cancel button, which is there only with it. */
  onCancel?: (() => void) | undefined;
  /** Reason why the fork was refused. */
  error?: Error | string | null | undefined;
}

/** Form that forks a task at a turn: which turn, and what the new task changes. */
export function ForkForm({ runs, onFork, onCancel, error, className, ...rest }: ForkFormProps) {
  const id = useId();
  const [chosen, setChosen] = useState<string>();
  const [turn, setTurn] = useState<string>();
  const [texts, setTexts] = useState({ instructions: '', model: '', input: '' });
  const [sending, setSending] = useState(false);
  const [failure, setFailure] = useState<unknown>();

  if (!runs) return <div className={classes('ax-fork ax-placeholder', className)} aria-busy="true" />;
  const run = runs.find((one) => one.run === chosen) ?? runs[0];
  if (!run) {
    return (
      <p className={classes('ax-empty', className)}>
        This task has recorded no turn of an agent, so it cannot be forked.
      </p>
    );
  }
  const at = turn ?? String(run.last);
  const isTurn = /^\d+$/.test(at) && Number(at) >= 1 && Number(at) <= run.last;

  const send = async (event: FormEvent) => {
    event.preventDefault();
    if (sending || !isTurn) return;
    setSending(true);
    setFailure(undefined);
    const given = Object.entries(texts).filter(([, text]) => text.trim() !== '');
    try {
      await onFork({ at: Number(at), ...(runs.length > 1 && { run: run.run }), ...Object.fromEntries(given) });
    } catch (reason) {
      setFailure(reason);
    } finally {
      setSending(false);
    }
  };
  const text = (name: keyof typeof texts) => ({
    id: `${id}-${name}`,
    value: texts[name],
    disabled: sending,
    onChange: (event: { target: { value: string } }) => setTexts({ ...texts, [name]: event.target.value }),
  });
  const problem = error ?? failure;

  return (
    <form {...rest} className={classes('ax-fork', className)} aria-busy={sending} onSubmit={send}>
      {runs.length > 1 && (
        <label className="ax-fork__field" htmlFor={`${id}-run`}>
          Run
          <select
            id={`${id}-run`}
            value={run.run}
            disabled={sending}
            onChange={(event) => {
              setChosen(event.target.value);
              setTurn(undefined);
            }}
          >
            {runs.map(({ run: path }) => (
              <option key={path} value={path}>
                {visible(path)}
              </option>
            ))}
          </select>
        </label>
      )}
      <label className="ax-fork__field" htmlFor={`${id}-at`}>
        First turn that is taken again, 1 to {run.last}
        <input
          id={`${id}-at`}
          type="number"
          min={1}
          max={run.last}
          required
          value={at}
          disabled={sending}
          onChange={(event) => setTurn(event.target.value)}
        />
      </label>
      <p className="ax-fork__hint">
        {at === '1' ? 'Nothing' : 'What comes before this turn'} is answered from the record: no model is called and no
        tool runs. The turn and what follows are taken for real.
      </p>
      <label className="ax-fork__field" htmlFor={`${id}-input`}>
        Message that the agent reads before the turn (optional)
        <textarea rows={2} {...text('input')} />
      </label>
      <label className="ax-fork__field" htmlFor={`${id}-instructions`}>
        Other instructions (optional)
        <textarea rows={2} {...text('instructions')} />
      </label>
      <label className="ax-fork__field" htmlFor={`${id}-model`}>
        Another model (optional)
        <input maxLength={200} {...text('model')} />
      </label>
      {problem ? (
        <p role="alert" className="ax-error">
          <Untrusted text={problem instanceof Error ? problem.message : String(problem)} />
        </p>
      ) : null}
      <div className="ax-fork__actions">
        {onCancel && (
          <button type="button" className="ax-button" onClick={onCancel}>
            Cancel
          </button>
        )}
        <button type="submit" className="ax-button ax-button--primary" aria-disabled={sending || !isTurn}>
          Fork
        </button>
      </div>
    </form>
  );
}
