'use client';

import { type ComponentPropsWithoutRef, type FormEvent, type ReactNode, useId, useState } from 'react';
import type { Budget } from '../types/index.js';
import { BudgetBar } from './BudgetBar.js';
import { classes } from './classes.js';
import { Untrusted } from './Untrusted.js';

export interface BudgetFormProps extends Omit<ComponentPropsWithoutRef<'form'>, 'children' | 'onSubmit'> {
  /** Budget of the task; null if it has none. A new limit is in the same unit. */
  budget: Budget | null | undefined;
  /** Sends the limit, like "$5.00" or "500000 tokens". While a promise that it returns is open, the form waits. */
  onBudget: (budget: string) => unknown;
  /** Called by the cancel button, which is there only with it. */
  onCancel?: (() => void) | undefined;
  /** Reason why the limit was refused. */
  error?: Error | string | null | undefined;
  /** Text of the button that sends. */
  submit?: ReactNode;
}

/** Form that gives a task another limit of what it may spend: what is spent and reserved now, and the new limit. */
export function BudgetForm({
  budget,
  onBudget,
  onCancel,
  error,
  submit = 'Set the budget',
  className,
  ...rest
}: BudgetFormProps) {
  const id = useId();
  const [chosen, setChosen] = useState<Budget['unit']>('dollars');
  const [amount, setAmount] = useState(() => (budget ? String(budget.limit) : ''));
  const [sending, setSending] = useState(false);
  const [failure, setFailure] = useState<unknown>();
  const unit = budget?.unit ?? chosen;
  const limit = Number(amount);
  const isLimit = amount.trim() !== '' && limit > 0;

  const send = async (event: FormEvent) => {
    event.preventDefault();
    if (sending || !isLimit) return;
    setSending(true);
    setFailure(undefined);
    try {
      await onBudget(unit === 'dollars' ? `$${amount.trim()}` : `${amount.trim()} tokens`);
    } catch (reason) {
      setFailure(reason);
    } finally {
      setSending(false);
    }
  };
  const problem = error ?? failure;

  return (
    <form {...rest} className={classes('ax-budget-form', className)} aria-busy={sending} onSubmit={send}>
      {budget && <BudgetBar budget={budget} label="Until now" />}
      {!budget && (
        <label className="ax-budget-form__field" htmlFor={`${id}-unit`}>
          Counted in
          <select
            id={`${id}-unit`}
            value={chosen}
            disabled={sending}
            onChange={(event) => setChosen(event.target.value as Budget['unit'])}
          >
            <option value="dollars">dollars</option>
            <option value="tokens">tokens</option>
          </select>
        </label>
      )}
      <label className="ax-budget-form__field" htmlFor={`${id}-limit`}>
        New limit, in {unit}
        <input
          id={`${id}-limit`}
          type="number"
          min={unit === 'dollars' ? 0 : 1}
          step={unit === 'dollars' ? 'any' : 1}
          required
          value={amount}
          disabled={sending}
          onChange={(event) => setAmount(event.target.value)}
        />
      </label>
      <p className="ax-budget-form__hint">
        {budget && isLimit && limit <= budget.spent
          ? 'As much is spent already: the next model call is over the budget.'
          : `For the task and the tasks that it enqueues, ${budget ? 'what is spent already included' : 'from its next attempt on'}.`}
      </p>
      {problem ? (
        <p role="alert" className="ax-error">
          <Untrusted text={problem instanceof Error ? problem.message : String(problem)} />
        </p>
      ) : null}
      <div className="ax-budget-form__actions">
        {onCancel && (
          <button type="button" className="ax-button" onClick={onCancel}>
            Cancel
          </button>
        )}
        <button type="submit" className="ax-button ax-button--primary" aria-disabled={sending || !isLimit}>
          {submit}
        </button>
      </div>
    </form>
  );
}
