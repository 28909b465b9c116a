import type { ComponentPropsWithoutRef, ReactNode } from 'react';
import { STATUS_LABELS } from '../status.js';
import type { Status } from '../types/index.js';
import { classes } from './classes.js';
import { StatusIcon } from './StatusIcon.js';

export interface StatusBadgeProps extends ComponentPropsWithoutRef<'span'> {
  status: Status;
  /** Icon before the word; null for none. */
  icon?: ReactNode;
  /** Content instead of the word for the status. */
  children?: ReactNode;
}

/** Status of a task, as an icon and a word. */
export function StatusBadge({ status, icon, children, className, ...rest }: StatusBadgeProps) {
  return (
    <span {...rest} className={classes('ax-status', className)} data-status={status}>
      {icon === undefined ? <StatusIcon status={status} /> : icon}
      <span className="ax-status__label">{children ?? STATUS_LABELS[status] ?? status}</span>
    </span>
  );
}
