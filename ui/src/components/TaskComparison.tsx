'use client';

import type { ComponentPropsWithoutRef, ReactNode } from 'react';
import { formatCount, formatDuration, formatMoney, formatNumber, shortId } from '../format.js';
import type { ComparedStep, ComparedTask, Comparison } from '../types/index.js';
import { classes } from './classes.js';
import { FoldedText } from './FoldedText.js';
import { StatusBadge } from './StatusBadge.js';
import { Untrusted } from './Untrusted.js';
import { VisuallyHidden } from './VisuallyHidden.js';

export interface TaskComparisonProps extends Omit<ComponentPropsWithoutRef<'section'>, 'children'> {
  /** Two tasks, of `compareActivities`; undefined while they are loaded. */
  comparison: Comparison | undefined;
  /** Reason why they could not be compared. */
  error?: Error | string | null | undefined;
  /** Called with the id of one of the tasks. */
  onTaskClick?: ((agentId: string) => void) | undefined;
  /** Names of the two columns. */
  names?: readonly [string, string];
}

/** Two tasks side by side, such as a task and its fork: outcome, steps, tokens, money, and the steps that differ. */
export function TaskComparison({
  comparison,
  error,
  onTaskClick,
  names = ['First', 'Second'],
  className,
  ...rest
}: TaskComparisonProps) {
  const problem = error && (
    <p role="alert" className="ax-error">
      <Untrusted text={typeof error === 'string' ? error : error.message} />
    </p>
  );
  if (!comparison) {
    return (
      <section {...rest} className={classes('ax-comparison', className)} aria-busy={!error}>
        {problem || (
          <>
            <VisuallyHidden role="status">Comparing the tasks…</VisuallyHidden>
            <div className="ax-placeholder ax-comparison__placeholder" aria-hidden="true" />
          </>
        )}
      </section>
    );
  }
  const sides = [comparison.first, comparison.second] as const;
  return (
    <section {...rest} className={classes('ax-comparison', className)}>
      {problem}
      <table className="ax-table ax-comparison__table">
        <caption className="ax-comparison__caption">Outcome</caption>
        <thead>
          <tr>
            <td />
            {sides.map((task, index) => (
              <th key={names[index]} scope="col">
                {names[index]}{' '}
                {onTaskClick ? (
                  <button type="button" className="ax-link" onClick={() => onTaskClick(task.agent_id)}>
                    <code>{shortId(task.agent_id)}</code>
                  </button>
                ) : (
                  <code>{shortId(task.agent_id)}</code>
                )}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {FACTS.map(([name, show]) => (
            <tr key={name}>
              <th scope="row">{name}</th>
              {sides.map((task, index) => (
                <td key={names[index]}>{show(task)}</td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
      <table className="ax-table ax-comparison__table">
        <caption className="ax-comparison__caption">Steps</caption>
        <thead>
          <tr>
            <th scope="col">Only {names[0].toLowerCase()}</th>
            <th scope="col">Only {names[1].toLowerCase()}</th>
          </tr>
        </thead>
        <tbody>
          {comparison.steps.map((step, index) => (
            // biome-ignore lint/suspicious/noArrayIndexKey: steps have no other key, and never change their order.
            <Row key={index} step={step} />
          ))}
          {comparison.steps.length === 0 && (
            <tr>
              <td colSpan={2} className="ax-empty">
                Neither task has recorded a step.
              </td>
            </tr>
          )}
        </tbody>
      </table>
      {!comparison.is_complete && <p className="ax-comparison__more">There are more steps, which are not shown.</p>}
    </section>
  );
}

const FACTS: readonly (readonly [string, (task: ComparedTask) => ReactNode])[] = [
  ['Task', (task) => <Untrusted text={task.task_name} />],
  ['Status', (task) => <StatusBadge status={task.status} />],
  ['Result', (task) => (task.result === null ? '–' : <Value value={task.result} />)],
  ['Steps', (task) => formatNumber(task.steps)],
  ['Model calls', (task) => formatNumber(task.requests)],
  ['Input tokens', (task) => formatNumber(task.input_tokens)],
  ['Output tokens', (task) => formatNumber(task.output_tokens)],
  ['Estimated cost', (task) => (task.cost === null ? 'unknown' : formatMoney(task.cost))],
  ['Duration', (task) => (task.elapsed_seconds === null ? '–' : formatDuration(task.elapsed_seconds))],
];

function Row({ step }: { step: ComparedStep }) {
  if (step.change === 'same') {
    return (
      <tr data-change="same">
        <td colSpan={2} className="ax-comparison__same">
          {formatCount(step.count, 'step')} of both
        </td>
      </tr>
    );
  }
  const cell = <Step step={step} />;
  return (
    <tr data-change={step.change}>
      <td>{step.change === 'removed' && cell}</td>
      <td>{step.change === 'added' && cell}</td>
    </tr>
  );
}

function Step({ step }: { step: ComparedStep }) {
  const parts = step.kind === 'model' && Array.isArray(step.contents) ? step.contents : [step.contents];
  return (
    <div className="ax-comparison__step">
      <span className="ax-comparison__sign" aria-hidden="true">
        {step.change === 'removed' ? '−' : '+'}
      </span>
      <code className="ax-comparison__path">
        <Untrusted text={step.path} />
      </code>
      {parts.map((part, index) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: parts have no other key, and never change their order.
        <Value key={index} value={part} />
      ))}
    </div>
  );
}

/** A text, the call of a tool, or another value as JSON. */
function Value({ value }: { value: unknown }) {
  if (isCall(value)) return <FoldedText text={`${value.call}(${value.arguments})`} limit={400} />;
  if (typeof value === 'string') return <FoldedText text={value} limit={400} />;
  return <FoldedText className="ax-code" text={JSON.stringify(value, null, 2) ?? '–'} limit={400} json />;
}

function isCall(value: unknown): value is { call: string; arguments: string } {
  return typeof value === 'object' && value !== null && 'call' in value && 'arguments' in value;
}
