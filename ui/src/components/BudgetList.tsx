import type { ComponentPropsWithoutRef, ReactNode } from 'react';
import type { Budget } from '../types/index.js';
import { BudgetBar } from './BudgetBar.js';
import { classes } from './classes.js';
import { VisuallyHidden } from './VisuallyHidden.js';

export interface BudgetListProps extends Omit<ComponentPropsWithoutRef<'ul'>, 'children'> {
  /** Budgets that tasks share, as `Spent` has them; undefined while they are loaded. */
  budgets: readonly Budget[] | undefined;
  /** Shown while there is none. */
  empty?: ReactNode;
  /** Name for screen readers. */
  label?: string;
  renderBudget?: ((budget: Budget) => ReactNode) | undefined;
}

/** Budgets that tasks share, those first of which the largest part is spent. */
export function BudgetList({
  budgets,
  empty = 'No budget is shared, or nothing was spent of one yet.',
  label = 'Shared budgets',
  renderBudget,
  className,
  ...rest
}: BudgetListProps) {
  if (!budgets) {
    return (
      <div className={classes('ax-budgets', className)} aria-busy="true">
        <VisuallyHidden role="status">Loading the budgets…</VisuallyHidden>
        <div className="ax-placeholder ax-budgets__placeholder" aria-hidden="true" />
      </div>
    );
  }
  if (budgets.length === 0) return <div className={classes('ax-empty', className)}>{empty}</div>;
  return (
    <ul aria-label={label} {...rest} className={classes('ax-budgets', className)}>
      {budgets.map((budget) => (
        <li key={JSON.stringify([budget.title, budget.unit, budget.period])}>
          {renderBudget?.(budget) ?? <BudgetBar budget={budget} />}
        </li>
      ))}
    </ul>
  );
}
