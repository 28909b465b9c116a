import type { ComponentPropsWithoutRef, ReactNode } from 'react';
import type { Status } from '../types/index.js';
import { classes } from './classes.js';

export interface ProgressBarProps extends Omit<ComponentPropsWithoutRef<'span'>, 'children'> {
  /** Progress from 0 to 100; null or undefined if it is not known. */
  percentage?: number | null | undefined;
  status?: Status | undefined;
  /** Name for screen readers. */
  label?: string;
  /** Show the percentage as text beside the bar. */
  showValue?: boolean;
  /** Content beside the bar, given the percentage; null if it is not known. */
  children?: (percentage: number | null) => ReactNode;
}

/** Progress of a task. A running task without a percentage has an indeterminate bar. */
export function ProgressBar({
  percentage,
  status,
  label = 'Progress',
  showValue = false,
  children,
  className,
  ...rest
}: ProgressBarProps) {
  const value = shownPercentage(percentage, status);
  const text = value === null ? undefined : `${value}%`;
  return (
    <span {...rest} className={classes('ax-progress', className)} data-status={status}>
      <progress
        className="ax-progress__bar"
        max={100}
        aria-label={label}
        aria-valuetext={text}
        {...(value === null ? {} : { value })}
      />
      {children?.(value) ??
        (showValue && (
          <span className="ax-progress__value" aria-hidden="true">
            {text ?? '–'}
          </span>
        ))}
    </span>
  );
}

/** Return the percentage to show, from 0 to 100, or null if it is not known. */
function shownPercentage(percentage: number | null | undefined, status: Status | undefined): number | null {
  if (typeof percentage === 'number' && Number.isFinite(percentage)) {
    return Math.round(Math.min(100, Math.max(0, percentage)));
  }
  if (status === 'complete') return 100;
  return status === undefined || status === 'running' ? null : 0;
}
