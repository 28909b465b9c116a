import type { ComponentPropsWithoutRef } from 'react';
import { formatMoney, formatNumber } from '../format.js';
import type { Budget } from '../types/index.js';
import { classes } from './classes.js';
import { RelativeTime } from './RelativeTime.js';
import { Untrusted } from './Untrusted.js';

export interface BudgetBarProps extends Omit<ComponentPropsWithoutRef<'div'>, 'children'> {
  budget: Budget;
  /** Name of the budget; by default its label and value, and its period. */
  label?: string | undefined;
}

/** Budget: what is spent and reserved of its limit, as a bar and in words. */
export function BudgetBar({ budget, label, className, ...rest }: BudgetBarProps) {
  const { limit, spent, reserved } = budget;
  const name = label ?? nameOf(budget);
  const text = `${amount(budget, spent)} of ${amount(budget, limit)}`;
  return (
    <div {...rest} className={classes('ax-budget', className)} data-level={levelOf(budget)}>
      <span className="ax-budget__name">
        <Untrusted text={name} />
      </span>
      <span className="ax-budget__amounts">
        {text}
        {reserved > 0 && <span className="ax-budget__reserved-text">, {amount(budget, reserved)} reserved</span>}
        {budget.ends_at && (
          <span className="ax-budget__end">
            , ends <RelativeTime time={budget.ends_at} />
          </span>
        )}
      </span>
      <meter
        className="ax-budget__meter"
        aria-label={name}
        aria-valuetext={text}
        min={0}
        max={Math.max(limit, 0)}
        value={Math.min(Math.max(spent, 0), limit)}
      />
      <span className="ax-budget__bar" aria-hidden="true">
        <span className="ax-budget__spent" style={{ inlineSize: share(spent, limit) }} />
        <span className="ax-budget__reserved" style={{ inlineSize: share(reserved, limit) }} />
      </span>
    </div>
  );
}

/** Return `ok`, `near` from nine tenths of the limit, or `full`. */
function levelOf({ limit, spent, reserved }: Budget): 'ok' | 'near' | 'full' {
  if (spent >= limit) return 'full';
  return spent + reserved >= 0.9 * limit ? 'near' : 'ok';
}

function nameOf({ title, period }: Budget): string {
  if (title === 'task' && !period) return 'Budget';
  return `${title === '*' ? 'All tasks' : title}${period ? ` per ${period}` : ''}`;
}

function amount({ unit }: Budget, value: number): string {
  return unit === 'dollars' ? formatMoney(value) : `${formatNumber(value)} tokens`;
}

function share(part: number, limit: number): string {
  return `${limit > 0 ? Math.min(100, Math.max(0, (100 * part) / limit)) : 100}%`;
}
