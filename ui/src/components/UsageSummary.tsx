import type { ComponentPropsWithoutRef } from 'react';
import { formatMoney, formatNumber } from '../format.js';
import type { Budget, Usage } from '../types/index.js';
import { BudgetBar } from './BudgetBar.js';
import { classes } from './classes.js';
import { Untrusted } from './Untrusted.js';

export interface UsageSummaryProps extends Omit<ComponentPropsWithoutRef<'div'>, 'children'> {
  usage: Usage;
  /** Estimated cost in dollars; null if a price is not known, undefined to leave it out. */
  cost?: number | null | undefined;
  /** Usage of each model, shown as a table if there are several. */
  byModel?: Record<string, Usage> | undefined;
  /** Budget of the task, if it has one. */
  budget?: Budget | null | undefined;
}

/** Model calls, tokens and money. */
export function UsageSummary({ usage, cost, byModel, budget, className, ...rest }: UsageSummaryProps) {
  const models = Object.entries(byModel ?? {});
  return (
    <div {...rest} className={classes('ax-usage', className)}>
      <dl className="ax-usage__sums">
        <Figure name="Model calls" value={formatNumber(usage.requests)} />
        <Figure name="Input tokens" value={formatNumber(usage.input_tokens)} />
        <Figure name="of these cached" value={formatNumber(usage.cached_tokens)} />
        <Figure name="Output tokens" value={formatNumber(usage.output_tokens)} />
        {cost !== undefined && <Figure name="Estimated cost" value={cost === null ? 'unknown' : formatMoney(cost)} />}
      </dl>
      {budget && <BudgetBar budget={budget} />}
      {models.length > 1 && (
        <table className="ax-table ax-usage__models">
          <caption>Usage by model</caption>
          <thead>
            <tr>
              <th scope="col">Model</th>
              <th scope="col">Calls</th>
              <th scope="col">Input</th>
              <th scope="col">Cached</th>
              <th scope="col">Output</th>
            </tr>
          </thead>
          <tbody>
            {models.map(([model, used]) => (
              <tr key={model}>
                <th scope="row">
                  <Untrusted text={model} />
                </th>
                <td>{formatNumber(used.requests)}</td>
                <td>{formatNumber(used.input_tokens)}</td>
                <td>{formatNumber(used.cached_tokens)}</td>
                <td>{formatNumber(used.output_tokens)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
    </div>
  );
}

function Figure({ name, value }: { name: string; value: string }) {
  return (
    <div className="ax-figure">
      <dt>{name}</dt>
      <dd>{value}</dd>
    </div>
  );
}
