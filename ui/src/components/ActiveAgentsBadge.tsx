import type { ComponentPropsWithoutRef, ReactNode } from 'react';
import { formatCount } from '../format.js';
import { classes } from './classes.js';

export interface ActiveAgentsBadgeProps extends Omit<ComponentPropsWithoutRef<'span'>, 'children'> {
  /** Number of queued and running tasks; undefined while it is not known. */
  count?: number | null | undefined;
  loading?: boolean | undefined;
  /** Content, given the count. */
  children?: (count: number) => ReactNode;
}

/** Number of active agents; screen readers are told when it changes. */
export function ActiveAgentsBadge({ count, loading, children, className, ...rest }: ActiveAgentsBadgeProps) {
  const known = typeof count === 'number';
  return (
    <span
      role="status"
      {...rest}
      className={classes('ax-active-agents', className)}
      data-active={known && count > 0}
      data-loading={Boolean(loading)}
      aria-busy={Boolean(loading)}
    >
      {known ? (children?.(count) ?? formatCount(count, 'active agent')) : loading ? 'Loading…' : '– active agents'}
    </span>
  );
}
